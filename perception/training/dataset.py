"""A torch data set over a `Recording`: cached frames, deterministic augmentation, normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset

from perception.data.base import Recording, RecordingInfo
from perception.errors import ConfigError, InputError
from perception.frame import Sample
from perception.geometry.grid import GridMap
from perception.models.heads import half_of, trained_tasks
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.preprocess.sample import on_grid
from perception.sensors.kind import Grid
from perception.tasks.registry import OURS
from perception.training.augment import OnGrid, RawSample, Unplaced, augment, augment_scene
from perception.training.config import CorruptionSpec, CurriculumSpec, ResolutionPhase
from perception.training.curriculum import generator, one_clean, spoilt
from perception.training.distributed import Ranks
from perception.training.scene import SceneSpec
from perception.training.tasks.task import TruthSource

Array = np.ndarray[Any, Any]
Input = Array | dict[str, Array]
"""What a network takes of a sensor: an array (C, H, W), or arrays by name where its kind has several."""


@dataclass
class Batch:
    """A batch of training samples.

    Attributes:
        inputs: by name, those that all samples have, (N, C, H, W) float32; a dict of tensors by name of a
            kind that has several.
        truths: by task, what `TrainingTask.collate` makes of the samples' truth.
        clean: the inputs without the faults of a curriculum, of those that have some.
        faulty: by name of every input, (N,) bool, which samples have a fault; empty where none has.
        frames: of all ranks' shares together, where several processes train; 0: these samples are all.  After
            `whole`, `truths` and `faulty` are those of all, `inputs` and `clean` always this rank's.
        start: place of the first of these samples among all of them.
    """

    inputs: dict[str, Any]
    truths: dict[str, Any]
    clean: dict[str, Any] = field(default_factory=dict)
    faulty: dict[str, Tensor] = field(default_factory=dict)
    frames: int = 0
    start: int = 0

    @property
    def rows(self) -> int:
        """Samples of this rank's share."""
        return len(tree_leaves(self.inputs)[0])

    def whole(self, ranks: Ranks) -> Batch:
        """The same with the truth of all ranks' shares, which `collate` left as samples have it."""
        if not ranks.several:
            return self
        told = ranks.heard((self.truths, self.faulty, self.rows))
        truths = {
            task: half_of(task).collate([x for own, _, _ in told for x in own[task]][: self.frames])
            for task in self.truths
        }
        faulty: dict[str, Tensor] = {}
        if any(own for _, own, _ in told):
            for name in self.inputs:
                parts = [
                    own.get(name, torch.zeros(rows, dtype=torch.bool)) for _, own, rows in told
                ]
                faulty[name] = torch.cat(parts)[: self.frames]
        return replace(self, truths=truths, faulty=faulty, start=ranks.rank * self.rows)

    def of(self, subset: Sequence[str]) -> dict[str, Any]:
        """The inputs of a subset, one of which has no fault in every sample; see `one_clean`."""
        return one_clean(self.inputs, self.clean, self.faulty, subset, self.start)

    def without_faults(self, names: Iterable[str]) -> dict[str, Any]:
        """The inputs of these names that there are, as they were before the curriculum."""
        return {n: self.clean.get(n, self.inputs[n]) for n in names if n in self.inputs}

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a GPU copies while it computes; see `DataLoader`."""

        def pinned(value: Any) -> Any:
            return value.pin_memory() if isinstance(value, Tensor) else value

        return replace(
            self,
            inputs=tree_map(pinned, self.inputs),
            truths=tree_map(pinned, self.truths),
            clean=tree_map(pinned, self.clean),
        )


def load_raw(
    recording: Recording, index: int, contract: PreprocessContract, tasks: Iterable[str] = ()
) -> RawSample:
    """Frame `index` on the contract's grid, with its truth.

    A sensor that serving would leave out of this frame, because nothing can be seen in its sample, is
    left out here, too; `RawSample.unusable` says why.

    Raises:
        CalibrationError: calibration is missing or does not fit, as it then will in every frame.
    """
    frame, truth = recording.seen(index, contract.views()), recording.truth(index)
    sensors: dict[str, OnGrid | Unplaced] = {}
    unusable: dict[str, str] = {}
    for name, spec in contract.items():
        if name in frame:
            try:
                sample = frame[name] if contract.birdseye is None else _shrunk(frame[name], spec)
                grid = on_grid(sample, spec)
                size = (spec.view.height, spec.view.width)
                spec.sensor.refuse_blind(_normalized(grid, spec, size), spec, name)
                placed = OnGrid(spec.kind, grid)
                sensors[name] = placed if contract.birdseye is None else Unplaced(spec.kind, sample)
            except InputError as error:
                unusable[name] = str(error)
    source = TruthSource(recording, index, frame, truth, contract.grid, contract.birdseye)
    truths = {task: half_of(task).read_truth(source) for task in tasks}
    known = {task: found for task, found in truths.items() if found is not None}
    view = contract.grid
    size = (view.height, view.width)
    return RawSample(sensors, known, unusable, recording.info.labels_of, size)


def _shrunk(sample: Sample, spec: InputSpec) -> Sample:
    """A picture at the size of its view, as it is kept in memory; as it is where edges would be padded."""
    view, camera = spec.view, sample.camera
    if spec.sensor.distances or not spec.sensor.has_picture or view.fit != "stretch":
        return sample
    grid = spec.sensor.resample(replace(sample, pose=None), _lifted_nowhere(spec))
    if camera is not None:
        camera = camera.scaled(*GridMap.fit((camera.height, camera.width), view).scale)
    return replace(sample, data=grid.image, camera=camera)


def _lifted_nowhere(spec: InputSpec) -> InputSpec:
    return spec.model_copy(update={"view": spec.view.model_copy(update={"birdseye": None})})


def _normalized(grid: Grid, spec: InputSpec, size: tuple[int, int]) -> dict[str, Array]:
    view = spec.view.model_copy(update={"height": size[0], "width": size[1]})
    tensors = spec.sensor.tensors(spec.preprocess, view)
    out = {name: np.empty(t.shape, t.dtype) for name, t in tensors.items()}
    layers = {name: np.ascontiguousarray(layer) for name, layer in grid.layers.items()}
    spec.sensor.normalize(Grid(layers, grid.unit), spec, out)
    return out


def network_inputs(sample: RawSample, contract: PreprocessContract) -> dict[str, Input]:
    """Network inputs without the batch axis by name, of those sensors that `sample` has."""
    found, whole = sample.sensors, contract.grid
    down, across = sample.size[0] / whole.height, sample.size[1] / whole.width
    inputs: dict[str, Input] = {}
    for name, spec in contract.items():
        if name in found:
            size = round(spec.view.height * down), round(spec.view.width * across)
            own = found[name]
            grid = own.grid if isinstance(own, OnGrid) else on_grid(own.sample, spec)
            tensors = _normalized(grid, spec, size)
            if name in sample.pixels:  # networks take it in training alone
                tensors["pixels"] = sample.pixels[name]
            inputs[name] = _alone(tensors)
    return inputs


def _alone(tensors: dict[str, Array]) -> Input:
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


Item = (
    tuple[dict[str, Input], dict[str, Any]]
    | tuple[dict[str, Input], dict[str, Any], dict[str, Input]]
)
"""Inputs by name and truth by task of one sample; with a curriculum also those inputs that have a fault,
without it."""


class Draw(NamedTuple):
    """What a sample is made from besides the seed: it travels to the worker that makes it."""

    frame: int
    epoch: int
    phase: ResolutionPhase
    severity: int = 0  # the highest of the curriculum's faults; 0 for none


class FusionDataset(Dataset[Item]):
    """Augmented training samples; item `i` of epoch `e` depends on (seed, e, i) alone.

    An item is asked for as a `Draw`; by its index alone, it is of the present `epoch` and `phase`.

    Args:
        recording: where frames come from; all of them are kept in memory after their first use.
        contract: the preprocessing to train for.
        corruption: augmentation strengths.
        seed: base of all random choices.
        tasks: whose truth is read; None for those of ours that the recording names classes for.
        curriculum: faults of items that are drawn with a severity.
        scene: how scenes are moved, where inputs lie on the ground.
    """

    def __init__(
        self,
        recording: Recording,
        contract: PreprocessContract,
        corruption: CorruptionSpec,
        seed: int,
        tasks: Iterable[str] | None = None,
        curriculum: CurriculumSpec | None = None,
        scene: SceneSpec | None = None,
    ) -> None:
        self.recording = recording
        self.tasks = tuple(tasks_of(recording.info) if tasks is None else tasks)
        self.contract = contract
        self.corruption = corruption
        self.curriculum = CurriculumSpec() if curriculum is None else curriculum
        self.scene = SceneSpec() if scene is None else scene
        self.seed = seed
        self.epoch = 0
        self.phase = ResolutionPhase()
        self._cache: dict[int, RawSample] = {}

    def __len__(self) -> int:
        return len(self.recording)

    def preload(self) -> None:
        """Read every frame now (before worker processes are forked)."""
        for index in range(len(self)):
            self.raw(index)

    def raw(self, index: int) -> RawSample:
        """Frame `index`, from memory when it was read before."""
        if index not in self._cache:
            self._cache[index] = load_raw(self.recording, index, self.contract, self.tasks)
        return self._cache[index]

    def modalities(self, index: int) -> tuple[str, ...]:
        """The inputs of the contract that frame `index` has."""
        return tuple(name for name in self.contract if name in self.raw(index).sensors)

    def keep(self, wanted: Callable[[int], bool]) -> int:
        """Leave out, for good, the frames for which `wanted` is False; returns how many these are."""
        kept = [index for index in range(len(self)) if wanted(index)]
        left_out = len(self) - len(kept)
        self._cache = {new: self._cache[old] for new, old in enumerate(kept) if old in self._cache}
        self.recording.ids = [self.recording.ids[index] for index in kept]
        return left_out

    def __getitem__(self, item: int | Draw) -> Item:
        draw = item if isinstance(item, Draw) else Draw(item, self.epoch, self.phase)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.frame))
        sample = self._augmented(draw, rng)
        truths = {task: half_of(task).blank(draw.phase.crop) for task in self.tasks}
        truths |= sample.truths
        inputs = network_inputs(sample, self.contract)
        if not draw.severity:
            return inputs, truths
        own = generator(self.seed, draw.epoch, draw.frame)
        faulty = spoilt(sample, self.curriculum, draw.severity, own)
        changed = network_inputs(replace(sample, sensors=faulty), self.contract)
        return inputs | changed, truths, {name: inputs[name] for name in changed}

    def _augmented(self, draw: Draw, rng: np.random.Generator) -> RawSample:
        raw = self.raw(draw.frame)
        if self.contract.birdseye is None:
            return augment(raw, draw.phase, self.corruption, rng)

        def donor() -> RawSample:
            return self.raw(int(rng.integers(len(self))))

        return augment_scene(raw, self.contract, self.scene, self.corruption, rng, donor)


def tasks_of(info: RecordingInfo) -> list[str]:
    """Those of our tasks whose classes a recording names."""
    found = []
    for task in (t for t in trained_tasks() if t in OURS and not half_of(t).ground):
        with suppress(ConfigError):
            half_of(task).spec(info)
            found.append(task)
    return found


def collate(items: Sequence[Item], *, share: bool = False) -> Batch:
    """Stack samples into a `Batch` of the inputs that all of them have.

    The truth of one rank's share is left as it is, a list by task, for `Batch.whole`.
    """
    shared = [m for m in items[0][0] if all(m in item[0] for item in items)]
    inputs = {m: _batched([item[0][m] for item in items]) for m in shared}
    tasks = items[0][1]
    truths: dict[str, Any] = {t: [item[1][t] for item in items] for t in tasks}
    if not share:
        truths = {t: half_of(t).collate(each) for t, each in truths.items()}
    before = [item[2] if len(item) > 2 else {} for item in items]
    if not any(before):
        return Batch(inputs, truths)
    clean, faulty = {}, {}
    for name in shared:
        faulty[name] = torch.tensor([name in own for own in before])
        if faulty[name].any():
            pairs = zip(items, before, strict=True)
            clean[name] = _batched([own.get(name, item[0][name]) for item, own in pairs])
    return Batch(inputs, truths, clean, faulty)


def _batched(inputs: Sequence[Any]) -> Any:
    first = inputs[0]
    if isinstance(first, dict):
        return {name: _batched([each[name] for each in inputs]) for name in first}
    return torch.from_numpy(np.stack(inputs))


def on_device(inputs: Mapping[str, Any], device: torch.device, **options: Any) -> dict[str, Any]:
    """Inputs by name on a device, see `Tensor.to`; a memory format is for pictures alone."""
    out: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            pictures = value.dim() == 4
            fitting = {k: v for k, v in options.items() if pictures or k != "memory_format"}
            out[name] = value.to(device, **fitting)
        else:  # of several tensors only the one that is called so is a picture
            plain = {k: v for k, v in options.items() if k != "memory_format"}
            out[name] = {
                n: x.to(device, **(options if n == "image" and x.dim() == 4 else plain))
                for n, x in value.items()
            }
    return out


def tensors_of(value: Any) -> list[Any]:
    """The tensors, or arrays, of one input."""
    return list(value.values()) if isinstance(value, dict) else [value]
