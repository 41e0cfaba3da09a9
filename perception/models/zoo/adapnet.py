"""AdapNet++: a pre-activation ResNet-50 with multiscale units, efficient ASPP and two skips.

Valada, Mohan and Burgard, "Self-Supervised Model Adaptation for Multimodal Semantic Segmentation",
International Journal of Computer Vision, 2019.  It takes one modality; SSMA fuses several of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perception.models.chance import ChannelDropout
from perception.models.interface import Features, FusionModel, ModelCard, ModelOutput
from perception.models.supervision import auxiliary_segmentation_loss
from perception.models.zoo.blocks import (
    ConvNorm,
    NormReLU,
    PooledConv,
    Upsampling,
    he_initialize,
    scaled,
)
from perception.tasks.segmentation import SEGMENTATION

SOURCE = "Valada, Mohan, Burgard: Self-Supervised Model Adaptation, IJCV 2019"
DEPTHS = (3, 4, 6, 3)
WIDTHS = (256, 512, 1024, 2048)
ASPP_RATES = (3, 6, 12)
AUX_WEIGHTS = {"aux_fine": 0.6, "aux_coarse": 0.5}
SKIP_WIDTH, CONTEXT_WIDTH = 24, 256


class PreactUnit(nn.Module):
    """Pre-activation bottleneck; with two `rates`, its 3x3 convolution is split into two dilations.

    Args:
        inputs, outputs: channels.
        stride: of the 3x3 convolution and the shortcut.
        rates: dilations of the halves of the 3x3 convolution; (1,) for one undivided convolution.
        activate: False where the input is activated already.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        rates: tuple[int, ...] = (1,),
        *,
        activate: bool = True,
    ) -> None:
        super().__init__()
        inner = outputs // 4
        self.first = NormReLU(inputs) if activate else nn.Identity()
        self.reduce = ConvNorm(inputs, inner)
        share = inner // len(rates)
        self.scales = nn.ModuleList(
            nn.Conv2d(inner, share, 3, stride, rate, rate, bias=False) for rate in rates
        )
        self.second = NormReLU(inner)
        self.expand = nn.Conv2d(inner, outputs, 1, bias=False)
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        y = self.reduce(active)
        y = self.second(torch.cat([conv(y) for conv in self.scales], dim=1))
        return self.expand(y) + (x if self.shortcut is None else self.shortcut(active))


