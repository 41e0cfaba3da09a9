"""Finding mistakes in boxes in space and in poses: what each frame tells, and what only all together do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.boxes3d import POSES
from perception.data.folder import BOXES3D
from perception.errors import CalibrationError
from perception.frame import Sample
from perception.geometry.boxes import inside
from perception.geometry.rig import Rig
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

_FARTHEST_M = 300.0
_FASTEST_MPS = 80.0
_FASTEST_CAR_MPS = 100.0  # of the vehicle, between two poses
_PAUSE_NS = 2_000_000_000  # over a longer one a pose may be of another drive
_ODD = 4.0  # by such a factor a side differs from the usual one of its class
_ENOUGH = 10  # boxes of a class that have a usual size
_MARGIN_M = 0.1  # around a box, in which points count as within
_NEAR_M = 30.0  # up to here roads are level enough to tell heights, and boxes have points
_HIDDEN_SHARE = 0.2  # of boxes may be behind something
_EMPTY_SHARE = 0.5
_LOW_SHARE = 0.25  # of their height, by which middles lie above the ground where they are middles


class Remark(NamedTuple):
    """How bad, in which file, what, and in which frames."""

    severity: Literal["error", "warning"]
    where: str
    message: str
    frames: list[str]


class SpaceCheck:
    """Looks at the boxes and poses of a recording, frame by frame.

    Args:
        rig: of the recording.
        classes: of boxes.
        trajectory: of the recording.
    """

    def __init__(
        self, rig: Rig, classes: Sequence[ClassInfo], trajectory: Trajectory | None
    ) -> None:
        self.rig, self.classes = rig, classes
        self.trajectory = trajectory or None  # none of whose file cannot be read
        self.names: list[str] = []
        self.labeled = 0
        self.without_pose: list[str] = []
        self._frames: list[_Boxes] = []

    def frame(
        self, name: str, stamp_ns: int, boxes: TruthBoxes3d | None, clouds: Iterable[Sample]
    ) -> None:
        """Note a frame with its boxes and its samples of points."""
        self.names.append(name)
        if self.trajectory is not None and self.trajectory.at(stamp_ns) is None:
            self.without_pose.append(name)
        if boxes is None:
            return
        self.labeled += 1
        placed = boxes.to_base(self.rig)
        above = placed.center[:, 2] if placed is not None and self.rig.base else None
        self._frames.append(_Boxes(name, boxes, self._points(boxes, clouds), above))

    def _points(self, boxes: TruthBoxes3d, clouds: Iterable[Sample]) -> NDArray[np.int64] | None:
        """How many points lie in each box; None where no cloud's place is known."""
        found = None
        for cloud in clouds:
            moved = self._between(cloud.sensor, boxes.frame)
            if moved is not None:
                points = moved.apply(cloud.data[:, :3].astype(np.float64))
                own = inside(points, boxes.center, boxes.size, boxes.yaw, _MARGIN_M).sum(axis=1)
                found = own if found is None else found + own
        return found

    def _between(self, sensor: str, frame: str) -> RigidTransform | None:
        if sensor == frame:
            return RigidTransform.identity()
        if not frame:
            return self.rig.in_base(sensor)
        try:
            return self.rig.between(sensor, frame)
        except CalibrationError:
            return None

    def remarks(self) -> Iterator[Remark]:
        """What is wrong, when all frames have been seen."""
        yield from self._far()
        yield from self._fast()
        yield from self._twice()
        yield from self._odd_sizes()
        yield from self._empty()
        yield from self._low()
        yield from self._poses()

    def _those(
        self, which: Iterable[NDArray[np.bool_]]
    ) -> tuple[int, list[str], tuple[int, int] | None]:
        """How many boxes of a mask for each frame there are, in which frames, and the first one's place."""
        count, names, first = 0, list[str](), None
        for place, (own, mask) in enumerate(zip(self._frames, which, strict=True)):
            if mask.any():
                count += int(mask.sum())
                names.append(own.name)
                first = first or (place, int(np.flatnonzero(mask)[0]))
        return count, names, first

    def _far(self) -> Iterator[Remark]:
        away = [np.linalg.norm(own.boxes.center, axis=1) for own in self._frames]
        count, names, first = self._those(d > _FARTHEST_M for d in away)
        if first is not None:
            text = f"{_boxes(count)} further than {_FARTHEST_M:g} m away, as box {first[1]} of {names[0]}"
            text = f"{text} at {away[first[0]][first[1]]:.4g} m: are these millimetres?"
            yield Remark("error", BOXES3D, text, names)

    def _fast(self) -> Iterator[Remark]:
        speeds = [np.nan_to_num(np.linalg.norm(f.boxes.velocity, axis=1)) for f in self._frames]
        count, names, first = self._those(s > _FASTEST_MPS for s in speeds)
        if first is not None:
            text = (
                f"{_boxes(count)} faster than {_FASTEST_MPS:g} m/s, as box {first[1]} of {names[0]}"
            )
            yield Remark("warning", BOXES3D, f"{text} with {speeds[first[0]][first[1]]:.4g}", names)

    def _twice(self) -> Iterator[Remark]:
        """The same box and class: one that is to be ignored is there once for each class."""
        count, names, _ = self._those(own.again for own in self._frames)
        if count:
            yield Remark("warning", BOXES3D, f"{_boxes(count)} given twice: {names[0]}", names)

    def _odd_sizes(self) -> Iterator[Remark]:
        for kind in self.classes:
            masks = [(own.boxes.class_ids == kind.id) & ~own.boxes.ignore for own in self._frames]
            pairs = zip(self._frames, masks, strict=True)
            sizes = np.concatenate([own.boxes.size[m] for own, m in pairs] or [np.zeros((0, 3))])
            if len(sizes) < _ENOUGH:
                continue
            usual = np.median(sizes, axis=0)
            odd = [
                self._is_odd(f.boxes, usual) & m for f, m in zip(self._frames, masks, strict=True)
            ]
            count, names, first = self._those(odd)
            if first is not None:
                one = self._frames[first[0]].boxes.size[first[1]]
                text = f"{_boxes(count)} of {kind.name} of an odd size, as box {first[1]} of {names[0]}"
                text = f"{text}: {_size(one)} m, half of them are about {_size(usual)} m"
                yield Remark("warning", BOXES3D, text, names)

    def _is_odd(self, boxes: TruthBoxes3d, usual: NDArray[np.float64]) -> NDArray[np.bool_]:
        share = boxes.size / usual
        return np.asarray(((share > _ODD) | (share < 1 / _ODD)).any(axis=1))

    def _empty(self) -> Iterator[Remark]:
        """Boxes that are near, and of which nobody said that no point is on them."""
        looked, empty = 0, list[NDArray[np.bool_]]()
        for own in self._frames:
            if own.within is None:
                empty.append(np.zeros(len(own.boxes), bool))
                continue
            asked = own.near & ~own.boxes.ignore & (own.boxes.points != 0)
            looked += int(asked.sum())
            empty.append(asked & (own.within == 0))
        count, names, _ = self._those(empty)
        if count > _HIDDEN_SHARE * looked:
            text = f"{count} of {looked} boxes within {_NEAR_M:g} m hold no point: {names[0]}"
            if count > _EMPTY_SHARE * looked and looked >= _ENOUGH:
                of = next(own.boxes.frame for own in self._frames) or self.rig.base or "the base"
                text = f"{text}: are they in the frame of {of}, center first, size as length, width, height?"
                yield Remark("error", BOXES3D, text, names)
            else:
                yield Remark("warning", BOXES3D, text, names)

    def _low(self) -> Iterator[Remark]:
        """Middles on or below the ground, which is at 0 in the base frame."""
        heights, sizes = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
        for own in self._frames:
            if own.above is not None:
                asked = own.near & ~own.boxes.ignore
                heights.append(own.above[asked])
                sizes.append(own.boxes.size[asked, 2])
        above = np.concatenate(heights or [np.zeros(0)])
        tall = np.concatenate(sizes or [np.zeros(0)])
        if len(above) < _ENOUGH:
            return
        middle, height = float(np.median(above)), float(np.median(tall))
        if middle < _LOW_SHARE * height:
            text = f"half of the boxes within {_NEAR_M:g} m have their center {middle:.2f} m above the ground"
            text = f"{text}, and are {height:.2f} m high: is it that of the bottom face, or of another frame?"
            yield Remark("warning", BOXES3D, text, [own.name for own in self._frames])

    def _poses(self) -> Iterator[Remark]:
        trajectory = self.trajectory
        if trajectory is None:
            return
        if not self.rig.base:
            text = "are those of the base, and rig.yaml names none: where sensors were is not known"
            yield Remark("warning", POSES, text, [])
        if self.without_pose:
            count = f"{len(self.without_pose)} of {len(self.names)} frames"
            text = f"{count} have no pose at their stamp: {self.without_pose[0]}"
            severity: Literal["error", "warning"] = (
                "error" if len(self.without_pose) == len(self.names) else "warning"
            )
            yield Remark(severity, POSES, text, self.without_pose)
        steps = np.diff(trajectory.stamps_ns)
        places = np.array([pose.translation for pose in trajectory.poses]).reshape(-1, 3)
        apart = np.linalg.norm(np.diff(places, axis=0), axis=1)
        jumps = np.flatnonzero(
            (apart > _FASTEST_CAR_MPS * steps * 1e-9 + 1.0) & (steps < _PAUSE_NS)
        )
        if jumps.size:
            at = int(jumps[0])
            text = f"{jumps.size} jumps, as {apart[at]:.4g} m in {steps[at] * 1e-9:.3g} s"
            yield Remark("warning", POSES, f"{text} at stamp {trajectory.stamps_ns[at]}", [])


class _Boxes(NamedTuple):
    """Boxes of a frame, the points within them, and their middles' heights in the base frame."""

    name: str
    boxes: TruthBoxes3d
    within: NDArray[np.int64] | None
    above: NDArray[np.float64] | None

    @property
    def near(self) -> NDArray[np.bool_]:
        """Those within `_NEAR_M`."""
        found: NDArray[np.bool_] = np.linalg.norm(self.boxes.center[:, :2], axis=1) < _NEAR_M
        return found

    @property
    def again(self) -> NDArray[np.bool_]:
        """Those that are one that comes before."""
        boxes = self.boxes
        rows = np.column_stack([boxes.center, boxes.size, boxes.yaw, boxes.class_ids])
        _, first = np.unique(rows.round(6), axis=0, return_index=True)
        return ~np.isin(np.arange(len(boxes)), first)


def _boxes(count: int) -> str:
    return f"{count} box is" if count == 1 else f"{count} boxes are"


def _size(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
