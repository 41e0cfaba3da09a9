"""Pictures of other sizes brought to one: scaled to fit, the rest filled, labels moved along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL, Boxes
from perception.errors import DataError
from perception.geometry.camera import CameraModel
from perception.importers.source import Marks

Size = tuple[int, int]
"""(height, width)."""

_GRAY = 114


@dataclass(frozen=True)
class Fit:
    """Where a picture of one size lies in one of another.

    Attributes:
        size: (height, width) of the whole.
        inner: of the scaled picture.
        left, top: of its first pixel.
    """

    size: Size
    inner: Size
    left: int
    top: int
    source: Size

    @staticmethod
    def of(source: Size, size: Size) -> Fit:
        """The largest that fits, in the middle."""
        scale = min(size[0] / source[0], size[1] / source[1])
        inner = tuple(min(max(1, round(s * scale)), m) for s, m in zip(source, size, strict=True))
        return Fit(
            size, (inner[0], inner[1]), (size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2, source
        )

    @property
    def scale(self) -> tuple[float, float]:
        """Along x and y."""
        return self.inner[1] / self.source[1], self.inner[0] / self.source[0]

    def picture(self, image: NDArray[Any], *, blended: bool, fill: int) -> NDArray[Any]:
        """(H, W) or (H, W, C); `blended` mixes neighbors, else pixels are taken as they are."""
        smaller = self.inner[0] * self.inner[1] < self.source[0] * self.source[1]
        how = cv2.INTER_NEAREST
        if blended:
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        resized = cv2.resize(image, self.inner[::-1], interpolation=how)
        out = np.full((*self.size, *image.shape[2:]), fill, image.dtype)
        rows, columns = self.inner
        out[self.top : self.top + rows, self.left : self.left + columns] = resized
        return out

    def marks(self, marks: Marks) -> Marks:
        """Labels (uint8) and boxes in the new picture's pixels."""
        labels, boxes = marks.labels, marks.boxes
        if labels is not None:
            labels = self.picture(labels, blended=False, fill=IGNORE_LABEL)
        if boxes is not None:
            moved = boxes.xyxy * np.tile(self.scale, 2) + [self.left, self.top] * 2
            boxes = Boxes(moved.astype(np.float32), boxes.class_ids, boxes.ignore)
        return replace(marks, labels=labels, boxes=boxes)

    def camera(self, camera: CameraModel) -> CameraModel:
        """The camera that sees the new picture."""
        scaled = camera.scaled(*self.scale)
        return scaled.cropped(-self.left, -self.top, self.size[1], self.size[0])


def fill_of(*, colors: bool) -> int:
    """What is put where a picture does not reach: gray in colors; 0, which means no value, elsewhere."""
    return _GRAY if colors else 0


def common_size(sizes: Iterable[Size], what: str) -> Size:
    """The size of all.

    Raises:
        DataError: there are several; the hint says what to do.
    """
    found = Counter(sizes)
    (height, width), count = found.most_common(1)[0]
    if len(found) > 1:
        raise DataError(
            f"pictures have {len(found)} sizes, {count} of {sum(found.values())} are "
            f"{width}x{height}; a recording has one",
            where=what,
            hint=f"--size {width}x{height} scales the others to fit and fills the rest",
        )
    return height, width
