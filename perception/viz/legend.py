"""Legends beside pictures: classes with their colors, and what false colors stand for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from perception.frame import Frame
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.kind import ColorScale
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS
from perception.tasks.spec import ClassSpec
from perception.tasks.task import Image
from perception.viz.overlay import draw_result, shown_sensor
from perception.viz.scene import shows_ground

_PAPER, _INK, _SOFT = (18, 22, 30), (235, 240, 245), (150, 160, 172)
_KEY_SIZE = 0.45
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_explained(manifest: BundleManifest, frame: Frame, result: Result) -> Image:
    """The result as `draw_result` draws it, with a legend to its right.

    The legend names the sensors used, the classes that are in the result, and what the grays of a picture
    in false colors stand for.  Its width depends on the picture's size and the bundle alone, so that the
    pictures of a film are of one size.
    """
    picture = draw_result(manifest, frame, result)
    specs = manifest.tasks.every
    classes = _present(manifest, result)
    shown = None if shows_ground(manifest) else shown_sensor(manifest, frame, result)
    scale = None if shown is None else kind_of(frame[shown].kind).scale(frame[shown])
    heading = [result.state, f"used {', '.join(result.used) or 'nothing'}"]
    if shown is not None:
        heading.append(f"drawn on {shown}")
    names = [f"{c.name} 100 %" for spec in specs.values() for c in spec.labels]
    panel = _Panel(picture.shape[0], [*names, *(f"drawn on {name}" for name in manifest.inputs)])
    return np.hstack([picture, panel.drawn(heading, classes, scale)])


def draw_key(manifest: BundleManifest, result: Result, size: tuple[int, int]) -> Image:
    """The classes that are in a result, in their colors, on a picture of (height, width) `size`."""
    panel = _Panel(size[0], (), size=_KEY_SIZE, width=size[1])
    return panel.drawn(["In the output"], _present(manifest, result), None)


def _present(manifest: BundleManifest, result: Result) -> list[tuple[ClassSpec, str]]:
    """What a result's values hold, by their tasks."""
    specs = manifest.tasks.every
    return [
        entry
        for name, value in result.values.items()
        for entry in TASKS[name].present(value, specs[name])
    ]


