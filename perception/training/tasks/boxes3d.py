"""Training of boxes in space on a grid on the ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.data.base import RecordingInfo, Truth, TruthBoxes3d
from perception.errors import CalibrationError, ConfigError
from perception.geometry.grid import BirdseyeSpec
from perception.models.ground_heads import CenterHead
from perception.tasks.boxes3d import FIELDS, HEATMAP, Boxes3dSpec
from perception.tasks.centers import FIELD_NAMES
from perception.training.tasks.task import TrainingTask, TruthSource, classes_of

if TYPE_CHECKING:
    from perception.training.config import LossSpec

Value = dict[str, Tensor]
"""`heatmap` (N, K, h, w) logits and `fields` (N, 10, h, w)."""

Float32 = NDArray[np.float32]

STRIDE = 2
"""Cells of the grid along each side of one of the heatmap."""

_LEAST_RADIUS = 2
_AROUND = 0.3
_VELOCITY = 0.2

_AT_SIN, _AT_LENGTH = FIELD_NAMES.index("sin"), FIELD_NAMES.index("log_l")


@dataclass(frozen=True)
class OnGround:
    """The truth of a frame in the base frame, the grid it is learned on, and how many classes there are."""

    boxes: TruthBoxes3d
    ground: BirdseyeSpec
    classes: int


class Boxes3dTraining(TrainingTask):
    """Truth is `OnGround`; in batches it is a dict of tensors, see `targets_of`.  Values are `Value`."""

    name = "boxes3d"
    strides = (STRIDE,)
    needs = "boxes in space", "boxes3d is missing from its frames"
    ground = True
    logged = ("nds3d",)
    loss_weights = ("fields", "heading")

    def spec(self, info: RecordingInfo) -> Boxes3dSpec:
        return Boxes3dSpec(**classes_of(info, self.name, "detection", info.det_classes))

    def outputs(self, value: Value) -> dict[str, Tensor]:
        return {HEATMAP: value["heatmap"], FIELDS: value["fields"]}

    def read_truth(self, source: TruthSource) -> OnGround | None:
        boxes = source.truth.boxes3d
        if boxes is None or source.birdseye is None:
            return None
        info, placed = source.recording.info, boxes.to_base(source.recording.rig)
        if placed is None:
            raise CalibrationError(
                f"boxes are in the frame of {boxes.frame}, whose place on the vehicle is not known",
                where=f"{info.name}: rig",
                hint="give the rig base, and poses of its sensors in it",
            )
        return OnGround(placed, source.birdseye, len(info.det_classes))

    def as_recorded(self, truth: OnGround) -> Truth:
        return Truth(boxes3d=truth.boxes)

    def warp(self, truth: OnGround, geometry: Any) -> OnGround:
        return replace(truth, boxes=geometry.boxes(truth.boxes))

    def collate(self, truths: Sequence[OnGround | None]) -> dict[str, Tensor] | None:
        example = next((t for t in truths if t is not None), None)
        if example is None:
            return None
        each = [targets_of(example if t is None else t, known=t is not None) for t in truths]
        return {name: torch.from_numpy(np.stack([t[name] for t in each])) for name in each[0]}

    def known(self, truths: Any) -> bool:
        return truths is not None

    def can_judge(self, truth: OnGround | None) -> bool:
        return truth is not None and not truth.boxes.ignore.all()

    def notes(self, info: RecordingInfo, truths: Sequence[OnGround | None]) -> list[str]:
        if any(self.can_judge(truth) for truth in truths):
            return []
        return ["no training frame has an object in its boxes: there is nothing to find"]

    def head(self, channels: Mapping[int, int], spec: Boxes3dSpec, width: int) -> nn.Module:
        if STRIDE not in channels:
            raise ConfigError(
                "boxes3d needs a model on the ground",
                where="tasks",
                hint="model.name: pillarbev",
            )
        return CenterHead(channels[STRIDE], len(spec.classes), width, STRIDE)

    def loss(self, value: Value, truths: dict[str, Tensor], prepared: Any = None) -> Tensor:
        return heatmap_loss(value["heatmap"], truths["heatmap"], truths["counted"])

    def further_losses(
        self, value: Value, truths: dict[str, Tensor], weights: LossSpec
    ) -> dict[str, Tensor]:
        whole, fields = weights.weight(self.name), value["fields"]
        found = {}
        if weights.fields:
            found["boxes3d_fields"] = whole * weights.fields * fields_loss(fields, truths)
        if weights.heading:
            found["boxes3d_heading"] = whole * weights.heading * heading_loss(fields, truths)
        return found


def targets_of(truth: OnGround, known: bool = True) -> dict[str, NDArray[np.float32]]:
    """What a frame's heads should say.

    Every box raises a Gaussian about its centre's cell, as wide as it is large; its fields are learned
    there and, with less weight, in the cells around, as the highest cell of an answer may be one of these.

    Args:
        truth: of a frame.
        known: False for a frame without truth, which does not count.

    Returns:
        `heatmap` (K, h, w), 1 at the centres; `counted` (1, h, w), 0 where a box is to be ignored; `fields`
        (10, h, w) and `weights` (10, h, w) of each of them.
    """
    ground, boxes = truth.ground, truth.boxes
    rows, columns = (side // STRIDE for side in ground.shape)
    cell = STRIDE * ground.cell_m
    heatmap = np.zeros((truth.classes, rows, columns), np.float32)
    counted = np.full((1, rows, columns), float(known), np.float32)
    fields = np.zeros((len(FIELD_NAMES), rows, columns), np.float32)
    weights = np.zeros_like(fields)
    if not known:
        return {"heatmap": heatmap, "counted": counted, "fields": fields, "weights": weights}
    place = (boxes.center[:, :2] - [ground.x[0], ground.y[0]]) / cell
    cells = np.floor(place).astype(np.int64)
    inside = np.all((cells >= 0) & (cells < [rows, columns]), axis=1)
    # The nearest box of a cell is written last: it is the one that sensors see.
    order = np.argsort(-np.hypot(*boxes.center[:, :2].T), kind="stable")
    for k in order[inside[order]]:
        i, j = (int(v) for v in cells[k])
        radius = _radius(boxes.size[k], cell)
        around = _window(i, j, radius, (rows, columns))
        if boxes.ignore[k]:
            counted[0][around] = 0
            continue
        down, right = (np.arange(s.start, s.stop) - c for s, c in zip(around, (i, j), strict=True))
        sigma = (2 * radius + 1) / 6
        blob = np.exp(-(down[:, None] ** 2 + right[None] ** 2) / (2 * sigma**2))
        own = heatmap[int(boxes.class_ids[k])]
        own[around] = np.maximum(own[around], blob)
        near = _window(i, j, 1, (rows, columns))
        share = np.full([s.stop - s.start for s in near], _AROUND, np.float32)
        share[i - near[0].start, j - near[1].start] = 1
        better = share >= weights[(0, *near)]  # a neighbour's centre stays its own
        values, known_field = _fields(boxes, int(k))
        for name, value in enumerate(values):
            fields[(name, *near)][better] = value
            weights[(name, *near)][better] = (share * known_field[name])[better]
        rest = np.meshgrid(*(np.arange(s.start, s.stop) for s in near), indexing="ij")
        for name in range(2):
            fields[(name, *near)][better] = (place[k, name] - 0.5 - rest[name])[better]
    counted[0, heatmap.max(axis=0, initial=0.0) == 1] = 1
    return {"heatmap": heatmap, "counted": counted, "fields": fields, "weights": weights}


def _fields(boxes: TruthBoxes3d, k: int) -> tuple[Float32, Float32]:
    """Values of `FIELD_NAMES` of a box but for its place on the ground, and which of them are known."""
    moving = boxes.velocity[k]
    yaw = boxes.yaw[k]
    known = np.ones(len(FIELD_NAMES), np.float32)
    known[-2:] = _VELOCITY * np.isfinite(moving).all()
    values = [0, 0, boxes.center[k, 2], *np.log(boxes.size[k]), np.sin(yaw), np.cos(yaw)]
    return np.array([*values, *np.nan_to_num(moving)], np.float32), known


def _radius(size: NDArray[np.float64], cell: float) -> int:
    """Cells to which a box's Gaussian reaches."""
    return max(_LEAST_RADIUS, round(float(np.sqrt(size[0] * size[1])) / (2 * cell)))


