"""Clouds to the network's input: projected into the reference camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.errors import BlindError, CalibrationError, InputError
from perception.frame import Sample, is_return, scale_intensity
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.projection import project_lidar
from perception.geometry.transforms import RigidTransform
from perception.sensors.images import one_image
from perception.sensors.kind import (
    Content,
    Grid,
    KindSpec,
    Scale,
    Tensors,
    TensorSpec,
    Value,
    size_of_camera,
)

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec

Float = NDArray[np.float32]

LAYERS = ("range_m", "intensity", "height_m", "valid")
"""Of the grid, in this order."""

_FEW = 1024
"""Points among which, in a sound cloud, there is a return: the others need not be looked at for one."""

_ALL, _FIRST, _LAST = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS: tuple[tuple[tuple[slice, slice], tuple[slice, slice]], ...] = (
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_LAST, _ALL), (_FIRST, _ALL)),
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_ALL, _LAST), (_ALL, _FIRST)),
)
"""The pixels that have a neighbour above, below, left or right, and these neighbours."""

_MOST_INTENSITY = 1.5
"""What exceeds this is no share of 1 that was rounded or calibrated, but counts."""


@dataclass(frozen=True)
class Projected:
    """Where returns on a grid come from.

    Attributes:
        index: (H, W) int32, row of the return in the cloud, -1 where there is none.
        sensor_height_m: what heights above ground have been raised by.
    """

    index: NDArray[np.int32]
    sensor_height_m: float


class LidarSpec(KindSpec):
    """LiDAR projected into the reference camera: range, intensity, height, validity.

    range is divided by `max_range_m`; height above ground (sensor z + `sensor_height_m`) by
    `height_scale_m`; `dilate_px` grows every return by that many pixels, nearest wins.
    """

    max_range_m: Scale = 80.0
    sensor_height_m: Value = 1.7
    height_scale_m: Scale = 3.0
    dilate_px: int = Field(1, ge=0, le=8)


def tensors(spec: LidarSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`image` (4, H, W)."""
    return one_image(4, view)


def validate(sample: Sample) -> None:
    """Refuse what is no cloud, one without returns, or without calibration."""
    points = sample.data
    rows = points.ndim == 2 and points.shape[1] >= 3 and not _transposed(points)
    if not rows or not np.issubdtype(points.dtype, np.floating):
        raise InputError(
            f"cloud is {points.dtype} {points.shape}, expected float (N, 3 or more)",
            where=sample.sensor,
            hint=_cloud_hint(points),
        )
    if not (is_return(points[:_FEW]).any() or is_return(points).any()):
        raise BlindError("empty cloud: no return", where=sample.sensor)
    if sample.camera is None or sample.extrinsics is None:
        raise CalibrationError(
            "needs intrinsics of the reference camera and extrinsics to it",
            where=sample.sensor,
            hint="give a rig file",
        )


def resample(sample: Sample, input: InputSpec) -> Grid:
    """`range_m`, `intensity`, `height_m` float32 and `valid` bool, 0 where there is no return."""
    assert sample.camera is not None and sample.extrinsics is not None
    grid = GridMap.fit(size_of_camera(sample), input.view)
    found = project_lidar(
        _in_unit_range(sample.data),
        sample.camera.scaled(*grid.scale),
        sample.extrinsics,
        input.view.height,
        input.view.width,
        sensor_height_m=input.preprocess.sensor_height_m,
    )
    layers = (found.range_m, found.intensity, found.height_m, found.valid)
    own = Projected(found.index, input.preprocess.sensor_height_m)
    return Grid(dict(zip(LAYERS, layers, strict=True)), own=own)


def normalize(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """See `LidarSpec`."""
    range_m, intensity, height_m, valid = (grid.layers[name] for name in LAYERS)
    normalize_lidar(range_m, intensity, height_m, valid, input.preprocess, out["image"])


def refuse_blind(out: Tensors, input: InputSpec, sensor: str) -> None:
    """Refuse an input in which no pixel is valid.

    Raises:
        InputError: it is one.
    """
    if not out["image"][3].any():
        raise InputError(
            "no point falls into the camera image", where=sensor, hint="check the extrinsics"
        )


def _in_unit_range(points: NDArray[np.generic]) -> NDArray[np.generic]:
    """The cloud, its intensities scaled as the adapters do when they are counts."""
    fourth = points[:, 3:4].astype(np.float32, copy=False)
    if not (fourth > _MOST_INTENSITY).any():
        return points
    scaled = points[:, :4].astype(np.float32)
    scaled[:, 3] = scale_intensity(fourth[:, 0])
    return scaled


def _transposed(points: NDArray[np.generic]) -> bool:
    """Whether points lie in columns: no cloud has a handful of points of many fields each."""
    return points.ndim == 2 and 3 <= points.shape[0] <= 8 and points.shape[1] > 32


def _cloud_hint(points: NDArray[np.generic]) -> str:
    if points.dtype.names:
        return "a structured array: perception.adapters.pointcloud reads its fields"
    return "one row per point: data.T" if _transposed(points) else ""


def check(sample: Sample, thresholds: Any) -> Content:
    """Dark with too few returns."""
    return "ok" if np.count_nonzero(is_return(sample.data)) >= thresholds.min_points else "dark"


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Random but plausible."""
    # Already in the camera's axes, spread over its field of view like a 64-beam turn.
    height, width = size
    camera = CameraModel(width, height, width, width, width / 2, height / 2)
    data = rng.uniform((-10, -2, 2, 0), (10, 2, 40, 1), (60_000, 4)).astype(np.float32)
    return Sample("lidar", data, camera=camera, extrinsics=RigidTransform.identity())


def normalize_lidar(
    range_m: Float,
    intensity: Float,
    height_m: Float,
    valid: NDArray[np.bool_],
    spec: LidarSpec,
    out: Float | None = None,
) -> Float:
    """Projected returns, each (H, W), to (4, H, W): range, intensity, height, validity."""
    out = np.empty((4, *range_m.shape), np.float32) if out is None else out
    keep = valid & (range_m <= spec.max_range_m)
    out[:] = 0.0
    at = np.nonzero(keep)
    out[0][at] = range_m[at] / spec.max_range_m
    out[1][at] = intensity[at]
    out[2][at] = height_m[at] / spec.height_scale_m
    out[3] = keep
    return dilate_nearest(out, spec.dilate_px)


def dilate_nearest(channels: Float, radius: int) -> Float:
    """Grow returns of a (4, H, W) LiDAR image by `radius` pixels; the nearest return wins."""
    if not radius:
        return channels
    # Only range and origin of a pixel's return are moved about; the rest is fetched once, at the end.
    near = np.where(channels[3] > 0, channels[0], np.float32(np.inf))
    origin = np.arange(near.size, dtype=np.int32).reshape(near.shape)
    for _ in range(radius):
        for to, of in _NEIGHBOURS:
            better = near[of] < near[to]  # of equals each keeps its own
            moved, fetched = near.copy(), origin.copy()
            np.minimum(near[of], near[to], out=moved[to])
            fetched[to] = np.where(better, origin[of], origin[to])
            near, origin = moved, fetched
    channels[1], channels[2] = (layer.take(origin) for layer in channels[1:3])
    seen = near < np.inf
    channels[0], channels[3] = np.where(seen, near, 0), seen
    return channels
