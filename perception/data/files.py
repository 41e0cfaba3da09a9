"""Reading single files of a data set, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes
from perception.errors import DataError


def read_image(path: Path) -> NDArray[Any]:
    """An image file as stored: (H, W) or (H, W, 3) in R, G, B order, 8 or 16 bit.

    Raises:
        DataError: the file is missing or no image.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError("cannot be read as an image", where=str(path), hint="is it truncated?")
    if image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
    return image


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A color or gray image as (H, W, 3) uint8 RGB."""
    image = read_image(path)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.dtype != np.uint8:
        raise DataError(f"{image.dtype} image, expected 8 bit", where=str(path))
    return image


def read_gray(path: Path) -> NDArray[Any]:
    """A single-channel image (H, W); of a color image the mean of its channels."""
    image = read_image(path)
    if image.ndim == 3:
        image = image.mean(axis=2).round().astype(image.dtype)
    return image


def read_labels(path: Path, classes: int) -> NDArray[np.uint8]:
    """A label image (H, W) uint8 with ids below `classes`, or 255.

    Raises:
        DataError: other ids, dtype or channels.
    """
    labels = read_image(path)
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise DataError(
            f"labels are {labels.dtype} {labels.shape}, expected uint8 (H, W)", where=str(path)
        )
    wrong = labels[(labels >= classes) & (labels != 255)]
    if wrong.size:
        raise DataError(
            f"label id {int(wrong[0])} is out of range",
            where=str(path),
            hint=f"0..{classes - 1} or 255",
        )
    return labels


def read_yolo_boxes(path: Path, size: tuple[int, int], classes: int) -> Boxes:
    """Boxes of a YOLO text file (`class cx cy w h` per line, relative to the image).

    Args:
        path: the file; a missing one is an error, an empty one means no boxes.
        size: (height, width) of the image in pixels.
        classes: number of classes.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            rows.append(_yolo_row(line, f"{path}:{number}", classes))
    if not rows:
        return Boxes.empty()
    table = np.array(rows, np.float64)
    height, width = size
    half = table[:, 3:5] / 2
    corners = np.concatenate([table[:, 1:3] - half, table[:, 1:3] + half], axis=1)
    return Boxes.of(corners * [width, height, width, height], table[:, 0])


def _yolo_row(line: str, where: str, classes: int) -> list[float]:
    try:
        row = [float(v) for v in line.split()]
    except ValueError as error:
        raise DataError("not numbers", where=where) from error
    inside = len(row) == 5 and all(-0.01 <= v <= 1.01 for v in row[1:])
    if not inside or row[0] not in range(classes) or min(row[3:5]) <= 0:
        raise DataError(
            "not a box", where=where, hint=f"class 0..{classes - 1}, then cx cy w h in 0..1"
        )
    return row


def ids_in(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Sorted stems of the files in `folder` that end with one of `suffixes`.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder))
    found = sorted(p.stem for p in folder.iterdir() if p.suffix in suffixes)
    if not found:
        raise DataError(f"no {', '.join(suffixes)} file", where=str(folder))
    return found
