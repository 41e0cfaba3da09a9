"""The folder format: AnySense's own layout for recordings, described in docs/data.md."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from perception.adapters.files import CLOUD_SUFFIXES, load_depth, load_lidar, load_rgb, load_thermal
from perception.adapters.headerless import COLUMNS
from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.data.classes import ClassTable, table_faults
from perception.data.files import read_labels, read_yolo_boxes
from perception.errors import DataError
from perception.files.fields import check_fields
from perception.files.limits import check_pixels
from perception.files.listing import SampleFolder, same_name
from perception.files.text import read_csv, read_yaml
from perception.files.writing import AppendedFile, write_image, write_text, write_yaml, writing
from perception.frame import LEAST_RANGE_M, Frame, Modality, Sample
from perception.geometry.rig import Rig, load_rig, save_rig
from perception.runtime.manifest import ClassSpec

DESCRIPTION, RIG, FRAMES = "dataset.yaml", "rig.yaml", "frames.csv"
SCHEMA: Literal[1] = 1
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES: dict[Modality, tuple[str, ...]] = {
    "rgb": _IMAGE_SUFFIXES,
    "depth": (".png", ".npy", ".tif", ".tiff"),
    "thermal": (*_IMAGE_SUFFIXES, ".npy", ".tif", ".tiff"),
    "lidar": CLOUD_SUFFIXES,
}
_TRUTH_SUFFIXES = {"labels": (".png",), "boxes": (".txt",), "boxes3d": (".yaml",)}
_VALIDATION_EVERY = 5
WRITTEN_UNIT: Literal["centikelvin"] = "centikelvin"
"""What `FolderWriter` stores temperatures in, whatever else may be read."""


class FolderInfo(BaseModel):
    """`dataset.yaml`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    name: str
    modalities: tuple[Modality, ...] = Field(min_length=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    rate_hz: float = Field(10.0, gt=0, allow_inf_nan=False)
    seg_classes: tuple[ClassSpec, ...] = ()
    det_classes: tuple[ClassSpec, ...] = ()
    depth_scale: float = Field(0.001, gt=0, allow_inf_nan=False)
    thermal_unit: Literal["auto", "counts8", "counts16", "centikelvin", "kelvin"] = "auto"
    lidar_columns: int | None = Field(None, ge=COLUMNS[0], le=COLUMNS[-1])
    lidar_least_range_m: float = Field(LEAST_RANGE_M, ge=0, allow_inf_nan=False)
    simulated: bool = False
    licence: str = "unknown"


def folder_info(
    *,
    size: tuple[int, int],
    seg_classes: tuple[ClassInfo, ...],
    det_classes: tuple[ClassInfo, ...],
    **fields: Any,
) -> FolderInfo:
    """A `FolderInfo` from `ClassInfo` tables and an image size (height, width)."""

    def specs(classes: tuple[ClassInfo, ...]) -> list[dict[str, Any]]:
        return [{"id": c.id, "name": c.name, "color": c.color} for c in classes]

    return FolderInfo.model_validate(
        {
            "height": size[0],
            "width": size[1],
            "seg_classes": specs(seg_classes),
            "det_classes": specs(det_classes),
            **fields,
        }
    )


def read_info(root: Path) -> FolderInfo:
    """Read `dataset.yaml`.

    Raises:
        DataError: it is missing or a field is wrong.
    """
    path = root / DESCRIPTION
    if not path.is_file():
        raise DataError(
            f"no {DESCRIPTION}", where=str(root), hint="see docs/data.md for the layout"
        )
    info = check_fields(FolderInfo, read_yaml(path), where=str(path))
    if len(set(info.modalities)) < len(info.modalities):
        raise DataError("modalities: one is given twice", where=str(path))
    check_pixels(info.width, info.height, where=str(path), error=DataError)
    for task in ("seg_classes", "det_classes"):
        faults = table_faults([c.info() for c in getattr(info, task)])
        if faults:
            raise DataError(f"{task}: {'; '.join(faults)}", where=str(path))
    return info


class FrameRow(NamedTuple):
    """A row of `frames.csv`: id, stamp in nanoseconds, tags."""

    name: str
    stamp_ns: int
    tags: frozenset[str]


def parse_frames(root: Path) -> tuple[list[FrameRow], list[DataError]]:
    """The rows of `frames.csv` that are right, and what is wrong with the others.

    Raises:
        DataError: it is missing, or no such table at all.
    """
    path = root / FRAMES
    if not path.is_file():
        raise DataError(f"no {FRAMES}", where=str(root))
    rows: list[FrameRow] = []
    faults: list[DataError] = []
    lines: dict[str, int] = {}
    for number, row in read_csv(path, ("id", "stamp_ns")):
        where = f"{path}:{number}"
        try:
            name = check_id(row["id"], where)
            first = lines.get(same_name(name))
            if first is not None:
                raise DataError(f"id '{name}' is that of line {first}, too", where=where)
            stamp = _stamp(row["stamp_ns"], where)
        except DataError as fault:
            faults.append(fault)
            continue
        lines[same_name(name)] = number
        rows.append(FrameRow(name, stamp, frozenset((row.get("tags") or "").split())))
    return rows, faults


def check_id(name: str, where: str) -> str:
    """A frame's id, which is the name of its files without their suffix.

    Raises:
        DataError: it can be no file's name, or leads to another folder.
    """
    if not name:
        raise DataError("no id", where=where)
    if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise DataError(f"id '{name}' is no plain file name", where=where)
    return name


def _stamp(text: str, where: str) -> int:
    if not text:
        raise DataError("no stamp_ns", where=where)
    if not re.fullmatch("[+-]?[0-9]{1,19}", text) or abs(int(text)) >= 2**63:
        raise DataError(
            f"stamp_ns '{text}' is no whole number of nanoseconds",
            where=where,
            hint="spreadsheets round long numbers: make the column a text" if "E" in text else "",
        )
    return int(text)


def read_frames(root: Path) -> list[FrameRow]:
    """The rows of `frames.csv`.

    Raises:
        DataError: it is missing or a row is wrong.
    """
    rows, faults = parse_frames(root)
    if faults:
        raise faults[0]
    return rows


class FolderRecording(Recording):
    """A recording in the folder format.

    Args:
        root: the folder.
        split: `all`; or by time `val`, the last fifth, and `train`, the rest.
        rows: instead of those of `frames.csv`.
        rig: instead of that of `rig.yaml`.
    """

    def __init__(
        self,
        root: Path,
        split: str = "all",
        *,
        rows: Sequence[FrameRow] | None = None,
        rig: Rig | None = None,
    ) -> None:
        self.layout = read_info(root)
        opened = rows is None
        rows = read_frames(root) if rows is None else rows
        cut = len(rows) - len(rows) // _VALIDATION_EVERY
        rows = {"all": rows, "train": rows[:cut], "val": rows[cut:]}[split]
        self._rows = {row.name: row for row in rows}
        self.seg_table, self.det_table = (
            ClassTable.of([c.info() for c in classes])
            for classes in (self.layout.seg_classes, self.layout.det_classes)
        )
        info = RecordingInfo(
            "folder",
            self.layout.name,
            self.layout.modalities,
            self.seg_table.classes,
            self.det_table.classes,
            self.layout.rate_hz,
            self.layout.simulated,
            self.layout.licence,
        )
        super().__init__(root, info, [row.name for row in rows])
        if rig is None:
            rig = load_rig(root / RIG) if (root / RIG).is_file() else Rig({})
        self.rig = rig
        suffixes = [*SUFFIXES.items(), *_TRUTH_SUFFIXES.items()]
        self.files = {folder: SampleFolder(root / folder, own) for folder, own in suffixes}
        for modality in self.silent() if opened and rows else ():
            warnings.warn(
                f"{root}: no frame has a file in {modality}/, which dataset.yaml lists",
                stacklevel=3,
            )

    def silent(self) -> list[Modality]:
        """The sensors of which no frame has a sample: misnamed files, or a folder that is not there."""
        ids = {same_name(name) for name in self.ids}
        return [m for m in self.layout.modalities if not ids & self.files[m].files.keys()]

    @cached_property
    def _has_labels(self) -> bool:
        return bool(self.layout.seg_classes) and (self.root / "labels").is_dir()

    @cached_property
    def _has_boxes(self) -> bool:
        return bool(self.layout.det_classes) and (self.root / "boxes").is_dir()

    def tags(self, index: int) -> frozenset[str]:
        return self._rows[self.ids[index]].tags

    def stamp_ns(self, index: int) -> int:
        return self._rows[self.ids[index]].stamp_ns

    def path(self, modality: Modality, name: str) -> Path | None:
        """The file of a sample, None when the frame lacks it.

        Raises:
            DataError: there are two.
        """
        return self.files[modality].find(name)

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        found = {m: self.sample(m, name, stamp) for m in self.layout.modalities}
        samples = {m: sample for m, sample in found.items() if sample is not None}
        for sample in samples.values():
            self._refuse_other_size(sample, name)
        return Frame(samples, stamp)

    def sample(self, modality: Modality, name: str, stamp_ns: int) -> Sample | None:
        """One sensor's sample of a frame, None when the frame lacks it."""
        path = self.path(modality, name)
        if path is None:
            return None
        loaded = self._load(modality, path)
        stamped = Sample(modality, loaded.data, stamp_ns, "", loaded.encoding, loaded.unit)
        return self.rig.attach(stamped)

    def _refuse_other_size(self, sample: Sample, name: str) -> None:
        """Labels and boxes are of `dataset.yaml`'s size, results of the picture's that they come from.

        Labels are compared with results of another size, but of another shape they cannot be.
        """
        own = self.layout
        height, width = sample.data.shape[:2]
        if sample.modality == "lidar":
            if sample.camera is None:
                return
            height, width = sample.camera.height, sample.camera.width
        alike = abs(height * own.width - width * own.height) <= max(height, width)
        if (height, width) == (own.height, own.width) or (alike and not self._has_boxes):
            return
        if self._has_boxes or self._has_labels:
            what = "is projected into" if sample.modality == "lidar" else "is"
            size = f"{own.width}x{own.height}"
            raise DataError(
                f"{what} {width}x{height} pixels, labels and boxes are of {size}",
                where=str(self.root / sample.modality / name),
                hint="height and width in dataset.yaml are those of all its pictures",
            )

    def _load(self, modality: Modality, path: Path) -> Sample:
        if modality == "rgb":
            return load_rgb(path)
        if modality == "depth":
            return load_depth(path, self.layout.depth_scale)
        if modality == "thermal":
            return load_thermal(path, self.layout.thermal_unit)
        return load_lidar(
            path, self.layout.lidar_columns, least_range_m=self.layout.lidar_least_range_m
        )

    def truth(self, index: int) -> Truth:
        name = self.ids[index]
        return Truth(self.labels(name), self.boxes(name))

    def labels(self, name: str) -> NDArray[np.uint8] | None:
        """The label image of a frame, None in a recording without."""
        if not self._has_labels:
            return None
        path = self.files["labels"].file(name)
        stored = read_labels(path, 256, mask=len(self.seg_table.ids) == 1)
        height, width = stored.shape
        if (height, width) != (self.layout.height, self.layout.width):
            wanted = f"{self.layout.width}x{self.layout.height}"
            raise DataError(f"is {width}x{height}, dataset.yaml says {wanted}", where=str(path))
        return self.seg_table.positions(stored, str(path))

    def boxes(self, name: str) -> Boxes | None:
        """The boxes of a frame, None in a recording without."""
        if not self._has_boxes:
            return None
        size = (self.layout.height, self.layout.width)
        return read_yolo_boxes(self.files["boxes"].file(name), size, self.det_table.ids)


class FolderWriter:
    """Writes a recording in the folder format; use as a context manager.

    Every file is written whole, and a frame's row in `frames.csv` after its files: whoever is killed
    leaves a recording of the frames added before.

    Args:
        root: the folder, which must be empty or missing.
        info: becomes `dataset.yaml`.
        rig: becomes `rig.yaml`.

    Raises:
        DataError: the folder already holds files, cannot be written (also from `add`), or `info` says
            another thermal unit than `WRITTEN_UNIT` (`auto` becomes it).
    """

    def __init__(self, root: Path, info: FolderInfo, rig: Rig | None = None) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise DataError("is a file; expected a folder", where=str(root))
        if self.root.exists() and any(self.root.iterdir()):
            raise DataError("exists and is not empty", where=str(root), hint="choose another --out")
        if "thermal" in info.modalities and info.thermal_unit != WRITTEN_UNIT:
            if info.thermal_unit != "auto":
                what = (
                    f"thermal is written in {WRITTEN_UNIT}, thermal_unit says {info.thermal_unit}"
                )
                raise DataError(what, where=str(root))
            info = info.model_copy(update={"thermal_unit": WRITTEN_UNIT})
        self.info = info
        self._seg, self._det = (
            ClassTable.of([c.info() for c in classes])
            for classes in (info.seg_classes, info.det_classes)
        )
        self._names: set[str] = set()
        folders = [*info.modalities, *(["labels"] if info.seg_classes else [])]
        folders += ["boxes", "boxes3d"] if info.det_classes else []
        try:
            for folder in folders:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot be made: {error.strerror}", where=str(root)) from error
        write_yaml(self.root / DESCRIPTION, info.model_dump(mode="json", by_alias=True))
        if rig is not None:
            save_rig(rig, self.root / RIG)
        self._index = AppendedFile(self.root / FRAMES)
        self._append("id", "stamp_ns", "tags")

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._index.close()

    def add(
        self,
        name: str,
        *,
        stamp_ns: int,
        tags: tuple[str, ...] = (),
        rgb: NDArray[np.uint8] | None = None,
        depth: NDArray[np.float32] | None = None,
        thermal: NDArray[np.float32] | None = None,
        lidar: NDArray[np.float32] | None = None,
        labels: NDArray[np.uint8] | None = None,
        boxes: Boxes | None = None,
        boxes3d: list[dict[str, Any]] | None = None,
    ) -> None:
        """Write one frame: depth in metres, thermal in kelvin, clouds (N, 4), boxes in pixels.

        Labels and the classes of boxes are positions, as readers give them.
        """
        if check_id(name, str(self.root)) in self._names:
            raise DataError(f"frame '{name}' was written before", where=str(self.root))
        if rgb is not None:
            self._image("rgb", name, rgb)
        if depth is not None:
            steps = np.nan_to_num(depth / self.info.depth_scale, posinf=0.0, neginf=0.0).round()
            steps[(steps < 0) | (steps > 65535)] = 0  # what 16 bits cannot hold is no return
            self._image("depth", name, steps.astype(np.uint16))
        if thermal is not None:
            steps = np.nan_to_num(thermal * 100.0)
            self._image("thermal", name, steps.round().clip(0, 65535).astype(np.uint16))
        if lidar is not None:
            with writing(self.root / "lidar" / f"{name}.npz", sync=False) as partial:
                np.savez_compressed(partial, points=lidar.astype(np.float32))
        if labels is not None:
            self._image("labels", name, self._seg.labels(labels))
        if boxes is not None:
            write_text(self.root / "boxes" / f"{name}.txt", self._yolo(boxes), sync=False)
        if boxes3d is not None:
            path = self.root / "boxes3d" / f"{name}.yaml"
            write_yaml(path, boxes3d, sync=False, sort_keys=True, default_flow_style=None)
        self._append(name, stamp_ns, " ".join(tags))
        self._names.add(name)

    def _append(self, *row: object) -> None:
        line = io.StringIO()
        csv.writer(line).writerow(row)
        self._index.append(line.getvalue().encode())

    def _image(self, folder: str, name: str, image: NDArray[Any]) -> None:
        compression = [cv2.IMWRITE_PNG_COMPRESSION, 3]
        write_image(self.root / folder / f"{name}.png", image, compression, sync=False)

    def _yolo(self, boxes: Boxes) -> str:
        lines = []
        for (x0, y0, x1, y1), kind in zip(boxes.xyxy, boxes.class_ids, strict=True):
            w, h = self.info.width, self.info.height
            lines.append(
                f"{self._det.ids[kind]} {(x0 + x1) / 2 / w:.6f} {(y0 + y1) / 2 / h:.6f} "
                f"{(x1 - x0) / w:.6f} {(y1 - y0) / h:.6f}\n"
            )
        return "".join(lines)
