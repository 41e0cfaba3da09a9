"""Task-aligned assignment of boxes to cells, for the anchor-free detection head.

Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021: a cell's fitness for a box is
score^alpha * IoU^beta; the fittest cells inside the box learn it, with a soft target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ALPHA, BETA, TOP_K = 0.5, 4.0, 10
_EPS = 1e-7


@dataclass
class Assignment:
    """Targets of one image with A cells and C classes.

    Attributes:
        scores: (A, C) soft class targets in 0..1.
        boxes: (A, 4) xyxy target of each positive cell.
        positive: (A,) bool.
        ignore: (A,) bool, cells inside ignored boxes that are not positive.
    """

    scores: Tensor
    boxes: Tensor
    positive: Tensor
    ignore: Tensor


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes (N, 4) and (M, 4), xyxy: (N, M)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a = (a[:, 2:] - a[:, :2]).prod(-1)
    area_b = (b[:, 2:] - b[:, :2]).prod(-1)
    return overlap / (area_a[:, None] + area_b[None, :] - overlap + _EPS)


def _inside(centers: Tensor, boxes: Tensor) -> Tensor:
    """(M, A): is cell center a inside box m?"""
    offset = torch.cat(
        [centers[None] - boxes[:, None, :2], boxes[:, None, 2:] - centers[None]], dim=-1
    )
    return offset.amin(-1) > 0


def _candidates(centers: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """(M, A): cells that may learn each box: those inside it, and always the finest nearest one."""
    inside = _inside(centers, boxes)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centers[None] - middle[:, None]).norm(dim=-1) + 1e4 * (strides > strides.min())
    inside[torch.arange(len(boxes), device=boxes.device), distance.argmin(dim=1)] = True
    return inside


@torch.no_grad()
def assign(
    scores: Tensor,
    predicted: Tensor,
    centers: Tensor,
    strides: Tensor,
    boxes: Tensor,
    classes: Tensor,
    ignore: Tensor,
) -> Assignment:
    """Assign the boxes of one image.

    Args:
        scores: (A, C) predicted class probabilities.
        predicted: (A, 4) predicted boxes, xyxy.
        centers: (A, 2) cell centers in pixels.
        strides: (A,) stride of each cell.
        boxes: (M, 4) true boxes.
        classes: (M,) their classes.
        ignore: (M,) boxes that only mask the background loss.
    """
    cells, kinds = scores.shape
    target = Assignment(
        scores.new_zeros(cells, kinds),
        predicted.new_zeros(cells, 4),
        torch.zeros(cells, dtype=torch.bool, device=scores.device),
        torch.zeros(cells, dtype=torch.bool, device=scores.device),
    )
    if ignore.any():
        target.ignore = _inside(centers, boxes[ignore]).any(0)
    boxes, classes = boxes[~ignore], classes[~ignore]
    if len(boxes) == 0:
        return target
    candidates = _candidates(centers, strides, boxes)
    overlap = pairwise_iou(boxes, predicted) * candidates
    fitness = scores[:, classes].T.clamp(min=1e-6) ** ALPHA * overlap.clamp(min=1e-6) ** BETA
    fitness = fitness * candidates
    chosen = torch.zeros_like(candidates)
    top = fitness.topk(min(TOP_K, cells), dim=1)
    chosen.scatter_(1, top.indices, top.values > 0)
    # A cell that several boxes want learns the one it overlaps most.
    owner = torch.where(chosen, overlap + _EPS, torch.zeros_like(overlap))
    best, box_of_cell = owner.max(dim=0)
    target.positive = best > 0
    chosen &= torch.nn.functional.one_hot(box_of_cell, len(boxes)).T.bool() & target.positive
    kept = fitness * chosen
    peak_fitness = kept.amax(dim=1, keepdim=True)
    peak_overlap = (overlap * chosen).amax(dim=1, keepdim=True)
    soft = (kept / (peak_fitness + _EPS**2) * peak_overlap.clamp(min=0.1)).amax(dim=0)
    index = target.positive.nonzero().squeeze(1)
    target.boxes[index] = boxes[box_of_cell[index]]
    target.scores[index, classes[box_of_cell[index]]] = soft[index]
    target.ignore &= ~target.positive
    return target
