"""Cityscapes: street pictures with masks of classes and instances.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; ids are those
of its scripts: `labelIds` of all classes, `trainIds` of the 19 that are judged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import load_labels
from perception.data.base import Boxes
from perception.errors import ConfigError, DataError, names_hint
from perception.files.listing import visible_files
from perception.importers.source import SPLITS, Item, Marks, Source, named
from perception.importers.truth import read_places

# fmt: off
NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground",
    "road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge",
    "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky",
    "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)
"""By label id."""
TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes, by train id."""
THINGS = tuple(range(24, 34))
"""Label ids of classes with instances."""
# fmt: on

_FIRST_CLASS = 4  # ids below are no classes of things but of pixels
_PICTURE = "_leftImg8bit"
_PER_CLASS = 1000
IDS = ("train", "all")


def cityscapes(root: Path, ids: str = "train", boxes: bool = True) -> Source:
    """The pictures of `leftImg8bit/SPLIT/CITY` with the masks of `gtFine`; `test` is not labeled.

    Args:
        root: the folder with `leftImg8bit` and `gtFine`.
        ids: `train` for the 19 classes that are judged, or `all` from `static` on; other pixels are ignored.
        boxes: make boxes of the instances, where there are `instanceIds`; groups are left out, and counted.

    Raises:
        ConfigError: other ids.
        DataError: a file is missing or wrong; it is named.
    """
    if ids not in IDS:
        raise ConfigError(f"there are no ids '{ids[:40]}'", hint=names_hint(ids, IDS))
    pictures = root / "leftImg8bit"
    if not pictures.is_dir():
        raise DataError("no folder leftImg8bit", where=str(root))
    labels = list(TRAINED) if ids == "train" else list(range(_FIRST_CLASS, len(NAMES)))
    things = [label for label in THINGS if label in labels] if boxes else []
    items = []
    for split in sorted((p for p in pictures.iterdir() if p.is_dir()), key=_in_order):
        for city in sorted(p for p in split.iterdir() if p.is_dir()):
            for path in visible_files(city):
                if path.stem.endswith(_PICTURE):
                    truth = root / "gtFine" / split.name / city.name
                    items.append(_item(path, truth, split.name, labels, things))
    if not items:
        raise DataError(f"no SPLIT/CITY/*{_PICTURE}.png is there", where=str(pictures))
    return Source(
        "Cityscapes",
        {"rgb": "rgb"},
        items,
        named([NAMES[i] for i in labels]),
        named([NAMES[i] for i in things]),
        rate_hz=17.0,
        licence="Cityscapes licence: non-commercial research and teaching",
    )


def _in_order(folder: Path) -> tuple[int, str]:
    """Splits in their usual order, others last."""
    return (*SPLITS, folder.name).index(folder.name), folder.name


def _item(path: Path, truth: Path, split: str, labels: list[int], things: list[int]) -> Item:
    name = path.stem.removesuffix(_PICTURE)
    known = split if split in SPLITS else "train"  # train_extra
    return Item(
        name,
        {"rgb": path},
        partial(_marks, truth / f"{name}_gtFine", labels, things, split == "test"),
        aliases=(f"{split}/{path.parent.name}/{path.name}", path.name),
        split=known,
        sequence="_".join(name.split("_")[:2]),
    )


def _marks(stem: Path, labels: list[int], things: list[int], withheld: bool) -> Marks:
    if withheld:  # its masks are blank
        return Marks(withheld=True)
    by_label = stem.with_name(f"{stem.name}_labelIds.png")
    by_train = stem.with_name(f"{stem.name}_labelTrainIds.png")
    if by_label.is_file() or not by_train.is_file():
        if not stem.parent.is_dir():
            return Marks()
        table = {label: place for place, label in enumerate(labels)}
        found = read_places(by_label, len(NAMES), table)
    else:
        table = {TRAINED.index(label): p for p, label in enumerate(labels) if label in TRAINED}
        found = read_places(by_train, len(TRAINED), table)
    instances = stem.with_name(f"{stem.name}_instanceIds.png")
    if not things or not instances.is_file():
        return Marks(found)
    return Marks(found, boxes_of_instances(load_labels(instances), things))


def boxes_of_instances(ids: NDArray[Any], things: list[int]) -> Boxes:
    """One box for each instance of an (H, W) `instanceIds`, and one to be ignored for the groups of a class.

    Args:
        ids: 1000 times the label id, and a number; a label id alone is a group of them.
        things: label ids by place.
    """
    found, kinds, groups = [], [], []
    for number in np.unique(ids).tolist():
        group = number < _PER_CLASS
        kind = number if group else number // _PER_CLASS
        if kind in things:
            rows, columns = np.nonzero(ids == number)
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            kinds.append(things.index(kind))
            groups.append(group)
    return Boxes.of(found, kinds, groups)
