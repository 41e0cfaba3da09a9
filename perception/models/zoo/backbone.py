"""EfficientNet-Lite as a pyramid, and the base of those zoo models whose idea lies elsewhere."""

from __future__ import annotations

from torch import Tensor, nn

from perception.models.efficientnet_lite import SCALES, LitePyramid
from perception.models.heads import DetectionHead, Pyramid, SegmentationHead
from perception.models.interface import Features, FusionModel, ModelOutput


class PyramidModel(FusionModel):
    """Base of models with an EfficientNet-Lite per encoder and the usual heads on a fused pyramid.

    A subclass writes `fuse`, and gives `add_heads` the channels of what it fuses.
    """

    feature_names = tuple(f"f{s}" for s in SCALES)
    head_parts = ("segmentation", "detection")

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
