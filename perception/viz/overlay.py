"""Overlays of labels and boxes, and pictures of each kind of sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np

from perception.errors import CalibrationError
from perception.frame import Frame, Sample
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.drawing import draw_picture, draw_points
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Image
from perception.viz.scene import draw_scene, shows_ground


def draw_sample(sample: Sample) -> Image:
    """A picture of a sample, as its kind draws it.

    Raises:
        CalibrationError: points that need a camera have none.
    """
    own = kind_of(sample.kind)
    draw = own.draw or (draw_picture if own.has_picture else draw_points)
    return draw(sample)


def is_drawn(sample: Sample) -> bool:
    """Whether there is a picture of it: not of points without the camera that they need."""
    return sample.camera is not None or not kind_of(sample.kind).projected


_DIM, _BRIGHTER = 40.0, 1.5


def shown_sensor(manifest: BundleManifest, frame: Frame, result: Result) -> str | None:
    """The sensor on whose picture a result is drawn: one that was used, so that it is there and not blind.

    It is the one in whose pixels the result is; at night, where there is little to see in that, another
    that was used and looks the same way.
    """
    used = [name for name in result.used if name in frame] or list(frame)
    first = result.reference if result.reference in frame else next(iter(used), None)
    if first is None or not kind_of(frame[first].kind).colors:
        return first
    light = _light(draw_sample(frame[first]))
    if light >= _DIM:
        return first
    others = [n for n in used if n != first and _looks_alike(manifest, frame, first, n)]
    clear = {name: _light(draw_sample(frame[name])) for name in others}
    best = max(clear, key=lambda name: clear[name], default=first)
    return best if clear.get(best, 0.0) > max(light, 1.0) * _BRIGHTER else first


def _light(picture: Image) -> float:
    """Half of the pixels are brighter, 0 to 255."""
    return float(np.median(picture.max(axis=2)))


def _looks_alike(manifest: BundleManifest, frame: Frame, first: str, other: str) -> bool:
    """Whether two pictures show the same, pixel by pixel once they are of one size."""
    one, two = frame[first], frame[other]
    if one.kind == two.kind or not kind_of(two.kind).has_picture:
        return False  # another camera of its kind looks elsewhere; points cover little
    height, width = one.data.shape[:2]
    own_height, own_width = two.data.shape[:2]
    inputs = manifest.inputs
    views = {inputs[n].view.into or "" for n in (first, other) if n in inputs}
    pairs = [name for name, kind in inputs.kinds.items() if kind in (one.kind, two.kind)]
    alike = abs(width / height - own_width / own_height) < 0.02 * width / height
    return alike and len(views) <= 1 and len(pairs) == 2


def _places(picture: Image, colormap: int) -> Image:
    """False colors as grays that rise along the color map, whose own brightness may not."""
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colormap)[:, 0, ::-1]
    packed = ramp.astype(np.int32) @ (65536, 256, 1)
    order = np.argsort(packed, kind="stable")
    found = picture.astype(np.int32) @ (65536, 256, 1)
    place = np.searchsorted(packed[order], found).clip(0, 255)
    gray = np.where(packed[order][place] == found, order[place], 0).astype(np.uint8)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]


def background(frame: Frame, reference: str | None) -> Image:
    """What results are drawn on: this sensor's picture, else the first; false colors as grays."""
    name = reference if reference in frame else next(iter(frame), None)
    if name is None:
        return np.zeros((240, 320, 3), np.uint8)
    picture = draw_sample(frame[name])
    kind = kind_of(frame[name].kind)
    if kind.colors:
        return picture
    if (scale := kind.scale(frame[name])) is not None:
        return _places(picture, scale.colormap)
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def source_size(sample: Sample) -> tuple[int, int] | None:
    """(height, width) of the picture that results of a sample are given in, None where it says none."""
    try:
        return kind_of(sample.kind).source_size(sample)
    except CalibrationError:
        return None


def above(result: Result, specs: Mapping[str, TaskSpec], score: float | None) -> Result:
    """The result with only what a user would be shown, of one that was asked for more."""
    values = {
        name: value if (own := TASKS[name].above) is None else own(value, specs[name], score)
        for name, value in result.values.items()
    }
    return replace(result, values=values)


def draw_result(
    manifest: BundleManifest, frame: Frame, result: Result, opacity: float = 0.55
) -> Image:
    """What each task draws, one over the other: labels blended over the picture, then boxes.

    Of a bundle that sees the ground from above it is `draw_scene`.
    """
    if shows_ground(manifest):
        return draw_scene(manifest, frame, result)
    shown, specs = shown_sensor(manifest, frame, result), manifest.tasks.every
    image = background(frame, shown)
    if (own := result.reference) is not None and own in frame and shown != own:
        size = source_size(frame[own])
        if size is not None and image.shape[:2] != size:
            image = cv2.resize(image, size[::-1])  # type: ignore[assignment]
    for name, value in result.values.items():
        if (draw := TASKS[name].draw) is not None:
            image = draw(image, value, specs[name], opacity)
    return image
