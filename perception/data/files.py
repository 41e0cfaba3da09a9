"""Reading single files of a data set, with errors that name the file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import load_labels
from perception.data.base import IGNORE_LABEL, Boxes
from perception.errors import DataError
from perception.files.text import read_text

BLACK_AND_WHITE = (
    "only 0 and 255, and 255 means ignore: a mask saved as black and white? Store class ids"
)
IGNORED_BOX = "ignore"
"""The word at the end of a row of a box that counts neither in training nor in evaluation."""


def is_black_and_white(labels: NDArray[Any]) -> bool:
    """Whether the only ids are 0 and `IGNORE_LABEL`, both of them."""
    ignored = labels == IGNORE_LABEL
    return bool(ignored.any() and (ignored | (labels == 0)).all() and not ignored.all())


def read_labels(path: Path, classes: int, *, mask: bool = False) -> NDArray[np.uint8]:
    """A label image (H, W) uint8 with ids below `classes`, or 255.

    The ids are what the gray or palette PNG stores, see `perception.adapters.pictures.decode_labels`.  A
    file with only 0 and 255 is warned about, once for each folder: it may be a mask saved as black and
    white, of which 255 (ignore) hides all that was marked; not so where it must be like this (`mask`).

    Raises:
        DataError: other ids, or no such file.
        EncodingError: no gray or palette PNG, or damaged.
    """
    labels = load_labels(path)
    wrong = labels[(labels >= classes) & (labels != IGNORE_LABEL)]
    if wrong.size:
        raise DataError(
            f"label id {int(wrong[0])} is out of range",
            where=str(path),
            hint=f"0..{classes - 1} or 255",
        )
    if classes > 1 and not mask and is_black_and_white(labels):
        warnings.warn(f"{path.parent}: a label file holds {BLACK_AND_WHITE}", stacklevel=2)
    return labels.astype(np.uint8, copy=False)


def read_yolo_boxes(path: Path, size: tuple[int, int], ids: Sequence[int]) -> Boxes:
    """Boxes of a YOLO text file: rows `class cx cy w h`, relative to the image; # starts a comment.

    A row that ends in the word `ignore` is a box that is neither rewarded nor punished.

    Args:
        path: the file; a missing one is an error, an empty one means no boxes.
        size: (height, width) of the image in pixels.
        ids: the class ids of such files, by position.

    Raises:
        DataError: the file is missing or no text, or a row is wrong; the line is named.
    """
    position = {number: index for index, number in enumerate(ids)}
    rows, ignored = [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        content = line.partition("#")[0].split()
        if content:
            ignored.append(content[-1] == IGNORED_BOX)
            rows.append(
                _yolo_row(content[: -1 if ignored[-1] else None], f"{path}:{number}", position)
            )
    table = np.array(rows, np.float64).reshape(-1, 5)
    height, width = size
    half = table[:, 3:5] / 2
    corners = np.concatenate([table[:, 1:3] - half, table[:, 1:3] + half], axis=1)
    return Boxes.of(corners * [width, height, width, height], table[:, 0], ignored)


def _yolo_row(content: list[str], where: str, position: Mapping[int, int]) -> list[float]:
    """Class position, cx, cy, w, h."""

    def wrong(what: str) -> DataError:
        return DataError(
            f"not a box: {what}",
            where=where,
            hint=f"class id ({', '.join(map(str, position))}), then cx cy w h in 0..1, "
            f"then maybe '{IGNORED_BOX}'",
        )

    try:
        row = [float(v) for v in content]
    except ValueError as error:
        raise wrong("not numbers") from error
    if len(row) != 5:
        raise wrong(f"{len(row)} numbers")
    if row[0] not in position:
        raise wrong(f"there is no class {content[0]}")
    if not all(-0.01 <= v <= 1.01 for v in row[1:]):
        raise wrong("outside the image")
    if min(row[3:]) <= 0:
        raise wrong("width and height must be positive")
    return [position[int(row[0])], *row[1:]]
