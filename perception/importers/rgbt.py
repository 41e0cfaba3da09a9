"""Pairs of colors and thermal infrared with masks: MFNet, PST900, and sets like theirs.

Ha et al., "MFNet: Towards Real-Time Semantic Segmentation for Autonomous Vehicles with Multi-Spectral
Scenes", IROS 2017.  Shivakumar et al., "PST900: RGB-Thermal Calibration, Dataset and Segmentation Network",
ICRA 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import naming
from perception.adapters.pictures import decode_rgba
from perception.errors import DataError, meant
from perception.files.listing import SampleFolder, list_files
from perception.files.text import read_bytes, read_text
from perception.importers.source import SPLITS, Item, Marks, Source, named, split_folders
from perception.importers.truth import read_places
from perception.sensors.registry import kind_of

MFNET = (
    "unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
)  # fmt: skip
PST900 = ("background", "fire_extinguisher", "backpack", "hand_drill", "survivor")

_COLORS = ("rgb", "RGB", "visible", "Visible", "vi", "color", "images")
_THERMAL = ("thermal", "Thermal", "infrared", "Infrared", "ir", "th", "tir")
_LABELS = ("labels", "label", "Label", "Segmentation_labels", "masks")


def mfnet(root: Path) -> Source:
    """`images/*.png` of red, green, blue and infrared, `labels/*.png`, and lists of the splits.

    Class 0 is what is none of the others.  Names end with D by day and with N by night.

    Raises:
        DataError: a file is missing or wrong; it is named.
    """
    return _pairs(root, "MFNet", MFNET, "MFNet: research use, see its project page")


def pst900(root: Path, raw: bool = False, depth: bool = False) -> Source:
    """`train` and `test` with `rgb`, `thermal` and `labels` each.

    Args:
        root: the folder.
        raw: take the 16 bit counts of `thermal_raw` in place of the stretched pictures.
        depth: take `depth`, too: 16 bit millimetres.

    Raises:
        DataError: a file is missing or wrong; it is named.
    """
    parts = [(s, root / s) for s in ("train", "val", "test") if (root / s).is_dir()]
    if not parts:
        raise DataError("no folder train or test", where=str(root))
    items: list[Item] = []
    for split, folder in parts:
        infrared = ("thermal_raw",) if raw else _THERMAL
        items += _items(folder, PST900, infrared, split, ("depth",) if depth else ())
    sensors = {"rgb": "rgb", "thermal": "thermal"} | ({"depth": "depth"} if depth else {})
    fields = {"thermal_unit": "counts16" if raw else "counts8"}
    return Source("PST900", sensors, items, named(PST900), fields=fields, rate_hz=1.0)


def rgbt(root: Path, classes: str = "classes.txt") -> Source:
    """Pairs of one's own: `rgb` and `thermal`, or `images` of four channels, and `labels`.

    Args:
        root: the folder; with folders `train`, `val` and `test` in it, or in each of `rgb`, `thermal` and
            `labels`, these are the splits.
        classes: a text with the name of class 0, 1, ... on each line, from `root` on.

    Raises:
        DataError: a file is missing or wrong; it is named.
    """
    path = root / classes
    names = [n.strip() for n in read_text(path).lstrip("\ufeff").split("\n") if n.strip()]
    if not names:
        raise DataError("names no class", where=str(path))
    return _pairs(root, root.resolve().name, tuple(names), "unknown: treat as research use")


def _pairs(root: Path, name: str, names: tuple[str, ...], licence: str) -> Source:
    parts = [(s, root / s) for s in SPLITS if (root / s).is_dir()]
    items: list[Item] = []
    for split, folder in parts:
        items += _items(folder, names, _THERMAL, split)
    if not parts:
        for split, part in split_folders(_folder(root, _COLORS) or root):
            items += _items(root, names, _THERMAL, split, part=part)
    if not any(item.split for item in items):
        _by_lists(items, root)
    unit = {"thermal_unit": "auto"}  # counts8 or counts16, as the files say
    sensors = {"rgb": "rgb", "thermal": "thermal"}
    return Source(name, sensors, items, named(names), fields=unit, rate_hz=1.0, licence=licence)


def _by_lists(items: list[Item], root: Path) -> None:
    """Splits as the texts beside the pictures say."""
    by_name = {item.name: item for item in items}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not path.is_file():
            continue
        for number, line in enumerate(read_text(path).lstrip("\ufeff").split("\n"), 1):
            name = Path(line.strip()).stem if line.strip().endswith(".png") else line.strip()
            if not name:
                continue
            if name not in by_name:
                raise DataError(
                    f"there is no picture '{name[:80]}'",
                    where=f"{path}:{number}",
                    hint=meant(name, by_name),
                )
            if by_name[name].split not in ("", split):
                known = by_name[name].split
                raise DataError(f"'{name[:80]}' is of {known}, too", where=f"{path}:{number}")
            by_name[name].split = split


def _folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _items(
    root: Path,
    names: tuple[str, ...],
    infrared: Sequence[str],
    split: str,
    others: tuple[str, ...] = (),
    part: str = "",
) -> list[Item]:
    """The pairs in `root`, or in folders `part` of those of each kind."""
    colors, thermal = _folder(root, _COLORS), _folder(root, infrared)
    if colors is None:
        raise DataError(f"no folder of color pictures ({' or '.join(_COLORS)})", where=str(root))
    truth = _folder(root, _LABELS)
    masks = None if truth is None else SampleFolder(truth / part, (".png",))
    partners = None
    if thermal is not None:
        partners = SampleFolder(thermal / part, kind_of("thermal").suffixes)
    beside = {name: SampleFolder(root / name, kind_of(name).suffixes) for name in others}
    items = []
    for stem, path in list_files(colors / part, kind_of("rgb").suffixes).items():
        samples: dict[str, Any] = {"rgb": path}
        sizes: Any = {}
        if partners is None:
            samples = {n: partial(_channels, path, n) for n in ("rgb", "thermal")}
            sizes = partial(_size_of_four, path)
        else:
            samples["thermal"] = partners.file(stem)
        samples |= {name: own.file(stem) for name, own in beside.items()}
        mask = None if masks is None else masks.find(stem)
        tags = {"D": ("day",), "N": ("night",)}.get(stem.removesuffix("_flip")[-1:], ())
        name = f"{split}/{stem}" if split else stem
        items.append(
            Item(
                name,
                samples,
                partial(_marks, mask, len(names)),
                sizes=sizes,
                aliases=(stem,),
                split=split,
                tags=tags if names is MFNET else (),
            )
        )
    return items


@lru_cache(maxsize=2)
def _four(path: Path) -> NDArray[np.uint8]:
    """(H, W, 4) uint8: colors and infrared."""
    with naming(path):
        return decode_rgba(read_bytes(path))


def _channels(path: Path, sensor: str) -> NDArray[np.uint8]:
    every = _four(path)
    return np.ascontiguousarray(every[..., :3] if sensor == "rgb" else every[..., 3])


def _size_of_four(path: Path) -> dict[str, tuple[int, int]]:
    height, width = _four(path).shape[:2]
    return {"rgb": (height, width), "thermal": (height, width)}


def _marks(path: Path | None, count: int) -> Marks:
    if path is None:
        return Marks()
    return Marks(read_places(path, count))
