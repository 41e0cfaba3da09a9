"""What every data set reader gives: frames as the sensors saw them, and the truth about them.

Readers need no torch: the same ones feed training, evaluation, the demo and sensor replay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError, DataError, InputError, names_hint
from perception.frame import KINDS, Frame, Kind, as_kind, check_name, in_order
from perception.geometry.boxes import turned, wrapped
from perception.geometry.rig import Rig
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform
from perception.plugins import brought_by
from perception.sensors.registry import kind_of

IGNORE_LABEL = 255
"""Label id of pixels that count neither in training nor in evaluation."""


@dataclass(frozen=True)
class ClassInfo:
    """A semantic or detection class: its id in labels and boxes, its name and its RGB color."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Boxes:
    """Labeled 2D boxes of one frame.

    Attributes:
        xyxy: (N, 4) float32, left, top, right, bottom in pixels of the labeled image.
        class_ids: (N,) int64, indices into the recording's `det_classes`.
        ignore: (N,) bool, boxes that are neither rewarded nor punished: objects that nobody could tell, or
            regions of any number of them.
    """

    xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    ignore: NDArray[np.bool_]

    @staticmethod
    def empty() -> Boxes:
        """No boxes."""
        return Boxes.of([], [])

    @staticmethod
    def of(
        xyxy: NDArray[Any] | Sequence[Any],
        class_ids: NDArray[Any] | Sequence[int],
        ignore: Sequence[bool] | None = None,
    ) -> Boxes:
        """Boxes, maybe none, of which none is to be ignored unless it is said."""
        return Boxes(
            np.asarray(xyxy, np.float32).reshape(-1, 4),
            np.asarray(class_ids, np.int64).reshape(-1),
            np.zeros(len(class_ids), bool) if ignore is None else np.asarray(ignore, bool),
        )


