"""Masked pre-training: the same run folder, checkpoints and resumption as training, no labels used."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perception.data.base import ClassInfo, RecordingInfo
from perception.errors import ConfigError
from perception.models.interface import FusionModel
from perception.models.registry import MODELS
from perception.models.zoo.multimae import MultiMAE
from perception.training.building import describe_recording
from perception.training.checkpoint import BEST, save_checkpoint
from perception.training.config import TrainConfig
from perception.training.dataset import Batch
from perception.training.loop import Trainer
from perception.training.precision import autocast
from perception.training.validate import whole_frame


class Pretrainer(Trainer):
    """Trains a MultiMAE to rebuild what it does not see.

    The best checkpoint is the one with the least validation error; name the run in another
    configuration's `model.start_from` to use it.
    """

    def __init__(
        self, config: TrainConfig, out: Path, device: str = "cpu", *, tensorboard: bool = False
    ) -> None:
        if not issubclass(MODELS.get(config.model.name, FusionModel), MultiMAE):
            raise ConfigError(
                f"cannot be pre-trained: {config.model.name}", where="model.name", hint="multimae"
            )
        config.model.options["pretraining"] = True
        super().__init__(config, out, device, tensorboard=tensorboard)

    def _build(self, info: RecordingInfo) -> FusionModel:
        if not info.seg_classes and "segmentation" in self.config.tasks:
            # The head is not trained here, and another recording's classes will replace it.
            info = replace(info, seg_classes=(ClassInfo(0, "unlabeled", (0, 0, 0)),))
        return super()._build(info)

    def _truth_notes(self) -> list[str]:
        return []

    def _can_be_judged(self) -> bool:
        return bool(len(self.val_set))

    def _step(self, batch: Batch, subset: tuple[str, ...]) -> float:
        inputs = {m: x.to(self.device) for m, x in batch.inputs.items()}
        seed = int(torch.randint(2**31, ()))
        with autocast(self.device, self.config.precision):
            loss = self._error(inputs, seed)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.average.update(self.model)
        return float(loss.detach())

    def _error(self, inputs: dict[str, torch.Tensor], seed: int) -> torch.Tensor:
        assert isinstance(self.model, MultiMAE)
        generator = torch.Generator().manual_seed(seed)
        return self.model.reconstruction_loss(inputs, generator)

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.state)
        self.model.eval()
        errors = []
        for index in range(len(self.val_set)):
            inputs = whole_frame(self.val_set, index, self.device)
            errors.append(float(self._error(inputs, index)))
        self.model.load_state_dict(own)
        error = sum(errors) / len(errors) if errors else math.nan
        if -error > self.best:
            self.best = -error
            progress = {
                "epoch": self.epoch,
                "best": self.best,
                "recording": describe_recording(self.train_set.recording.info),
            }
            state = self.average.state
            save_checkpoint(self.out / BEST, self.config, self.model, state, None, progress)
        return {"reconstruction": error if math.isfinite(error) else None}
