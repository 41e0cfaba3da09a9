"""Losses of the descriptor network: where does the other picture show this?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from perception.training.matcher.network import COARSE_STRIDE, FINE_STRIDE

WINDOW = 4
"""Cells each way in which the fine descriptors are to find their place."""

_JITTER = 2.0
_POINTS = 256


def centers(side: int, stride: int, device: torch.device) -> Tensor:
    """(n * n, 2) x, y in pixels of the centers of the cells of a square picture."""
    line = (torch.arange(side // stride, device=device) + 0.5) * stride - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.ravel(), y.ravel()], 1)


def moved(points: Tensor, matrix: Tensor) -> Tensor:
    """(B, N, 2) points (N, 2) or (B, N, 2) mapped by homographies (B, 3, 3)."""
    if points.ndim == 2:
        points = points[None].expand(len(matrix), -1, -1)
    mapped = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ matrix.transpose(1, 2)
    return mapped[..., :2] / mapped[..., 2:].clamp(min=1e-3)


def cells_valid(valid: Tensor, stride: int) -> Tensor:
    """(B, n, n) whether at least half of a cell's pixels are valid; (B, H, W) bool in."""
    return F.avg_pool2d(valid[:, None].float(), stride)[:, 0] > 0.5


def coarse_loss(
    a: Tensor, b: Tensor, a_to_b: Tensor, valid_a: Tensor, valid_b: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over all cells of the other picture, both ways.

    Args:
        a, b: (B, C, n, n) unit descriptors.
        a_to_b: (B, 3, 3) pixels to pixels.
        valid_a, valid_b: (B, H, W).
        temperature: of the softmax.

    Returns:
        The loss, and the share of cells whose best match lies within 1.5 cells of the truth.
    """
    side = a.shape[-1] * COARSE_STRIDE
    scores = torch.einsum("bcn,bcm->bnm", a.flatten(2), b.flatten(2)) / temperature
    inverse = torch.linalg.inv(a_to_b)
    losses, right = [], []
    for s, matrix, own, other in (
        (scores, a_to_b, valid_a, valid_b),
        (scores.transpose(1, 2), inverse, valid_b, valid_a),
    ):
        points = centers(side, COARSE_STRIDE, a.device)
        truth = (moved(points, matrix) + 0.5) / COARSE_STRIDE - 0.5
        seen = cells_valid(other, COARSE_STRIDE)
        usable = cells_valid(own, COARSE_STRIDE).flatten(1) & _inside(truth, seen)
        s = s.masked_fill(~seen.flatten(1)[:, None], -1e4)
        log = s.log_softmax(-1)
        losses.append(_bilinear_nll(log, truth, a.shape[-1], usable))
        best = s.argmax(-1)
        where = torch.stack([best % a.shape[-1], best // a.shape[-1]], -1).float()
        right.append(((where - truth).norm(dim=-1) < 1.5)[usable].float())
    return sum(losses) / 2, torch.cat(right).mean()  # type: ignore[return-value]


def _inside(truth: Tensor, seen: Tensor) -> Tensor:
    count = seen.shape[-1]
    near = truth.round().long()
    inside = ((near >= 0) & (near < count)).all(-1)
    index = near[..., 1].clamp(0, count - 1) * count + near[..., 0].clamp(0, count - 1)
    return inside & seen.flatten(1).gather(1, index)


def _bilinear_nll(log: Tensor, truth: Tensor, count: int, usable: Tensor) -> Tensor:
    """Cross-entropy with a target that is spread over the four cells around the truth."""
    base = truth.floor()
    part = truth - base
    total = torch.zeros_like(log[..., 0])
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = base[..., 0].long() + dx, base[..., 1].long() + dy
            weight = (part[..., 0] if dx else 1 - part[..., 0]) * (
                part[..., 1] if dy else 1 - part[..., 1]
            )
            index = y.clamp(0, count - 1) * count + x.clamp(0, count - 1)
            total = total + weight * log.gather(2, index[..., None])[..., 0].clamp(min=-50)
    return -(total * usable).sum() / usable.sum().clamp(min=1)


def fine_loss(
    a: Tensor,
    b: Tensor,
    a_to_b: Tensor,
    valid_a: Tensor,
    valid_b: Tensor,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over a window around about the right place.

    Args:
        a, b: (B, C, n, n) unit descriptors at stride 4.
        a_to_b, valid_a, valid_b: as for `coarse_loss`.
        temperature: of the softmax.
        generator: draws cells, and how far windows lie beside the truth.

    Returns:
        The loss, and the share of cells whose best match lies within 1.5 cells of the truth.
    """
    batch, _, count, _ = a.shape
    points = centers(count * FINE_STRIDE, FINE_STRIDE, a.device)
    pick = torch.randint(count * count, (batch, _POINTS), generator=generator).to(a.device)
    truth = (moved(points[pick], a_to_b) + 0.5) / FINE_STRIDE - 0.5
    seen = cells_valid(valid_b, FINE_STRIDE)
    usable = cells_valid(valid_a, FINE_STRIDE).flatten(1).gather(1, pick) & _inside(truth, seen)
    jitter = (torch.rand(truth.shape, generator=generator).to(a.device) * 2 - 1) * _JITTER
    corner = (truth + jitter).round().long() - WINDOW
    size = 2 * WINDOW + 1
    step = torch.arange(size, device=a.device)
    ys = (corner[..., 1, None] + step).clamp(0, count - 1)
    xs = (corner[..., 0, None] + step).clamp(0, count - 1)
    index = (ys[..., :, None] * count + xs[..., None, :]).flatten(1)
    columns = b.flatten(2)
    windows = columns.gather(2, index[:, None].expand(-1, b.shape[1], -1))
    windows = windows.unflatten(2, (_POINTS, size * size))
    own = a.flatten(2).gather(2, pick[:, None].expand(-1, a.shape[1], -1))
    scores = torch.einsum("bcp,bcpw->bpw", own, windows) / temperature
    local = truth - corner
    loss = _bilinear_nll(scores.log_softmax(-1), local, size, usable)
    best = scores.argmax(-1)
    where = torch.stack([best % size, best // size], -1).float()
    return loss, ((where - local).norm(dim=-1) < 1.5)[usable].float().mean()
