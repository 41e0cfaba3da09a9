"""Mean fusion: the average of the features of the inputs that are there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception.models.heads import WithHeads
from perception.models.interface import Features, FusionModel, ModelCard, ModelOutput, gather
from perception.models.zoo.blocks import ConvNorm

STRIDES = (4, 8, 16, 32)


class MeanFusion(FusionModel, WithHeads):
    """A few convolutions per encoder, the mean of their maps at each stride, and the usual heads."""

    card = ModelCard(kind="mean fusion", source="an example", tasks=None, published_weights=False)
    feature_names = tuple(f"f{stride}" for stride in STRIDES)

    def build(self, width: int = 16) -> None:
        for name, channels in self.encoder_channels.items():
            first = nn.Sequential(
                ConvNorm(channels, width, 3, stride=2), ConvNorm(width, width, 3, stride=2)
            )
            others = [ConvNorm(width, width, 3, stride=2) for _ in STRIDES[1:]]
            self.encoders[name] = nn.ModuleList([first, *others])
        self.add_heads(self.tasks, dict.fromkeys(STRIDES, width), width)

    def encode(self, modality: str, image: Tensor) -> Features:
        features, x = {}, image
        for stride, stage in zip(STRIDES, self.encoders[self.encoder_of[modality]], strict=True):
            x = stage(x)
            features[f"f{stride}"] = x
        return features

    def fuse(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
        pyramid = {}
        for stride in STRIDES:
            got = gather(self.modalities, features, present, f"f{stride}")
            count = torch.stack([gate.float() for gate in got.gates]).sum(0)
            pyramid[stride] = torch.stack(got.maps).sum(0) / count.clamp(min=1)
        return ModelOutput(self.answers(pyramid))
