"""EfficientNet-Lite as a pyramid, the encoder of those zoo models whose idea lies elsewhere."""

from __future__ import annotations

from torch import Tensor, nn

from perception.errors import ConfigError
from perception.models.efficientnet_lite import (
    STAGES,
    STEM_CHANNELS,
    SamePadConv,
    Stem,
    adapt_stem,
    imagenet_state_dict,
    make_stages,
    scale_channels,
)

SCALE_STAGE = {4: 1, 8: 2, 16: 4, 32: 6}
"""Index of the stage that gives the map of each stride."""


class LitePyramid(nn.Module):
    """Stem and stages of EfficientNet-Lite0 as far as the coarsest of `scales`.

    Args:
        inputs: channels of the image.
        width: channel multiplier; ImageNet weights fit 1.0 only.
        scales: strides of the maps to give, of 4, 8, 16 and 32.
        pretrained: start from ImageNet weights.
    """

    def __init__(
        self, inputs: int, width: float, scales: tuple[int, ...], *, pretrained: bool = False
    ) -> None:
        super().__init__()
        depth = SCALE_STAGE[max(scales)] + 1
        stem = scale_channels(STEM_CHANNELS, width)
        self.stem = Stem(inputs, stem)
        self.stages, stage_channels = make_stages(0, depth, stem, width)
        self.channels = {s: stage_channels[SCALE_STAGE[s]] for s in scales}
        self._scale_of = {SCALE_STAGE[s]: s for s in scales}
        if pretrained:
            if width != 1.0:
                raise ConfigError(
                    "ImageNet weights fit width 1.0 only", hint="set pretrained: false"
                )
            self._load_imagenet(inputs, depth)

    def _load_imagenet(self, inputs: int, depth: int) -> None:
        assert depth <= len(STAGES)
        own = {
            key: value
            for key, value in imagenet_state_dict().items()
            if key.startswith("stem") or int(key.split(".")[1]) < depth
        }
        own["stem.conv.weight"] = adapt_stem(own["stem.conv.weight"], inputs)
        self.load_state_dict(own)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Maps by stride of an (N, inputs, H, W) image."""
        maps = {}
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._scale_of:
                maps[self._scale_of[index]] = x
        return maps


def share_convolutions(encoders: list[LitePyramid]) -> None:
    """Let all encoders use the convolutions of the first; stems and normalizations stay their own."""
    reference = dict(encoders[0].stages.named_modules())
    for encoder in encoders[1:]:
        for name, module in encoder.stages.named_modules():
            if isinstance(module, SamePadConv):
                shared = reference[name]
                assert isinstance(shared, SamePadConv)
                module.weight = shared.weight
