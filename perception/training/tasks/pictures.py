"""Pictures that a model makes besides; they have no truth."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from perception.tasks.pictures import PREFIX, PicturesSpec
from perception.training.tasks.task import TrainingTask


class PicturesTraining(TrainingTask):
    """Values are (N, C, H, W) pictures in 0..1 by name."""

    name = "pictures"
    trained = False

    def exported(self, spec: Any, value: dict[str, Tensor]) -> PicturesSpec:
        return PicturesSpec(names=tuple(sorted(value)))

    def outputs(self, value: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{PREFIX}{name}": picture for name, picture in value.items()}

    def head(self, channels: Any, spec: Any, width: int) -> nn.Module:
        raise NotImplementedError

    def loss(self, value: Any, truths: Any, prepared: Any = None) -> Tensor:
        raise NotImplementedError


PICTURES = PicturesTraining()
