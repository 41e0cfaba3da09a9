"""The folder format: AnySense's own layout for recordings, described in docs/data.md."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perception.adapters.files import CLOUD_SUFFIXES, load_depth, load_lidar, load_rgb, load_thermal
from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.data.files import read_labels, read_yolo_boxes
from perception.errors import DataError
from perception.frame import Frame, Modality, Sample
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
_VALIDATION_EVERY = 5


class FolderInfo(BaseModel):
    """`dataset.yaml`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    name: str
    modalities: tuple[Modality, ...] = Field(min_length=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    rate_hz: float = Field(10.0, gt=0)
    seg_classes: tuple[ClassSpec, ...] = ()
    det_classes: tuple[ClassSpec, ...] = ()
    depth_scale: float = Field(0.001, gt=0)
    thermal_unit: Literal["auto", "counts8", "counts16", "centikelvin", "kelvin"] = "auto"
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
    try:
        return FolderInfo.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise DataError("not YAML", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise DataError(f"{field}: {first['msg']}", where=str(path)) from error


def read_frames(root: Path) -> list[tuple[str, int, frozenset[str]]]:
    """Rows of `frames.csv`: id, stamp in nanoseconds, tags.

    Raises:
        DataError: it is missing or a row is wrong.
    """
    path = root / FRAMES
    if not path.is_file():
        raise DataError(f"no {FRAMES}", where=str(root))
    rows = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                tags = frozenset((row.get("tags") or "").split())
                rows.append((row["id"], int(row["stamp_ns"]), tags))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError("needs id and stamp_ns", where=f"{path}:{number}") from error
    return rows


class FolderRecording(Recording):
    """A recording in the folder format.

    Args:
        root: the folder.
        split: `all`; or by time `val`, the last fifth, and `train`, the rest.
    """

    def __init__(self, root: Path, split: str = "all") -> None:
        self.layout = read_info(root)
        rows = read_frames(root)
        cut = len(rows) - len(rows) // _VALIDATION_EVERY
        rows = {"all": rows, "train": rows[:cut], "val": rows[cut:]}[split]
        self._rows = {name: (stamp, tags) for name, stamp, tags in rows}
        info = RecordingInfo(
            "folder",
            self.layout.name,
            self.layout.modalities,
            tuple(c.info() for c in self.layout.seg_classes),
            tuple(c.info() for c in self.layout.det_classes),
            self.layout.rate_hz,
            self.layout.simulated,
            self.layout.licence,
        )
        super().__init__(root, info, [row[0] for row in rows])
        self.rig = load_rig(root / RIG) if (root / RIG).is_file() else Rig({})

    def tags(self, index: int) -> frozenset[str]:
        return self._rows[self.ids[index]][1]

    def stamp_ns(self, index: int) -> int:
        return self._rows[self.ids[index]][0]

    def path(self, modality: Modality, name: str) -> Path | None:
        """The file of a sample, None when the frame lacks it."""
        for suffix in SUFFIXES[modality]:
            path = self.root / modality / f"{name}{suffix}"
            if path.is_file():
                return path
        return None

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        samples: dict[Modality, Sample] = {}
        for modality in self.layout.modalities:
            path = self.path(modality, name)
            if path is not None:
                loaded = self._load(modality, path)
                stamped = Sample(modality, loaded.data, stamp, "", loaded.encoding, loaded.unit)
                samples[modality] = self.rig.attach(stamped)
        return Frame(samples, stamp)

    def _load(self, modality: Modality, path: Path) -> Sample:
        if modality == "rgb":
            return load_rgb(path)
        if modality == "depth":
            float_file = path.suffix != ".png"
            return load_depth(path, None if float_file else self.layout.depth_scale)
        if modality == "thermal":
            return load_thermal(path, self.layout.thermal_unit)
        return load_lidar(path)

    def truth(self, index: int) -> Truth:
        name = self.ids[index]
        labels = boxes = None
        if self.layout.seg_classes and (self.root / "labels").is_dir():
            labels = read_labels(self.root / "labels" / f"{name}.png", len(self.layout.seg_classes))
        if self.layout.det_classes and (self.root / "boxes").is_dir():
            size = (self.layout.height, self.layout.width)
            path = self.root / "boxes" / f"{name}.txt"
            boxes = read_yolo_boxes(path, size, len(self.layout.det_classes))
        return Truth(labels, boxes)


class FolderWriter:
    """Writes a recording in the folder format; use as a context manager.

    Raises:
        DataError: the folder already holds files.
    """

    def __init__(self, root: Path, info: FolderInfo, rig: Rig | None = None) -> None:
        self.root = Path(root)
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise DataError("exists and is not empty", where=str(root), hint="choose another --out")
        self.info = info
        self._rows: list[tuple[str, int, str]] = []
        folders = [*info.modalities, *(["labels"] if info.seg_classes else [])]
        folders += ["boxes", "boxes3d"] if info.det_classes else []
        for folder in folders:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        content = info.model_dump(mode="json", by_alias=True)
        (self.root / DESCRIPTION).write_text(yaml.safe_dump(content, sort_keys=False))
        if rig is not None:
            save_rig(rig, self.root / RIG)

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with (self.root / FRAMES).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "stamp_ns", "tags"))
            writer.writerows(self._rows)

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
        """Write one frame: depth in metres, thermal in kelvin, clouds (N, 4), boxes in pixels."""
        self._rows.append((name, stamp_ns, " ".join(tags)))
        if rgb is not None:
            self._image("rgb", name, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        if depth is not None:
            steps = np.nan_to_num(depth / self.info.depth_scale, posinf=0.0, neginf=0.0)
            self._image("depth", name, steps.round().clip(0, 65535).astype(np.uint16))
        if thermal is not None:
            steps = np.nan_to_num(thermal * 100.0)
            self._image("thermal", name, steps.round().clip(0, 65535).astype(np.uint16))
        if lidar is not None:
            np.savez_compressed(
                self.root / "lidar" / f"{name}.npz", points=lidar.astype(np.float32)
            )
        if labels is not None:
            self._image("labels", name, labels)
        if boxes is not None:
            (self.root / "boxes" / f"{name}.txt").write_text(self._yolo(boxes))
        if boxes3d is not None:
            (self.root / "boxes3d" / f"{name}.yaml").write_text(
                yaml.safe_dump(boxes3d, default_flow_style=None)
            )

    def _image(self, folder: str, name: str, image: NDArray[Any]) -> None:
        path = self.root / folder / f"{name}.png"
        if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
            raise DataError("cannot be written", where=str(path))

    def _yolo(self, boxes: Boxes) -> str:
        lines = []
        for (x0, y0, x1, y1), kind in zip(boxes.xyxy, boxes.class_ids, strict=True):
            w, h = self.info.width, self.info.height
            lines.append(
                f"{kind} {(x0 + x1) / 2 / w:.6f} {(y0 + y1) / 2 / h:.6f} "
                f"{(x1 - x0) / w:.6f} {(y1 - y0) / h:.6f}\n"
            )
        return "".join(lines)
