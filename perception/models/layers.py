"""Small building blocks that the heads share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.efficientnet_lite import conv_forward


class ConvBNReLU(nn.Sequential):
    """Convolution, batch normalization, ReLU; keeps the resolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution, trained in float32 on the CPU; see `conv_forward`."""

    def forward(self, input: Tensor) -> Tensor:
        return conv_forward(self, input)


class SeparableBlock(nn.Module):
    """Residual depthwise-separable convolution: depthwise kxk, then pointwise."""

    def __init__(self, channels: int, kernel: int = 5, dilation: int = 1) -> None:
        super().__init__()
        pad = dilation * (kernel // 2)
        self.depthwise = DepthwiseConv(
            channels, channels, kernel, padding=pad, dilation=dilation, groups=channels, bias=False
        )
        self.depthwise_bn = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.pointwise_bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.depthwise_bn(self.depthwise(x)))
        return F.relu(x + self.pointwise_bn(self.pointwise(y)))


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Bilinear upsampling by a whole factor (pixel centers at half, ONNX `half_pixel`)."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class GlobalContext(nn.Module):
    """Adds the transformed mean over the image to every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.conv(x.mean(dim=(2, 3), keepdim=True)))


def normalized(model: nn.Module) -> list[tuple[str, str]]:
    """The names of the convolutions that batch normalization follows, each with that of its norm.

    These are every `Conv2d` and the `BatchNorm2d` of its width that directly follows it in its parent's
    order of definition.
    """
    pairs = []
    for parent_name, parent in model.named_modules():
        start = f"{parent_name}." if parent_name else ""
        previous: tuple[str, nn.Module] | None = None
        for name, child in parent.named_children():
            if (
                isinstance(child, nn.BatchNorm2d)
                and previous is not None
                and isinstance(previous[1], nn.Conv2d)
                and previous[1].out_channels == child.num_features
            ):
                pairs.append((start + previous[0], start + name))
            previous = name, child
    return pairs