class _Panel:
    """A legend of a certain height.

    Args:
        height: in pixels.
        words: that it must have room for.
        size: of the text; None for what fits the height.
        width: in pixels; None for what fits the words.
    """

    def __init__(
        self,
        height: int,
        words: Sequence[str],
        *,
        size: float | None = None,
        width: int | None = None,
    ) -> None:
        self.height = height
        self.size = float(np.clip(height / 960, 0.33, 1.0)) if size is None else size
        self.row = max(12, round(34 * self.size))
        longest = max((text_width(word, self.size) for word in words), default=0)
        most = round(280 * self.size) + 2 * self.row
        fitting = min(max(round(longest + 2 * self.row), 5 * self.row), most)
        self.width = fitting if width is None else width

    def drawn(
        self,
        heading: Sequence[str],
        classes: Sequence[tuple[ClassSpec, str]],
        scale: ColorScale | None,
    ) -> Image:
        """The legend: headings above, classes, and the colors at the bottom."""
        image = np.full((self.height, self.width, 3), _PAPER, np.uint8)
        margin, y = self.row // 3, self.row // 4
        for text in heading:
            for line in self._wrapped(text, self.width - 2 * margin):
                y += self.row
                self._text(image, line, margin, y - self.row // 3, _INK, self.width - margin)
        y += self.row // 2
        floor = self.height - (0 if scale is None else round(2.6 * self.row))
        room = max(0, (floor - y) // self.row)
        few = list(classes) if len(classes) <= room else list(classes)[: max(0, room - 1)]
        for entry, text in few:
            y += self.row
            base = y - self.row // 3
            side = round(0.55 * self.row)
            cv2.rectangle(image, (margin, base - side), (margin + side, base), entry.color, -1)
            right = self.width - margin - text_width(text, self.size)
            self._text(image, entry.name, 2 * margin + side, base, _INK, right - margin)
            self._text(image, text, right, base, _SOFT, self.width)
        if len(few) < len(classes) and room:
            more = f"and {len(classes) - len(few)} more"
            self._text(image, more, margin, y + self.row - self.row // 3, _SOFT, self.width)
        if scale is not None and floor > 0:
            self._scale(image, scale, floor)
        return image

    def _scale(self, image: Image, scale: ColorScale, top: int) -> None:
        margin = self.row // 3
        wide, high = self.width - 2 * margin, max(4, round(0.6 * self.row))
        ramp = np.linspace(0, 255, wide).astype(np.uint8)[None].repeat(high, axis=0)
        y = top + round(0.4 * self.row)
        # Gray, as `background` shows it.
        image[y : y + high, margin : margin + wide] = ramp[: max(0, self.height - y), :, None]
        base, end = y + high + round(0.75 * self.row), 0
        placed = sorted(scale.ticks)
        for index, (at, value) in enumerate(placed):
            last = index == len(placed) - 1
            text = _number(value, placed) + (f" {scale.unit}" if last and scale.unit else "")
            length = text_width(text, self.size)
            x = margin + round(at * wide) - (0 if index == 0 else length if last else length // 2)
            x = max(0, min(x, self.width - length - 1))
            if index and not last:
                ending = f"{_number(placed[-1][1], placed)} {scale.unit}"
                limit = self.width - margin - text_width(ending, self.size) - margin
                if x < end + margin or x + length > limit:
                    continue  # labels do not overlap
            if last and x < end + margin // 2:
                continue
            self._text(image, text, x, base, _INK, self.width)
            end = x + length

    def _wrapped(self, text: str, width: int) -> list[str]:
        """Lines of whole words."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, self.size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def _text(
        self, image: Image, text: str, x: int, y: int, color: tuple[int, int, int], right: int
    ) -> None:
        """Text from `x` to `right` at most, cut short where it is longer."""
        shown = text
        while shown and x + text_width(shown, self.size) > right:
            shown = shown[:-1]
        if len(shown) < len(text) and len(shown) > 2:
            shown = f"{shown[:-2]}.."
        put_text(image, shown, (x, y), self.size, color)


def _number(value: float, ticks: Sequence[tuple[float, float]]) -> str:
    """With as many decimals as tell the ticks apart."""
    values = [v for _, v in ticks]
    gap = min((abs(a - b) for a, b in pairwise(values)), default=1.0)
    return f"{value:.{0 if gap >= 5 else 1 if gap >= 0.2 else 2}f}"


def _parts(text: str) -> list[str]:
    """What OpenCV's font has, cut at every degree sign."""
    return [part.encode("ascii", "replace").decode() for part in text.split("°")]


def text_width(text: str, size: float) -> int:
    """Pixels that `put_text` takes."""
    parts = _parts(text)
    degrees = (len(parts) - 1) * _degree(size) * 3
    return sum(cv2.getTextSize(part, _FONT, size, 1)[0][0] for part in parts) + degrees


def _degree(size: float) -> int:
    return max(2, round(5 * size))


def put_text(
    image: Image, text: str, place: tuple[int, int], size: float, color: tuple[int, int, int]
) -> None:
    """Write a line from its lower left corner on; OpenCV's font lacks the degree sign, which is drawn."""
    x, y = place
    radius = _degree(size)
    for index, part in enumerate(_parts(text)):
        if index:
            above = y - cv2.getTextSize("C", _FONT, size, 1)[0][1] + radius // 2
            cv2.circle(image, (x + radius, above), radius // 2 + 1, color, 1, cv2.LINE_AA)
            x += 3 * radius
        cv2.putText(image, part, (x, y), _FONT, size, color, 1, cv2.LINE_AA)
        x += cv2.getTextSize(part, _FONT, size, 1)[0][0]
