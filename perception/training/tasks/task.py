"""What training knows of a task; the base of ours and of those that plug-ins bring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from perception.data.base import Recording, RecordingInfo, Truth
from perception.errors import ConfigError
from perception.frame import Frame
from perception.geometry.grid import BirdseyeSpec, GridMap, GridSpec
from perception.tasks.registry import TASKS
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Meter, TaskContext

if TYPE_CHECKING:
    from perception.training.config import LossSpec

LOW_SCORE = 0.01
"""Least score of a box in validation: average precision wants the whole curve."""


@dataclass(frozen=True)
class TruthSource:
    """Where the truth of a frame is read from.

    Attributes:
        recording, index: the frame's place.
        frame: its samples, those that the model sees.
        truth: what the recording says of it.
        grid: the networks' grid, which truth is brought to.
        birdseye: the grid on the ground, where inputs have one.
    """

    recording: Recording
    index: int
    frame: Frame
    truth: Truth
    grid: GridSpec
    birdseye: BirdseyeSpec | None = None


class Validation:
    """Answers of a network held against the truth, frame by frame, as those of a bundle are.

    Args:
        half: of the task.
        spec: what the bundle will say of it.
        meter: of the task, for grids.
    """

    def __init__(self, half: TrainingTask, spec: TaskSpec, meter: Meter | None) -> None:
        self.half, self.spec, self.meter = half, spec, meter

    @classmethod
    def divides(cls) -> bool:
        """Whether frames may be looked at by several processes: one that has its own `add` cannot tell."""
        return cls.add is Validation.add

    def add(self, value: Any, truth: Any, size: tuple[int, int]) -> None:
        """Count a value of a batch of one; the truth is one on the grid, whose (height, width) is `size`."""
        self.count(self.look(value, truth, size), truth, size)

    def look(self, value: Any, truth: Any, size: tuple[int, int]) -> Any:
        """What is to be counted of a value, see `add`; another process may do so."""
        if self.meter is None:
            return None
        tensors = {n: t.float().cpu().numpy() for n, t in self.half.outputs(value).items()}
        return self.decode(tensors, self.half.exported(self.spec, value), size)

    def count(self, seen: Any, truth: Any, size: tuple[int, int]) -> None:
        """Count what `look` gave."""
        if self.meter is not None:
            self.meter.add(seen, self.half.as_recorded(truth), size)

    def decode(
        self, tensors: dict[str, NDArray[Any]], spec: TaskSpec, size: tuple[int, int]
    ) -> Any:
        """The task's value on the grid."""
        grid = GridMap.fit(size, GridSpec(height=size[0], width=size[1]))
        task = TASKS[self.half.name]
        context = TaskContext(
            spec=spec,
            reference="",
            grids={"": grid},
            samples={},
            fresh=frozenset(),
            inputs=(),
            values={},
            parts=frozenset(task.parts),
            min_score=LOW_SCORE,
        )
        return task.decode(tensors, context)

    def scores(self) -> dict[str, float | None]:
        """The numbers so far, 0 to 1, by name; None where there is no truth to judge by."""
        found = self.meter.scores() if self.meter is not None else {}
        return {k: found.get(k) for k in (*TASKS[self.half.name].judged, *self.half.logged)}


