"""Heads on a map of the ground."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.heads import Pyramid
from perception.tasks.centers import FIELD_NAMES


class CenterHead(nn.Module):
    """Centres of upright boxes, and what is known of each there (after CenterPoint, Yin et al., CVPR 2021).

    Args:
        channels: of the map.
        classes: of boxes.
        width: channels inside.
        stride: of the map, in cells.
    """

    def __init__(self, channels: int, classes: int, width: int, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        self.shared, self.shared_bn = _conv(channels, width), nn.BatchNorm2d(width)
        self.center, self.center_bn = _conv(width, width), nn.BatchNorm2d(width)
        self.box, self.box_bn = _conv(width, width), nn.BatchNorm2d(width)
        self.heatmap = nn.Conv2d(width, classes, 1)
        self.fields = nn.Conv2d(width, len(FIELD_NAMES), 1)
        # Rare objects: start every cell at a probability of 1% (Lin et al., "Focal Loss", 2017).
        nn.init.constant_(self.heatmap.bias, -math.log(99.0))  # type: ignore[arg-type]

    def forward(self, pyramid: Pyramid) -> dict[str, Tensor]:
        """`heatmap` (N, classes, h, w) logits and `fields` (N, 10, h, w), see `tasks.centers.FIELD_NAMES`."""
        shared = F.relu(self.shared_bn(self.shared(pyramid[self.stride])))
        center = F.relu(self.center_bn(self.center(shared)))
        box = F.relu(self.box_bn(self.box(shared)))
        return {"heatmap": self.heatmap(center), "fields": self.fields(box)}


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
