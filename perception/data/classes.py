"""Class tables: which class a number in a data set's files means.

Files may number their classes as they like; inside, a label or a box's class is its position in the
table.  Readers translate once, here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL, ClassInfo, RecordingInfo
from perception.errors import ConfigError, DataError
from perception.tasks.registry import TASKS


def table_faults(classes: Sequence[ClassInfo]) -> list[str]:
    """What makes a table ambiguous or unusable: ids or names given twice, impossible ids or colors."""
    faults = []
    for what, values in (
        ("id", [str(c.id) for c in classes]),
        ("name", [f"'{c.name}'" for c in classes]),
    ):
        doubled = [value for value, count in Counter(values).items() if count > 1]
        if doubled:
            faults.append(f"{what} {', '.join(doubled)} is given twice")
    faults += [
        f"id {c.id} of '{c.name}' is not in 0..{IGNORE_LABEL - 1}"
        for c in classes
        if not 0 <= c.id < IGNORE_LABEL
    ]
    faults += [
        f"color of '{c.name}' is not three values in 0..255"
        for c in classes
        if len(c.color) != 3 or not all(0 <= v <= 255 for v in c.color)
    ]
    return faults


@dataclass(frozen=True)
class ClassTable:
    """Classes in order of the ids that the files use.

    Attributes:
        ids: of the files, rising; the position of an id is the class inside.
        classes: by position, each with its position as id.
    """

    ids: tuple[int, ...]
    classes: tuple[ClassInfo, ...]

    @staticmethod
    def of(classes: Sequence[ClassInfo]) -> ClassTable:
        """The table of classes with the ids of the files, in any order.

        Raises:
            DataError: see `table_faults`.
        """
        faults = table_faults(classes)
        if faults:
            raise DataError("; ".join(faults), where="classes")
        ordered = sorted(classes, key=lambda c: c.id)
        positions = tuple(replace(c, id=i) for i, c in enumerate(ordered))
        return ClassTable(tuple(c.id for c in ordered), positions)

    def positions(self, labels: NDArray[np.uint8], where: str = "") -> NDArray[np.uint8]:
        """Label ids of a file (any shape, uint8) as positions; 255 stays.

        Raises:
            DataError: an id that is in no row of the table.
        """
        table = np.full(256, IGNORE_LABEL, np.uint8)
        table[list(self.ids)] = np.arange(len(self.ids))
        seen = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
        wrong = sorted(set(seen.tolist()) - {*self.ids, IGNORE_LABEL})
        if wrong:
            raise DataError(
                f"label {', '.join(map(str, wrong[:5]))} is no class id of the table",
                where=where,
                hint=f"{self.described()}, or {IGNORE_LABEL} = ignore",
            )
        return table[labels]

    def labels(self, positions: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Positions (any shape, uint8) as ids of the file; what is no position becomes 255."""
        table = np.full(256, IGNORE_LABEL, np.uint8)
        table[: len(self.ids)] = self.ids
        if positions.ndim == 2 and positions.size:  # OpenCV is faster, and takes no others
            return cv2.LUT(positions, table).astype(np.uint8, copy=False)
        return table[positions]

    def described(self) -> str:
        """The ids, for messages: `0..7`, or `1, 2, 5`."""
        if len(self.ids) > 1 and self.ids == tuple(range(self.ids[0], self.ids[-1] + 1)):
            return f"{self.ids[0]}..{self.ids[-1]}"
        return ", ".join(map(str, self.ids))


def require_same_classes(
    wanted: RecordingInfo, given: RecordingInfo, tasks: Collection[str], *, what: str, where: str
) -> None:
    """Refuse a recording whose labels mean other classes than another's.

    Args:
        wanted: whose classes are expected.
        given: whose must be the same; a task that it has no classes of is not compared.
        tasks: their names.
        what: what `wanted` is, for the message.
        where: what `given` is.

    Raises:
        ConfigError: classes differ in number, names or order.
    """
    for task in tasks:
        mine, theirs = (TASKS[task].classes_of(info) for info in (wanted, given))
        if theirs:
            difference = _difference([c.name for c in mine], [c.name for c in theirs], what)
            if difference:
                hint = f"the classes of {task} must be the same"
                raise ConfigError(difference, where=where, hint=hint)


def _difference(mine: list[str], theirs: list[str], what: str) -> str:
    if len(mine) != len(theirs):
        return f"has {len(theirs)} classes, {what} {len(mine)}"
    for index, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        if own != other:
            return f"class {index} is '{other}', that of {what} '{own}'"
    return ""


def distinct_color(index: int) -> tuple[int, int, int]:
    """The RGB color of class `index`, by the bit-interleaving rule of the PASCAL VOC palette.

    Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit".  Index 0 of
    that palette is black, so classes start at its second entry.
    """
    code, channels = index + 1, [0, 0, 0]
    for bit in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (code >> channel & 1) << bit
        code >>= 3
    return channels[0], channels[1], channels[2]
