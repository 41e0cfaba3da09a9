"""Which views are worth taking: still, sharp, well lit, and unlike those that are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.fitting import rms
from calibration.live.sighting import Sighting, sighting_of
from perception.errors import ConfigError
from perception.geometry.camera import CameraModel

_OLDEST_NS = 2_000_000_000
"""A view from so long ago says nothing of whether the board stands still."""

_SHARPEST, _REMEMBERED = 20.0, 200  # percent of the last looks at a board

NO_BOARD = "no board found"
MOVING = "hold the board still"
BLURRED = "blurred"
TOO_BRIGHT = "too bright"
TOO_FAINT = "too little contrast"
KNOWN = "like a view that is there"


@dataclass(frozen=True)
class Rules:
    """When a view is taken.

    Attributes:
        still: by how much points may have moved, root mean square, as a share of the picture's width.
        still_s: for how many seconds.
        edge_px: so many pixels an edge may always take from dark to bright;
        edge_share: never more than such a share of a square, and between the two
        softer: so many times what it takes in the sharpest fifth of what the camera showed.
        clipped: share of the board that may be as bright as the picture can be: its bright half and no more.
        contrast: of dark and bright, at least, as a share of what the picture can hold.
        shift: a view is new where the board's middle has moved by such a share of the picture, or
        growth: its size has changed by such a factor, less one, or
        turn_deg: its tilt or roll by so many degrees.

    Raises:
        ConfigError: values that cannot be.
    """

    still: float = 0.001
    still_s: float = 0.25
    edge_px: float = 4.0
    edge_share: float = 0.35
    softer: float = 2.0
    clipped: float = 0.55
    contrast: float = 0.1
    shift: float = 0.1
    growth: float = 0.2
    turn_deg: float = 12.0

    def __post_init__(self) -> None:
        for own in fields(self):
            if not 0 < (value := getattr(self, own.name)) < np.inf:
                raise ConfigError(f"{value} is not above 0", where=own.name)


@dataclass(frozen=True)
class Look:
    """What one camera's picture of the moment is worth.

    Attributes:
        sighting: the board in it; None where there is none.
        problem: why it is not taken; empty where nothing speaks against it.
        new: whether it is unlike the views that were taken.
    """

    sighting: Sighting | None
    problem: str = ""
    new: bool = False


class Chooser:
    """Remembers what each camera saw, and says what the next view is worth.

    Args:
        board: that is shown.
        cameras: their names.
        rules: when a view is taken.
        models: intrinsics of those cameras where they are known.
    """

    def __init__(
        self,
        board: Board,
        cameras: Sequence[str],
        rules: Rules = Rules(),
        models: Mapping[str, CameraModel] | None = None,
    ) -> None:
        self.board, self.rules = board, rules
        self.models: dict[str, CameraModel] = dict(models or {})
        self.taken: dict[str, list[Sighting]] = {name: [] for name in cameras}
        self._recent: dict[str, deque[tuple[int, BoardView]]] = {n: deque() for n in cameras}
        self._edges: dict[str, deque[tuple[float, float]]] = {
            n: deque(maxlen=_REMEMBERED) for n in cameras
        }

    def look(self, camera: str, stamp_ns: int, image: NDArray[Any], view: BoardView | None) -> Look:
        """Judge a picture.

        Args:
            camera: whose it is.
            stamp_ns: when it was taken; stamps of a camera rise, and what jumps back starts anew.
            image: (H, W) the gray picture.
            view: the board in it, None where none was found.
        """
        recent = self._recent[camera]
        if recent and stamp_ns <= recent[-1][0]:
            recent.clear()
        seen = None
        if view is not None:
            seen = sighting_of(image, view, self.board, self.models.get(camera))
        if view is None or seen is None:
            recent.clear()
            return Look(None, NO_BOARD)
        if (other := self._other_size(camera, view)) is not None:
            return Look(seen, f"{_size(view.size)}, the views that are there {_size(other)}")
        still = self._is_still(camera, stamp_ns, view)
        recent.append((stamp_ns, view))
        new = all(self.differs(seen, other) for other in self.taken[camera])
        return Look(seen, self._fault(camera, seen) or ("" if still else MOVING), new)

    def take(self, camera: str, sighting: Sighting) -> None:
        """Remember a view that was taken."""
        self.taken[camera].append(sighting)

    def forget(self) -> None:
        """Begin anew."""
        for name in self.taken:
            self.taken[name].clear()
            self._recent[name].clear()

    def differs(self, one: Sighting, other: Sighting) -> bool:
        """Whether two views are of different poses."""
        rules = self.rules
        grown = max(one.size, other.size) / max(min(one.size, other.size), 1e-9) - 1
        roll = abs(one.roll - other.roll)
        turned = max(float(np.abs(one.tilt - other.tilt).max()), min(roll, 180 - roll))
        shifted = float(np.abs(one.middle - other.middle).max())
        return shifted > rules.shift or grown > rules.growth or turned > rules.turn_deg

    def _other_size(self, camera: str, view: BoardView) -> tuple[int, int] | None:
        """The size of what was taken, where this is another: a fit takes pictures of one size."""
        sizes = {one.view.size for one in self.taken[camera]}
        return None if not sizes or view.size in sizes else sizes.pop()

    def _fault(self, camera: str, seen: Sighting) -> str:
        rules = self.rules
        if seen.contrast < rules.contrast:
            return TOO_FAINT
        if seen.clipped > rules.clipped:
            return TOO_BRIGHT
        return BLURRED if self._is_blurred(camera, seen) else ""

    def _is_blurred(self, camera: str, seen: Sighting) -> bool:
        """Whether edges are wider than this camera's are: those of a heated board are never sharp, and
        grow with its squares; those of a lens do not.
        """
        rules, share = self.rules, seen.edge_px / seen.square_px
        known = self._edges[camera]
        known.append((seen.edge_px, share))
        if seen.edge_px <= rules.edge_px:
            return False
        sharp = rules.softer * np.percentile(np.array(known), _SHARPEST, axis=0)
        return share > rules.edge_share or bool(seen.edge_px > sharp[0] and share > sharp[1])

    def _is_still(self, camera: str, stamp_ns: int, view: BoardView) -> bool:
        """Whether a view from `still_s` ago or more, and all since, show the board where it is now."""
        recent = self._recent[camera]
        while recent and recent[0][0] < stamp_ns - _OLDEST_NS:
            recent.popleft()
        before = stamp_ns - round(self.rules.still_s * 1e9)
        old = [index for index, (when, _) in enumerate(recent) if when <= before]
        if not old:
            return False
        limit = self.rules.still * view.size[0]
        since = list(recent)[old[-1] :]
        return all(moved_px(view, other) <= limit for _, other in since)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def moved_px(view: BoardView, other: BoardView) -> float:
    """Root mean square distance in pixels of the points that two views share; inf where they share none."""
    _, own, its = np.intersect1d(view.ids, other.ids, return_indices=True)
    if view.size != other.size or not len(own):
        return float("inf")
    return rms(view.pixels[own] - other.pixels[its])
