"""What a network says of the ground around a vehicle: boxes in every camera's picture, and from above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import TruthBoxes3d
from perception.errors import AnySenseError
from perception.frame import Frame, Sample
from perception.geometry.boxes import corners_of
from perception.geometry.grid import BirdseyeSpec
from perception.preprocess.sample import on_grid
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.drawing import draw_picture
from perception.sensors.registry import kind_of
from perception.tasks.boxes3d import BOXES3D, Boxes3d
from perception.tasks.task import Image
from perception.viz.birdseye import IGNORED, ShownBoxes, draw_birdseye, size_for
from perception.viz.wireframes import draw_boxes3d

LONGEST = 900
"""Pixels of the longer side of the picture from above."""

_SHEET = 660  # pixels that pictures side by side are high
_GAP = 4
_EMPTY, _INK = (30, 32, 36), (225, 228, 232)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TRUE = (255, 255, 255)
_THICK = (
    2  # pixels of what was found, so that the truth's thin lines on it leave its color to be seen
)
_NOTHING: Mapping[str, str] = MappingProxyType({})


def shows_ground(manifest: BundleManifest) -> bool:
    """Whether results are to be shown from above."""
    return manifest.inputs.birdseye is not None


def colors_of(manifest: BundleManifest) -> list[tuple[int, int, int]]:
    """RGB of the classes of boxes in space, by id."""
    spec = manifest.tasks.every.get(BOXES3D.name)
    return [] if spec is None else [c.color for c in spec.labels]


def draw_ground(
    manifest: BundleManifest,
    frame: Mapping[str, Sample],
    result: Result,
    longest: int = LONGEST,
    truth: TruthBoxes3d | None = None,
) -> Image:
    """The points that were used and the boxes, from above.

    Args:
        manifest: of a bundle that sees the ground.
        frame: samples by sensor, with their places on the vehicle.
        result: what was made of them.
        longest: pixels of the longer side.
        truth: in the base frame: thin white lines, gray of what is to be ignored.
    """
    ground = _ground(manifest)
    extent = (ground.x, ground.y)
    found, boxes = _points(manifest, frame, result), result.boxes3d
    shown = None
    if boxes is not None and boxes.in_base:
        ids = np.where(boxes.class_ids < len(colors_of(manifest)), boxes.class_ids, -1)
        shown = ShownBoxes(
            boxes.center,
            boxes.size,
            boxes.yaw,
            ids,
            colors_of(manifest),
            boxes.scores,
            boxes.velocity,
        )
    size = size_for(extent, longest)
    return draw_birdseye(found, shown, extent, size, None if truth is None else _true(truth))


def _true(truth: TruthBoxes3d) -> ShownBoxes:
    ids = np.where(truth.ignore, -1, 0)
    return ShownBoxes(truth.center, truth.size, truth.yaw, ids, [_TRUE])


def _points(
    manifest: BundleManifest, frame: Mapping[str, Sample], result: Result
) -> NDArray[np.float32] | None:
    """Of all sensors used that give points, in the base frame."""
    by_kind = {spec.kind: spec for _, spec in manifest.inputs.items() if "pillars" in spec.tensors}
    found: list[NDArray[np.float32]] = []
    for name in result.used:
        sample = frame.get(name)
        if sample is None or sample.kind not in by_kind:
            continue
        try:
            found.append(on_grid(sample, by_kind[sample.kind]).layers["points"])
        except AnySenseError:
            continue  # which the result tells of
    return np.concatenate(found) if found else None


def draw_in_picture(
    sample: Sample,
    boxes: Boxes3d | None,
    colors: list[tuple[int, int, int]],
    truth: TruthBoxes3d | None = None,
    size: tuple[int, int] | None = None,
) -> Image:
    """A camera's picture with the boxes' edges, where it is known how it sees and where it sits.

    Args:
        sample: of a kind that has pictures.
        boxes: what was found.
        colors: RGB of their classes.
        truth: in the base frame: thin white lines, gray of what is to be ignored.
        size: (height, width) that the picture is brought to first; None for its own.
    """
    picture = (kind_of(sample.kind).draw or draw_picture)(sample)
    if size is not None and picture.shape[:2] != size:
        mode = cv2.INTER_AREA if size[0] < picture.shape[0] else cv2.INTER_LINEAR
        picture = cv2.resize(picture, size[::-1], interpolation=mode)  # type: ignore[assignment]
    if sample.camera is None or sample.pose is None:
        return picture
    to_camera = sample.pose.inverse()
    if boxes is not None and boxes.in_base:
        known = boxes.chosen(np.flatnonzero(boxes.class_ids < len(colors)))
        if len(known):
            table = np.array(colors, np.uint8)[known.class_ids]
            own = known.corners(to_camera)
            thick = None if truth is None else _THICK
            picture = draw_boxes3d(picture, sample.camera, own, table, thick)
    if truth is not None and len(truth):
        own = corners_of(truth.center, truth.size, truth.yaw, to_camera)
        shades = np.array([_TRUE, IGNORED], np.uint8)[truth.ignore.astype(np.intp)]
        picture = draw_boxes3d(picture, sample.camera, own, shades, 1)
    return picture


def draw_scene(
    manifest: BundleManifest,
    frame: Frame,
    result: Result,
    truth: TruthBoxes3d | None = None,
    faults: Mapping[str, str] = _NOTHING,
) -> Image:
    """All cameras' pictures with boxes, and to their right the ground from above.

    Its size depends on the bundle alone, so that the pictures of a film are of one size.

    Args:
        manifest: of a bundle that sees the ground.
        frame: samples by sensor, with their places on the vehicle.
        result: what was made of them.
        truth: see `draw_in_picture`.
        faults: what is wrong with sensors, which is written beside their names.
    """
    above = draw_ground(manifest, frame, result, _SHEET, truth)
    canvas = np.full((_SHEET, above.shape[1], 3), _EMPTY, np.uint8)
    canvas[: above.shape[0]] = above[:_SHEET]
    measuring = [n for n in (*result.used, *faults) if _measures(manifest, n)]
    if faults and measuring:
        lines = [f"{n}: {faults[n]}" if n in faults else n for n in dict.fromkeys(measuring)]
        _write_name(canvas, ", ".join(lines))
    tiles, colors = list(_cameras(manifest, frame)), colors_of(manifest)
    if not tiles:
        return canvas
    across = -(-len(tiles) // (2 if len(tiles) <= 4 else 3))
    rows = -(-len(tiles) // across)
    height, width = _tile_size(manifest, _SHEET // rows, rows)
    sheet = np.full((_SHEET, across * (width + _GAP), 3), _EMPTY, np.uint8)
    for number, (own, sample) in enumerate(tiles):
        row, column = divmod(number, across)
        top, left = row * (_SHEET // rows), column * (width + _GAP)
        room = sheet[top : top + height, left : left + width]
        if sample is None:
            _write_name(room, f"{own}: {faults.get(own, 'missing')}")
            continue
        size = _fitting(sample.data.shape[:2], room.shape[:2])
        _place(room, draw_in_picture(sample, result.boxes3d, colors, truth, size))
        unused = "" if sample.sensor in result.used else f": {faults.get(own, 'not used')}"
        _write_name(room, f"{sample.sensor}{unused}")
    return np.hstack([sheet, canvas])


def _measures(manifest: BundleManifest, name: str) -> bool:
    """Whether an input is drawn as points from above."""
    return name in manifest.inputs and not manifest.inputs[name].sensor.has_picture


def _cameras(manifest: BundleManifest, frame: Frame) -> Iterator[tuple[str, Sample | None]]:
    """The cameras that the bundle takes, with their samples, None where one is missing."""
    expected = [n for n, spec in manifest.inputs.items() if spec.sensor.has_picture]
    there = [n for n in frame if kind_of(frame[n].kind).has_picture]
    others = iter([n for n in there if n not in expected])  # called otherwise than the inputs
    for own in expected:
        name = own if own in there else next(others, "")
        yield own, frame[name] if name else None


def _tile_size(manifest: BundleManifest, room: int, rows: int) -> tuple[int, int]:
    """(height, width) for the pictures: as wide as the widest input's view is for its height."""
    height = room - (_GAP if rows > 1 else 0)
    views = [s.view for _, s in manifest.inputs.items() if s.sensor.has_picture]
    wide = max(v.width / v.height for v in views if v.type == "image") if views else 1.0
    return height, round(height * min(max(wide, 0.5), 2.5))


def _fitting(shape: tuple[int, ...], room: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a picture of a shape that fills one side of a room."""
    scale = min(room[0] / shape[0], room[1] / shape[1])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _place(room: Image, picture: Image) -> None:
    """Put a picture into the middle of its place."""
    height, width = picture.shape[:2]
    top, left = (room.shape[0] - height) // 2, (room.shape[1] - width) // 2
    room[top : top + height, left : left + width] = picture


def _write_name(room: Image, name: str) -> None:
    (wide, high), _ = cv2.getTextSize(name, _FONT, 0.5, 1)
    room[: high + 14, : wide + 14] //= 3
    cv2.putText(room, name, (7, high + 6), _FONT, 0.5, _INK, 1, cv2.LINE_AA)


def _ground(manifest: BundleManifest) -> BirdseyeSpec:
    found = manifest.inputs.birdseye
    assert found is not None
    return found
