"""Distillation of several teachers into one student.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, for each teacher; the
teachers' shares are chosen pixel by pixel, by how much each is right there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.data.base import IGNORE_LABEL, RecordingInfo
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.models.supervision import sample_labels
from perception.tasks.segmentation import SEGMENTATION
from perception.training.building import build_from_config, recording_info
from perception.training.checkpoint import load_checkpoint, load_weights
from perception.training.dataset import Batch, on_device
from perception.training.methods.base import TrainingMethod
from perception.training.objectives import Tensors
from perception.training.precision import autocast


class Distillation(TrainingMethod):
    """Draw the student's outputs to those of its teachers.

    A teacher sees every modality of the batch that it takes, also those which are withheld from the
    student in this step: so a student that has only thermal learns what its teachers saw in colour.

    Logged: `distill/<teacher>`, that teacher's mean share.

    Args:
        model: the student.
        teachers: runs or checkpoints, of any model, trained on the same classes.
        weight: of the distillation terms.
        temperature: that softens both distributions.
        by_truth: share the pixels out by how likely each teacher finds the truth; False for equal
            shares.
    """

    def __init__(
        self,
        model: FusionModel,
        teachers: Sequence[str] = (),
        weight: float = 1.0,
        temperature: float = 2.0,
        by_truth: bool = True,
    ) -> None:
        super().__init__(model)
        if not teachers:
            raise ConfigError("needs at least one run", where="method.options.teachers")
        if weight <= 0 or temperature <= 0:
            raise ConfigError("weight and temperature must be positive", where="method.options")
        self.weight, self.temperature, self.by_truth = weight, temperature, by_truth
        self._taught_on: dict[str, tuple[RecordingInfo, Collection[str]]] = {}
        self.teachers = {_label(Path(t)): self._load(t) for t in teachers}
        if len(self.teachers) < len(teachers):
            raise ConfigError("two of them have the same name", where="method.options.teachers")

    def check(self, info: RecordingInfo, tasks: Collection[str]) -> None:
        for run, (theirs, taught) in self._taught_on.items():
            shared = [task for task in tasks if task in taught]
            require_same_classes(info, theirs, shared, what="the student", where=run)

    def _load(self, run: str) -> FusionModel:
        state = load_checkpoint(Path(run))
        info = recording_info(state.progress)
        self._taught_on[run] = info, state.config.tasks
        teacher = build_from_config(state.config, info, pretrained=False)
        load_weights(teacher, state.ema, run)
        same = all(
            len(spec.labels) == self.model.classes_of(task) for task, spec in teacher.tasks.items()
        ) and set(teacher.modalities) & set(self.model.modalities)
        if not same:
            raise ConfigError("has other classes or modalities than the student", where=run)
        device = next(self.model.parameters()).device
        return teacher.to(device).eval().requires_grad_(False)

    def extra_terms(self, inputs: Tensors, output: ModelOutput, batch: Batch) -> Tensors:
        """`distill_<task>`, for the heads that both sides have."""
        device = next(iter(inputs.values())).device
        lessons: dict[str, ModelOutput] = {}
        for name, teacher in self.teachers.items():
            seen = {m: batch.inputs[m] for m in teacher.modalities if m in batch.inputs}
            if seen:
                with torch.no_grad(), autocast(device, self.precision):
                    lessons[name] = teacher(on_device(seen, device))
        terms: Tensors = {}
        for task, own in output.values.items():
            taught = {n: o.values[task] for n, o in lessons.items() if task in o.values}
            if task == SEGMENTATION.name and taught:
                maps = {n: x.float() for n, x in taught.items()}
                loss = self._segmentation(own, maps, batch.truths.get(task))
            elif taught and half_of(task).trained:
                each = [half_of(task).distance(own, lesson) for lesson in taught.values()]
                loss = torch.stack(each).mean()
            else:
                continue
            terms[f"distill_{task}"] = self.weight * loss
        return terms

    def _segmentation(
        self, student: Tensor, maps: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        stacked = torch.stack(list(maps.values()))
        shares = self.shares(stacked, labels)
        for index, name in enumerate(maps):
            self.log(f"distill/{name}", float(shares[index].mean()))
        heat = self.temperature
        target = ((stacked / heat).softmax(2) * shares[:, :, None]).sum(0)
        own = (student.float() / heat).log_softmax(1)
        # Times the square of the temperature, so that gradients do not shrink with it.
        return F.kl_div(own, target, reduction="none").sum(1).mean() * heat**2

    def shares(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """(T, N, h, w) shares that sum to 1 over the teachers.

        Args:
            logits: (T, N, K, h, w) float32.
            labels: (N, H, W) int64, or None.
        """
        if not self.by_truth or labels is None:
            return torch.full_like(logits[:, :, 0], 1 / len(logits))
        sampled = sample_labels(labels.to(logits.device), logits.shape[-1])
        index = sampled.clamp(max=logits.shape[2] - 1)[None, :, None]
        index = index.expand(len(logits), -1, -1, -1, -1)
        likelihood = logits.log_softmax(2).gather(2, index)[:, :, 0]
        return torch.where(sampled == IGNORE_LABEL, 0.0, likelihood).softmax(0)


def _label(run: Path) -> str:
    return run.parent.name if run.suffix == ".safetensors" else run.name
