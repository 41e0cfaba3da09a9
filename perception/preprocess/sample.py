"""From a decoded sample to a network input: check, resample onto the grid, normalize.

Training takes the same steps one by one (`on_grid`, augmentation, the functions of `normalize`,
`refuse_blind`), so that it never meets an input that serving would have made differently or left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import BlindError, CalibrationError, InputError
from perception.frame import (
    Kind,
    Sample,
    check_array,
    is_return,
    scale_intensity,
    shape_hint,
)
from perception.geometry.projection import LidarImage, project_lidar
from perception.preprocess.contract import DepthSpec, InputSpec, LidarSpec, RgbSpec, ThermalSpec
from perception.preprocess.grid import GridMap
from perception.preprocess.normalize import (
    Float,
    normalize_depth,
    normalize_lidar,
    normalize_rgb,
    normalize_thermal,
)

PLAUSIBLE_KELVIN = (100.0, 5000.0)
"""Median temperatures outside this are no temperatures that a thermal camera can have seen."""

_MOST_INTENSITY = 1.5
"""What exceeds this is no share of 1 that was rounded or calibrated, but counts."""

_COUNTS = {"counts8": 255.0, "counts16": 65535.0}
_IMAGES: dict[Kind, tuple[type[np.generic], int, dict[str, Any]]] = {
    "rgb": (np.uint8, 3, {}),
    "depth": (np.float32, 1, {"nearest": True, "fill": np.nan}),
    "thermal": (np.float32, 1, {"fill": np.nan}),
}
"""Of each kind of image: dtype, channels, and how it is brought to the grid."""

_COARSE = (slice(None, None, 8), slice(None, None, 8))
"""The pixels that are looked at to tell what an image's values can be."""


def preprocess_sample(sample: Sample, spec: InputSpec, out: Float | None = None) -> Float:
    """Bring one sample to its network input.

    Args:
        sample: a decoded sample (see `Sample` for shapes and units).
        spec: the bundle's input that it is for.
        out: optional (1, C, H, W) float32 buffer to fill.

    Returns:
        (1, C, H, W) float32 with C, H, W of `spec.shape`.

    Raises:
        InputError: wrong kind, dtype, shape or unit, or nothing finite.
        CalibrationError: LiDAR without calibration, or calibration that does not fit the image.
    """
    out = np.empty(spec.shape, np.float32) if out is None else out
    normalize(on_grid(sample, spec), spec, out[0], unit=sample.unit)
    refuse_blind(out[0], spec, sample.sensor)
    return out


def on_grid(sample: Sample, spec: InputSpec) -> NDArray[np.generic] | LidarImage:
    """Check a sample and bring it to the input's grid, not yet normalized.

    Returns:
        rgb (H, W, 3) uint8; depth (H, W) float32 metres, NaN in the padding; thermal (H, W) float32 in
        the sample's unit, NaN in the padding; lidar a `LidarImage` of (H, W).

    Raises:
        InputError, CalibrationError: see `preprocess_sample`.
    """
    if sample.kind != spec.kind:
        raise InputError(f"is {sample.kind}, this input takes {spec.kind}", where=sample.sensor)
    check_array(sample.data, sample.kind, sample.sensor)
    if spec.kind == "lidar":
        return _lidar(sample, spec)
    dtype, channels, resampled = _IMAGES[spec.kind]
    _check_image(sample, dtype, channels)
    if spec.kind == "thermal":
        _check_unit(sample)
    return GridMap.fit(source_size(sample), spec.view).to_grid(sample.data, **resampled)


def normalize(
    values: NDArray[np.generic] | LidarImage, spec: InputSpec, out: Float, *, unit: str = ""
) -> None:
    """Fill a network input from values on the grid.

    Args:
        values: as `on_grid` gives them.
        spec: the input that they are for.
        out: (C, H, W) float32.
        unit: of thermal values.

    Raises:
        InputError: nothing in them is finite.
    """
    own = spec.preprocess
    if isinstance(values, LidarImage):
        assert isinstance(own, LidarSpec)
        normalize_lidar(values.range_m, values.intensity, values.height_m, values.valid, own, out)
    elif isinstance(own, RgbSpec):
        normalize_rgb(values, own, out)  # type: ignore[arg-type]
    elif isinstance(own, DepthSpec):
        normalize_depth(values, own, out)  # type: ignore[arg-type]
    else:
        assert isinstance(own, ThermalSpec)
        normalize_thermal(values, unit, own, out)  # type: ignore[arg-type]


def refuse_blind(channels: Float, spec: InputSpec, sensor: str) -> None:
    """Refuse a (C, H, W) network input in which no pixel is valid.

    Raises:
        InputError: a depth or LiDAR input that says nothing; `sensor` is named.
    """
    own = spec.preprocess
    if isinstance(own, DepthSpec) and not channels[1].any():
        raise BlindError(
            f"no pixel between {own.min_m:g} and {own.max_m:g} m",
            where=sensor,
            hint="is the sensor blind, or are the values not in metres?",
        )
    if spec.kind == "lidar" and not channels[3].any():
        raise InputError(
            "no point falls into the camera image", where=sensor, hint="check the extrinsics"
        )


