"""Training of 2D boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.data.base import Boxes, RecordingInfo, Truth
from perception.errors import ConfigError
from perception.geometry.grid import GridMap
from perception.models.heads import DetectionHead
from perception.preprocess.sample import source_size
from perception.sensors.registry import kind_of
from perception.tasks.boxes2d import Boxes2dSpec, BoxesMeter
from perception.tasks.detections import Detections, decode_detections
from perception.training.assignment import Assignment, assign
from perception.training.geometry import Geometry
from perception.training.tasks.task import (
    LOW_SCORE,
    TrainingTask,
    TruthSource,
    Validation,
    classes_of,
)

Levels = dict[int, tuple[Tensor, Tensor]]
"""By stride s, (N, C, H/s, W/s) logits and (N, 4, H/s, W/s) side distances in stride units."""

MIN_BOX_PX = 4.0
MIN_VISIBLE_FRACTION = 0.35
_EPS = 1e-7


class Boxes2dTraining(TrainingTask):
    """Truth `Boxes` in grid pixels; in batches one for each frame, None where nobody has looked.

    Values are `Levels`.
    """

    name = "boxes2d"
    part = "detection"
    needs = "boxes", "none at all"
    logged = ("ap",)

    def spec(self, info: RecordingInfo) -> Boxes2dSpec:
        return Boxes2dSpec(**classes_of(info, self.name, "detection", info.det_classes))

    def exported(self, spec: Boxes2dSpec, value: Levels) -> Boxes2dSpec:
        return spec.model_copy(update={"strides": tuple(sorted(value))})

    def outputs(self, value: Levels) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for stride, (logits, sides) in sorted(value.items()):
            named |= {f"det_cls_{stride}": logits, f"det_box_{stride}": sides}
        return named

    def read_truth(self, source: TruthSource) -> Boxes | None:
        boxes = source.truth.boxes
        if boxes is None or not len(source.frame):
            return None
        grid = GridMap.fit(_labeled_size(source), source.grid)
        return Boxes(grid.boxes_to_grid(boxes.xyxy), boxes.class_ids, boxes.ignore)

    def as_recorded(self, truth: Boxes) -> Truth:
        return Truth(boxes=truth)

    def warp(self, truth: Boxes, geometry: Geometry) -> Boxes:
        return warp_boxes(truth, geometry)

    def can_judge(self, truth: Boxes | None) -> bool:
        return truth is not None and not truth.ignore.all()

    def notes(self, info: RecordingInfo, truths: Sequence[Boxes | None]) -> list[str]:
        if any(self.can_judge(truth) for truth in truths):
            return []
        return ["no training frame has an object in its boxes: there is nothing to find"]

    def head(self, channels: Mapping[int, int], spec: Boxes2dSpec, width: int) -> nn.Module:
        return DetectionHead(dict(channels), len(spec.classes), width)

    def auxiliary_head(self, channels: int, spec: Boxes2dSpec) -> nn.Module:
        return nn.Conv2d(channels, len(spec.classes), 1)

    def loss(self, value: Levels, truths: Sequence[Boxes | None], prepared: Any = None) -> Tensor:
        return detection_loss(value, truths)

    def auxiliary_loss(self, logits: Tensor, truths: Sequence[Boxes | None]) -> Tensor:
        return auxiliary_detection_loss(logits, truths)

    def validation(self, spec: Boxes2dSpec, info: RecordingInfo) -> Validation:
        return _Unclipped(self, spec, BoxesMeter(spec, info))

    def mix(self, values: Sequence[Levels], factors: Sequence[float]) -> Levels:
        """Of the logits; distances are the last value's."""
        logits = super().mix([{s: c for s, (c, _) in v.items()} for v in values], factors)
        return {s: (logits[s], sides) for s, (_, sides) in values[-1].items()}

    def distance(self, student: Levels, teacher: Levels) -> Tensor:
        return detection_distance(student, teacher)


class _Unclipped(Validation):
    """Boxes may go beyond the grid, as those of the truth do."""

    def decode(self, tensors: dict[str, Any], spec: Any, size: tuple[int, int]) -> Detections:
        maps = {s: (tensors[f"det_cls_{s}"][0], tensors[f"det_box_{s}"][0]) for s in spec.strides}
        return decode_detections(maps, score_threshold=LOW_SCORE)