class TrainingTask(ABC):
    """The half of a task that needs PyTorch.  `Task.training` names one, `module:attribute`.

    A subclass sets `name` and writes `head` and `loss`; the rest has defaults for a task whose truth is in
    `Truth.values`, one array or plain value for each frame, and whose head gives one tensor.  `truth`
    below is what `read_truth` gave for one frame, `truths` what `collate` made of a batch's, and
    `value` what the head gave for the batch.

    Attributes:
        name: the task's.
        strides: of the maps that its head reads.
        part: what its head is called in models; checkpoints and freezing name it.
        needs: what it learns from, in words, and why there may be none of it.
        logged: scores that the log gets beside those that the task is judged by.
        loss_weights: fields of `LossSpec` that its `further_losses` reads.
        trained: False for what models make besides, without truth.
        ground: it is told of places on the ground, so that a model must have such a grid.
    """

    name: ClassVar[str]
    strides: ClassVar[tuple[int, ...]] = (8, 16, 32)
    needs: ClassVar[tuple[str, str]] = ("truth", "none at all")
    logged: ClassVar[tuple[str, ...]] = ()
    loss_weights: ClassVar[tuple[str, ...]] = ()
    trained: ClassVar[bool] = True
    ground: ClassVar[bool] = False

    @property
    def part(self) -> str:
        return f"head_{self.name}"

    def spec(self, info: RecordingInfo) -> TaskSpec:
        """What a bundle will say of it after training on such data.

        Raises:
            ConfigError: the data do not name the classes that it needs.
        """
        return TASKS[self.name].spec()

    def exported(self, spec: Any, value: Any) -> TaskSpec:
        """The spec, with what only the model's answer tells; None where the model makes it besides."""
        found: TaskSpec = spec
        return found

    def outputs(self, value: Any) -> dict[str, Tensor]:
        """The tensors of a value by the names of graph outputs, as `Task.forms` states them."""
        return {self.name: value}

    # Truth: numpy, frame by frame.

    def read_truth(self, source: TruthSource) -> Any | None:
        """The truth of a frame on the networks' grid; None where nobody has said it."""
        return source.truth.values.get(self.name)

    def as_recorded(self, truth: Any) -> Truth:
        """The same as a recording of pictures of the grid's size would give it."""
        return Truth(values={self.name: truth})

    def warp(self, truth: Any, geometry: Any) -> Any:
        """The truth of a scaled, cut and mirrored view (`Geometry`), or on the ground of a moved scene
        (`SceneMove`); unchanged where it is of the frame as a whole."""
        return truth

    def blank(self, size: tuple[int, int]) -> Any:
        """What stands in a batch for a frame, of this (height, width), without truth."""
        return None

    def collate(self, truths: Sequence[Any]) -> Any:
        """The truth of a batch."""
        return list(truths)

    def known(self, truths: Any) -> bool:
        """Whether there is something to learn from in a batch."""
        return any(truth is not None for truth in truths)

    def has_truth(self, truth: Any) -> bool:
        """Whether there is something to learn from in a frame."""
        return truth is not None

    def can_judge(self, truth: Any) -> bool:
        """Whether a frame tells good answers from bad ones."""
        return self.has_truth(truth)

    def notes(self, info: RecordingInfo, truths: Sequence[Any]) -> list[str]:
        """What is to be said of the training data's truth, frame by frame, before anything is learned."""
        return []

    # The model's part.

    @abstractmethod
    def head(self, channels: Mapping[int, int], spec: Any, width: int) -> nn.Module:
        """What makes a value of a pyramid, maps (N, C, H/s, W/s) by stride s.

        Args:
            channels: of the maps, by stride.
            spec: of `spec`.
            width: channels that it may use inside.
        """

    def auxiliary_head(self, channels: int, spec: Any) -> nn.Module | None:
        """What makes logits of one input's map at stride 16, in training alone; None for nothing."""
        return None

    # Learning.

    def prepare(self, recording: Recording, spec: Any, balance: float) -> Any:
        """What `loss` needs to know of the training data as a whole; `balance` is `loss.class_balance`."""
        return None

    @abstractmethod
    def loss(self, value: Any, truths: Any, prepared: Any = None) -> Tensor:
        """How wrong the values of a batch that has truth are, a scalar; `prepared` is of `prepare`."""

    def further_losses(self, value: Any, truths: Any, weights: LossSpec) -> dict[str, Tensor]:
        """Terms that `weights` asks for beside `loss`, by name, already weighted."""
        return {}

    def auxiliary_loss(self, logits: Tensor, truths: Any) -> Tensor:
        """How wrong an auxiliary head is."""
        raise NotImplementedError

    def validation(self, spec: Any, info: RecordingInfo) -> Validation:
        """Collects the scores of a network."""
        meter = TASKS[self.name].meter
        return Validation(self, spec, meter(spec, info) if meter is not None else None)

    # What training methods do with values.

    def mix(self, values: Sequence[Any], factors: Sequence[float]) -> Any:
        """The sum of values, each by its factor."""
        return tree_map(lambda *each: _weighted(each, factors), *values)

    def distance(self, student: Any, teacher: Any) -> Tensor:
        """How far a value is from another, which is taken as it is."""
        pairs = zip(tree_leaves(student), tree_leaves(teacher), strict=True)
        return torch.stack([F.mse_loss(a.float(), b.detach().float()) for a, b in pairs]).sum()


def _weighted(tensors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    return torch.stack([x * f for x, f in zip(tensors, factors, strict=True)]).sum(0)


def classes_of(info: RecordingInfo, name: str, what: str, classes: Sequence[Any]) -> dict[str, Any]:
    """The field `classes` of a spec.

    Args:
        info: of the data.
        name: of the task.
        what: the kind of classes, in words.
        classes: `ClassInfo` each.

    Raises:
        ConfigError: there are none.
    """
    if not classes:
        raise ConfigError(
            f"{info.kind} data names no {what} classes",
            where="tasks",
            hint=f"name them in the data, or take {name} out of tasks",
        )
    return {"classes": [{"id": c.id, "name": c.name, "color": c.color} for c in classes]}


def stacked(truths: Sequence[Any], dtype: type) -> Tensor:
    """Arrays of one shape as a batch."""
    return torch.from_numpy(np.stack(list(truths)).astype(dtype))
