"""Depth to the network's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from perception.errors import BlindError, CalibrationError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.grid import ViewSpec
from perception.geometry.measured import depth_points
from perception.geometry.transforms import RigidTransform
from perception.geometry.views import Placement
from perception.sensors.ground import (
    PillarSpec,
    fill,
    pillar_tensors,
    points_on_ground,
    refuse_empty,
)
from perception.sensors.images import check_image, keep_where, on_grid, one_image
from perception.sensors.kind import Content, Grid, Scale, Tensors, TensorSpec

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec

Float = NDArray[np.float32]

_MOST_POINTS = 2**16
"""Of a picture on the ground grid: of larger ones every so many-th row and column is taken."""


class DepthSpec(PillarSpec):
    """Depth becomes inverse depth, (1/z - 1/max_m) / (1/min_m - 1/max_m), and a validity mask.

    Depths outside [min_m, max_m] and non-finite ones are invalid; both channels are 0 there.
    `m_per_count8` is what a step of an 8 bit depth file is worth, in metres, when nothing else says
    so: such files carry no scale of their own.

    On the ground grid depths within the range become points, and these pillars, as of a LiDAR.
    """

    min_m: Scale = 0.4
    max_m: Scale = 20.0
    m_per_count8: Scale | None = None

    @model_validator(mode="after")
    def _ordered(self) -> DepthSpec:
        if self.min_m >= self.max_m:
            raise ValueError("depth: min_m must be below max_m")
        return self


@dataclass(frozen=True)
class Unlifted:
    """Where points on the ground grid come from.

    Attributes:
        pose: from the optical frame to the base frame.
        camera: of the picture.
        size: (height, width) of the picture.
        reach_m: the least and the largest depth that counts.
    """

    pose: RigidTransform
    camera: CameraModel
    size: tuple[int, int]
    reach_m: tuple[float, float]


def tensors(spec: DepthSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`image` (2, H, W); on the ground grid `pillars` and `cells`."""
    return pillar_tensors(spec, view) if view.birdseye else one_image(2, view)


def validate(sample: Sample) -> None:
    """Refuse what is not (H, W) float32."""
    check_image(
        sample,
        np.float32,
        1,
        "metres as float32; perception.sample_of scales what cameras send",
    )


def resample(sample: Sample, input: InputSpec) -> Grid:
    """`image` (H, W) float32 metres, NaN in the padding; on the ground grid `points`, see
    `sensors.ground.points_on_ground`.

    Raises:
        CalibrationError: what that takes is not known.
    """
    if input.view.birdseye is not None:
        spec = input.preprocess
        grid = points_on_ground(sample, _points(sample, spec), input.view)
        assert sample.camera is not None
        reach = spec.min_m, spec.max_m
        return replace(grid, own=Unlifted(grid.own, sample.camera, sample.data.shape[:2], reach))
    return on_grid(sample, input, nearest=True, fill=np.nan)


def _points(sample: Sample, spec: DepthSpec) -> Float:
    """(N, 3) metres in the optical frame."""
    stride = max(1, int(np.ceil(np.sqrt(sample.data.size / _MOST_POINTS))))
    found = depth_points(sample, sample.data.shape[:2], stride)
    if found is None:
        raise CalibrationError(
            "its intrinsics are not known", where=sample.sensor, hint="camera_info, or a rig file"
        )
    z = found.points[:, 2]
    return found.points[(z >= spec.min_m) & (z <= spec.max_m)]


def register(sample: Sample, input: InputSpec, placement: Placement) -> Grid:
    """`image` (H, W) float32 metres along the reference's optical axis, NaN where nothing is known."""
    lattice, near = placement.view.lattice, placement.near
    if near is None:
        near = lattice.inverse_depth(sample.data, placement.view.source)
    return Grid({"image": lattice.depth_of(near)}, sample.unit, placement.view.grid)


def distances(sample: Sample) -> Float:
    """(H, W) float32 metres, as they are."""
    return sample.data


def normalize(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """See `DepthSpec`."""
    if input.view.birdseye is not None:
        fill(grid, input, out)
        return
    normalize_depth(grid.image, input.preprocess, out["image"])


def refuse_blind(out: Tensors, input: InputSpec, sensor: str) -> None:
    """Refuse an input in which no pixel is valid, or no pillar.

    Raises:
        BlindError, InputError: it is one.
    """
    if input.view.birdseye is not None:
        refuse_empty(out, sensor)
    elif not out["image"][1].any():
        own = input.preprocess
        raise BlindError(
            f"no pixel between {own.min_m:g} and {own.max_m:g} m",
            where=sensor,
            hint="is the sensor blind, or are the values not in metres?",
        )


def check(sample: Sample, thresholds: Any) -> Content:
    """Dark with too few valid pixels."""
    valid = np.isfinite(sample.data[::8, ::8]) & (sample.data[::8, ::8] > 0)
    return "ok" if valid.mean() >= thresholds.min_valid_share else "dark"


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Random but plausible."""
    return Sample("depth", rng.uniform(1, 5, size).astype(np.float32))


def normalize_depth(depth_m: Float, spec: DepthSpec, out: Float | None = None) -> Float:
    """(H, W) metres to (2, H, W): scaled inverse depth in 0..1, and validity."""
    out = np.empty((2, *depth_m.shape), np.float32) if out is None else out
    valid = (depth_m >= spec.min_m) & (depth_m <= spec.max_m)  # False for NaN and infinities
    near, far = 1.0 / spec.min_m, 1.0 / spec.max_m
    with np.errstate(all="ignore"):
        np.divide(1.0 / (near - far), depth_m, out=out[0])
    out[0] -= far / (near - far)
    out[1] = valid
    keep_where(valid, out[0])
    return out