def _labeled_size(source: TruthSource) -> tuple[int, int]:
    """(height, width) of the picture that the boxes are drawn in."""
    frame, labels, labels_of = source.frame, source.truth.labels, source.recording.info.labels_of
    sample = frame.get(labels_of, next(iter(frame.values())))
    if labels is not None and (sample.sensor != labels_of or not kind_of(sample.kind).colors):
        return labels.shape  # type: ignore[return-value]
    return source_size(sample)


def warp_boxes(boxes: Boxes, geometry: Geometry) -> Boxes:
    """Boxes as far as they are in the view; what is hardly seen of is to be ignored."""
    xyxy = boxes.xyxy * geometry.scale - np.array([geometry.left, geometry.top] * 2, np.float32)
    height, width = geometry.crop
    clipped = xyxy.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(0, width)
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, height)
    area = np.prod((xyxy[:, 2:] - xyxy[:, :2]).clip(1e-3), axis=1)
    sides = (clipped[:, 2:] - clipped[:, :2]).clip(0)
    visible = np.prod(sides, axis=1) / area
    if geometry.mirror:
        clipped[:, [0, 2]] = width - clipped[:, [2, 0]]
    keep = (visible > 0.02) & (sides.max(axis=1, initial=0.0) > 1)
    ignore = boxes.ignore | (visible < MIN_VISIBLE_FRACTION) | (sides.min(axis=1) < MIN_BOX_PX)
    return Boxes(clipped[keep], boxes.class_ids[keep], ignore[keep])


def auxiliary_detection_loss(
    logits: Tensor, boxes: Sequence[Boxes | None], stride: int = 16
) -> Tensor:
    """Binary cross-entropy of a unimodal head against the boxes' shrunken areas.

    Inside ignored boxes their class counts only where another box has it.

    Args:
        logits: (N, C, h, w).
        boxes: per image; those of None do not count.
        stride: of the logits.
    """
    labeled = [image for image, kept in enumerate(boxes) if kept is not None]
    if not labeled:
        return 0.0 * logits.float().sum()
    if len(labeled) < len(boxes):
        logits = logits[labeled]
    target = torch.zeros_like(logits, dtype=torch.float32)
    ignored = torch.zeros_like(logits, dtype=torch.bool)
    for image, kept in enumerate(kept for kept in boxes if kept is not None):
        for xyxy, kind, ignore in zip(kept.xyxy, kept.class_ids, kept.ignore, strict=True):
            rows, columns = _cells(xyxy, stride, 0.0 if ignore else 0.2)
            (ignored if ignore else target)[image, int(kind), rows, columns] = 1
    ignored &= target == 0
    if not ignored.any():
        return F.binary_cross_entropy_with_logits(logits.float(), target) * 4
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return each[~ignored].sum() / (~ignored).sum().clamp(min=1) * 4


def _cells(xyxy: NDArray[np.float32], stride: int, less: float) -> tuple[slice, slice]:
    """Rows and columns of cells that a box touches, without a share `less` of its sides at each."""
    x0, y0, x1, y1 = xyxy
    dx, dy = less * (x1 - x0), less * (y1 - y0)
    left, top = int((x0 + dx) / stride), int((y0 + dy) / stride)
    right, bottom = int(np.ceil((x1 - dx) / stride)), int(np.ceil((y1 - dy) / stride))
    return slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))


def cell_grid(outputs: Levels) -> tuple[Tensor, Tensor]:
    """Centers (A, 2) in pixels and strides (A,) of all cells, strides ascending."""
    centers, strides = [], []
    for stride, (logits, _) in sorted(outputs.items()):
        height, width = logits.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=logits.device),
            torch.arange(width, device=logits.device),
            indexing="ij",
        )
        centers.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width,), float(stride), device=logits.device))
    return torch.cat(centers), torch.cat(strides)


