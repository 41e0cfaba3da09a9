"""From a decoded sample to a network input: check, resample onto the grid, normalize."""

from __future__ import annotations

import numpy as np

from perception.errors import CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.projection import project_lidar
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.grid import GridMap
from perception.preprocess.normalize import (
    Float,
    normalize_depth,
    normalize_lidar,
    normalize_rgb,
    normalize_thermal,
)


def preprocess_sample(
    sample: Sample, contract: PreprocessContract, out: Float | None = None
) -> Float:
    """Bring one sample to its network input.

    Args:
        sample: a decoded sample (see `Sample` for shapes and units).
        contract: the bundle's preprocessing.
        out: optional (1, C, H, W) float32 buffer to fill.

    Returns:
        (1, C, H, W) float32 with C, H, W of `contract.input_shape(sample.modality)`.

    Raises:
        InputError: wrong dtype or shape, nothing finite, or a modality the contract lacks.
        CalibrationError: LiDAR without calibration, or calibration that does not fit the image.
    """
    if sample.modality not in contract.modalities:
        raise InputError(
            "this bundle has no such modality",
            where=sample.modality,
            hint=f"it takes {', '.join(contract.modalities)}",
        )
    shape = contract.input_shape(sample.modality)
    out = np.empty(shape, np.float32) if out is None else out
    _STEPS[sample.modality](sample, contract, out[0])
    return out


def source_size(sample: Sample) -> tuple[int, int]:
    """(height, width) of the image that results are given in for this sample."""
    if sample.modality != "lidar":
        return sample.data.shape[0], sample.data.shape[1]
    if sample.camera is None:
        raise CalibrationError(
            "no camera to project into", where="lidar", hint="give a rig with intrinsics"
        )
    return sample.camera.height, sample.camera.width


def _check_image(sample: Sample, dtype: type[np.generic], channels: int) -> None:
    data = sample.data
    shape_ok = data.ndim == (3 if channels > 1 else 2) and data.size > 0
    if not shape_ok or (channels > 1 and data.shape[2] != channels):
        want = "(H, W, 3)" if channels > 1 else "(H, W)"
        raise InputError(f"shape {data.shape}, expected {want}", where=sample.modality)
    if data.dtype != dtype:
        raise InputError(
            f"dtype {data.dtype}, expected {np.dtype(dtype).name}",
            where=sample.modality,
            hint="decode the message with perception.adapters first",
        )
    camera = sample.camera
    if camera is not None and (camera.height, camera.width) != data.shape[:2]:
        raise CalibrationError(
            f"camera is calibrated for {camera.width}x{camera.height} pixels, "
            f"image has {data.shape[1]}x{data.shape[0]}",
            where=sample.modality,
        )


def _rgb(sample: Sample, contract: PreprocessContract, out: Float) -> None:
    _check_image(sample, np.uint8, 3)
    grid = GridMap.fit(source_size(sample), contract.grid)
    normalize_rgb(grid.to_grid(sample.data), contract.rgb, out)  # type: ignore[arg-type]


def _depth(sample: Sample, contract: PreprocessContract, out: Float) -> None:
    _check_image(sample, np.float32, 1)
    grid = GridMap.fit(source_size(sample), contract.grid)
    depth = grid.to_grid(sample.data, nearest=True, fill=np.nan)
    normalize_depth(depth, contract.depth, out)  # type: ignore[arg-type]
    if not out[1].any():
        raise InputError(
            f"no pixel between {contract.depth.min_m:g} and {contract.depth.max_m:g} m",
            where="depth",
            hint="is the sensor blind, or the scale wrong?",
        )


def _thermal(sample: Sample, contract: PreprocessContract, out: Float) -> None:
    _check_image(sample, np.float32, 1)
    if sample.unit not in ("counts8", "counts16", "kelvin"):
        raise InputError(
            f"unknown unit '{sample.unit}'", where="thermal", hint="counts8, counts16 or kelvin"
        )
    if not np.isfinite(sample.data).any():
        raise InputError("no finite value in the image", where="thermal")
    grid = GridMap.fit(source_size(sample), contract.grid)
    values = grid.to_grid(sample.data, fill=np.nan)
    normalize_thermal(values, sample.unit, contract.thermal, out)  # type: ignore[arg-type]


def _lidar(sample: Sample, contract: PreprocessContract, out: Float) -> None:
    points = sample.data
    if points.ndim != 2 or points.shape[1] < 3 or not np.issubdtype(points.dtype, np.floating):
        raise InputError(
            f"cloud is {points.dtype} {points.shape}, expected float (N, 3 or more)", where="lidar"
        )
    if len(points) == 0 or not np.isfinite(points[:, :3]).all(axis=1).any():
        raise InputError("empty cloud: no finite point", where="lidar")
    if sample.camera is None or sample.extrinsics is None:
        raise CalibrationError(
            "needs intrinsics of the reference camera and extrinsics to it",
            where="lidar",
            hint="give a rig file",
        )
    grid = GridMap.fit(source_size(sample), contract.grid)
    camera = sample.camera.scaled(*grid.scale)
    image = project_lidar(
        points,
        camera,
        sample.extrinsics,
        contract.grid.height,
        contract.grid.width,
        sensor_height_m=contract.lidar.sensor_height_m,
    )
    normalize_lidar(
        image.range_m, image.intensity, image.height_m, image.valid, contract.lidar, out
    )
    if not out[3].any():
        raise InputError(
            "no point falls into the camera image", where="lidar", hint="check the extrinsics"
        )


_STEPS = {"rgb": _rgb, "depth": _depth, "thermal": _thermal, "lidar": _lidar}