class EfficientASPP(nn.Module):
    """Atrous pyramid whose 3x3 convolutions work on a bottleneck of an eighth of a branch's width.

    Each dilated branch is 1x1 down, two 3x3 at its rate, 1x1 up; beside them a 1x1 branch and the
    image mean.
    """

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = ASPP_RATES) -> None:
        super().__init__()
        inner = outputs // 4
        self.point = ConvNorm(inputs, outputs)
        self.dilated = nn.ModuleList(
            nn.Sequential(
                ConvNorm(inputs, inner),
                ConvNorm(inner, inner, 3, dilation=rate),
                ConvNorm(inner, inner, 3, dilation=rate),
                ConvNorm(inner, outputs),
            )
            for rate in rates
        )
        self.pooled = PooledConv(inputs, outputs)
        self.project = ConvNorm(outputs * (2 + len(rates)), outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.pooled(x).expand(-1, -1, *x.shape[-2:])
        branches = [self.point(x), *(branch(x) for branch in self.dilated), mean]
        return self.project(torch.cat(branches, dim=1))


class PlainASPP(nn.Module):
    """The atrous pyramid that `EfficientASPP` is measured against (Chen et al., DeepLab v3, 2017)."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = ASPP_RATES) -> None:
        super().__init__()
        self.point = ConvNorm(inputs, outputs)
        self.dilated = nn.ModuleList(ConvNorm(inputs, outputs, 3, dilation=r) for r in rates)
        self.pooled = PooledConv(inputs, outputs)
        self.project = ConvNorm(outputs * (2 + len(rates)), outputs, relu=False)

    forward = EfficientASPP.forward


class AdapNetEncoder(nn.Module):
    """Backbone, efficient ASPP (`context`, stride 16) and skips (`skip8`, `skip4`)."""

    def __init__(self, inputs: int, width: float) -> None:
        super().__init__()
        widths = [scaled(w, width) for w in WIDTHS]
        stem = scaled(64, width)
        self.entry = nn.BatchNorm2d(inputs)
        self.stem = ConvNorm(inputs, stem, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        first = [PreactUnit(stem, widths[0], activate=False)]
        first += [PreactUnit(widths[0], widths[0]) for _ in range(DEPTHS[0] - 1)]
        self.stage1 = nn.Sequential(*first, NormReLU(widths[0]))
        second = [PreactUnit(widths[0], widths[1], 2, activate=False)]
        second += [PreactUnit(widths[1], widths[1]) for _ in range(DEPTHS[1] - 2)]
        second += [PreactUnit(widths[1], widths[1], rates=(1, 2))]
        self.stage2 = nn.Sequential(*second, NormReLU(widths[1]))
        third = [PreactUnit(widths[1], widths[2], 2, activate=False)]
        third += [PreactUnit(widths[2], widths[2])]
        third += [PreactUnit(widths[2], widths[2], rates=(1, 2)) for _ in range(DEPTHS[2] - 2)]
        self.stage3 = nn.Sequential(*third)
        fourth = [PreactUnit(widths[2], widths[3], rates=(2, 2))]
        fourth += [PreactUnit(widths[3], widths[3], rates=(2, 2)) for _ in range(DEPTHS[3] - 1)]
        self.stage4 = nn.Sequential(*fourth, NormReLU(widths[3]))
        skip, context = scaled(SKIP_WIDTH, width), scaled(CONTEXT_WIDTH, width)
        self.skip4 = ConvNorm(widths[0], skip, relu=False)
        self.skip8 = ConvNorm(widths[1], skip, relu=False)
        self.aspp = EfficientASPP(widths[3], context)

    def forward(self, x: Tensor) -> Features:
        fine = self.stage1(self.pool(self.stem(self.entry(x))))
        middle = self.stage2(fine)
        deep = self.stage4(self.stage3(middle))
        return {
            "context": self.aspp(deep),
            "skip8": self.skip8(middle),
            "skip4": self.skip4(fine),
        }


class AdapNetDecoder(nn.Module):
    """Two upsampling steps, each joined by a skip and refined, then logits at stride 4."""

    def __init__(self, classes: int, width: float, *, reweigh: bool = False) -> None:
        super().__init__()
        context, skip = scaled(CONTEXT_WIDTH, width), scaled(SKIP_WIDTH, width)
        self.up8, self.up4 = Upsampling(context, context), Upsampling(context, context)
        self.refine8 = self._refine(context, skip)
        self.refine4 = self._refine(context, skip)
        self.gate8 = PooledConv(context, skip) if reweigh else None
        self.gate4 = PooledConv(context, skip) if reweigh else None
        self.dropout = ChannelDropout(0.1)
        self.classify = nn.Conv2d(context, classes, 1)

    @staticmethod
    def _refine(context: int, skip: int) -> nn.Module:
        return nn.Sequential(ConvNorm(context + skip, context, 3), ConvNorm(context, context, 3))

    def forward(self, context: Tensor, skip8: Tensor, skip4: Tensor) -> ModelOutput:
        coarse = self.up8(context)
        if self.gate8 is not None:
            skip8 = self.gate8(coarse) * skip8
        fine = self.up4(self.refine8(torch.cat([coarse, skip8], dim=1)))
        if self.gate4 is not None:
            skip4 = self.gate4(fine) * skip4
        x = self.refine4(torch.cat([fine, skip4], dim=1))
        output = ModelOutput({SEGMENTATION.name: self.classify(self.dropout(x))})
        if self.training:
            output.taps = {"aux_coarse": coarse, "aux_fine": fine}
        return output


class MultiresolutionSupervision(FusionModel):
    """What AdapNet++ and SSMA share: encoders, decoder and its two auxiliary heads.

    Args:
        inputs, tasks: see `FusionModel`.
        pretrained: must be False, there are no published weights in a form that is read here; an SSMA
            may start from trained experts with `model.start_from`.
        width: channel multiplier; 1.0 is the publication's size.
    """

    feature_names = ("context", "skip8", "skip4")
    reweigh = False  # see `AdapNetDecoder`

    def build(self, width: float = 1.0) -> None:
        context, skip = scaled(CONTEXT_WIDTH, width), scaled(SKIP_WIDTH, width)
        self.encoders = nn.ModuleDict(
            {e: AdapNetEncoder(n, width) for e, n in self.encoder_channels.items()}
        )
        self.add_fusion(context, skip)
        seg_classes = self.classes_of(SEGMENTATION.name)
        self.decoder = AdapNetDecoder(seg_classes, width, reweigh=self.reweigh)
        self.aux_heads = nn.ModuleDict(
            {name: nn.Conv2d(context, seg_classes, 1) for name in AUX_WEIGHTS}
        )
        he_initialize(self)
        # Start near equal probabilities, whatever the depth has made of the scale.
        nn.init.normal_(self.decoder.classify.weight, std=0.01)

    def add_fusion(self, context: int, skip: int) -> None:
        """Make what fuses maps with so many channels; one modality needs nothing."""

    def supervise(self, output: ModelOutput, features: Mapping[str, Features]) -> None:
        """Logits behind both upsampling steps."""
        output.taps = {name: self.aux_heads[name](output.taps[name]) for name in AUX_WEIGHTS}

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """The auxiliary losses, with the weights of the publication."""
        labels = truths.get(SEGMENTATION.name)
        if labels is None:
            return {}
        return {
            name: weight * auxiliary_segmentation_loss(output.taps[name], labels)
            for name, weight in AUX_WEIGHTS.items()
        }


class AdapNet(MultiresolutionSupervision):
    """AdapNet++ for one modality."""

    card = ModelCard(
        kind="unimodal convolutional",
        source=SOURCE,
        most=1,
        reference=("rgb",),
        published_weights=False,
        published_parameters=30.2,
        published_result="mIoU 50.3, ScanNet test, RGB",
    )

    def fuse(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
        """See `FusionModel`; there is nothing to fuse and no way to do without the modality."""
        own = features[self.modalities[0]]
        if present is not None:
            gate = present[self.modalities[0]]
            own = {name: torch.where(gate, x, 0.0) for name, x in own.items()}
        output: ModelOutput = self.decoder(own["context"], own["skip8"], own["skip4"])
        return output
