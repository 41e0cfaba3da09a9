"""Pictures that show how well a cloud fits: its points and the plate's outline over the camera's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.alignment import edges_of_cloud
from calibration.detection import read_gray
from perception.errors import CalibrationError
from perception.files.writing import write_image
from perception.frame import is_return
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

Image = NDArray[np.uint8]

_NEAR_M, _FAR_M, _FAR_SCENE_M = 1.0, 12.0, 50.0
_SEEN, _TOLD = (80, 255, 80), (255, 60, 200)
_WIDEST, _LEAST_WIDE = 1280, 800
_FEW = 2500
_SIDE = 12


def shown_gray(path: Path) -> Image:
    """(H, W, 3) uint8 a picture as gray, so that what is drawn stands out; 16 bit is stretched."""
    gray = read_gray(path).astype(np.float32)
    low, high = np.percentile(gray, (0.5, 99.5))
    gray = np.clip((gray - low) * (200 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)


def draw_points(
    image: Image,
    camera: CameraModel,
    transform: RigidTransform,
    points: Float64,
    radius: int,
    far_m: float = _FAR_M,
) -> None:
    """Draw points, coloured by their distance, into a picture."""
    seen = transform.apply(points)
    pixels, valid = camera.project(seen)
    inside = (
        valid & (pixels >= 0).all(axis=1) & (pixels < [camera.width, camera.height]).all(axis=1)
    )
    depth = np.clip(seen[inside, 2], _NEAR_M, far_m)
    shares = np.log(depth / _NEAR_M) / np.log(far_m / _NEAR_M)
    colors = cv2.applyColorMap((255 * (1 - shares)).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)
    for (x, y), color in zip(pixels[inside], colors[:, 0, ::-1].tolist(), strict=True):
        cv2.circle(image, (round(x), round(y)), radius, color, -1, cv2.LINE_AA)


def draw_scene(
    gray: NDArray[Any], camera: CameraModel, transform: RigidTransform, cloud: NDArray[Any]
) -> Image:
    """A picture (H, W), 0 to 255, with a cloud's points coloured by distance, and its edges magenta."""
    larger = max(1, round(_LEAST_WIDE / camera.width))
    camera = camera.scaled(larger, larger)
    shown = np.clip(np.asarray(gray, np.float32) * 0.8, 0, 255).astype(np.uint8)
    shown = cv2.resize(shown, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    image = np.asarray(cv2.cvtColor(shown, cv2.COLOR_GRAY2RGB), np.uint8)
    wide = max(1, camera.width // 900)
    points = np.asarray(cloud[is_return(cloud), :3], np.float64)
    points = points[camera.project(transform.apply(points))[1]]
    few = points[:: max(1, len(points) // _FEW)]  # the picture must be seen between them
    draw_points(image, camera, transform, few, wide, _FAR_SCENE_M)
    edges = transform.apply(edges_of_cloud(cloud).points)
    pixels, seen = camera.project(edges)
    seen &= (pixels >= 0).all(axis=1) & (pixels < [camera.width, camera.height]).all(axis=1)
    for x, y in pixels[seen]:
        cv2.circle(image, (round(x), round(y)), wide + 1, _TOLD, -1, cv2.LINE_AA)
    return image


def draw_outline(
    image: Image,
    camera: CameraModel,
    pose: RigidTransform,
    halves: Float64,
    color: tuple[int, int, int],
) -> None:
    """Draw a rectangle (half sizes in metres) and its middle under a pose in the camera's frame."""
    along = np.linspace(-1, 1, _SIDE, endpoint=False)
    one = np.ones(_SIDE)
    rim = np.concatenate(
        [
            np.column_stack(side)
            for side in ((along, -one), (one, along), (-along, one), (-one, -along))
        ]
    )
    corners = np.column_stack([rim * halves, np.zeros(len(rim))])
    pixels, valid = camera.project(pose.apply(np.vstack([corners, np.zeros((1, 3))])))
    if not valid.all() or np.abs(pixels).max() > 1e5:
        return
    thick = max(1, camera.width // 640)
    line = np.round(pixels[:-1] * 16).astype(np.int32)
    cv2.polylines(image, [line], True, color, thick, cv2.LINE_AA, 4)
    x, y = pixels[-1]
    cv2.drawMarker(image, (round(x), round(y)), color, cv2.MARKER_CROSS, 12 * thick, thick)


def draw_pair(
    image: Image,
    camera: CameraModel,
    transform: RigidTransform,
    points: Float64,
    plate: RigidTransform,
    board: RigidTransform,
    halves: Float64,
) -> Image:
    """A picture with the points, the plate as the LiDAR saw it (magenta) and as the camera did (green)."""
    drawn = image.copy()
    draw_points(drawn, camera, transform, points, max(1, camera.width // 900))
    draw_outline(drawn, camera, board, halves, _SEEN)
    draw_outline(drawn, camera, transform @ plate, halves, _TOLD)
    return drawn


def write_overlay(path: Path, before: Image, after: Image) -> None:
    """Write two pictures side by side: before and after.

    Raises:
        CalibrationError: it cannot be written.
    """
    both: list[Any] = []
    for image, text in ((before, "before"), (after, "after")):
        size = min(1.0, _WIDEST / image.shape[1])
        small = cv2.resize(image, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
        cv2.putText(small, text, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
        both.append(small)
    write_image(path, np.hstack(both), error=CalibrationError)