@dataclass(frozen=True, eq=False)
class TruthBoxes3d:
    """Labeled boxes in space of one frame, which stand upright.

    Attributes:
        center: (N, 3) float64, the middle of each in metres.
        size: (N, 3) float64, length, width, height in metres.
        yaw: (N,) float64 radians about z, from the frame's x to the box's length.
        class_ids: (N,) int64, indices into the recording's `det_classes`.
        ignore: (N,) bool, as of `Boxes`.
        velocity: (N, 2) float64 metres per second over the ground, in the frame's axes; NaN: not known.
        points: (N,) int64, LiDAR points within; -1: not known.
        occlusion: (N,) int64, 0 (all to be seen) to 3 (hardly any); -1: not known.
        track: (N,) int64, the same object through a sequence; -1: not known.
        frame: the sensor in whose frame they are; empty for the rig's base frame (REP 105 `base_link`).

    Raises:
        InputError: they differ in number, or hold what is not finite or has no size.
    """

    center: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    velocity: NDArray[np.float64]
    points: NDArray[np.int64]
    occlusion: NDArray[np.int64]
    track: NDArray[np.int64]
    frame: str = ""

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        for name, width in (("center", 3), ("size", 3), ("velocity", 2)):
            if getattr(self, name).shape != (count, width):
                raise InputError(f"{name} is not ({count}, {width})", where="3D boxes")
        for name in ("yaw", "ignore", "points", "occlusion", "track"):
            if getattr(self, name).shape != (count,):
                raise InputError(f"{name} is not ({count},)", where="3D boxes")
        values = np.column_stack([self.center, self.size, self.yaw])
        if not np.isfinite(values).all() or not (self.size > 0).all():
            raise InputError("a box is not finite, or has no size", where="3D boxes")

    def __len__(self) -> int:
        return len(self.class_ids)

    @staticmethod
    def of(
        center: Any,
        size: Any,
        yaw: Any,
        class_ids: Any,
        ignore: Any = None,
        velocity: Any = None,
        points: Any = None,
        occlusion: Any = None,
        track: Any = None,
        frame: str = "",
    ) -> TruthBoxes3d:
        """Boxes, maybe none, of which nothing is known that is not given."""
        ids = np.asarray(class_ids, np.int64).reshape(-1)
        unknown = np.full(len(ids), -1)

        def whole(values: Any) -> NDArray[np.int64]:
            return np.asarray(unknown if values is None else values, np.int64).reshape(-1)

        nowhere = np.full((len(ids), 2), np.nan)
        return TruthBoxes3d(
            np.asarray(center, np.float64).reshape(-1, 3),
            np.asarray(size, np.float64).reshape(-1, 3),
            wrapped(np.asarray(yaw, np.float64).reshape(-1)),
            ids,
            np.zeros(len(ids), bool) if ignore is None else np.asarray(ignore, bool).reshape(-1),
            np.asarray(nowhere if velocity is None else velocity, np.float64).reshape(-1, 2),
            whole(points),
            whole(occlusion),
            whole(track),
            frame,
        )

    def moved(self, transform: RigidTransform, frame: str = "") -> TruthBoxes3d:
        """The same in the frame that a transform of points leads to, which is upright, too."""
        flat = np.column_stack([self.velocity, np.zeros(len(self))]) @ transform.rotation.T
        yaw = turned(transform, self.yaw)
        center = transform.apply(self.center)
        return replace(self, center=center, yaw=yaw, velocity=flat[:, :2], frame=frame)

    def to_base(self, rig: Rig) -> TruthBoxes3d | None:
        """The same in the rig's base frame; None where the rig does not say how to get there."""
        if not self.frame:
            return self
        pose = rig.in_base(self.frame)
        return None if pose is None else self.moved(pose)

    def chosen(self, which: NDArray[Any]) -> TruthBoxes3d:
        """Those of a mask, or at these places."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "frame"}
        return replace(self, **{name: values[which] for name, values in own.items()})


@dataclass(frozen=True)
class Truth:
    """Labels of one frame: `labels` (H, W) uint8 with 255 = ignore, and 2D boxes; None = unlabeled.

    `size` is the (height, width) of the picture that boxes are in, where it may differ from others.
    `values` are, by task, the truth of tasks that other distributions bring.  `boxes3d` are boxes in space.
    """

    labels: NDArray[np.uint8] | None = None
    boxes: Boxes | None = None
    size: tuple[int, int] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    boxes3d: TruthBoxes3d | None = None

    def refuse_others(self, info: RecordingInfo, where: str) -> None:
        """Refuse labels and boxes that are none, or of classes that are not listed.

        Raises:
            DataError: some are.
        """
        labels, boxes = self.labels, self.boxes
        if labels is not None:
            fits = isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.dtype == np.uint8
            if not fits:
                raise DataError("labels are no (H, W) array of uint8", where=where)
            _refuse_ids(labels[labels != IGNORE_LABEL], info.seg_classes, "labels", where)
        if boxes is not None:
            count = len(boxes.class_ids)
            if boxes.xyxy.shape != (count, 4) or boxes.ignore.shape != (count,):
                raise DataError("boxes, class_ids and ignore differ in number", where=where)
            _refuse_ids(boxes.class_ids, info.det_classes, "boxes", where)
        if self.boxes3d is not None:
            _refuse_ids(self.boxes3d.class_ids, info.det_classes, "3D boxes", where)


def _refuse_ids(ids: NDArray[Any], classes: tuple[ClassInfo, ...], what: str, where: str) -> None:
    wrong = ids[(ids < 0) | (ids >= len(classes))]
    if wrong.size:
        known = f"the classes are 0..{len(classes) - 1}" if classes else "there are no classes"
        raise DataError(f"{what} hold class {wrong[0]}", where=where, hint=known)


def named_sensors(sensors: Mapping[str, Kind] | Iterable[Kind], where: str) -> dict[str, Kind]:
    """Sensors and their kinds, in the order of `frame.in_order`; kinds alone are names, too.

    Raises:
        DataError: a name or kind is wrong, or a sensor is called as another kind than its own.
    """
    given: Mapping[str, str] = sensors if isinstance(sensors, Mapping) else {k: k for k in sensors}
    try:
        found = {check_name(name): as_kind(given[name]) for name in in_order(given)}
    except InputError as error:
        raise DataError(f"sensors: {error.message}", where=where, hint=error.hint) from error
    for name, kind in found.items():
        if name in KINDS and name != kind:
            raise DataError(f"sensors: no {kind} sensor can be called '{name}'", where=where)
    return found


def first_reference(sensors: Mapping[str, Kind]) -> str:
    """The sensor in whose pixels labels are unless it is said: the first color camera, else the first."""
    colored = (name for name, kind in sensors.items() if kind_of(kind).colors)
    return next(colored, next(iter(sensors), ""))


@dataclass(frozen=True)
class RecordingInfo:
    """What is the same for a whole recording.

    Attributes:
        kind: of the data, as in `KIND:DIR`.
        sensors: their kinds by name; given as kinds alone, each is its sensor's name.
        labels_of: the sensor in whose pixels labels and boxes are; see `first_reference`.

    Raises:
        DataError: a sensor's name or kind is wrong, the id of a class is not its position, or two
            classes have one name.  A reader of files that number their classes otherwise translates
            with `ClassTable`.
    """

    kind: str
    name: str
    sensors: Mapping[str, Kind]
    seg_classes: tuple[ClassInfo, ...] = ()
    det_classes: tuple[ClassInfo, ...] = ()
    rate_hz: float = 1.0
    simulated: bool = False
    licence: str = "unknown: treat as research use"
    labels_of: str = ""

    def __post_init__(self) -> None:
        sensors = named_sensors(self.sensors, self.name)
        object.__setattr__(self, "sensors", sensors)
        object.__setattr__(self, "labels_of", self.labels_of or first_reference(sensors))
        if sensors and self.labels_of not in sensors:
            raise DataError(
                f"labels_of: there is no sensor '{self.labels_of}'",
                where=self.name,
                hint=names_hint(self.labels_of, sensors),
            )
        for task, classes in (("seg_classes", self.seg_classes), ("det_classes", self.det_classes)):
            ids = [c.id for c in classes]
            if ids != list(range(len(ids))):
                raise DataError(
                    f"{task}: class ids {', '.join(map(str, ids))} are not the positions "
                    f"0..{len(ids) - 1}",
                    where=self.name,
                )
            if len({c.name for c in classes}) < len(ids):
                raise DataError(f"{task}: a class name is given twice", where=self.name)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The sensors' names."""
        return tuple(self.sensors)

    def refuse_others(self, frame: Frame, where: str) -> None:
        """Refuse a frame with a sensor that is not listed, or is of another kind.

        Raises:
            DataError: it has one.
        """
        for name, sample in frame.items():
            if self.sensors.get(name) != sample.kind:
                listed = self.sensors.get(name, "not listed")
                raise DataError(f"has {sample.kind} {name}, which is {listed}", where=where)

    def shared(self, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
        """Those of a pipeline's, bundle's or model's sensors, kinds by name, that there are here, too."""
        return tuple(name for name, kind in kinds.items() if self.sensors.get(name) == kind)

    def lacking(self, kinds: Mapping[str, Kind]) -> str:
        """The others in words, as in "no depth, rgb left (it is thermal)"; empty where there are none."""
        own, shared = self.sensors, self.shared(kinds)
        names = [
            f"{kind} {name} (it is {own[name]})" if name in own else name
            for name, kind in kinds.items()
            if name not in shared
        ]
        return f"no {', '.join(names)}" if names else ""


def _giving(
    kind: type[Frame] | type[Truth], method: Callable[[Any, int], Any], distribution: str
) -> Callable[[Any, int], Any]:
    """A plug-in's `frame` or `truth`, of which nothing else than that comes, and one line of error."""

    @wraps(method)
    def checked(self: Recording, index: int) -> Any:
        where = f"{self.info.kind} data of {distribution}, {method.__name__}({index})"
        try:
            given = method(self, index)
        except (AnySenseError, ImportError, MemoryError):
            raise
        except Exception as error:
            line = next(iter(str(error).splitlines()), "")
            raise DataError(f"{type(error).__name__}: {line}", where=where) from error
        if not isinstance(given, kind):
            what = f"gave a {type(given).__name__}, not a {kind.__name__}"
            raise DataError(what, where=where)
        if isinstance(given, Frame):
            self.info.refuse_others(given, where)
        else:
            given.refuse_others(self.info, where)
        return given

    return checked


class Recording(ABC):
    """A labeled or unlabeled sequence of frames of several sensors on disk.

    Attributes:
        rig: their calibration.
        trajectory: where the vehicle was, None where nobody wrote it down.
        sequential: frames follow one another at stamps that mean something, so that one of the same scene
            with an earlier stamp shows what the sensors saw then; not of pictures in any order.
    """

    rig = Rig({})
    trajectory: Trajectory | None = None
    sequential = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, kind in (("frame", Frame), ("truth", Truth)):
            if distribution := name in vars(cls) and brought_by(cls.__module__):
                setattr(cls, name, _giving(kind, vars(cls)[name], distribution))

    def __init__(self, root: Path, info: RecordingInfo, ids: list[str]) -> None:
        self.root = root
        self.info = info
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """The decoded sensor data of frame `index`."""

    def seen(self, index: int, views: Mapping[str, str]) -> Frame:
        """Frame `index` with LiDARs projected into the cameras that a bundle or model wants.

        Args:
            index: of the frame.
            views: these cameras by LiDAR, see `PreprocessContract.views`.

        Raises:
            CalibrationError: the rig knows the LiDAR, but not the camera, its intrinsics or its place.
        """
        frame = self.frame(index)
        found = {n: self.rig.project(s, views[n]) for n, s in frame.items() if n in views}
        return Frame({**frame, **found}, frame.stamp_ns) if found else frame

    @abstractmethod
    def truth(self, index: int) -> Truth:
        """The labels of frame `index`."""

    def in_space(self, index: int) -> TruthBoxes3d | None:
        """The boxes in space of frame `index`, where they can be had without the rest of its truth."""
        return self.truth(index).boxes3d

    def sees_labels(self, sensor: str) -> bool:
        """Whether labels tell of what a sensor sees: not where it looks elsewhere."""
        return True

    def tags(self, index: int) -> frozenset[str]:
        """Conditions of frame `index`, such as `day` or `night`."""
        return frozenset()

    def scene(self, index: int) -> str:
        """The scene or sequence of frame `index`: too alike to fit to some of it and judge by the rest."""
        return ""

    def stamp_ns(self, index: int) -> int:
        """Stamp of frame `index` where the set has none of its own: index over rate."""
        return round(index * 1e9 / self.info.rate_hz)

    def part(self, indices: Sequence[int]) -> Recording:
        """These frames alone, as a recording that shares the rest with this one."""
        return _Part(self, indices)

    def select(self, tag: str) -> None:
        """Keep only the frames that carry `tag`."""
        self.ids = [name for i, name in enumerate(self.ids) if tag in self.tags(i)]


class _Part(Recording):
    def __init__(self, whole: Recording, indices: Sequence[int]) -> None:
        super().__init__(whole.root, whole.info, [whole.ids[i] for i in indices])
        self.rig, self.sequential = whole.rig, whole.sequential
        self.trajectory = whole.trajectory
        self._whole, self._indices = whole, {whole.ids[i]: i for i in indices}

    def _at(self, index: int) -> int:
        return self._indices[self.ids[index]]

    def frame(self, index: int) -> Frame:
        return self._whole.frame(self._at(index))

    def seen(self, index: int, views: Mapping[str, str]) -> Frame:
        return self._whole.seen(self._at(index), views)

    def truth(self, index: int) -> Truth:
        return self._whole.truth(self._at(index))

    def in_space(self, index: int) -> TruthBoxes3d | None:
        return self._whole.in_space(self._at(index))

    def sees_labels(self, sensor: str) -> bool:
        return self._whole.sees_labels(sensor)

    def tags(self, index: int) -> frozenset[str]:
        return self._whole.tags(self._at(index))

    def scene(self, index: int) -> str:
        return self._whole.scene(self._at(index))

    def stamp_ns(self, index: int) -> int:
        return self._whole.stamp_ns(self._at(index))
