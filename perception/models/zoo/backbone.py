"""EfficientNet-Lite as a pyramid, and the base of those zoo models whose idea lies elsewhere."""

from __future__ import annotations

from torch import Tensor, nn

from perception.models.efficientnet_lite import SCALES, LitePyramid
from perception.models.heads import WithHeads
from perception.models.interface import Features, FusionModel, Group


class PyramidModel(FusionModel, WithHeads):
    """Base of models with an EfficientNet-Lite per encoder and the usual heads on a fused pyramid.

    A subclass writes `build`, which gives `add_heads` the channels of what it fuses, and `fuse`.
    """

    feature_names = tuple(f"f{s}" for s in SCALES)

    def group_of(self, name: str) -> Group:
        """The parts of `WithHeads` are heads."""
        return "heads" if name.split(".")[0] in self.parts.values() else super().group_of(name)

    def add_encoders(self, width: float) -> dict[int, int]:
        """Make the encoders; returns the channels of their maps by stride."""
        pyramids: dict[str, LitePyramid] = {
            e: LitePyramid(channels, width, SCALES, pretrained=self.pretrained)
            for e, channels in self.encoder_channels.items()
        }
        self.encoders = nn.ModuleDict(pyramids)
        return next(iter(pyramids.values())).channels

    def encode(self, modality: str, image: Tensor) -> Features:
        """Feature maps `f<s>` at strides s."""
        return {f"f{s}": x for s, x in self.encoders[self.encoder_of[modality]](image).items()}
