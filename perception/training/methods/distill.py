"""Distillation of several teachers into one student.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, for each teacher; the
teachers' shares are chosen pixel by pixel, by how much each is right there.  A frozen teacher with all
sensors for a student that has some of them: Tan et al., "Robust Multimodal Segmentation with Representation
Regularization and Hybrid Prototype Distillation", 2025, without its prototypes.  The run's own average as
teacher: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.data.base import IGNORE_LABEL, RecordingInfo
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.files.fields import check_fields
from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.models.supervision import sample_labels
from perception.runtime.bundle import Bundle
from perception.tasks.segmentation import SEGMENTATION
from perception.training.building import build_from_config, recording_info
from perception.training.checkpoint import load_checkpoint, load_weights
from perception.training.config import ModelSpec
from perception.training.dataset import Batch, on_device
from perception.training.distributed import here
from perception.training.from_bundle import model_of_bundle
from perception.training.methods.base import TrainingMethod
from perception.training.objectives import Tensors
from perception.training.precision import autocast
from perception.training.starting import bundle_of

AVERAGE = "average"
"""The teacher that is the run's own moving average."""
STUDENT = "student"


class Distillation(TrainingMethod):
    """Draw the student's outputs to those of its teachers.

    A teacher sees every modality of the batch that it takes, also those which are withheld from the
    student in this step: so a student that has only thermal learns what its teachers saw in colour.

    Of a batch with faults of a curriculum, it sees the samples as they were before these.

    Logged: `distill/<teacher>`, that teacher's mean share.

    Args:
        model: the student.
        teachers: bundles by name or path, runs or checkpoints, trained on the same classes.  A bundle is read
            back as `model.start_from` does.
        bundles_are: `{name: ..., options: ...}` of the model that bundles are of; None: the student's own.
        average: the moving average of the student's own weights, as it is at each step, is a teacher, too.
        features: weight of the distance between the student's and each teacher's output of the part that all
            tasks share (1 - cosine, place by place); of teachers that have it in the student's shape.
        weight: of the distillation terms.
        temperature: that softens both distributions.
        by_truth: share the pixels out by how likely each teacher finds the truth; False for equal
            shares.
    """

    divides = True

    def __init__(
        self,
        model: FusionModel,
        teachers: Sequence[str] = (),
        weight: float = 1.0,
        temperature: float = 2.0,
        by_truth: bool = True,
        bundles_are: Mapping[str, Any] | None = None,
        average: bool = False,
        features: float = 0.0,
    ) -> None:
        super().__init__(model)
        if isinstance(teachers, str):
            teachers = [teachers]
        if not teachers and not average:
            raise ConfigError("needs at least one run or bundle", where="method.options.teachers")
        if not (0 < weight < math.inf and 0 < temperature < math.inf):
            raise ConfigError("weight and temperature must be positive", where="method.options")
        if not 0 <= features < math.inf:
            raise ConfigError("must not be negative", where="method.options.features")
        self.weight, self.temperature, self.by_truth = weight, temperature, by_truth
        self.features, self.teachers_named = features, tuple(teachers)
        self._taught_on: dict[str, tuple[RecordingInfo, Collection[str]]] = {}
        self.teachers = {_label(Path(t)): self._load(t, bundles_are) for t in teachers}
        if len(self.teachers) < len(teachers) or (average and AVERAGE in self.teachers):
            raise ConfigError("two of them have the same name", where="method.options.teachers")
        if average:
            self.teachers[AVERAGE] = copy.deepcopy(model).eval().requires_grad_(False)
        self._follows = average
        self._seen: dict[str, Tensor] = {}
        if features:
            self._watch()

    def check(self, info: RecordingInfo, tasks: Collection[str]) -> None:
        for run, (theirs, taught) in self._taught_on.items():
            shared = [task for task in tasks if task in taught]
            require_same_classes(info, theirs, shared, what="the student", where=run)
        for name, teacher in self.teachers.items():
            for task in set(tasks) & set(teacher.tasks):
                own = [c.name for c in self.model.tasks[task].labels]
                if [c.name for c in teacher.tasks[task].labels] != own:
                    raise ConfigError(f"has other {task} classes than the student", where=name)

    def _load(self, run: str, bundles_are: Mapping[str, Any] | None) -> FusionModel:
        where = f"method.options.teachers: {run}"
        path = bundle_of(run, where)
        teacher = self._of_run(run) if path is None else self._of_bundle(path, bundles_are, where)
        same = all(
            len(spec.labels) == self.model.classes_of(task) for task, spec in teacher.tasks.items()
        ) and set(teacher.modalities) & set(self.model.modalities)
        if not same:
            raise ConfigError("has other classes or modalities than the student", where=run)
        for name in teacher.modalities:
            if name in self.model.inputs and (
                teacher.inputs[name].preprocess != self.model.inputs[name].preprocess
            ):
                raise ConfigError(
                    f"preprocessing of {name} is not the student's",
                    where=where,
                    hint=f"take preprocess.{name} of the configuration that made it",
                )
        device = next(self.model.parameters()).device
        return teacher.to(device).eval().requires_grad_(False)

    def _of_bundle(
        self, path: Path, bundles_are: Mapping[str, Any] | None, where: str
    ) -> FusionModel:
        if bundles_are is not None:
            what = "method.options.bundles_are"
            spec = check_fields(ModelSpec, dict(bundles_are), where=what, error=ConfigError)
        elif self.model.made_as is None:
            raise ConfigError("say what model it is of: bundles_are", where=where)
        else:
            name, options = self.model.made_as
            spec = ModelSpec(name=name, options=options)
        return model_of_bundle(Bundle.open(path), spec, where)

    def _of_run(self, run: str) -> FusionModel:
        state = load_checkpoint(Path(run))
        info = recording_info(state.progress)
        self._taught_on[run] = info, state.config.tasks
        teacher = build_from_config(state.config, info, pretrained=False)
        load_weights(teacher, state.ema, run)
        return teacher

    def _watch(self) -> None:
        """Let the shared part of the student and of all teachers leave its outputs in `_seen`."""
        part = self.model.shared_part
        if not part:
            raise ConfigError(
                f"{type(self.model).__name__} has no part that all tasks share",
                where="method.options.features",
            )

        def seeing(who: str) -> Callable[..., None]:
            def see(module: nn.Module, given: Any, output: Any) -> None:
                if isinstance(output, Tensor):
                    self._seen[who] = output

            return see

        last_of(self.model).register_forward_hook(seeing(STUDENT))
        for name, teacher in self.teachers.items():
            if teacher.shared_part == part:
                last_of(teacher).register_forward_hook(seeing(f"teacher {name}"))

    def extra_terms(self, inputs: Tensors, output: ModelOutput, batch: Batch) -> Tensors:
        """`distill_<task>`, for the heads that both sides have."""
        device = next(iter(inputs.values())).device
        if self._follows and self.average is not None:
            self.teachers[AVERAGE].load_state_dict(self.average())
        lessons: dict[str, ModelOutput] = {}
        for name, teacher in self.teachers.items():
            seen = batch.without_faults(teacher.modalities)
            if seen:
                with torch.no_grad(), autocast(device, self.precision):
                    answer = teacher(on_device(seen, device))
                lessons[name] = here().whole(answer, batch.frames)
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
        if self.features and (gaps := self._gaps(lessons, batch.frames)):
            terms["distill_features"] = self.features * torch.stack(gaps).mean()
        self._seen.clear()
        return terms

    def _gaps(self, lessons: Mapping[str, ModelOutput], frames: int) -> list[Tensor]:
        """How far what the student made is from what each teacher did, 0 to 2."""
        own, found = self._seen.get(STUDENT), []
        for name in lessons:
            theirs = self._seen.get(f"teacher {name}")
            if own is not None and theirs is not None and theirs.shape == own.shape:
                alike = F.cosine_similarity(own.float(), theirs.detach().float(), dim=1)
                found.append(1 - here().rows(alike, frames).mean())
        return found

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


def last_of(model: FusionModel) -> nn.Module:
    """What gives the output of the part that all tasks share: of a list of stages the last one."""
    part = model.get_submodule(model.shared_part)
    return part[-1] if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) else part


def _label(run: Path) -> str:
    return run.parent.name if run.suffix == ".safetensors" else run.name
