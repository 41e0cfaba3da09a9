"""The descriptor network: dense features that are alike where pictures of different sensors show the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 2
"""Of the input, see `calibration.registration.pictures.normalized`."""

COARSE_STRIDE, FINE_STRIDE = 8, 4


def _conv(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class DescriptorNetwork(nn.Module):
    """Convolutions to stride 32 and back to strides 8 and 4.

    Args:
        widths: channels at strides 2, 4, 8, 16 and 32.
        coarse: components of a descriptor at stride 8.
        fine: components of one at stride 4.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int, int] = (24, 32, 64, 96, 128),
        coarse: int = 64,
        fine: int = 32,
    ) -> None:
        super().__init__()
        w2, w4, w8, w16, w32 = widths
        self.stem = nn.Sequential(_conv(CHANNELS, 16, 2), _conv(16, w2))
        self.to4 = nn.Sequential(_conv(w2, w4, 2), _Residual(w4), _Residual(w4))
        self.to8 = nn.Sequential(_conv(w4, w8, 2), _Residual(w8), _Residual(w8))
        self.to16 = nn.Sequential(_conv(w8, w16, 2), _Residual(w16), _Residual(w16))
        self.to32 = nn.Sequential(_conv(w16, w32, 2), _Residual(w32))
        self.from32 = nn.Conv2d(w32, w16, 1)
        self.from16 = nn.Conv2d(w16, w8, 1)
        self.mix8 = _conv(w8, w8)
        self.coarse = nn.Conv2d(w8, coarse, 1)
        self.from8 = nn.Conv2d(w8, w4, 1)
        self.mix4 = _conv(w4, w4)
        self.fine = nn.Conv2d(w4, fine, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptors of length 1: (N, coarse, H/8, W/8) and (N, fine, H/4, W/4); H, W multiples of 32."""
        at4 = self.to4(self.stem(image))
        at8 = self.to8(at4)
        at16 = self.to16(at8)
        at16 = F.relu(at16 + _twice(self.from32(self.to32(at16))))
        at8 = self.mix8(F.relu(at8 + _twice(self.from16(at16))))
        at4 = self.mix4(F.relu(at4 + _twice(self.from8(at8))))
        return _unit(self.coarse(at8)), _unit(self.fine(at4))


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-6)
