"""Augmentation of aligned samples of several sensors: one geometry for all, corruption for each.

Arrays are those of `RawSample`, at the resolution of the bundle's grid, before normalization, so
that corruption acts on physical values and normalization stays the one that serving uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.frame import KINDS, Kind, in_order
from perception.models.heads import half_of
from perception.sensors.kind import Grid
from perception.sensors.lidar.preprocess import LAYERS
from perception.sensors.registry import kind_of
from perception.training.config import CorruptionSpec, ResolutionPhase
from perception.training.geometry import Geometry


@dataclass(frozen=True)
class OnGrid:
    """One sensor's decoded values on the grid, not yet normalized.

    Attributes:
        kind: of the sensor.
        values: rgb (H, W, 3) uint8; depth (H, W) float32 metres, NaN = none; thermal (H, W) float32 in
            `unit`; lidar (H, W, 4) float32 range m, intensity, height m, validity.
        unit: of thermal values.
    """

    kind: Kind
    values: NDArray[Any]
    unit: str = ""


@dataclass(frozen=True)
class RawSample:
    """One frame on a common grid, with its truth.

    Attributes:
        sensors: by name, in the order of `frame.in_order`.
        truths: by task that somebody has said the truth of, see `TrainingTask.read_truth`.
        unusable: by name, why a sample that the frame has is left out.
        labels_of: the sensor in whose pixels the truth is.
    """

    sensors: Mapping[str, OnGrid]
    truths: Mapping[str, Any] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    labels_of: str = "rgb"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        first = next(iter(self.sensors.values())).values
        return first.shape[0], first.shape[1]


def _draw_geometry(
    size: tuple[int, int], phase: ResolutionPhase, rng: np.random.Generator
) -> Geometry:
    scale = float(rng.uniform(*phase.scale))
    height, width = round(size[0] * scale), round(size[1] * scale)
    top = int(rng.integers(min(0, height - phase.crop[0]), max(0, height - phase.crop[0]) + 1))
    left = int(rng.integers(min(0, width - phase.crop[1]), max(0, width - phase.crop[1]) + 1))
    return Geometry(scale, top, left, bool(rng.random() < 0.5), phase.crop)


def augment(
    sample: RawSample, phase: ResolutionPhase, spec: CorruptionSpec, rng: np.random.Generator
) -> RawSample:
    """A random view of `sample` of size `phase.crop`, with random corruption of each sensor."""
    geometry = _draw_geometry(sample.size, phase, rng)
    shifted = {
        # Kinds that the frame lacks draw, too: what the others get does not depend on them.
        name: _jittered(geometry, spec, rng)
        for name in in_order((*KINDS[1:], *sample.sensors))
        if name in KINDS[1:] or name != sample.labels_of
    }
    sensors = {
        name: replace(own, values=_WARP[own.kind](own.values, shifted.get(name, geometry)))
        for name, own in sample.sensors.items()
    }
    chances = spec.model_dump()
    for name, own in sensors.items():
        sensors[name] = replace(own, values=_corrupted(own, chances, rng))
    truths = {task: half_of(task).warp(own, geometry) for task, own in sample.truths.items()}
    return replace(sample, sensors=sensors, truths=truths)


def _warp_thermal(values: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Thermal values warped; padding and dead pixels are NaN and do not eat into their neighbors."""
    known = np.isfinite(values)
    if known.all():
        return geometry.warp(values, False, np.nan)
    share = geometry.warp(known.astype(np.float32), False, 0.0)
    mixed = geometry.warp(np.where(known, values, np.float32(0)), False, 0.0)
    kept = (geometry.warp(known.astype(np.uint8), True, 0) > 0) & (share > 0)
    return np.divide(mixed, share, out=np.full_like(mixed, np.nan), where=kept)


def _corrupted(own: OnGrid, chances: Mapping[str, float], rng: np.random.Generator) -> NDArray[Any]:
    kind = kind_of(own.kind)
    if kind.augment is None:
        return own.values
    if kind.has_picture:
        return kind.augment(Grid({"image": own.values}, own.unit), chances, rng).image
    layers = dict(zip(LAYERS, np.moveaxis(own.values, -1, 0), strict=True))
    return np.stack(list(kind.augment(Grid(layers), chances, rng).layers.values()), axis=-1)


def _jittered(geometry: Geometry, spec: CorruptionSpec, rng: np.random.Generator) -> Geometry:
    if rng.random() >= spec.misalignment:
        return geometry
    x, y = rng.normal(0.0, 2.0, 2).clip(-5, 5)
    return replace(geometry, jitter=(float(x), float(y)))


_WARP: dict[Kind, Callable[[NDArray[Any], Geometry], NDArray[Any]]] = {
    "rgb": lambda values, geometry: geometry.warp(values, False, 114),
    "depth": lambda values, geometry: geometry.warp(values, True, np.nan),
    "thermal": _warp_thermal,
    "lidar": lambda values, geometry: geometry.warp(values, True, 0.0),
}
