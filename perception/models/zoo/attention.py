"""Attention written out in products and a softmax, as exported graphs need it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perception.models.fusion import ABSENT_SCORE


def to_tokens(x: Tensor) -> Tensor:
    """(N, C, h, w) to (N, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, h * w, C) to (N, C, h, w), with h and w of `like`."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *like.shape[-2:])


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(N, L, C) to (N, heads, L, C / heads)."""
    n, length, channels = tokens.shape
    return tokens.reshape(n, length, heads, channels // heads).transpose(1, 2)


def join_heads(tokens: Tensor) -> Tensor:
    """(N, heads, L, D) to (N, L, heads * D)."""
    n, heads, length, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(n, length, heads * channels)


class ContextAttention(nn.Module):
    """Attention through a channels x channels context, linear in the number of tokens.

    The context is the softmax, over its rows, of keys' transpose times values; queries are
    multiplied by it.

    Args:
        channels: of queries and of what they are answered from.
        heads: into which the channels are split.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        """(N, L, channels) answers to `queries` (N, L, channels) from `source` (N, M, channels)."""
        keys, values = self.key_value(source).chunk(2, dim=-1)
        keys, values = split_heads(keys, self.heads), split_heads(values, self.heads)
        # The mean over tokens instead of their sum: the softmax then does not depend on resolution.
        context = (keys.transpose(-2, -1) @ values) * (self.scale / keys.shape[-2] ** 0.5)
        return join_heads(split_heads(queries, self.heads) @ context.softmax(dim=-2))


class SelfAttention(nn.Module):
    """Multi-head attention among tokens; tokens that are not there get no weight.

    Args:
        channels: of the tokens.
        heads: into which the channels are split.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """(N, L, channels); `present` is a boolean that broadcasts to (N, 1, 1, L)."""
        parts = self.query_key_value(tokens).chunk(3, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in parts)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        if present is not None:
            scores = torch.where(present, scores, ABSENT_SCORE)
        mixed: Tensor = self.project(join_heads(scores.softmax(dim=-1) @ value))
        return mixed


class TransformerBlock(nn.Module):
    """Pre-norm attention and perceptron, each with a residual."""

    def __init__(self, channels: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, expansion * channels),
            nn.GELU(),
            nn.Linear(expansion * channels, channels),
        )

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), present)
        return tokens + self.perceptron(self.norm2(tokens))
