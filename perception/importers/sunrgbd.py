"""SUN RGB-D: indoor pictures with depth, as its folders hold them, or repacked into a folder of each kind.

Song et al., "SUN RGB-D: A RGB-D Scene Understanding Benchmark Suite", CVPR 2015, and its toolbox, which says
how depth is stored; the 37 classes of its segmentation benchmark.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import naming, picture_of
from perception.data.nyuv2 import CLASS_NAMES
from perception.errors import AnySenseError, DataError
from perception.files.listing import SampleFolder, counted, list_files, visible_files
from perception.files.text import read_bytes, read_json, read_text
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.importers.masks import mask_of_polygons
from perception.importers.placing import size_of_file
from perception.importers.source import UNLABELED, Item, Marks, Source, named, split_folders
from perception.importers.tables import Record
from perception.importers.truth import read_places
from perception.sensors.registry import kind_of

NAMES = CLASS_NAMES[:37]
"""Those of NYUv2 but for the three that stand for others."""

_ALIASES = {
    "fridge": "refrigerator", "tv": "television", "nightstand": "night_stand",
    "bookcase": "bookshelf", "blind": "blinds", "curtains": "curtain", "floor_mats": "floor_mat",
}  # fmt: skip
_TURN = 3  # bits by which depth is turned
_COLORS, _LABELS = ("rgb", "image", "images"), ("label", "labels", "seg_label")


def sunrgbd(root: Path, depth_scale: float = 0.001) -> Source:
    """The frames below `root`: folders with `image`, `depth_bfx` (or `depth`), `intrinsics.txt` and
    `annotation2Dfinal`; or `rgb` (`image`), `depth` and `label` with files of one name.

    In the first, depth is in millimetres, its bits turned by three, and outlines are masks of the 37 classes
    by their names; what has another name is not labeled.  In the second, label 0 is not labeled and 1 to 37
    are the classes, and there may be folders of splits in each (`rgb/train`).

    Args:
        root: the folder.
        depth_scale: metres a step of depth in the second.

    Raises:
        DataError: a file is missing or wrong; it is named.
    """
    flat = next((root / name for name in _COLORS if (root / name).is_dir()), None)
    if flat is not None and (root / "depth").is_dir() and not (root / "intrinsics.txt").exists():
        return _flat(root, flat, depth_scale)
    frames = sorted(
        (path.parent for path in root.rglob("intrinsics.txt")),
        key=lambda p: counted(p.relative_to(root).as_posix()),
    )
    if not frames:
        raise DataError(
            "holds no frame",
            where=str(root),
            hint="folders with image, depth_bfx and intrinsics.txt; or rgb, depth and label",
        )
    rigs: dict[Any, Rig] = {}
    items = [_item(root, frame, rigs) for frame in frames]
    return _source(items, 0.001)


def _source(items: list[Item], scale: float) -> Source:
    sensors = {"rgb": "rgb", "depth": "depth"}
    return Source(
        "SUN RGB-D", sensors, items, named(NAMES), fields={"depth_scale": scale}, rate_hz=1.0
    )


def _flat(root: Path, colors: Path, scale: float) -> Source:
    masks = next((root / name for name in _LABELS if (root / name).is_dir()), root / _LABELS[0])
    table = {i + 1: i for i in range(len(NAMES))}
    items = []
    for split, part in split_folders(colors):
        labels = SampleFolder(masks / part, (".png",))
        depth = SampleFolder(root / "depth" / part, kind_of("depth").suffixes)
        for name, path in list_files(colors / part, kind_of("rgb").suffixes).items():
            mask = labels.find(name)
            marks = Marks if mask is None else partial(_of_file, mask, table)
            samples = {"rgb": path, "depth": depth.file(name)}
            items.append(Item(f"{part}/{name}" if part else name, samples, marks, split=split))
    return _source(items, scale)


def _of_file(path: Path, table: dict[int, int]) -> Marks:
    return Marks(read_places(path, len(NAMES) + 1, table))


def _only(folder: Path) -> Path:
    files = visible_files(folder)
    if len(files) != 1:
        raise DataError(f"holds {len(files)} files, expected one", where=str(folder))
    return files[0]


def _item(root: Path, frame: Path, rigs: dict[Any, Rig]) -> Item:
    picture = _only(frame / "image")
    smooth = frame / "depth_bfx"
    depth = _only(smooth if smooth.is_dir() else frame / "depth")
    size = size_of_file(picture, kind_of("rgb"))
    text = read_text(frame / "intrinsics.txt")
    if (key := (text, size)) not in rigs:
        rigs[key] = _rig(text, size, frame / "intrinsics.txt")
    name = frame.relative_to(root).as_posix()
    return Item(
        name if name != "." else frame.resolve().name,
        {"rgb": picture, "depth": partial(millimetres, depth)},
        partial(_of_outlines, frame / "annotation2Dfinal/index.json", size),
        sizes=partial(_sizes, picture, depth),
        sequence=name.rpartition("/")[0],
        rig=rigs[key],
    )


def _sizes(picture: Path, depth: Path) -> dict[str, tuple[int, int]]:
    return {
        "rgb": size_of_file(picture, kind_of("rgb")),
        "depth": size_of_file(depth, kind_of("depth")),
    }


def _rig(text: str, size: tuple[int, int], path: Path) -> Rig:
    try:
        values = np.array([float(word) for word in text.split()][:9]).reshape(3, 3)
        camera = CameraModel(
            size[1], size[0], values[0, 0], values[1, 1], values[0, 2], values[1, 2]
        )
    except AnySenseError as error:
        raise DataError(error.message, where=str(path)) from error
    except ValueError as error:
        raise DataError("is no 3x3 matrix", where=str(path)) from error
    return Rig(
        {
            "rgb": SensorCalibration(camera, frame_id="camera"),
            "depth": SensorCalibration(camera, frame_id="camera"),
        }
    )


def millimetres(path: Path) -> NDArray[np.uint16]:
    """Depth (H, W) of a file of the data set, whose 16 bits are turned to the left by three.

    Raises:
        DataError, EncodingError: it is missing, damaged, or not of 16 bits.
    """
    with naming(path):
        stored = picture_of(read_bytes(path), path).samples()
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError("is no depth of 16 bits", where=str(path))
    return ((stored >> _TURN) | (stored << (16 - _TURN))).astype(np.uint16)


def place_of(name: str) -> int:
    """The class that a name given by an annotator means, `UNLABELED` for none of the 37."""
    plain = "_".join(name.lower().replace("-", " ").replace("_", " ").split())
    plain = plain.partition(":")[0]
    plain = _ALIASES.get(plain, plain)
    return NAMES.index(plain) if plain in NAMES else UNLABELED


def _of_outlines(path: Path, size: tuple[int, int]) -> Marks:
    """Masks of the outlines, later ones over earlier ones, as the annotation's tool draws them."""
    if not path.is_file():
        return Marks()
    record = Record(read_json(path), str(path))
    objects = record.fields.get("objects")
    if not isinstance(objects, list):
        raise DataError("'objects' is no list", where=str(path))
    names = [one.get("name") if isinstance(one, dict) else None for one in objects]
    labels = np.full(size, UNLABELED, np.int32)
    for frame in record.records("frames"):
        for outline in frame.records("polygon") if frame.has("polygon") else ():
            number = outline.whole("object")
            name = names[number] if 0 <= number < len(names) else None
            if not isinstance(name, str) or place_of(name) == UNLABELED:
                continue
            x, y = _list(outline, "x"), _list(outline, "y")
            if len(x) != len(y):
                raise DataError("x and y differ in number", where=outline.where)
            corners = [value for pair in zip(x, y, strict=True) for value in pair]
            if len(x) > 2:
                labels[mask_of_polygons([corners], size)] = place_of(name)
        break  # one picture
    return Marks(labels)


def _list(record: Record, name: str) -> list[float]:
    """Numbers; a single one is no list in these files."""
    value = record.fields.get(name)
    return record.numbers(name) if isinstance(value, list) else [record.number(name)]
