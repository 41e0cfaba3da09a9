"""The folder format: AnySense's own layout for recordings, described in docs/data.md."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes, Recording, RecordingInfo, Truth, TruthBoxes3d
from perception.data.boxes3d import POSE_COLUMNS, POSES, pose_row, read_boxes3d, read_poses, rows_of
from perception.data.files import IGNORED_BOX, read_labels, read_yolo_boxes
from perception.data.layout import (
    BASE,
    DESCRIPTION,
    FRAMES,
    FolderInfo,
    FrameRow,
    check_id,
    read_frames,
    read_info,
)
from perception.data.layout import folder_info as folder_info
from perception.errors import CalibrationError, DataError, InputError
from perception.files.listing import SampleFolder, same_name
from perception.files.writing import (
    AppendedFile,
    image_bytes,
    write_bytes,
    write_unseen,
    write_yaml,
    writing,
)
from perception.frame import Frame, Kind, Sample
from perception.geometry.rig import Rig, load_rig, save_rig
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform
from perception.sensors.registry import kind_of
from perception.sensors.samples import load_sample

RIG = "rig.yaml"
BOXES3D = "boxes3d"
TRUTH_SUFFIXES = {"labels": (".png",), "boxes": (".txt",), BOXES3D: (".yaml",)}
SPLIT_TAGS = frozenset(("train", "val", "test"))
"""Tags that say which split a frame is of."""

_VALIDATION_EVERY = 5
_IN_RUNS = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
# In labels a row is mostly the one above. OpenCV before 4.11 tries all filters on each row instead.
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _IN_RUNS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
_PAUSE = 10  # periods without a frame, after which another sequence begins
_SAME_VIEW = np.cos(np.radians(15.0))  # of two cameras' optical axes


class FolderRecording(Recording):
    """A recording in the folder format.

    Args:
        root: the folder.
        split: `all`; or the frames that are tagged `train` or `val`, where every frame is tagged with one of
            `SPLIT_TAGS`; otherwise by time `val`, the last fifth, and `train`, the rest.  Where all are
            tagged but none `val`, those of `train` are parted by time, and `test` is left alone.
        rows: instead of those of `frames.csv`.
        rig: instead of that of `rig.yaml`.
        trajectory: instead of that of `poses.csv`.
    """

    sequential = True

    def __init__(
        self,
        root: Path,
        split: str = "all",
        *,
        rows: Sequence[FrameRow] | None = None,
        rig: Rig | None = None,
        trajectory: Trajectory | None = None,
    ) -> None:
        self.layout = read_info(root)
        opened = rows is None
        rows = read_frames(root) if rows is None else rows
        rows = _part(rows, split)
        self._rows = {row.name: row for row in rows}
        self.seg_table, self.det_table = self.layout.tables
        info = RecordingInfo(
            "folder",
            self.layout.name,
            {name: sensor.kind for name, sensor in self.layout.sensors.items()},
            self.seg_table.classes,
            self.det_table.classes,
            self.layout.rate_hz,
            self.layout.simulated,
            self.layout.licence,
            labels_of=self.layout.labels_of,
        )
        super().__init__(root, info, [row.name for row in rows])
        if rig is None:
            rig = load_rig(root / RIG) if (root / RIG).is_file() else Rig({})
        self.rig = rig
        if trajectory is None and (root / POSES).is_file():
            trajectory = read_poses(root / POSES)
        self.trajectory = trajectory
        labeled = rig.sensors.get(info.labels_of) if info.labels_of in rig.cameras else None
        placed = labeled is not None and labeled.camera is not None and labeled.pose is not None
        self._into = info.labels_of if placed and info.labels_of != rig.reference else ""
        self.sensors = {name: self.layout.of(name) for name in info.sensors}
        self._raw = {name: own.raw for name, own in self.sensors.items()}
        suffixes = {name: _suffixes(own.kind) for name, own in self.sensors.items()}
        suffixes |= TRUTH_SUFFIXES
        self.files = {folder: SampleFolder(root / folder, own) for folder, own in suffixes.items()}
        for sensor in self.silent() if opened and rows else ():
            warnings.warn(
                f"{root}: no frame has a file in {sensor}/, which dataset.yaml lists",
                stacklevel=3,
            )

    def silent(self) -> list[str]:
        """The sensors of which no frame has a sample: misnamed files, or a folder that is not there."""
        ids = {same_name(name) for name in self.ids}
        return [name for name in self.sensors if not ids & self.files[name].files.keys()]

    @cached_property
    def _has_labels(self) -> bool:
        return bool(self.layout.seg_classes) and (self.root / "labels").is_dir()

    @cached_property
    def _has_boxes(self) -> bool:
        return bool(self.layout.det_classes) and (self.root / "boxes").is_dir()

    def in_space(self, index: int) -> TruthBoxes3d | None:
        return self.boxes3d(self.ids[index])

    @cached_property
    def _has_boxes3d(self) -> bool:
        return bool(self.layout.det_classes) and (self.root / BOXES3D).is_dir()

    def tags(self, index: int) -> frozenset[str]:
        return self._rows[self.ids[index]].tags

    def stamp_ns(self, index: int) -> int:
        return self._rows[self.ids[index]].stamp_ns

    def scene(self, index: int) -> str:
        return self._sequences[self.ids[index]]

    @cached_property
    def _sequences(self) -> dict[str, str]:
        """By frame, the first one after the last pause before it."""
        pause, found, last = round(_PAUSE * 1e9 / self.info.rate_hz), "", None
        sequences: dict[str, str] = {}
        for row in self._rows.values():
            if last is None or row.stamp_ns - last > pause:
                found = row.name
            sequences[row.name], last = found, row.stamp_ns
        return sequences

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        found = {sensor: self.sample(sensor, name, stamp) for sensor in self.sensors}
        samples = {sensor: sample for sensor, sample in found.items() if sample is not None}
        for sample in samples.values():
            self._refuse_other_size(sample, name)
        return Frame(samples, stamp)

    def sample(self, sensor: str, name: str, stamp_ns: int) -> Sample | None:
        """One sensor's sample of a frame, None when the frame lacks it."""
        path = self.files[sensor].find(name)
        if path is None:
            return None
        loaded = load_sample(self.info.sensors[sensor], path, self._raw[sensor])
        return self.rig.attach(replace(loaded, sensor=sensor, stamp_ns=stamp_ns), self._into)

    def _refuse_other_size(self, sample: Sample, name: str) -> None:
        """Labels and boxes are of `dataset.yaml`'s size, results of the picture's that they come from.

        Labels are compared with results of another size, but of another shape they cannot be.
        """
        own, kind = self.sensors[sample.sensor], kind_of(sample.kind)
        assert own.height is not None and own.width is not None
        if kind.has_picture:
            height, width = sample.data.shape[:2]
        elif kind.projected and sample.camera is not None:
            height, width = sample.camera.height, sample.camera.width
        else:
            return
        alike = abs(height * own.width - width * own.height) <= max(height, width)
        if (height, width) == (own.height, own.width) or (alike and not self._has_boxes):
            return
        if self._has_boxes or self._has_labels:
            what = "is" if kind.has_picture else "is projected into"
            size = f"{own.width}x{own.height}"
            raise DataError(
                f"{what} {width}x{height} pixels, labels and boxes are of {size}",
                where=str(self.root / sample.sensor / name),
                hint="height and width in dataset.yaml are those of all pictures without their own",
            )

    def truth(self, index: int) -> Truth:
        name = self.ids[index]
        size = (self.layout.height, self.layout.width)
        return Truth(self.labels(name), self.boxes(name), size, boxes3d=self.boxes3d(name))

    def sees_labels(self, sensor: str) -> bool:
        labeled = self.info.labels_of
        if sensor == labeled or not {sensor, labeled} <= set(self.rig.cameras):
            return True
        try:
            return bool(self.rig.between(sensor, labeled).rotation[2, 2] > _SAME_VIEW)
        except CalibrationError:  # a rig that does not say where it sits
            return False

    def labels(self, name: str) -> NDArray[np.uint8] | None:
        """The label image of a frame, None of one that is not labeled."""
        path = self.files["labels"].find(name) if self._has_labels else None
        if path is None:
            return None
        stored = read_labels(path, 256, mask=len(self.seg_table.ids) == 1)
        height, width = stored.shape
        if (height, width) != (self.layout.height, self.layout.width):
            wanted = f"{self.layout.width}x{self.layout.height}"
            raise DataError(f"is {width}x{height}, dataset.yaml says {wanted}", where=str(path))
        return self.seg_table.positions(stored, str(path))

    def boxes(self, name: str) -> Boxes | None:
        """The boxes of a frame, None of one that nobody looked at."""
        path = self.files["boxes"].find(name) if self._has_boxes else None
        if path is None:
            return None
        size = (self.layout.height, self.layout.width)
        return read_yolo_boxes(path, size, self.det_table.ids)

    def boxes3d(self, name: str) -> TruthBoxes3d | None:
        """The boxes in space of a frame, None of one that nobody looked at."""
        path = self.files[BOXES3D].find(name) if self._has_boxes3d else None
        if path is None:
            return None
        return read_boxes3d(path, self.det_table.ids, self.layout.boxes3d_of)


