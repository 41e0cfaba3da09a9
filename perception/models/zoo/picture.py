"""Network inputs back as pictures: brightness and colour, and RGB from these.

The scales are those of the default preprocessing contract.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perception.sensors.rgb import RgbSpec

_RGB = RgbSpec()
_LUMA = (0.299, 0.587, 0.114)
_TO_CHROMA = (0.564, 0.713)
"""Blue and red difference to chroma (ITU-R BT.601)."""


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).reshape(1, -1, 1, 1)


def picture_of(kind: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness (N, 1, H, W) in 0..1 and chroma (N, 2, H, W) of a network input.

    Kinds other than rgb have no chroma; their first channel is the brightness.
    """
    if kind == "rgb":
        unit = (image * _constant(_RGB.std, image) + _constant(_RGB.mean, image)) / 255.0
        luma = (unit * _constant(_LUMA, image)).sum(1, keepdim=True)
        blue = (unit[:, 2:] - luma) * _TO_CHROMA[0]
        red = (unit[:, :1] - luma) * _TO_CHROMA[1]
        return luma.clamp(0, 1), torch.cat([blue, red], dim=1)
    value = image[:, :1]
    if kind == "thermal":
        value = value / 4.0 + 0.5
    # Not zeros_like: an exporter would store those as a tensor of full size.
    return value.clamp(0, 1), image[:, :2].clamp(0.0, 0.0)


def to_unit_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """RGB in 0..1, (N, 3, H, W)."""
    blue = luma + chroma[:, :1] / _TO_CHROMA[0]
    red = luma + chroma[:, 1:] / _TO_CHROMA[1]
    green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    return torch.cat([red, green, blue], dim=1).clamp(0, 1)


def to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """RGB as a network input, (N, 3, H, W)."""
    unit = to_unit_rgb(luma, chroma)
    return (unit * 255.0 - _constant(_RGB.mean, unit)) / _constant(_RGB.std, unit)