def flatten_outputs(outputs: Levels) -> tuple[Tensor, Tensor]:
    """Class logits (N, A, C) and boxes (N, A, 4) xyxy in pixels of all cells."""
    centers, strides = cell_grid(outputs)
    logits = torch.cat([c.flatten(2) for _, (c, _) in sorted(outputs.items())], dim=2)
    sides = torch.cat([b.flatten(2) for _, (_, b) in sorted(outputs.items())], dim=2)
    sides = sides.float().transpose(1, 2) * strides[:, None]
    boxes = torch.cat([centers - sides[..., :2], centers + sides[..., 2:]], dim=-1)
    return logits.float().transpose(1, 2), boxes


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU of paired boxes (P, 4) (Rezatofighi et al., CVPR 2019)."""
    low = torch.maximum(predicted[:, :2], target[:, :2])
    high = torch.minimum(predicted[:, 2:], target[:, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_p = (predicted[:, 2:] - predicted[:, :2]).prod(-1)
    area_t = (target[:, 2:] - target[:, :2]).prod(-1)
    union = area_p + area_t - overlap + _EPS
    outer_low = torch.minimum(predicted[:, :2], target[:, :2])
    outer_high = torch.maximum(predicted[:, 2:], target[:, 2:])
    hull = (outer_high - outer_low).prod(-1) + _EPS
    return 1 - (overlap / union - (hull - union) / hull)


def detection_loss(outputs: Levels, truth: Sequence[Boxes | None]) -> Tensor:
    """Quality focal loss on classes and GIoU loss on boxes, normalized by the summed targets.

    Args:
        outputs: class logits and box sides by stride.
        truth: per image; those of None do not count.
    """
    logits, boxes = flatten_outputs(outputs)
    centers, strides = cell_grid(outputs)
    targets = [
        _assign_one(logits[i], boxes[i], centers, strides, kept) for i, kept in enumerate(truth)
    ]
    wanted = torch.stack([t.scores for t in targets])
    counted = ~torch.stack([t.ignore for t in targets])
    mass = wanted.sum().clamp(min=1.0)
    modulation = (wanted - logits.detach().sigmoid()).abs() ** 2
    focal = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * modulation
    class_loss = (focal * counted[..., None]).sum() / mass
    positive = torch.stack([t.positive for t in targets])
    if not positive.any():
        return class_loss + 0.0 * boxes.sum()
    share = wanted.amax(-1)[positive]
    aim = torch.stack([t.boxes for t in targets])[positive]
    box_loss = (giou_loss(boxes[positive], aim) * share).sum() / mass
    return class_loss + 2.0 * box_loss


def _assign_one(
    logits: Tensor, boxes: Tensor, centers: Tensor, strides: Tensor, truth: Boxes | None
) -> Assignment:
    device = logits.device
    unlabeled = truth is None
    truth = Boxes.empty() if truth is None else truth
    target = assign(
        logits.detach().sigmoid(),
        boxes.detach(),
        centers,
        strides,
        torch.from_numpy(truth.xyxy).to(device),
        torch.from_numpy(truth.class_ids).to(device),
        torch.from_numpy(truth.ignore).to(device),
    )
    target.ignore |= unlabeled
    return target


def detection_distance(student: Levels, teacher: Levels) -> Tensor:
    """Cross-entropy of class scores and distance of box sides, both where the teacher sees objects.

    Raises:
        ConfigError: the heads work at different strides.
    """
    if set(student) != set(teacher):
        raise ConfigError("teacher and student detect at different strides")
    distance = torch.zeros((), device=next(iter(student.values()))[0].device)
    mass = distance + 1.0
    for stride, (logits, sides) in student.items():
        wanted, wanted_sides = (t.detach().float() for t in teacher[stride])
        score = wanted.sigmoid()
        gap = (score - logits.float().detach().sigmoid()).abs() ** 2
        crossed = F.binary_cross_entropy_with_logits(logits.float(), score, reduction="none")
        surely = score.amax(1, keepdim=True)
        away = F.smooth_l1_loss(sides.float(), wanted_sides, reduction="none").mean(1, keepdim=True)
        distance = distance + (crossed * gap).sum() + (away * surely).sum()
        mass = mass + surely.sum()
    return distance / mass


BOXES2D = Boxes2dTraining()