def _part(rows: Sequence[FrameRow], split: str) -> Sequence[FrameRow]:
    """The rows of a split, see `FolderRecording`."""
    if split == "all":
        return rows
    told = [row.tags & SPLIT_TAGS for row in rows]
    if all(len(tags) == 1 for tags in told) and {"train"} in told:
        rows = [row for row, tags in zip(rows, told, strict=True) if "test" not in tags]
        if {"val"} in told:
            return [row for row in rows if split in row.tags]
    cut = len(rows) - len(rows) // _VALIDATION_EVERY
    return rows[:cut] if split == "train" else rows[cut:]


def _suffixes(kind: Kind) -> tuple[str, ...]:
    """Of the files of a kind."""
    own = kind_of(kind)
    if not own.suffixes or own.from_file is None:
        raise DataError(f"no {kind} is read from files", where="sensors")
    return own.suffixes


def _in_file_units(info: FolderInfo, where: str, placed: Collection[str]) -> FolderInfo:
    """What is said of the files that are to be written, in the unit that each kind writes.

    Sensors that are `placed` are left alone.

    Raises:
        DataError: another unit is said, or a kind writes no files.
    """
    written = {name: own for name, own in info.sensors.items() if name not in placed}
    for name in dict.fromkeys(sensor.kind for sensor in written.values()):
        kind = kind_of(name)
        if kind.to_file is None or not kind.suffixes:
            raise DataError(f"no {name} is written to files", where=where)
        own = [info.of(sensor) for sensor in written if written[sensor].kind == name]
        units = {sensor.raw.unit or "auto" for sensor in own} if kind.file_unit else set[str]()
        if units == {"auto"}:
            info = info.in_unit(name, kind.file_unit)
        elif others := ", ".join(sorted(units - {kind.file_unit})):
            what = f"{name} is written in {kind.file_unit}, {name}_unit says {others}"
            raise DataError(what, where=where)
    return info


