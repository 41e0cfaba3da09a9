"""What is still wanted of a board that is held before a camera: farther left, nearer, tilted, or enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.intrinsics import coverage_of, emptiest
from calibration.live.sighting import Sighting

_MARGIN = 0.15  # of the picture, that points must come near to on each side
_COVERED = 0.5  # of the picture's places, that `calibration.intrinsics` asks for
_LARGE, _RANGE = 0.4, 1.4  # the largest size, and how many times the smallest it is
_TILT = 15.0  # degrees, each way
_SPREAD = 0.3  # of the picture, that the board's middle moves where intrinsics are known

_ASK_SIDES = {
    "x": (
        "move the board to the left of the picture",
        "move the board to the right of the picture",
    ),
    "y": ("move the board up in the picture", "move the board down in the picture"),
}
_ASK_TILTS = (
    "tilt the board: its lower edge away from the camera",
    "tilt the board: its upper edge away from the camera",
    "tilt the board: its left side away from the camera",
    "tilt the board: its right side away from the camera",
)
NEARER, FARTHER = "bring the board nearer", "take the board farther away"
MORE = "more views, at other places and tilts"
ENOUGH = "enough: solve, or go on"


@dataclass(frozen=True)
class Wish:
    """What is wanted next of a camera's views.

    Attributes:
        text: in words.
        enough: whether nothing is wanted any more.
        progress: shares from 0 to 1 of what is wanted, of `views`, `x`, `y`, `size`, `tilt` and, where
            intrinsics are to be found, `coverage`.
    """

    text: str
    enough: bool
    progress: dict[str, float] = field(default_factory=dict)


def wish_of(taken: Sequence[Sighting], least: int, *, intrinsics: bool) -> Wish:
    """What is wanted after these views.

    Args:
        taken: the views that are there.
        least: how many are wanted.
        intrinsics: whether they are to hold the camera's intrinsics, too: then the board must have been
            everywhere in the picture.
    """
    shares, asked = {"views": min(1.0, len(taken) / max(least, 1))}, []
    for axis, name in enumerate("xy"):
        shares[name], wanted = _places(taken, axis, intrinsics)
        asked += [_ASK_SIDES[name][side] for side in wanted]
    shares["size"], wanted_size = _sizes(taken)
    asked += wanted_size
    tilts = np.array([one.tilt for one in taken]).reshape(-1, 2)
    ways = np.column_stack([tilts[:, 0], -tilts[:, 0], tilts[:, 1], -tilts[:, 1]])
    most = ways.max(axis=0, initial=0.0)
    shares["tilt"] = float(np.minimum(most / _TILT, 1.0).mean())
    asked += [text for text, value in zip(_ASK_TILTS, most, strict=True) if value < _TILT]
    if intrinsics:
        coverage = coverage_of([one.view for one in taken])
        covered = float((coverage > 0).mean())
        shares["coverage"] = min(1.0, covered / _COVERED)
        if covered < _COVERED and taken:
            asked.append(f"move the board to {emptiest(coverage).split(', ')[0]} of the picture")
    if shares["views"] < 1:
        asked.append(MORE)
    return Wish(asked[0] if asked else ENOUGH, not asked, shares)


def _places(taken: Sequence[Sighting], axis: int, whole: bool) -> tuple[float, list[int]]:
    """How much of an axis the board has been at, and at which end (0, 1) it has not."""
    if not taken:
        return 0.0, [0, 1]
    if whole:
        seen = np.concatenate([one.view.pixels[:, axis] / one.view.size[axis] for one in taken])
        low, high = float(seen.min()), float(seen.max())
        wanted = [end for end, off in enumerate((low, 1 - high)) if off > _MARGIN]
        return min(1.0, max(0.0, high - low) / (1 - 2 * _MARGIN)), wanted
    middles = np.array([one.middle[axis] for one in taken])
    spread = float(np.ptp(middles))
    side = 0 if middles.mean() > 0.5 else 1
    return min(1.0, spread / _SPREAD), [side] if spread < _SPREAD else []


def _sizes(taken: Sequence[Sighting]) -> tuple[float, list[str]]:
    if not taken:
        return 0.0, [NEARER]
    sizes = [one.size for one in taken]
    largest, times = max(sizes), max(sizes) / min(sizes)
    share = (min(1.0, largest / _LARGE) + min(1.0, (times - 1) / (_RANGE - 1))) / 2
    if largest < _LARGE:
        return share, [NEARER]
    return share, [FARTHER] if times < _RANGE else []
