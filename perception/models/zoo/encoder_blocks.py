"""Blocks that look further than a convolution, behind one interface: (N, C, h, w) to the same.

- `lka`: large kernel attention (Guo et al., "Visual Attention Network", CVMJ 2023).
- `hilo`: high and low frequency attention (Pan, Cai, Zhuang, "Fast Vision Transformers with HiLo
  Attention", NeurIPS 2022).
- `ulsam`: ultra-lightweight subspace attention (Saini et al., WACV 2020).
- `glmix`: convolution on the grid beside attention among a few slots (Zhu et al., "Revisiting the
  Integration of Convolution and Attention for Vision Backbone", NeurIPS 2024).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import ConfigError, names_hint
from perception.models.zoo.attention import (
    SelfAttention,
    join_heads,
    split_heads,
    to_map,
    to_tokens,
)


class LargeKernelAttention(nn.Module):
    """A 21x21 field from a 5x5, a dilated 7x7 and a 1x1 convolution, as a gate on the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.enter = nn.Conv2d(channels, channels, 1)
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.far = nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.enter(self.norm(x)))
        return x + self.leave(y * self.mix(self.far(self.near(y))))


class HiLoAttention(nn.Module):
    """Half the heads attend within 2x2 windows, half to the map averaged over these windows.

    Args:
        channels: of the map, a multiple of 8.
        window: side of the windows; it must divide the map's sides.
    """

    def __init__(self, channels: int, window: int = 2) -> None:
        super().__init__()
        self.window, self.part = window, channels // 2
        self.heads = max(1, self.part // 32)
        while self.part % self.heads:
            self.heads -= 1
        self.scale = (self.part // self.heads) ** -0.5
        self.norm = nn.BatchNorm2d(channels)
        self.high = nn.Conv2d(channels, 3 * self.part, 1)
        self.query = nn.Conv2d(channels, self.part, 1)
        self.key_value = nn.Conv2d(channels, 2 * self.part, 1)
        self.leave = nn.Conv2d(2 * self.part, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.leave(torch.cat([self._high(y), self._low(y)], dim=1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (split_heads(t, self.heads) for t in (query, key, value))
        weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(-1)
        return join_heads(weights @ value)

    def _high(self, y: Tensor) -> Tensor:
        n, _, height, width = y.shape
        w, part = self.window, self.part
        rows, columns = height // w, width // w
        cut = self.high(y).reshape(n, 3 * part, rows, w, columns, w)
        cut = cut.permute(0, 2, 4, 3, 5, 1).reshape(n * rows * columns, w * w, 3 * part)
        mixed = self._attend(*cut.chunk(3, dim=-1))
        mixed = mixed.reshape(n, rows, columns, w, w, part).permute(0, 5, 1, 3, 2, 4)
        return mixed.reshape(n, part, height, width)

    def _low(self, y: Tensor) -> Tensor:
        key, value = self.key_value(F.avg_pool2d(y, self.window)).chunk(2, dim=1)
        mixed = self._attend(to_tokens(self.query(y)), to_tokens(key), to_tokens(value))
        return to_map(mixed, y)


class SubspaceAttention(nn.Module):
    """One attention map for each of a few groups of channels, from very few weights."""

    def __init__(self, channels: int, subspaces: int = 4) -> None:
        super().__init__()
        while channels % subspaces:
            subspaces //= 2
        self.subspaces = subspaces
        self.depthwise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.point = nn.Conv2d(channels, subspaces, 1, groups=subspaces)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        looked = F.max_pool2d(self.depthwise(x), 3, 1, 1)
        scores = self.point(looked).flatten(2).softmax(-1)
        # Weights sum to 1 over the image; times its size they are about 1 each.
        maps = (scores * (height * width)).reshape(n, self.subspaces, 1, height, width)
        grouped = x.reshape(n, self.subspaces, channels // self.subspaces, height, width)
        return x + (grouped * maps).reshape(x.shape)


def _cells(side: int, most: int = 8) -> int:
    """The largest divisor of `side` that is at most `most`."""
    return next(d for d in range(most, 0, -1) if side % d == 0)


class GlobalLocalMix(nn.Module):
    """A depthwise 5x5 on the grid, and attention among at most 64 slots that pixels belong to softly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        heads = max(1, channels // 32)
        while channels % heads:
            heads -= 1
        self.norm = nn.BatchNorm2d(channels)
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.enter = nn.Conv2d(channels, channels, 1)
        self.attention = SelfAttention(channels, heads)
        self.leave = nn.Conv2d(2 * channels, channels, 1)
        self.temperature = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        features = self.enter(y)
        height, width = x.shape[-2:]
        pool = (height // _cells(height), width // _cells(width))
        pixels, slots = to_tokens(features), to_tokens(F.avg_pool2d(features, pool, pool))
        # Unit length by hand: an exporter's norm of a slice may not be standard.
        alike = _unit(pixels) @ _unit(slots).transpose(1, 2)
        belongs = (alike * self.temperature).softmax(-1)
        gathered = (belongs / (belongs.sum(1, keepdim=True) + 1e-6)).transpose(1, 2) @ pixels
        spread = to_map(belongs @ (gathered + self.attention(gathered)), features)
        return x + self.leave(torch.cat([self.local(y), spread], dim=1))


def _unit(tokens: Tensor) -> Tensor:
    return tokens * torch.rsqrt(tokens.square().sum(-1, keepdim=True) + 1e-6)


BLOCKS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "lka": LargeKernelAttention,
    "hilo": HiLoAttention,
    "ulsam": SubspaceAttention,
    "glmix": GlobalLocalMix,
}


def make_block(kind: str, channels: int) -> nn.Module:
    """A block for maps of `channels` channels.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in BLOCKS:
        raise ConfigError(f"unknown block '{kind}'", hint=names_hint(kind, BLOCKS))
    return BLOCKS[kind](channels)
