"""Source-free adaptation of uni-modal models to unlabeled multi-modal data.

Simons, Raychaudhuri, Ahmed, You, Karydis, Roy-Chowdhury, "SUMMIT: Source-Free Adaptation of Uni-Modal
Models to Multi-Modal Targets", ICCV 2023: models that were trained apart, each on its own sensor, teach
each other on data where both sensors saw the same scene.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perception.data.base import IGNORE_LABEL, Recording
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.models.interface import FusionModel
from perception.preprocess.contract import PreprocessContract
from perception.tasks.segmentation import SEGMENTATION
from perception.training.batches import labeled_frames
from perception.training.building import build_from_config, recording_info
from perception.training.checkpoint import (
    BEST,
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from perception.training.config import CorruptionSpec, ResolutionPhase
from perception.training.dataset import FusionDataset, collate, on_device
from perception.training.devices import training_device
from perception.training.memory import within_memory
from perception.training.validate import validate

Fusion = Literal["agreement", "entropy"]


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt.

    Attributes:
        epochs: passes over the target frames.
        lr: of Adam.
        batch: frames per step.
        fusion: `agreement`, `entropy`, or `auto` to choose by the estimated domain gap.
        threshold: gap from which on `auto` takes agreement filtering.
        information: weight of the information maximization term.
        seed: of all random choices.
    """

    epochs: int = 2
    lr: float = 2e-5
    batch: int = 4
    fusion: Literal["auto", "agreement", "entropy"] = "auto"
    threshold: float = 0.3
    information: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class AdaptReport:
    """What happened.

    Attributes:
        gap: estimated domain gap, 0 to 1.
        fusion: of the pseudo-labels.
        kept: share of the pixels that had a pseudo-label, in the last epoch.
        losses: mean loss of each epoch.
        before, after: mIoU of each run on the target frames, where these have labels.
    """

    gap: float
    fusion: Fusion
    kept: float
    losses: tuple[float, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]


def agreement_labels(probabilities: Sequence[Tensor]) -> Tensor:
    """Labels (N, h, w) where all models say the same class, 255 elsewhere.

    Args:
        probabilities: (N, K, h, w) per model.
    """
    votes = torch.stack([p.argmax(1) for p in probabilities])
    agreed = (votes == votes[:1]).all(0)
    return torch.where(agreed, votes[0], IGNORE_LABEL)


def entropy_labels(probabilities: Sequence[Tensor], keep: float = 0.6) -> Tensor:
    """Labels (N, h, w) of the mean weighted by certainty; 255 for the least certain pixels.

    A model's weight at a pixel is exp(-entropy) there, so that an undecided one hardly counts.

    Args:
        probabilities: (N, K, h, w) per model.
        keep: share of the pixels of each class that get a label, the surest first.
    """
    stacked = torch.stack(list(probabilities))
    entropy = -(stacked * stacked.clamp(min=1e-8).log()).sum(2, keepdim=True)
    weights = (-entropy).softmax(0)
    surest, labels = (stacked * weights).sum(0).max(1)
    for kind in labels.unique().tolist():
        chosen = labels == kind
        limit = torch.quantile(surest[chosen].float(), 1 - keep)
        labels = torch.where(chosen & (surest < limit), IGNORE_LABEL, labels)
    return labels


def domain_gap(probabilities: Sequence[Tensor]) -> float:
    """Share of pixels on which the models disagree, weighted by how sure both are.

    Models that learned the same task on their own sensor agree where their domain holds; sure
    disagreement shows that it does not.  No source data are needed.
    """
    votes = torch.stack([p.argmax(1) for p in probabilities])
    sure = torch.stack([p.amax(1) for p in probabilities]).amin(0)
    differ = (votes != votes[:1]).any(0).float()
    return float((differ * sure).sum() / sure.sum().clamp(min=1e-6))


def information_loss(logits: Tensor) -> Tensor:
    """Entropy of each pixel minus entropy of the mean: small for sure, varied answers."""
    p = logits.float().softmax(1)
    each = -(p * p.clamp(min=1e-8).log()).sum(1).mean()
    mean = p.mean((0, 2, 3))
    return each + (mean * mean.clamp(min=1e-8).log()).sum()


