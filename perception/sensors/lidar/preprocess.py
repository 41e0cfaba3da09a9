"""Clouds to the network's input: projected into the reference camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.errors import BlindError, CalibrationError, InputError
from perception.frame import Sample, is_return, scale_intensity
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.projection import Nearest, fields_of, nearest_returns
from perception.geometry.scratch import POINTS, Scratch
from perception.geometry.transforms import RigidTransform
from perception.sensors.ground import (
    PillarSpec,
    fill,
    pillar_tensors,
    points_on_ground,
    refuse_empty,
)
from perception.sensors.images import one_image
from perception.sensors.kind import (
    Content,
    Grid,
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

_MOST_INTENSITY = 1.5
"""What exceeds this is no share of 1 that was rounded or calibrated, but counts."""


@dataclass(frozen=True)
class Projected:
    """Where returns on a grid come from.

    Attributes:
        found: the returns in the cloud.
        sensor_height_m: what heights above ground have been raised by.
    """

    found: Nearest
    sensor_height_m: float

    @property
    def index(self) -> NDArray[np.int32]:
        """(H, W) int32, row of the return in the cloud, -1 where there is none."""
        return self.found.index


class Layers(Mapping[str, NDArray[Any]]):
    """`LAYERS` of a cloud: made when somebody reads one, as all do but serving.

    Attributes:
        found: the returns.
        measured: their range, intensity and height, (M,) float32 each.
        read: whether somebody may have changed a layer, so that these count, and not `measured`.
    """

    def __init__(self, found: Nearest, intensity: Float, height_m: Float) -> None:
        self.found, self.measured = found, (found.range_m, intensity, height_m)
        self._made: dict[str, NDArray[Any]] = {}

    @property
    def read(self) -> bool:
        """See above."""
        return bool(self._made)

    def __getitem__(self, name: str) -> NDArray[Any]:
        made = self._made.get(name)
        if made is None:
            place = LAYERS.index(name) if name in LAYERS else None
            if place is None:
                raise KeyError(name)
            made = self.found.image(self.measured[place]) if place < 3 else self.found.valid
            self._made[name] = made
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(LAYERS)

    def __len__(self) -> int:
        return len(LAYERS)


class LidarSpec(PillarSpec):
    """LiDAR projected into the reference camera: range, intensity, height, validity; or, in a view of type
    `birdseye`, pillars on the ground grid.

    range is divided by `max_range_m`; height above ground (sensor z + `sensor_height_m`) by
    `height_scale_m`; `dilate_px` grows every return by that many pixels, nearest wins.
    """

    max_range_m: Scale = 80.0
    sensor_height_m: Value = 1.7
    height_scale_m: Scale = 3.0
    dilate_px: int = Field(1, ge=0, le=8)


def tensors(spec: LidarSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`image` (4, H, W); on the ground grid `pillars` and `cells`."""
    return pillar_tensors(spec, view) if view.birdseye else one_image(4, view)


def validate(sample: Sample) -> None:
    """Refuse what is no cloud, or one without returns."""
    points = sample.data
    rows = points.ndim == 2 and points.shape[1] >= 3 and not _transposed(points)
    if not rows or not np.issubdtype(points.dtype, np.floating):
        raise InputError(
            f"cloud is {points.dtype} {points.shape}, expected float (N, 3 or more)",
            where=sample.sensor,
            hint=_cloud_hint(points),
        )
    if sample.times is not None and sample.times.shape != points.shape[:1]:
        what = f"{sample.times.shape} times of {len(points)} points"
        raise InputError(what, where=sample.sensor, hint="one for each, in seconds from the stamp")
    if not (is_return(points[:_FEW]).any() or is_return(points).any()):
        raise BlindError("empty cloud: no return", where=sample.sensor)


def resample(sample: Sample, input: InputSpec) -> Grid:
    """`range_m`, `intensity`, `height_m` float32 and `valid` bool, 0 where there is no return; on the ground
    grid `points`, see `sensors.ground.points_on_ground`.

    Raises:
        CalibrationError: what that takes is not known.
    """
    if input.view.birdseye is not None:
        return points_on_ground(sample, _in_unit_range(sample.data), input.view)
    if sample.camera is None or sample.extrinsics is None:
        raise CalibrationError(
            "needs intrinsics of the reference camera and extrinsics to it",
            where=sample.sensor,
            hint="give a rig file",
        )
    size = size_of_camera(sample)
    camera = _scaled(sample.camera, *GridMap.fit(size, input.view).scale)
    points = sample.data
    found = nearest_returns(points, camera, sample.extrinsics, input.view.height, input.view.width)
    if not found.most <= _MOST_INTENSITY:  # NaN, too
        points = _in_unit_range(points)
    mount = input.preprocess.sensor_height_m
    height_m, intensity = fields_of(points, found, mount)
    return Grid(Layers(found, intensity, height_m), own=Projected(found, mount))


