"""How right boxes on the ground are, by nuScenes' measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.data.base import RecordingInfo, Truth, TruthBoxes3d
from perception.geometry.grid import BirdseyeSpec
from perception.metrics.boxes3d import NuScenesScore, PlacedBoxes, matched, nuscenes_score
from perception.metrics.boxes3d.nuscenes import NO_ATTRIBUTE, TP_DISTANCE_M
from perception.tasks.matching import class_map, number
from perception.tasks.spec import ClassSpec
from perception.tasks.task import Counted, Meter

_UNKNOWN = 255
_MAP_WEIGHT = 5
_ERRORS = {
    "trans_err": "trans3d",
    "scale_err": "scale3d",
    "orient_err": "orient3d",
    "vel_err": "vel3d",
}


class FoundBoxes3d(Protocol):
    """Boxes in the vehicle's base frame (REP 105): (N, 3) centers, (N, 3) length, width, height in metres,
    (N,) yaw in radians, (N, 2) velocity in metres per second (NaN: unknown), (N,) scores, (N,) class ids."""

    @property
    def center(self) -> NDArray[np.float32]: ...
    @property
    def size(self) -> NDArray[np.float32]: ...
    @property
    def yaw(self) -> NDArray[np.float32]: ...
    @property
    def velocity(self) -> NDArray[np.float32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def class_ids(self) -> NDArray[np.int64]: ...


class Boxes3dMeter(Meter):
    """`map3d`, `nds3d`, and `trans3d`, `scale3d`, `orient3d`, `vel3d`.

    Mean average precision and the errors of true positives are nuScenes' (`perception.metrics.boxes3d`), over
    the classes that the truth holds; the last four are 1 - error, at least 0, and `nds3d` weighs mean average
    precision as much as five of them.  Attributes do not count, nor do velocities that the truth does not
    know.  Objects to be ignored, those without a LiDAR point, and those beyond the grid are neither to be
    found nor mistakes.

    Args:
        classes: the bundle's.
        info: of the recording.
        ground: where boxes can be found; None for anywhere.
    """

    in_pixels = False

    def __init__(
        self, classes: Sequence[ClassSpec], info: RecordingInfo, ground: BirdseyeSpec | None = None
    ) -> None:
        self.names = [c.name for c in info.det_classes]
        self.map = class_map(classes, self.names)
        self.lacking = tuple(n for i, n in enumerate(self.names) if i not in self.map)
        self._ground = ground
        self._truth: list[PlacedBoxes] = []
        self._spared: list[PlacedBoxes] = []
        self._found: list[PlacedBoxes] = []
        self._frames = 0

    def add(
        self, value: FoundBoxes3d | None, truth: Truth, size: tuple[int, int] | None = None
    ) -> bool:
        """Keep one frame's boxes; without an answer there are none.

        Args:
            value: what was found.
            truth: with boxes in the base frame; those of another frame are no truth to judge by.
            size: not needed.
        """
        boxes = truth.boxes3d
        if boxes is None or boxes.frame:
            return False
        spared = boxes.ignore | (boxes.points == 0) | ~self._within(boxes)
        placed = _placed(self._frames, boxes, boxes.class_ids, np.ones(len(boxes)))
        self._truth.append(placed.where(~spared))
        self._spared.append(placed.where(spared))
        if value is not None:
            kinds = self.map[value.class_ids]
            found = _placed(self._frames, value, kinds, value.scores)
            self._found.append(found.where(kinds < _UNKNOWN))
        self._frames += 1
        return True

    def _within(self, boxes: TruthBoxes3d) -> NDArray[np.bool_]:
        inside = np.ones(len(boxes), bool)
        if self._ground is not None:
            for axis, (low, high) in enumerate((self._ground.x, self._ground.y)):
                inside &= (boxes.center[:, axis] >= low) & (boxes.center[:, axis] < high)
        return inside

    def matched(self, distance_m: float = TP_DISTANCE_M) -> tuple[PlacedBoxes, PlacedBoxes]:
        """The objects that were found, and the boxes that match them, one for each, within a distance on the
        ground; classes are the recording's.

        See `perception.metrics.boxes3d.matched`.
        """
        return matched(PlacedBoxes.joined(self._truth), PlacedBoxes.joined(self._found), distance_m)

    def _score(self) -> NuScenesScore:
        """Of the classes in the truth."""
        truth = PlacedBoxes.joined(self._truth)
        found, spared = PlacedBoxes.joined(self._found), PlacedBoxes.joined(self._spared)
        whole = nuscenes_score(truth, found, self.names, spared)
        moving = np.asarray(np.isfinite(truth.velocity).all(axis=1))
        aps, errors = {}, {}
        for kind, name in enumerate(self.names):
            own = truth.class_ids == kind
            if own.any():
                aps[name] = whole.label_aps[name]
                known = {} if moving[own].any() else {"vel_err": float("nan")}
                errors[name] = {**whole.label_tp_errors[name], **known}
        return NuScenesScore(aps, errors)

    def scores(self) -> dict[str, float | None]:
        """See the class."""
        score = self._score()
        parts = {title: score.tp_scores[error] for error, title in _ERRORS.items()}
        known = [part for part in parts.values() if not np.isnan(part)]
        whole = (_MAP_WEIGHT * score.mean_ap + sum(known)) / (_MAP_WEIGHT + len(known))
        every = {"map3d": score.mean_ap, "nds3d": whole, **parts}
        return {name: number(value) for name, value in every.items()}

    def counted(self) -> Counted:
        """The boxes, each with the number of its frame, and how many frames there are."""
        sides = {"truth": self._truth, "spared": self._spared, "found": self._found}
        return {"frames": np.array(self._frames, np.int64)} | {
            f"{side}_{name}": values
            for side, parts in sides.items()
            for name, values in vars(PlacedBoxes.joined(parts)).items()
        }

    def take(self, counted: Counted) -> None:
        """Have the frames of another one, too."""
        frames = counted["frames"]
        if frames.shape or frames.dtype != np.int64 or frames < 0:
            raise ValueError("frames: no number")
        sides = {"truth": self._truth, "spared": self._spared, "found": self._found}
        taken = {side: _taken(counted, side, int(frames), len(self.names)) for side in sides}
        for side, parts in sides.items():
            parts.append(replace(taken[side], frame=taken[side].frame + self._frames))
        self._frames += int(frames)

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """`ap3d`, and errors in metres, radians and metres per second, by name of a class in the truth."""
        score = self._score()
        return {
            name: {"ap3d": number(ap)}
            | {error: number(score.label_tp_errors[name][error]) for error in _ERRORS}
            for name, ap in score.mean_dist_aps.items()
        }


def _taken(counted: Counted, side: str, frames: int, classes: int) -> PlacedBoxes:
    """The boxes of one side of what another meter counted.

    Raises:
        KeyError, ValueError: it is none of such a meter's.
    """
    like = vars(PlacedBoxes.joined(()))
    own = {name: counted[f"{side}_{name}"] for name in like}
    for name, values in own.items():
        same = values.dtype == like[name].dtype and values.shape[1:] == like[name].shape[1:]
        if not same or len(values) != len(own["frame"]):
            raise ValueError(f"{side}_{name}: {values.dtype} {values.shape}")
    for name, most in (("frame", frames), ("class_ids", classes)):
        if len(own[name]) and not (own[name].min() >= 0 and own[name].max() < most):
            raise ValueError(f"{side}_{name}: outside of 0..{most - 1}")
    return PlacedBoxes(**own)


def _placed(
    frame: int,
    boxes: FoundBoxes3d | TruthBoxes3d,
    kinds: NDArray[np.integer],
    scores: NDArray[np.floating],
) -> PlacedBoxes:
    count = len(kinds)
    return PlacedBoxes(
        frame=np.full(count, frame),
        class_ids=kinds.astype(np.int64),
        center=np.asarray(boxes.center, np.float64),
        size=np.asarray(boxes.size, np.float64)[:, [1, 0, 2]],
        yaw=np.asarray(boxes.yaw, np.float64),
        velocity=np.asarray(boxes.velocity, np.float64),
        attribute=np.full(count, NO_ATTRIBUTE),
        scores=np.asarray(scores, np.float64),
    )
