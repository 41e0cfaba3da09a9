"""Heads on a feature pyramid: one for each task, made by the half of the task that training knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.models.chance import ChannelDropout
from perception.models.layers import ConvBNReLU, GlobalContext, SeparableBlock, upsample
from perception.plugins import PluginError
from perception.tasks.registry import OURS, TASKS
from perception.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from perception.training.tasks.task import TrainingTask

Pyramid = dict[int, Tensor]
"""Feature maps by stride."""


def half_of(task: str) -> TrainingTask:
    """The half of a task that training knows, which `Task.training` names.

    Raises:
        ConfigError: there is no such task, or it cannot be trained.
        PluginError: it is a plug-in's and cannot be used.
    """
    found = TASKS.named(task, "tasks").training
    if found is None:
        raise ConfigError(f"the task '{task}' cannot be trained", where="tasks")
    module, _, attribute = found.partition(":")
    try:
        half: TrainingTask = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{type(error).__name__}: {error}", where=TASKS.place(task)) from error
    if getattr(half, "name", None) != task:
        raise PluginError(f"{found} is no half of it", where=TASKS.place(task))
    return half


def trained_tasks() -> list[str]:
    """Names of the tasks that can be trained; plug-ins that cannot be used are left out."""
    found = []
    for task in TASKS:
        with suppress(PluginError):
            if TASKS[task].training is not None and half_of(task).trained:
                found.append(task)
    return found


def specs_for(**classes: int) -> dict[str, TaskSpec]:
    """Specs of tasks by name, with so many classes each, called by their numbers."""
    return {
        task: TASKS[task].spec.model_validate(
            {"classes": [{"id": i, "name": f"class {i}", "color": (i, i, i)} for i in range(count)]}
            if "classes" in TASKS[task].spec.model_fields
            else {}
        )
        for task, count in in_task_order(classes).items()
        if count
    }


def in_task_order(given: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping by task, ours in their order, then the others as they are listed."""
    listed = [*(t for t in OURS if t in given), *(t for t in given if t not in OURS)]
    return {task: given[task] for task in listed}


class WithHeads(nn.Module):
    """A part of a model that has a head for each task."""

    def add_heads(
        self, tasks: Mapping[str, TaskSpec], channels: Mapping[int, int], width: int
    ) -> None:
        """Make the heads.

        Args:
            tasks: specs by task.
            channels: of the pyramid's maps, by stride.
            width: channels that a head may use inside.
        """
        self.parts = {task: half_of(task).part for task in tasks}
        for task, spec in tasks.items():
            self.add_module(self.parts[task], half_of(task).head(channels, spec, width))

    def answers(self, pyramid: Pyramid) -> dict[str, Any]:
        """What the heads say of a pyramid, by task."""
        return {task: self.head_of(task)(pyramid) for task in self.parts}

    def head_of(self, task: str) -> nn.Module:
        """The head of a task."""
        return self.get_submodule(self.parts[task])


class SegmentationHead(nn.Module):
    """Top-down decoder from stride 32 to class logits at stride 4.

    Args:
        channels: input channels by stride (4, 8, 16, 32).
        classes: number of classes.
        width: channels of the decoder; half of it at stride 4.
    """

    def __init__(self, channels: dict[int, int], classes: int, width: int = 128) -> None:
        super().__init__()
        self.context = nn.Sequential(
            ConvBNReLU(channels[32], width),
            GlobalContext(width),
            SeparableBlock(width, 5),
            SeparableBlock(width, 3, dilation=2),
        )
        self.lateral = nn.ModuleDict({str(s): nn.Conv2d(channels[s], width, 1) for s in (16, 8)})
        self.refine = nn.ModuleDict(
            {str(s): nn.Sequential(SeparableBlock(width), SeparableBlock(width)) for s in (16, 8)}
        )
        fine = width // 2
        self.reduce = ConvBNReLU(width, fine)
        self.lateral_fine = nn.Conv2d(channels[4], fine, 1)
        self.refine_fine = SeparableBlock(fine)
        self.dropout = ChannelDropout(0.1)
        self.classify = nn.Conv2d(fine, classes, 1)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """(N, classes, H/4, W/4) logits."""
        x = self.context(pyramid[32])
        for stride in (16, 8):
            x = F.relu(upsample(x) + self.lateral[str(stride)](pyramid[stride]))
            x = self.refine[str(stride)](x)
        x = F.relu(upsample(self.reduce(x)) + self.lateral_fine(pyramid[4]))
        return self.classify(self.dropout(self.refine_fine(x)))


class DetectionHead(nn.Module):
    """Anchor-free head over a feature pyramid (after FCOS, Tian et al., ICCV 2019).

    For each cell it gives class logits and the distances to the four sides of the box, in units of
    the stride.  Decoding and non-maximum suppression are left to the runtime.
    """

    def __init__(
        self,
        channels: dict[int, int],
        classes: int,
        width: int = 96,
        strides: tuple[int, ...] = (8, 16, 32),
    ) -> None:
        super().__init__()
        self.strides = strides
        self.lateral = nn.ModuleDict({str(s): ConvBNReLU(channels[s], width) for s in strides})
        self.smooth = nn.ModuleDict({str(s): SeparableBlock(width) for s in strides})
        self.class_tower = nn.Sequential(SeparableBlock(width, 3), SeparableBlock(width, 3))
        self.box_tower = nn.Sequential(SeparableBlock(width, 3), SeparableBlock(width, 3))
        self.classify = nn.Conv2d(width, classes, 3, padding=1)
        self.regress = nn.Conv2d(width, 4, 3, padding=1)
        # Rare objects: start every cell at a probability of 1% (Lin et al., "Focal Loss", 2017).
        nn.init.constant_(self.classify.bias, -math.log(99.0))  # type: ignore[arg-type]
        nn.init.constant_(self.regress.bias, 1.5)  # type: ignore[arg-type]

    def forward(self, pyramid: Pyramid) -> dict[int, tuple[Tensor, Tensor]]:
        """By stride s: (N, classes, H/s, W/s) logits and (N, 4, H/s, W/s) distances >= 0."""
        outputs = {}
        above: Tensor | None = None
        for stride in sorted(self.strides, reverse=True):
            x = self.lateral[str(stride)](pyramid[stride])
            if above is not None:
                x = x + upsample(above)
            above = self.smooth[str(stride)](x)
            logits = self.classify(self.class_tower(above))
            outputs[stride] = (logits, F.softplus(self.regress(self.box_tower(above))))
        return outputs