@lru_cache(maxsize=64)
def _scaled(camera: CameraModel, across: float, down: float) -> CameraModel:
    """A camera is checked, and the reach of its distortion found, once and not for every cloud."""
    return camera.scaled(across, down)


def normalize(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """See `LidarSpec`."""
    if input.view.birdseye is not None:
        fill(grid, input, out)
        return
    layers, spec = grid.layers, input.preprocess
    if isinstance(layers, Layers) and not layers.read:
        _fill(out["image"], layers.found.pixel, layers.measured, spec)
    else:
        range_m, intensity, height_m, valid = (layers[name] for name in LAYERS)
        normalize_lidar(range_m, intensity, height_m, valid, spec, out["image"])


def refuse_blind(out: Tensors, input: InputSpec, sensor: str) -> None:
    """Refuse an input in which no pixel is valid, or no pillar.

    Raises:
        InputError: it is one.
    """
    if input.view.birdseye is not None:
        refuse_empty(out, sensor)
    elif not out["image"][3].any():
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
    """Dark with too few returns; no more are counted than it takes."""
    points, missing = sample.data, thresholds.min_points
    for start in range(0, len(points), _FEW):
        if missing <= 0:
            break
        missing -= np.count_nonzero(is_return(points[start : start + _FEW]))
    return "ok" if missing <= 0 else "dark"


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
    at = np.flatnonzero(valid)
    values = (range_m.take(at), intensity.take(at), height_m.take(at))
    return _fill(out, at, values, spec)


def _fill(
    out: Float, at: NDArray[np.intp], values: tuple[Float, Float, Float], spec: LidarSpec
) -> Float:
    """The network's input from the returns' pixels, in ascending order, range, intensity and height."""
    range_m, intensity, height_m = values
    near = range_m <= spec.max_range_m
    if not near.all():
        kept = np.flatnonzero(near)
        at = at.take(kept)
        range_m, intensity, height_m = (v.take(kept) for v in values)
    filled = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
    filled[0] = np.inf
    filled[1:3] = 0
    layers = filled[:3].reshape(3, -1)
    values = (range_m / spec.max_range_m, intensity, height_m / spec.height_scale_m)
    for layer, value in zip(layers, values, strict=True):
        layer[at] = value
    if len(at):
        _grow(layers, spec.dilate_px, out.shape[1:], (at[0], at[-1]))
    _finish(filled)
    if filled is not out:
        out[...] = filled
    return out


def _finish(channels: Float) -> None:
    """Of channels whose range is infinite where there is no return, what the network wants of them."""
    range_m = channels[0]
    channels[3] = range_m < np.inf
    cv2.threshold(range_m, float(np.finfo(np.float32).max), 0, cv2.THRESH_TOZERO_INV, range_m)


def dilate_nearest(channels: Float, radius: int) -> Float:
    """Grow returns of a (4, H, W) LiDAR image by `radius` pixels; the nearest return wins."""
    filled = np.ascontiguousarray(channels)
    layers = filled.reshape(4, -1)
    layers[0][layers[3] <= 0] = np.inf
    _grow(layers[:3], radius, channels.shape[1:], (0, layers.shape[1] - 1))
    _finish(filled)
    if filled is not channels:
        channels[...] = filled
    return channels


def _grow(layers: Float, radius: int, size: tuple[int, ...], span: tuple[int, int]) -> None:
    """Grow returns in place by `radius` pixels, to where they are nearer than what is there.

    Args:
        layers: (L, H * W), range first, infinite where there is no return.
        radius, size: pixels, and (H, W).
        span: first and last pixel with a return.
    """
    height, width = size
    first = max(0, span[0] // width - radius) * width
    last = min(height, span[1] // width + radius + 1) * width
    with POINTS.lend() as scratch:
        for _ in range(radius):
            _take_neighbours(layers[:, first:last], width, None, scratch)
            _take_neighbours(layers[:, first:last], 1, width, scratch)


def _take_neighbours(now: Float, step: int, width: int | None, scratch: Scratch) -> None:
    """Have each pixel take the return `step` pixels before it if that is nearer, then that behind it.

    What the second takes is what was there at first: where a pixel has taken the first, its own return is
    farther than what the others could take of it.

    Args:
        now: see `_grow`.
        step, scratch: as they say.
        width: of a row, where pixels that follow each other need not be neighbours.
    """
    count = now.shape[1] - step
    if count <= 0:
        return
    was = scratch.array("was", now.shape, np.float32)
    np.copyto(was, now)
    better = scratch.array("better", (count,), bool)
    before, behind = slice(None, count), slice(step, None)
    for to, of in ((behind, before), (before, behind)):
        np.less(was[0, of], now[0, to], out=better)  # of equals each keeps its own
        if width is not None:
            better[width - 1 :: width] = False
        # Random masks cost np.where and np.copyto a misprediction each; OpenCV blends.
        for layer, source in zip(now, was, strict=True):
            cv2.copyTo(source[of], better.view(np.uint8), layer[to])
