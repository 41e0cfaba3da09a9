"""LiDAR clouds as images in the reference camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class LidarImage:
    """The nearest return in each pixel, all arrays (H, W).

    Attributes:
        range_m: distance from the LiDAR in metres, 0 where there is no return.
        intensity: 0..1, 0 where unknown.
        height_m: height above ground in metres.
        index: row of the return in the cloud, -1 where there is none.
        valid: where there is a return.
    """

    range_m: Float32
    intensity: Float32
    height_m: Float32
    index: NDArray[np.int32]
    valid: NDArray[np.bool_]


def project_lidar(
    points: NDArray[Any],
    camera: CameraModel,
    extrinsics: RigidTransform,
    height: int,
    width: int,
    *,
    sensor_height_m: float = 0.0,
) -> LidarImage:
    """Project a cloud into a camera image; the nearest return of a pixel wins.

    Args:
        points: (N, C>=3) x, y, z in metres in the LiDAR frame (REP 103), then intensity in 0..1 if
            there is a fourth column.  Points with non-finite coordinates are left out.
        camera: intrinsics for an image of `height` by `width` pixels.
        extrinsics: from the LiDAR frame to the camera's optical frame.
        height, width: size of the image.
        sensor_height_m: added to z to give the height above ground.
    """
    cloud = np.ascontiguousarray(points[:, :4], np.float32)
    optical = extrinsics.apply(cloud[:, :3])
    with np.errstate(invalid="ignore", over="ignore"):
        ahead = np.flatnonzero(optical[:, 2] > 0.05)  # False for NaN
        uv, usable = camera.project(optical[ahead])
        inside = usable & (uv > -0.5).all(axis=1)
        inside &= (uv[:, 0] < width - 0.5) & (uv[:, 1] < height - 0.5)
    rows = ahead[inside]
    pixel = np.rint(uv[inside]).astype(np.int32)
    kept = cloud[rows]
    distance = np.sqrt((kept[:, :3] ** 2).sum(axis=1))
    finite = np.isfinite(distance)
    rows, pixel, kept, distance = rows[finite], pixel[finite], kept[finite], distance[finite]
    # Written from far to near, the last write to a pixel is its nearest return.
    order = np.argsort(-distance, kind="stable")
    flat = (pixel[:, 1] * width + pixel[:, 0])[order]
    index = np.full(height * width, -1, np.int32)
    index[flat] = rows[order]
    out = {name: np.zeros(height * width, np.float32) for name in ("range", "intensity", "height")}
    out["range"][flat] = distance[order]
    out["height"][flat] = kept[order, 2] + np.float32(sensor_height_m)
    if kept.shape[1] > 3:
        out["intensity"][flat] = np.nan_to_num(kept[order, 3]).clip(0, 1)
    shape = (height, width)
    return LidarImage(
        out["range"].reshape(shape),
        out["intensity"].reshape(shape),
        out["height"].reshape(shape),
        index.reshape(shape),
        (index >= 0).reshape(shape),
    )