def _window(i: int, j: int, radius: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = shape
    return (
        slice(max(0, i - radius), min(rows, i + radius + 1)),
        slice(max(0, j - radius), min(columns, j + radius + 1)),
    )


def heatmap_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Focal loss that is gentler about a centre (Law and Deng, "CornerNet", ECCV 2018, equation 1).

    Args:
        logits, target: (N, K, h, w); the target is 1 at centres and falls around them.
        counted: (N, 1, h, w), 0 where cells do not count.
    """
    logits = logits.float()
    score = logits.sigmoid()
    center = target == 1
    positive = F.logsigmoid(logits) * (1 - score) ** 2
    negative = F.logsigmoid(-logits) * score**2 * (1 - target) ** 4
    total = (torch.where(center, positive, negative) * counted).sum()
    return -total / (center & (counted > 0)).sum().clamp(min=1)


def fields_loss(fields: Tensor, truths: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute error of the fields of a box, summed over fields, by the weights of `targets_of`."""
    weights = truths["weights"]
    off = ((fields.float() - truths["fields"]).abs() * weights).sum()
    return off / weights[:, 0].sum().clamp(min=1)


def heading_loss(fields: Tensor, truths: Mapping[str, Tensor]) -> Tensor:
    """Mean error of headings, of their axis and direction, by how much longer than wide boxes are.

    Error of the axis is that of sine and cosine of the doubled angle, the same for a box turned round: its
    shape tells the axis even where nothing tells the front from the rear.  Between a heading and its
    opposite the error of sine and cosine themselves is flat, and so teaches neither of the two.

    Args:
        fields: (N, 10, h, w).
        truths: see `targets_of`.
    """
    fields, truth = fields.float(), truths["fields"]
    length, width = (truth[:, _AT_LENGTH + k] for k in range(2))
    longer = 1 - (-(length - width).abs()).exp()
    # Squared: there are many persons, and they have no shape that tells where they face.
    weights = truths["weights"][:, _AT_SIN] * longer**2
    found, wanted = (f[:, _AT_SIN : _AT_SIN + 2] for f in (fields, truth))
    off = (found - wanted).abs().sum(1) + (_doubled(found) - _doubled(wanted)).abs().sum(1)
    return (off * weights).sum() / weights.sum().clamp(min=1)


def _doubled(heading: Tensor) -> Tensor:
    """Sine and cosine (N, 2, ...) of an angle to those of twice the angle; lengths are squared."""
    sin, cos = heading.unbind(1)
    return torch.stack([2 * sin * cos, cos**2 - sin**2], 1)


BOXES3D = Boxes3dTraining()
