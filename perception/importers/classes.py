"""Which classes are taken over, and what they are called: `--classes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL, Boxes, ClassInfo, TruthBoxes3d
from perception.errors import ConfigError, DataError, names_hint
from perception.files.text import printable, read_yaml
from perception.importers.source import UNLABELED, Marks, Named, Source

REST = "*"
"""In a mapping, all classes that are not named."""

_LONGEST_NAME = 100


@dataclass(frozen=True)
class ClassMap:
    """From places of classes in the data set to those in the recording.

    Attributes:
        classes: those of the recording, by place.
        table: the recording's place of each of the data set's, `UNLABELED` for those left out.
    """

    classes: tuple[ClassInfo, ...]
    table: NDArray[np.int32]

    def labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W) places as the recording's labels; what is left out is 255."""
        table = np.append(self.table, UNLABELED)  # which index -1 finds
        found = table[labels]
        return np.where(found < 0, IGNORE_LABEL, found).astype(np.uint8)

    def boxes(self, boxes: Boxes) -> Boxes:
        """Those of the classes that are taken over; ignored ones that became one another are there once."""
        found = self.table[boxes.class_ids]
        rows = np.column_stack([boxes.xyxy, found, boxes.ignore])
        _, first = np.unique(rows, axis=0, return_index=True)
        again = boxes.ignore & ~np.isin(np.arange(len(found)), first)
        keep = (found >= 0) & ~again
        return Boxes(boxes.xyxy[keep], found[keep].astype(np.int64), boxes.ignore[keep])

    def boxes3d(self, boxes: TruthBoxes3d) -> TruthBoxes3d:
        """Those of the classes that are taken over; ignored ones that became one another are there once."""
        found = replace(boxes, class_ids=self.table[boxes.class_ids].astype(np.int64))
        rows = np.column_stack([found.center, found.size, found.yaw, found.class_ids, found.ignore])
        _, first = np.unique(rows, axis=0, return_index=True)
        again = found.ignore & ~np.isin(np.arange(len(found)), first)
        return found.chosen((found.class_ids >= 0) & ~again)


@dataclass(frozen=True)
class ClassMaps:
    """Of semantic classes, and of those of boxes."""

    seg: ClassMap
    det: ClassMap

    def marks(self, marks: Marks) -> Marks:
        """The truth in the recording's classes; labels are uint8 with 255 for what is not known."""
        return replace(
            marks,
            labels=None if marks.labels is None else self.seg.labels(marks.labels),
            boxes=None if marks.boxes is None else self.det.boxes(marks.boxes),
            boxes3d=None if marks.boxes3d is None else self.det.boxes3d(marks.boxes3d),
        )


def class_maps(source: Source, wanted: str) -> ClassMaps:
    """What `--classes` says of a data set; without it every class is taken over.

    Args:
        source: the data set.
        wanted: `NAME,...`, each alone or as `ITS_NAME=OUR_NAME`, with `*` for the rest; or a YAML file of
            `our_name: [its_name, ...]`.  Classes come in this order.

    Raises:
        ConfigError: a class is not in the data set, or is named twice.
        DataError: the file cannot be read, or there are more classes than a recording holds.
    """
    mapping = _parse(wanted) if wanted else None
    if mapping is not None:
        every = list(dict.fromkeys(c.name for c in (*source.seg_classes, *source.det_classes)))
        for name in mapping:
            if name not in every and name != REST:
                raise ConfigError(
                    f"the data set has no class '{name}'",
                    where="--classes",
                    hint=names_hint(name, every),
                )
    return ClassMaps(
        _class_map(source.seg_classes, mapping), _class_map(source.det_classes, mapping)
    )


def _parse(wanted: str) -> dict[str, str]:
    if wanted.lower().endswith((".yaml", ".yml")):
        return _parse_file(Path(wanted))
    found: dict[str, str] = {}
    for part in wanted.split(","):
        its, equals, ours = (text.strip() for text in part.partition("="))
        if not its or (equals and not ours) or (its == REST and not ours):
            raise ConfigError(f"'{part[:80]}' is not NAME or ITS_NAME=OUR_NAME", where="--classes")
        _add(found, its, ours or its, "--classes")
    return found


def _parse_file(path: Path) -> dict[str, str]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise DataError("no table", where=str(path), hint="our_name: [its_name, ...]")
    found: dict[str, str] = {}
    for ours, its in content.items():
        for name in its if isinstance(its, list) else [its]:
            if not isinstance(name, str | int) or not isinstance(ours, str | int):
                raise DataError(
                    f"{ours}: expected names", where=str(path), hint="our_name: [its_name, ...]"
                )
            _add(found, str(name), str(ours), str(path))
    return found


def _add(found: dict[str, str], its: str, ours: str, where: str) -> None:
    if its in found:
        raise ConfigError(f"class '{its}' is named twice", where=where)
    found[its] = ours


def _class_map(classes: tuple[Named, ...], mapping: Mapping[str, str] | None) -> ClassMap:
    """Classes of one name are one class; of those that are named in `mapping`, in its order."""
    if mapping is None:
        order = [c.name for c in classes]
        ours = {name: name for name in order}
    else:
        order = list(mapping)
        ours = dict(mapping)
    known = {c.name for c in classes}
    rest = ours.get(REST)
    told = [ours[name] for name in order if name in known or (name == REST and known - ours.keys())]
    clean = {name: _clean(name) for name in dict.fromkeys(told)}
    names = list(dict.fromkeys(clean.values()))
    if len(names) > IGNORE_LABEL:
        raise DataError(
            f"{len(names)} classes, more than {IGNORE_LABEL}", hint="choose some with --classes"
        )
    table, colors = np.full(len(classes), UNLABELED, np.int32), dict[int, tuple[int, int, int]]()
    for index, entry in enumerate(classes):
        target = ours.get(entry.name, rest)
        if target is not None:
            table[index] = names.index(clean[target])
            colors.setdefault(int(table[index]), entry.color)
    infos = tuple(ClassInfo(i, name, colors[i]) for i, name in enumerate(names))
    return ClassMap(infos, table)


def _clean(name: str) -> str:
    """A name as `dataset.yaml` takes it."""
    return printable(name).strip()[:_LONGEST_NAME].strip() or "unnamed"
