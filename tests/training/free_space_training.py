"""The half of `free_space` (tests/tasks) that training knows, as another distribution brings it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.data.base import IGNORE_LABEL, RecordingInfo, Truth
from perception.geometry.grid import GridMap
from perception.tasks.registry import TASKS
from perception.training.geometry import Geometry
from perception.training.tasks.task import TrainingTask, TruthSource


class Columns(nn.Module):
    """Logits of columns 8 pixels wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, 1, 1)

    def forward(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        logits: Tensor = self.classify(pyramid[8]).mean((1, 2))
        return logits


class FreeSpaceTraining(TrainingTask):
    """Truth (H, W) uint8 labels of the grid; in batches (N, W/8) shares of free pixels."""

    name = "free_space"
    strides = (8,)
    needs = "a labeled pixel", "none is labeled"

    def spec(self, info: RecordingInfo) -> Any:
        return TASKS[self.name].spec(free=(info.seg_classes[0].name,))

    def outputs(self, value: Tensor) -> dict[str, Tensor]:
        return {"free_logits": value}

    def read_truth(self, source: TruthSource) -> NDArray[np.uint8] | None:
        if source.truth.labels is None:
            return None
        grid = GridMap.fit(source.truth.labels.shape, source.grid)  # type: ignore[arg-type]
        return grid.to_grid(source.truth.labels, nearest=True, fill=IGNORE_LABEL)

    def as_recorded(self, truth: NDArray[np.uint8]) -> Truth:
        return Truth(labels=truth)

    def warp(self, truth: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
        return np.ascontiguousarray(geometry.warp(truth, True, IGNORE_LABEL))

    def blank(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.full(size, IGNORE_LABEL, np.uint8)

    def collate(self, truths: Sequence[NDArray[np.uint8]]) -> Tensor:
        free = torch.from_numpy(np.stack(list(truths)) == 0).float()
        return F.avg_pool1d(free.mean(1), 8)

    def head(self, channels: Mapping[int, int], spec: Any, width: int) -> nn.Module:
        return Columns(channels[8])

    def loss(self, value: Tensor, truths: Tensor, prepared: Any = None) -> Tensor:
        return F.binary_cross_entropy_with_logits(value.float(), truths)


FREE_SPACE = FreeSpaceTraining()
