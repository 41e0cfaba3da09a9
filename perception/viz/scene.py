"""What a network says of the ground around a vehicle: boxes in every camera's picture, and from above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError
from perception.frame import Frame, Sample
from perception.geometry.grid import BirdseyeSpec
from perception.preprocess.sample import on_grid
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.drawing import draw_picture
from perception.sensors.registry import kind_of
from perception.tasks.boxes3d import BOXES3D, Boxes3d
from perception.tasks.task import Image
from perception.viz.birdseye import ShownBoxes, draw_birdseye, size_for
from perception.viz.wireframes import draw_boxes3d

LONGEST = 900
"""Pixels of the longer side of the picture from above."""

_SHEET = 660  # pixels that pictures side by side are high
_GAP = 4
_EMPTY, _INK = (30, 32, 36), (225, 228, 232)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def shows_ground(manifest: BundleManifest) -> bool:
    """Whether results are to be shown from above."""
    return manifest.inputs.birdseye is not None


def colors_of(manifest: BundleManifest) -> list[tuple[int, int, int]]:
    """RGB of the classes of boxes in space, by id."""
    spec = manifest.tasks.every.get(BOXES3D.name)
    return [] if spec is None else [c.color for c in spec.labels]


def draw_ground(
    manifest: BundleManifest, frame: Mapping[str, Sample], result: Result, longest: int = LONGEST
) -> Image:
    """The points that were used and the boxes, from above.

    Args:
        manifest: of a bundle that sees the ground.
        frame: samples by sensor, with their places on the vehicle.
        result: what was made of them.
        longest: pixels of the longer side.
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
    return draw_birdseye(found, shown, extent, size_for(extent, longest))


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
    sample: Sample, boxes: Boxes3d | None, colors: list[tuple[int, int, int]]
) -> Image:
    """A camera's picture with the boxes' edges, where it is known how it sees and where it sits."""
    draw = kind_of(sample.kind).draw or draw_picture
    picture = draw(sample)
    if boxes is None or not boxes.in_base or sample.camera is None or sample.pose is None:
        return picture
    known = boxes.chosen(np.flatnonzero(boxes.class_ids < len(colors)))
    if not len(known):
        return picture
    table = np.array(colors, np.uint8)[known.class_ids]
    return draw_boxes3d(picture, sample.camera, known.corners(sample.pose.inverse()), table)


def draw_scene(manifest: BundleManifest, frame: Frame, result: Result) -> Image:
    """All cameras' pictures with boxes, and to their right the ground from above.

    Its size depends on the bundle alone, so that the pictures of a film are of one size.
    """
    above = draw_ground(manifest, frame, result, _SHEET)
    canvas = np.full((_SHEET, above.shape[1], 3), _EMPTY, np.uint8)
    canvas[: above.shape[0]] = above[:_SHEET]
    tiles = list(_tiles(manifest, frame, result))
    if not tiles:
        return canvas
    across = -(-len(tiles) // (2 if len(tiles) <= 4 else 3))
    rows = -(-len(tiles) // across)
    height, width = _tile_size(manifest, _SHEET // rows, rows)
    sheet = np.full((_SHEET, across * (width + _GAP), 3), _EMPTY, np.uint8)
    for number, (name, picture) in enumerate(tiles):
        row, column = divmod(number, across)
        top, left = row * (_SHEET // rows), column * (width + _GAP)
        _place(sheet[top : top + height, left : left + width], name, picture)
    return np.hstack([sheet, canvas])


def _tiles(
    manifest: BundleManifest, frame: Frame, result: Result
) -> Iterator[tuple[str, Image | None]]:
    """A picture of each camera that the bundle takes, None where it is missing."""
    colors = colors_of(manifest)
    expected = [n for n, spec in manifest.inputs.items() if spec.sensor.has_picture]
    there = [n for n in frame if kind_of(frame[n].kind).has_picture]
    others = iter([n for n in there if n not in expected])  # called otherwise than the inputs
    for own in expected:
        name = own if own in there else next(others, "")
        if not name:
            yield f"{own}: missing", None
            continue
        picture = draw_in_picture(frame[name], result.boxes3d, colors)
        yield name if name in result.used else f"{name}: not used", picture


def _tile_size(manifest: BundleManifest, room: int, rows: int) -> tuple[int, int]:
    """(height, width) for the pictures: as wide as the widest input's view is for its height."""
    height = room - (_GAP if rows > 1 else 0)
    views = [s.view for _, s in manifest.inputs.items() if s.sensor.has_picture]
    wide = max(v.width / v.height for v in views if v.type == "image") if views else 1.0
    return height, round(height * min(max(wide, 0.5), 2.5))


def _place(room: Image, name: str, picture: Image | None) -> None:
    """Bring a picture into its place, whole, with its name."""
    height, width = room.shape[:2]
    if picture is not None:
        scale = min(height / picture.shape[0], width / picture.shape[1])
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(picture, size, interpolation=mode)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        room[top : top + size[1], left : left + size[0]] = small
    (wide, high), _ = cv2.getTextSize(name, _FONT, 0.5, 1)
    room[: high + 14, : wide + 14] //= 3
    cv2.putText(room, name, (7, high + 6), _FONT, 0.5, _INK, 1, cv2.LINE_AA)


def _ground(manifest: BundleManifest) -> BirdseyeSpec:
    found = manifest.inputs.birdseye
    assert found is not None
    return found
