"""The nearest camera of a model that a format has, for a camera of one that it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64

_STEPS = 25


def nearest(camera: CameraModel, models: Sequence[tuple[str, int]]) -> tuple[CameraModel, float]:
    """A camera of one of other models that sees as nearly the same as it can.

    Args:
        camera: what is to be written.
        models: those that can be written: `plumb_bob` or `equidistant`, and how many coefficients.

    Returns:
        The camera, and by how many pixels it is off at most within the picture.

    Raises:
        CalibrationError: none is near.
    """
    u, v = np.meshgrid(
        np.linspace(0, camera.width - 1, _STEPS), np.linspace(0, camera.height - 1, _STEPS)
    )
    pixels = np.column_stack([u.ravel(), v.ravel()])
    points = camera.unproject(pixels, 1.0)
    seen = np.isfinite(points).all(axis=1)
    tried = []
    for model, count in models:
        try:
            found = _fitted(camera, points[seen], pixels[seen], model, count)
            back, valid = found.project(points[seen])
        except (CalibrationError, np.linalg.LinAlgError):
            continue
        off = np.linalg.norm(back - pixels[seen], axis=1)
        if valid.all() and len(off):
            tried.append((float(off.max()), found))
    if not tried:
        raise CalibrationError(
            f"{camera.distortion_model} is a model that the format lacks, and none that it has is near",
            where=camera.frame_id or "camera",
        )
    worst, best = min(tried, key=lambda one: one[0])
    return best, worst


def _fitted(
    camera: CameraModel, points: Float64, pixels: Float64, model: str, count: int
) -> CameraModel:
    """By linear least squares in the scale of both focal lengths, and it times the coefficients."""
    a, b = points[:, 0], points[:, 1]
    bent = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    r2 = a * a + b * b
    if model == "equidistant":
        angle = np.arctan(np.sqrt(r2))
        share = np.where(r2 > 1e-18, angle / np.sqrt(np.maximum(r2, 1e-18)), 1.0)
        powers = [share * angle ** (2 * i) for i in range(5)]
        x, y = ([p * one for p in powers] for one in (a, b))
    else:
        x = [a, a * r2, a * r2**2, 2 * a * b, r2 + 2 * a * a]
        y = [b, b * r2, b * r2**2, r2 + 2 * b * b, 2 * a * b]
        if count == 5:
            x, y = [*x, a * r2**3], [*y, b * r2**3]
    left = np.vstack([np.column_stack(x), np.column_stack(y)])
    found = np.linalg.lstsq(left, bent.T.ravel(), rcond=None)[0]
    if not found[0] > 0:
        raise CalibrationError("no such camera")
    scale = float(found[0])
    return CameraModel(
        camera.width,
        camera.height,
        camera.fx * scale,
        camera.fy * scale,
        camera.cx,
        camera.cy,
        model,
        tuple((found[1:] / scale).tolist()),
        camera.frame_id,
    )