class Adapter:
    """Adapts several runs together.

    Args:
        runs: run folders or checkpoints with a semantic head, of the same classes, each with other
            modalities; two or more.
        target: frames; those that lack one of the runs' sensors are left out (`left_out`).  Labels, if
            any, are for the report alone.
        options: see `AdaptOptions`.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        ConfigError: there is no such device, no frame has all sensors, or the runs do not fit each
            other or the target.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        target: Recording,
        options: AdaptOptions,
        device: str = "cpu",
    ) -> None:
        if len(runs) < 2:
            raise ConfigError("needs two or more runs", hint="one per sensor")
        self.options, self.device = options, training_device(device)
        self.checkpoints: dict[str, Checkpoint] = {}
        self.models: dict[str, FusionModel] = {}
        for run in runs:
            name = run.parent.name if run.suffix == ".safetensors" else run.name
            if name in self.models:
                raise ConfigError("two runs have the same name", where=name)
            state = load_checkpoint(run)
            model = build_from_config(
                state.config, recording_info(state.progress), pretrained=False
            )
            load_weights(model, state.ema, str(run))
            self.checkpoints[name], self.models[name] = state, model.to(self.device)
        self._check(target)
        contract = PreprocessContract(
            {
                name: spec.model_copy(update={"encoder": ""})  # runs call them as they like
                for state in self.checkpoints.values()
                for name, spec in state.config.preprocess.items()
            }
        )
        order = contract.names
        self.data = FusionDataset(target, contract, CorruptionSpec(), options.seed)
        grid = contract.grid
        self.data.phase = ResolutionPhase(crop=(grid.height, grid.width), scale=(1.0, 1.0), batch=2)
        self.left_out = self.data.keep(lambda index: self.data.modalities(index) == order)
        if not len(self.data):
            raise ConfigError(f"no frame has all of {', '.join(order)}", where=target.info.name)

    def _check(self, target: Recording) -> None:
        first = next(iter(self.models.values()))
        grid = next(iter(self.checkpoints.values())).config.preprocess.grid
        tables = {n: recording_info(c.progress) for n, c in self.checkpoints.items()}
        known, tasks = next(iter(tables)), (SEGMENTATION.name,)
        for name, model in self.models.items():
            classes = model.classes_of(SEGMENTATION.name)
            if not classes or classes != first.classes_of(SEGMENTATION.name):
                raise ConfigError("has no semantic head, or other classes", where=name)
            require_same_classes(tables[known], tables[name], tasks, what=known, where=name)
            if self.checkpoints[name].config.preprocess.grid != grid:
                raise ConfigError("was trained on another grid", where=name)
            if lacking := target.info.lacking(model.kinds):
                raise ConfigError(f"the target has {lacking}", where=name)
        require_same_classes(tables[known], target.info, tasks, what=known, where="--data")

    @property
    def steps(self) -> int:
        """Batches in all epochs together."""
        return self.options.epochs * -(-len(self.data) // self.options.batch)

    def run(self, out: Path, on_step: Callable[[], None] = lambda: None) -> AdaptReport:
        """Adapt all runs and write each to a folder of its name below `out`.

        Args:
            out: made where missing.
            on_step: called after each of `steps`.
        """
        before = self._scores()
        gap = self._gap()
        fusion: Fusion = "agreement" if gap >= self.options.threshold else "entropy"
        if self.options.fusion != "auto":
            fusion = self.options.fusion
        parameters = [p for m in self.models.values() for p in m.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, self.options.lr)
        losses, kept = [], 0.0
        for epoch in range(self.options.epochs):
            loss, kept = self._epoch(epoch, fusion, optimizer, on_step)
            losses.append(loss)
        after = self._scores()
        report = AdaptReport(gap, fusion, kept, tuple(losses), before, after)
        for name, model in self.models.items():
            state = self.checkpoints[name]
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            progress = {k: v for k, v in state.progress.items() if k != "scores"}
            progress["adapted"] = {"data": self.data.recording.info.name, **asdict(report)}
            weights = dict(model.state_dict())
            save_checkpoint(folder / BEST, state.config, model, weights, None, progress)
        return report

    @torch.no_grad()
    def _gap(self) -> float:
        count = len(self.data)
        chosen = [i * count // min(count, 16) for i in range(min(count, 16))]
        gaps = []
        for index in chosen:
            inputs = on_device(collate([self.data[index]]).inputs, self.device)
            gaps.append(domain_gap(self._probabilities(self.models, inputs)))
        return float(np.mean(gaps))

    @torch.no_grad()
    def _probabilities(
        self, models: Mapping[str, FusionModel], inputs: Mapping[str, Tensor]
    ) -> list[Tensor]:
        found = []
        for model in models.values():
            output = model.eval()({m: inputs[m] for m in model.modalities})
            found.append(output.values[SEGMENTATION.name].float().softmax(1))
        return found

    def _epoch(
        self,
        epoch: int,
        fusion: Fusion,
        optimizer: torch.optim.Optimizer,
        on_step: Callable[[], None],
    ) -> tuple[float, float]:
        """One pass; the pseudo-labels come from the models as they were at its start."""
        teachers = {name: copy.deepcopy(model) for name, model in self.models.items()}
        self.data.epoch = epoch
        order = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.data))
        losses, kept = [], []
        for start in range(0, len(order), self.options.batch):
            chosen = order[start : start + self.options.batch]
            on_step()
            if len(chosen) < 2 and len(order) > 1:
                continue  # batch statistics of one frame are no statistics
            batch = collate([self.data[int(i)] for i in chosen])
            inputs = on_device(batch.inputs, self.device)
            with within_memory("one step", "--batch", "a smaller one"):
                views = self._probabilities(teachers, inputs)
                labels = agreement_labels(views) if fusion == "agreement" else entropy_labels(views)
                kept.append(float((labels != IGNORE_LABEL).float().mean()))
                losses.append(self._step(inputs, labels, optimizer))
            if not np.isfinite(losses[-1]):
                raise ConfigError("the loss is not finite any more", hint="lower --lr")
        return float(np.mean(losses)), float(np.mean(kept))

    def _step(
        self, inputs: Mapping[str, Tensor], labels: Tensor, optimizer: torch.optim.Optimizer
    ) -> float:
        total = torch.zeros((), device=self.device)
        known = (labels != IGNORE_LABEL).sum().clamp(min=1)
        for model in self.models.values():
            output = model.train()({m: inputs[m] for m in model.modalities})
            logits = output.values[SEGMENTATION.name].float()
            error = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="sum")
            total = total + error / known
            total = total + self.options.information * information_loss(logits)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(total.detach()) / len(self.models)

    def _scores(self) -> dict[str, float]:
        """mIoU of each model on the target frames; empty where these have no labels."""
        if not labeled_frames(self.data, SEGMENTATION.name):
            return {}
        scores = {}
        for name, model in self.models.items():
            config = self.checkpoints[name].config
            own = FusionDataset(
                self.data.recording, config.preprocess, CorruptionSpec(), self.options.seed
            )
            own._cache = self.data._cache
            rows = validate(model, own, config, self.device)
            scores[name] = rows["+".join(config.preprocess.modalities)]["miou"]
        return scores
