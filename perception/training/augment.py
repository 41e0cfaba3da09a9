"""Augmentation of aligned samples of several sensors: one geometry for all, corruption for each.

It comes between the two halves of serving's preprocessing, on what `SensorKind.resample` gives, so that
corruption acts on physical values and normalization stays the one that serving uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.frame import KINDS, Kind, Sample, in_order
from perception.models.heads import half_of
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.sample import on_grid
from perception.sensors.images import warped
from perception.sensors.kind import Grid
from perception.sensors.registry import kind_of
from perception.training.config import CorruptionSpec, ResolutionPhase
from perception.training.geometry import Geometry
from perception.training.pasting import Scene, pasted
from perception.training.pixels import pixel_truths
from perception.training.scene import SceneSpec, can_mirror, moved

_TRIES = 5
"""Objects that are drawn for one that is to be put into a scene: most do not fit."""


@dataclass(frozen=True)
class OnGrid:
    """One sensor's sample on the grid of its input, not yet normalized, and the kind of the sensor."""

    kind: Kind
    grid: Grid


@dataclass(frozen=True)
class Unplaced:
    """One sensor's sample that will lie on the ground: it is brought there after the scene was moved."""

    kind: Kind
    sample: Sample


@dataclass(frozen=True)
class RawSample:
    """One frame on a common grid, with its truth.

    Attributes:
        sensors: by name, in the order of `frame.in_order`; `Unplaced` where the grid is on the ground.
        truths: by task that somebody has said the truth of, see `TrainingTask.read_truth`.
        unusable: by name, why a sample that the frame has is left out.
        labels_of: the sensor in whose pixels the truth is.
        size: (height, width) of the inputs' grid, by default that of the first sensor's; a kind's own may
            be coarser.
        pixels: by name, what is known of a picture's pixels, see `training.pixels`.
    """

    sensors: Mapping[str, OnGrid | Unplaced]
    truths: Mapping[str, Any] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    labels_of: str = KINDS[0]
    size: tuple[int, int] = (0, 0)
    pixels: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(self.size):
            first = next(iter(self.sensors.values()), None)
            if isinstance(first, OnGrid):
                object.__setattr__(self, "size", first.grid.size)


def _draw_geometry(
    size: tuple[int, int], phase: ResolutionPhase, rng: np.random.Generator
) -> Geometry:
    scale = float(rng.uniform(*phase.scale))
    height, width = round(size[0] * scale), round(size[1] * scale)
    top = int(rng.integers(min(0, height - phase.crop[0]), max(0, height - phase.crop[0]) + 1))
    left = int(rng.integers(min(0, width - phase.crop[1]), max(0, width - phase.crop[1]) + 1))
    return Geometry(scale, top, left, bool(rng.random() < 0.5), phase.crop, size=size)


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
    sensors, chances = {}, spec.model_dump()
    for name, own in sample.sensors.items():
        assert isinstance(own, OnGrid)
        kind = kind_of(own.kind)
        grid = (kind.warp or warped)(own.grid, shifted.get(name, geometry))
        grid = grid if kind.augment is None else kind.augment(grid, chances, rng)
        sensors[name] = replace(own, grid=grid)
    truths = {task: half_of(task).warp(own, geometry) for task, own in sample.truths.items()}
    return replace(sample, sensors=sensors, truths=truths, size=phase.crop)


def _jittered(geometry: Geometry, spec: CorruptionSpec, rng: np.random.Generator) -> Geometry:
    if rng.random() >= spec.misalignment:
        return geometry
    x, y = rng.normal(0.0, 2.0, 2).clip(-5, 5)
    return replace(geometry, jitter=(float(x), float(y)))


def augment_scene(
    sample: RawSample,
    contract: PreprocessContract,
    scene: SceneSpec,
    spec: CorruptionSpec,
    rng: np.random.Generator,
    donor: Callable[[], RawSample],
) -> RawSample:
    """A random move of a scene whose inputs lie on the ground, with random corruption of each sensor.

    A sensor that then sees nothing of the grid is left out.

    Args:
        sample: is not changed.
        contract: brings it to the ground.
        scene: how it is moved.
        spec: chances of corruption.
        rng: of this sample.
        donor: gives another frame at random, of which an object is put into this one.
    """
    left = scene.paste
    for _ in range(_TRIES * scene.paste):
        if left and (changed := _with_object(sample, donor(), rng)) is not sample:
            sample, left = changed, left - 1
    before = {n: s.sample for n, s in sample.sensors.items() if isinstance(s, Unplaced)}
    move = scene.drawn(rng)
    if not all(can_mirror(own.camera) for own in before.values()):
        move = replace(move, mirror=False)
    after = moved(before, move, spec.misalignment, rng)
    sensors: dict[str, OnGrid | Unplaced] = {}
    points = []
    chances = spec.model_dump()
    for name, own in after.items():
        kind = kind_of(own.kind)
        try:
            grid = on_grid(own, contract[name])
        except InputError:
            continue
        if "points" in grid.layers:
            points.append(grid.layers["points"])
        grid = grid if kind.augment is None else kind.augment(grid, chances, rng)
        sensors[name] = OnGrid(own.kind, grid)
    truths = {task: half_of(task).warp(own, move) for task, own in sample.truths.items()}
    boxes = [truth.boxes for task, truth in truths.items() if half_of(task).ground]
    pixels = {}
    if boxes and points:
        views = {name: contract[name].view for name in sensors}
        pixels = pixel_truths(
            {name: after[name] for name in sensors}, views, np.concatenate(points), boxes[0]
        )
    return replace(sample, sensors=sensors, truths=truths, pixels=pixels)


def _with_object(sample: RawSample, donor: RawSample, rng: np.random.Generator) -> RawSample:
    """The sample with an object of another, if one that is drawn fits and all truth is of boxes in space."""
    own, other = _scene_of(sample), _scene_of(donor)
    if own is None or other is None or not len(other.boxes):
        return sample
    found = pasted(own, other, int(rng.integers(len(other.boxes))))
    if found is None:
        return sample
    sensors = {n: Unplaced(s.kind, s) for n, s in found.samples.items()}
    truths = {task: replace(t, boxes=found.boxes) for task, t in sample.truths.items()}
    return replace(sample, sensors=sensors, truths=truths)


def _scene_of(sample: RawSample) -> Scene | None:
    truths = [truth for task, truth in sample.truths.items() if half_of(task).ground]
    samples = {n: s.sample for n, s in sample.sensors.items() if isinstance(s, Unplaced)}
    if len(truths) != 1 or len(sample.truths) > 1 or len(samples) < len(sample.sensors):
        return None
    return Scene(samples, truths[0].boxes)
