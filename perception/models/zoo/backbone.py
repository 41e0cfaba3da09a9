"""EfficientNet-Lite as a pyramid, and the base of those zoo models whose idea lies elsewhere."""

from __future__ import annotations

from torch import Tensor, nn

from perception.errors import ConfigError
from perception.models.efficientnet_lite import (
    STAGES,
    STEM_CHANNELS,
    Stem,
    adapt_stem,
    imagenet_state_dict,
    make_stages,
    scale_channels,
)
from perception.models.heads import DetectionHead, Pyramid, SegmentationHead
from perception.models.interface import Features, FusionModel, ModelOutput

SCALE_STAGE = {4: 1, 8: 2, 16: 4, 32: 6}
"""Index of the stage that gives the map of each stride."""

SCALES = tuple(SCALE_STAGE)


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


class PyramidModel(FusionModel):
    """Base of models with an EfficientNet-Lite per encoder and the usual heads on a fused pyramid.

    A subclass writes `fuse`, and gives `add_heads` the channels of what it fuses.
    """

    feature_names = tuple(f"f{s}" for s in SCALES)

    def add_encoders(self, width: float, *, pretrained: bool) -> dict[int, int]:
        """Make the encoders; returns the channels of their maps by stride."""
        pyramids: dict[str, LitePyramid] = {
            e: LitePyramid(channels, width, SCALES, pretrained=pretrained)
            for e, channels in self.encoder_channels.items()
        }
        self.encoders = nn.ModuleDict(pyramids)
        return next(iter(pyramids.values())).channels

    def add_heads(self, channels: dict[int, int], decoder_width: int) -> None:
        """Make a head for each task that has classes."""
        self.segmentation = (
            SegmentationHead(channels, self.seg_classes, decoder_width)
            if self.seg_classes
            else None
        )
        self.detection = (
            DetectionHead(channels, self.det_classes, decoder_width) if self.det_classes else None
        )

    def encode(self, modality: str, image: Tensor) -> Features:
        """Feature maps `f<s>` at strides s."""
        return {f"f{s}": x for s, x in self.encoders[self.encoder_of[modality]](image).items()}

    def read(self, pyramid: Pyramid) -> ModelOutput:
        """What the heads say of a fused pyramid."""
        return ModelOutput(
            self.segmentation(pyramid) if self.segmentation is not None else None,
            self.detection(pyramid) if self.detection is not None else {},
        )
