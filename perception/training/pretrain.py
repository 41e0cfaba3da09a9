"""Masked pre-training: the same run folder, checkpoints and resumption as training, no labels used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.data.base import ClassInfo, RecordingInfo
from perception.errors import ConfigError
from perception.models.interface import FusionModel, Pretrainable
from perception.models.registry import MODELS
from perception.training.config import TrainConfig
from perception.training.dataset import Batch, on_device
from perception.training.loop import Trainer
from perception.training.precision import autocast
from perception.training.validate import whole_frame


class Pretrainer(Trainer):
    """Trains a `Pretrainable` model to rebuild what it does not see.

    The best checkpoint is the one with the least validation error; name the run in another
    configuration's `model.start_from` to use it.
    """

    def __init__(
        self, config: TrainConfig, out: Path, device: str = "cpu", *, tensorboard: bool = False
    ) -> None:
        if not issubclass(MODELS.named(config.model.name, "model.name"), Pretrainable):
            raise ConfigError(
                f"cannot be pre-trained: {config.model.name}", where="model.name", hint="multimae"
            )
        config.model.options["pretraining"] = True
        super().__init__(config, out, device, tensorboard=tensorboard)

    def learned_tasks(self) -> Sequence[str]:
        return ()

    def build(self, info: RecordingInfo) -> FusionModel:
        # Heads are not trained here, and another recording's classes will replace them.
        one = (ClassInfo(0, "unlabeled", (0, 0, 0)),)
        seg, det = info.seg_classes or one, info.det_classes or one
        return super().build(replace(info, seg_classes=seg, det_classes=det))

    def truth_notes(self) -> list[str]:
        return []

    def can_be_judged(self) -> bool:
        return bool(len(self.val_set))

    def learn(self, batch: Batch, subset: tuple[str, ...]) -> Tensor:
        inputs = on_device(batch.inputs, self.device)
        seed = int(torch.randint(2**31, ()))
        with autocast(self.device, self.config.precision):
            loss = self._error(inputs, seed)
        loss.backward()  # type: ignore[no-untyped-call]
        shown = loss.detach().clone()
        self.ranks.mean([shown])
        return shown

    def _error(self, inputs: dict[str, Tensor], seed: int) -> Tensor:
        assert isinstance(self.model, Pretrainable)
        return self.model.reconstruction_loss(inputs, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def judge(self) -> tuple[float, dict[str, Any], dict[str, Any]]:
        self.model.eval()
        own = {
            index: float(self._error(whole_frame(self.val_set, index, self.device), index))
            for index in self.ranks.share(len(self.val_set))
        }
        known = {index: error for share in self.ranks.heard(own) for index, error in share.items()}
        errors = [known[index] for index in sorted(known)]
        error = sum(errors) / len(errors) if errors else math.nan
        return -error, {"reconstruction": error if math.isfinite(error) else None}, {}
