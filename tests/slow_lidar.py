"""What becomes of a LiDAR cloud, as it is defined: step by step, and slow.

Never to be changed together with what is compared with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.frame import is_return
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.sensors.lidar import LidarSpec


def project_slowly(
    points: np.ndarray[Any, Any],
    camera: CameraModel,
    extrinsics: RigidTransform,
    height: int,
    width: int,
    sensor_height_m: float = 0.0,
) -> dict[str, np.ndarray[Any, Any]]:
    """What `project_lidar` has to give, by the names of its layers."""
    with np.errstate(all="ignore"):
        columns = np.ascontiguousarray(points[:, :3].T, np.float32)
        optical = extrinsics.rotation.astype(np.float32) @ columns
        optical += extrinsics.translation.astype(np.float32)[:, None]
        u, v, inside = camera.project_columns(*optical)
        inside &= (optical[2] > 0.05) & is_return(points)
        inside &= (u > -0.5) & (v > -0.5) & (u < width - 0.5) & (v < height - 0.5)
        square = columns[0] * columns[0] + columns[1] * columns[1] + columns[2] * columns[2]
    layers = {
        "range_m": np.zeros((height, width), np.float32),
        "intensity": np.zeros((height, width), np.float32),
        "height_m": np.zeros((height, width), np.float32),
        "index": np.full((height, width), -1, np.int32),
        "valid": np.zeros((height, width), bool),
    }
    best: dict[tuple[int, int], np.float32] = {}
    for row in np.flatnonzero(inside).tolist():
        pixel = int(np.rint(v[row])), int(np.rint(u[row]))
        if pixel in best and not square[row] < best[pixel]:
            continue
        best[pixel] = square[row]
        layers["range_m"][pixel] = np.sqrt(square[row])
        layers["height_m"][pixel] = np.float32(points[row, 2]) + np.float32(sensor_height_m)
        if points.shape[1] > 3:
            with np.errstate(over="ignore"):
                known = np.nan_to_num(np.float32(points[row, 3]))
            layers["intensity"][pixel] = known.clip(0, 1)
        layers["index"][pixel] = row
        layers["valid"][pixel] = True
    return layers


def dilate_slowly(channels: np.ndarray[Any, Any], radius: int) -> np.ndarray[Any, Any]:
    """(4, H, W): each pixel takes a neighbour's return if it is nearer, direction after direction."""
    for _ in range(radius):
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            moved = np.roll(channels, step, axis)
            np.moveaxis(moved, axis, 0)[0 if step > 0 else -1] = 0
            better = (moved[3] > 0) & ((channels[3] == 0) | (moved[0] < channels[0]))
            channels[:, better] = moved[:, better]
    return channels


def normalize_slowly(
    layers: dict[str, np.ndarray[Any, Any]], spec: LidarSpec
) -> np.ndarray[Any, Any]:
    """The network's input (4, H, W) from the layers of an image."""
    keep = layers["valid"] & (layers["range_m"] <= spec.max_range_m)
    out = np.zeros((4, *keep.shape), np.float32)
    out[0][keep] = layers["range_m"][keep] / spec.max_range_m
    out[1][keep] = layers["intensity"][keep]
    out[2][keep] = layers["height_m"][keep] / spec.height_scale_m
    out[3] = keep
    return dilate_slowly(out, spec.dilate_px)


def in_unit_range_slowly(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A cloud whose intensities are scaled if one of them can be no share of 1."""
    if points.shape[1] < 4 or not (points[:, 3].astype(np.float32) > 1.5).any():
        return points
    scaled = points[:, :4].astype(np.float32)
    scaled[:, 3] = scale_intensity_slowly(points[:, 3].astype(np.float32))
    return scaled


def points_slowly(table: list[np.ndarray[Any, Any]], least_range_m: float) -> np.ndarray[Any, Any]:
    """The returns among points of columns x, y, z and, where it is known, intensity."""
    out = np.zeros((len(table[0]), 4), np.float32)
    with np.errstate(all="ignore"):
        for i, values in enumerate(table[:3]):
            out[:, i] = values
        if len(table) > 3:
            out[:, 3] = scale_intensity_slowly(table[3])
    return out[is_return(out, least_range_m)]


def scale_intensity_slowly(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Intensities in 0..1."""
    out = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer) and values.dtype.itemsize <= 2:
        return (out / np.float32(np.iinfo(values.dtype).max)).clip(0, 1)
    out[~np.isfinite(out)] = 0
    most = out.max(initial=0.0)
    if most > 1.0:
        out /= np.float32(255 if most <= 255 else 65535)
    return out.clip(0, 1)
