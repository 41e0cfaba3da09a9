"""Building blocks that several zoo models share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, a multiple of 8 and at least 8."""
    return max(8, round(channels * width / 8) * 8)


def he_initialize(model: nn.Module) -> None:
    """Draw all convolutions as networks of ReLUs want them (He et al., ICCV 2015); biases are zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ConvNorm(nn.Sequential):
    """Convolution and batch normalization, then ReLU unless `relu` is False; SAME size at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        *,
        relu: bool = True,
    ) -> None:
        pad = dilation * (kernel // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU()] if relu else []))


class NormReLU(nn.Sequential):
    """Batch normalization and ReLU, as pre-activation networks have them in front."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.ReLU())


class Upsampling(nn.Sequential):
    """Transposed convolution that doubles the resolution, and batch normalization."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs)
        )


def pooled_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Apply `norm` where each channel of a sample is one value.

    Batch statistics of a single value do not exist: a batch of one sample uses the running ones.
    """
    if isinstance(norm, nn.BatchNorm2d) and norm.training and x.shape[0] == 1:
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )
    y: Tensor = norm(x)
    return y


class PooledConv(nn.Module):
    """Mean over the image, 1x1 convolution, normalization, ReLU: (N, outputs, 1, 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(pooled_norm(self.conv(x.mean(dim=(2, 3), keepdim=True)), self.norm))
