"""Random numbers of frames: a process that computes a share of a batch draws those that one process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_share: tuple[int, int] | None = (
    None  # where in a batch the rows are that are computed now, and its frames
)


@contextmanager
def rows_from(start: int, frames: int) -> Iterator[None]:
    """Within it, row i of what models are given is frame (start + i) % frames of a batch of so many."""
    global _share
    before, _share = _share, (start, frames)
    try:
        yield
    finally:
        _share = before


def drawn(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Random numbers for some rows.

    Args:
        draw: gives them for so many frames, (N, ...).
        rows: how many are computed now.

    Returns:
        (rows, ...), those of their frames within `rows_from`.
    """
    if _share is None:
        return draw(rows)
    start, frames = _share
    return draw(frames)[[(start + row) % frames for row in range(rows)]]


class ChannelDropout(nn.Dropout2d):
    """`Dropout2d` that leaves out the same channels of a frame, whatever is computed beside it."""

    def forward(self, input: Tensor) -> Tensor:
        """See `Dropout2d`; (N, C, H, W)."""
        if not self.training or _share is None:
            return super().forward(input)
        channels = input.shape[1]

        def draw(frames: int) -> Tensor:
            kept = input.new_empty(frames, channels, 1, 1).bernoulli_(1 - self.p)
            return kept.div_(1 - self.p)  # the numbers that PyTorch draws

        return input * drawn(draw, len(input))


def uniform(rows: int, *shape: int, device: torch.device) -> Tensor:
    """(rows, *shape) random numbers in 0..1, see `drawn`."""
    return drawn(lambda frames: torch.rand(frames, *shape, device=device), rows)