def source_size(sample: Sample) -> tuple[int, int]:
    """(height, width) of the image that results are given in for this sample."""
    if sample.kind != "lidar":
        return sample.data.shape[0], sample.data.shape[1]
    if sample.camera is None:
        raise CalibrationError(
            "no camera to project into", where=sample.sensor, hint="give a rig with intrinsics"
        )
    return sample.camera.height, sample.camera.width


def _lidar(sample: Sample, spec: InputSpec) -> LidarImage:
    points = sample.data
    rows = points.ndim == 2 and points.shape[1] >= 3 and not _transposed(points)
    if not rows or not np.issubdtype(points.dtype, np.floating):
        raise InputError(
            f"cloud is {points.dtype} {points.shape}, expected float (N, 3 or more)",
            where=sample.sensor,
            hint=_cloud_hint(points),
        )
    if not is_return(points).any():
        raise BlindError("empty cloud: no return", where=sample.sensor)
    if sample.camera is None or sample.extrinsics is None:
        raise CalibrationError(
            "needs intrinsics of the reference camera and extrinsics to it",
            where=sample.sensor,
            hint="give a rig file",
        )
    grid = GridMap.fit(source_size(sample), spec.view)
    return project_lidar(
        _in_unit_range(points),
        sample.camera.scaled(*grid.scale),
        sample.extrinsics,
        spec.view.height,
        spec.view.width,
        sensor_height_m=spec.preprocess.sensor_height_m,  # type: ignore[union-attr]
    )


def _in_unit_range(points: NDArray[np.generic]) -> NDArray[np.generic]:
    """The cloud, its intensities scaled as the adapters do when they are counts."""
    fourth = points[:, 3:4].astype(np.float32, copy=False)
    if not (fourth > _MOST_INTENSITY).any():
        return points
    scaled = points[:, :4].astype(np.float32)
    scaled[:, 3] = scale_intensity(fourth[:, 0])
    return scaled


def _check_image(sample: Sample, dtype: type[np.generic], channels: int) -> None:
    data = sample.data
    shape_ok = data.ndim == (3 if channels > 1 else 2) and data.size > 0
    if not shape_ok or (channels > 1 and data.shape[2] != channels):
        want = "(H, W, 3)" if channels > 1 else "(H, W)"
        raise InputError(
            f"shape {data.shape}, expected {want}",
            where=sample.sensor,
            hint=shape_hint(data.shape, channels),
        )
    if data.dtype != dtype:
        raise InputError(
            f"dtype {data.dtype}, expected {np.dtype(dtype).name}",
            where=sample.sensor,
            hint=_dtype_hint(sample.kind, data.dtype),
        )
    camera = sample.camera
    if camera is not None and (camera.height, camera.width) != data.shape[:2]:
        raise CalibrationError(
            f"camera is calibrated for {camera.width}x{camera.height} pixels, "
            f"image has {data.shape[1]}x{data.shape[0]}",
            where=sample.sensor,
        )


def _dtype_hint(kind: Kind, dtype: np.dtype[np.generic]) -> str:
    if not dtype.isnative:
        return "not this machine's byte order: data.astype(data.dtype.newbyteorder('='))"
    if kind == "depth" and np.issubdtype(dtype, np.integer):
        return "metres as float32; perception.adapters.depth scales what cameras send"
    return "decode the message with perception.adapters first"


def _transposed(points: NDArray[np.generic]) -> bool:
    """Whether points lie in columns: no cloud has a handful of points of many fields each."""
    return points.ndim == 2 and 3 <= points.shape[0] <= 8 and points.shape[1] > 32


def _cloud_hint(points: NDArray[np.generic]) -> str:
    if points.dtype.names:
        return "a structured array: perception.adapters.pointcloud reads its fields"
    return "one row per point: data.T" if _transposed(points) else ""


def _check_unit(sample: Sample) -> None:
    unit, data = sample.unit, sample.data
    if unit not in (*_COUNTS, "kelvin"):
        raise InputError(
            f"unknown unit '{unit}'", where=sample.sensor, hint="counts8, counts16 or kelvin"
        )
    if not np.isfinite(data).any():
        raise BlindError("no finite value in the image", where=sample.sensor)
    values = data[_COARSE]
    values = values[np.isfinite(values)]
    if not values.size:
        return
    if unit == "kelvin":
        middle = float(np.median(values))
        low, high = PLAUSIBLE_KELVIN
        if not low <= middle <= high:
            raise InputError(
                f"median temperature of {middle:.3g} K is impossible: the unit is not kelvin",
                where=sample.sensor,
                hint=_kelvin_hint(middle),
            )
        return
    least, most = float(values.min()), float(values.max())
    if least < -0.5 or most > _COUNTS[unit] + 0.5:
        raise InputError(
            f"values from {least:.4g} to {most:.4g} are no {unit}, which go from 0 to "
            f"{_COUNTS[unit]:g}",
            where=sample.sensor,
            hint="is the unit right?",
        )


def _kelvin_hint(middle: float) -> str:
    low, high = PLAUSIBLE_KELVIN
    if low <= middle * 0.01 <= high:
        return "centikelvin? then times 0.01"
    if -60 <= middle < low:
        return "degrees Celsius? then plus 273.15; or was a scale applied twice?"
    return "are these raw counts?"