class FolderWriter:
    """Writes a recording in the folder format; use as a context manager.

    Every file is written whole, and a frame's row in `frames.csv` after its files: whoever is killed
    leaves a recording of the frames added before.

    Args:
        root: the folder, which must be empty or missing.
        info: becomes `dataset.yaml`.
        rig: becomes `rig.yaml`.
        placed: sensors whose files the caller puts there, before it adds their frame.
        suffixes: by kind, of its files, where they are not to be the usual ones: `.jpg` of rgb, `.tiff`
            of pictures that TIFF makes smaller.
        unseen: nobody looks into the folder before all is written: labels and boxes are written under
            their names at once, and whoever is killed may leave a part of one.

    Raises:
        DataError: the folder already holds files, cannot be written (also from `add`), a kind writes no
            files or none with such a suffix (from `add`), or `info` says another unit than its (`auto`
            becomes it).
    """

    def __init__(
        self,
        root: Path,
        info: FolderInfo,
        rig: Rig | None = None,
        *,
        placed: Collection[str] = (),
        suffixes: Mapping[str, str] = MappingProxyType({}),
        unseen: bool = False,
    ) -> None:
        self.root = Path(root)
        self._write = write_unseen if unseen else partial(write_bytes, sync=False)
        self._suffixes = dict(suffixes)
        if self.root.exists() and not self.root.is_dir():
            raise DataError("is a file; expected a folder", where=str(root))
        if self.root.exists() and any(self.root.iterdir()):
            raise DataError("exists and is not empty", where=str(root), hint="choose another --out")
        info = _in_file_units(info, str(root), placed)
        self.info = info
        self._sensors = {name: info.of(name) for name in info.sensors}
        self._seg, self._det = info.tables
        self._names: set[str] = set()
        self._poses: AppendedFile | None = None
        folders = [*info.sensors, *(["labels"] if info.seg_classes else [])]
        folders += ["boxes", BOXES3D] if info.det_classes else []
        try:
            for folder in folders:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot be made: {error.strerror}", where=str(root)) from error
        write_yaml(self.root / DESCRIPTION, info.to_dict())
        if rig is not None:
            save_rig(rig, self.root / RIG)
        self._index = AppendedFile(self.root / FRAMES)
        self._append("id", "stamp_ns", "tags")

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._index.close()
        if self._poses is not None:
            self._poses.close()

    def add(
        self,
        name: str,
        samples: Mapping[str, NDArray[Any]] | None = None,
        *,
        stamp_ns: int,
        tags: tuple[str, ...] = (),
        labels: NDArray[np.uint8] | None = None,
        boxes: Boxes | None = None,
        boxes3d: TruthBoxes3d | list[dict[str, Any]] | None = None,
        times: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        pose: RigidTransform | None = None,
        **named: NDArray[Any] | None,
    ) -> None:
        """Write one frame: depth in metres, thermal in kelvin, clouds (N, 4), boxes in pixels.

        Samples are given by sensor, in a mapping or as keywords.  Labels and the classes of boxes are
        positions, as readers give them.  `times` are `Sample.times` by sensor, `pose` is from the vehicle's
        base to a fixed frame.
        """
        if check_id(name, str(self.root)) in self._names:
            raise DataError(f"frame '{name}' was written before", where=str(self.root))
        for sensor, values in {**(samples or {}), **named}.items():
            if sensor not in self._sensors:
                raise DataError(f"dataset.yaml lists no sensor '{sensor}'", where=str(self.root))
            if values is not None:
                self._sample(sensor, name, values, times.get(sensor))
        if labels is not None:
            self._image("labels", name, self._seg.labels(labels))
        if boxes is not None:
            self._write(f"{self.root}/boxes/{name}.txt", self._yolo(boxes).encode())
        if boxes3d is not None:
            path = self.root / BOXES3D / f"{name}.yaml"
            rows = self._solid(boxes3d) if isinstance(boxes3d, TruthBoxes3d) else boxes3d
            write_yaml(path, rows, sync=False, sort_keys=True, default_flow_style=None)
        if pose is not None:
            self.add_pose(stamp_ns, pose)
        self._append(name, stamp_ns, " ".join(tags))
        self._names.add(name)

    def add_pose(self, stamp_ns: int, pose: RigidTransform) -> None:
        """Write where the vehicle's base was at a time, maybe between frames; later than those before."""
        if self._poses is None:
            self._poses = AppendedFile(self.root / POSES)
            self._append(*POSE_COLUMNS, to=self._poses)
        self._append(*pose_row(stamp_ns, pose), to=self._poses)

    def _solid(self, boxes: TruthBoxes3d) -> list[dict[str, Any]]:
        if boxes.frame != self.info.boxes3d_of:
            what = f"boxes3d are in the frame of '{boxes.frame or BASE}'"
            raise DataError(f"{what}, dataset.yaml says '{self.info.boxes3d_of or BASE}'")
        ids = self._det.ids
        return [{**row, "class": int(ids[row["class"]])} for row in rows_of(boxes)]

    def _sample(
        self, sensor: str, name: str, values: NDArray[Any], times: NDArray[Any] | None
    ) -> None:
        own = self._sensors[sensor]
        kind = kind_of(own.kind)
        assert kind.to_file is not None  # see _in_file_units
        suffix = self._suffixes.get(kind.name, kind.suffixes[0])
        path = self.root / sensor / f"{name}{suffix}"
        try:
            with writing(path, sync=False) as partial:
                sample = Sample(kind.name, values, sensor=sensor, times=times)
                kind.to_file(sample, partial, own.raw)
        except (DataError, InputError) as error:
            raise DataError(error.message, where=str(path), hint=error.hint) from error

    def _append(self, *row: object, to: AppendedFile | None = None) -> None:
        line = io.StringIO()
        csv.writer(line).writerow(row)
        (to or self._index).append(line.getvalue().encode())

    def _image(self, folder: str, name: str, image: NDArray[Any]) -> None:
        path = f"{self.root}/{folder}/{name}.png"
        self._write(path, image_bytes(image, ".png", _IN_RUNS, where=path))

    def _yolo(self, boxes: Boxes) -> str:
        lines = []
        rows = zip(boxes.xyxy, boxes.class_ids, boxes.ignore, strict=True)
        for (x0, y0, x1, y1), kind, ignored in rows:
            w, h = self.info.width, self.info.height
            lines.append(
                f"{self._det.ids[kind]} {(x0 + x1) / 2 / w:.6f} {(y0 + y1) / 2 / h:.6f} "
                f"{(x1 - x0) / w:.6f} {(y1 - y0) / h:.6f}{f' {IGNORED_BOX}' if ignored else ''}\n"
            )
        return "".join(lines)
