"""Height above the ground: what a robot has to drive around, and what it may drive under.

The network gives, for every pixel of a quarter of the grid, how many metres above the ground the
obstacle reaches that is seen there; 0 is free ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from perception.data.base import RecordingInfo, Truth
from perception.geometry.grid import GridMap
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Meter, Task, TaskContext


class HeightSpec(TaskSpec):
    """Heights are given in 0..`max_m`; below `free_m` a column of the picture is free."""

    max_m: float = Field(3.0, gt=0, le=100)
    free_m: float = Field(0.15, gt=0, le=100)


@dataclass(frozen=True)
class Heights:
    """Heights above ground in the pixels of the picture that a result is given in.

    Attributes:
        metres: (H, W) float32.
        columns: (W,) float32, the highest of each column.
    """

    metres: np.ndarray
    columns: np.ndarray


def forms(spec: HeightSpec, grid: tuple[int, int]) -> tuple[dict[str, tuple], ...]:
    return ({"height": (1, 1, grid[0] // 4, grid[1] // 4)},)


def decode(tensors: Mapping[str, np.ndarray], ctx: TaskContext) -> Heights:
    shares = ctx.grid.crop(tensors["height"][0, 0])
    height, width = ctx.grid.source
    metres = cv2.resize(shares, (width, height)).clip(0, 1) * np.float32(ctx.spec.max_m)
    return Heights(metres, metres.max(axis=0))


class HeightMeter(Meter):
    """`free_columns`: the share of columns of which it is rightly said whether they are free."""

    def __init__(self, spec: HeightSpec) -> None:
        self.free_m = spec.free_m
        self.right = self.columns = 0

    def add(self, value: Heights | None, truth: Truth, size: tuple[int, int] | None) -> bool:
        metres = truth.values.get("height")
        if metres is None:
            return False
        wanted = metres.max(axis=0) > self.free_m
        self.columns += len(wanted)
        if value is not None:
            said = cv2.resize(value.columns[None], (len(wanted), 1))[0] > self.free_m
            self.right += int((said == wanted).sum())
        return True

    def scores(self) -> dict[str, float | None]:
        return {"free_columns": self.right / self.columns if self.columns else None}


def meter(spec: HeightSpec, info: RecordingInfo) -> HeightMeter:
    return HeightMeter(spec)


def to_dict(value: Heights, spec: HeightSpec) -> dict[str, Any]:
    free = float((value.columns <= spec.free_m).mean())
    return {"height": {"free_columns": free, "highest_m": float(value.columns.max())}}


def draw(picture: np.ndarray, value: Heights, spec: HeightSpec, opacity: float) -> np.ndarray:
    """The higher, the redder."""
    share = (value.metres / spec.max_m).clip(0, 1)[..., None] * opacity
    if share.shape[:2] != picture.shape[:2]:
        picture = cv2.resize(picture, share.shape[1::-1])
    red = np.array([255.0, 0.0, 0.0])
    return (picture * (1 - share) + red * share).astype(np.uint8)


def files(value: Heights, spec: HeightSpec) -> dict[str, np.ndarray]:
    return {"height": (value.metres / spec.max_m * 255).clip(0, 255).astype(np.uint8)}


HEIGHT = Task(
    name="height",
    spec=HeightSpec,
    forms=forms,
    decode=decode,
    meter=meter,
    judged={"free_columns": "free columns"},
    to_dict=to_dict,
    draw=draw,
    files=files,
    training="anysense_height:TRAINING",
)


@cache
def training() -> Any:
    """The half that needs PyTorch, which only those who train import."""
    import torch
    from torch import nn
    from torch.nn import functional

    from perception.training.tasks.task import TrainingTask, stacked

    class Head(nn.Module):
        """Shares of `max_m` from the map at stride 4."""

        def __init__(self, channels: int, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1)
            )

        def forward(self, pyramid: dict[int, torch.Tensor]) -> torch.Tensor:
            return self.layers(pyramid[4]).sigmoid()

    class HeightTraining(TrainingTask):
        """Truth is (H, W) float32 metres, NaN where nobody knows."""

        name = "height"
        strides = (4,)
        needs = "a frame with heights", "no frame has them"

        def read_truth(self, source):
            metres = source.truth.values.get("height")
            if metres is None:
                return None
            return GridMap.fit(metres.shape, source.grid).to_grid(metres, nearest=True, fill=np.nan)

        def warp(self, truth, geometry):
            return np.ascontiguousarray(geometry.warp(truth, True, np.nan))

        def blank(self, size):
            return np.full(size, np.nan, np.float32)

        def collate(self, truths):
            return stacked(truths, np.float32)

        def known(self, truths):
            return bool(truths.isfinite().any())

        def has_truth(self, truth):
            return truth is not None and bool(np.isfinite(truth).any())

        def head(self, channels, spec, width):
            return Head(channels[4], width)

        def prepare(self, recording, spec, balance):
            return spec

        def loss(self, value, truths, prepared=None):
            wanted = truths[:, None, 2::4, 2::4] / prepared.max_m
            known = wanted.isfinite()
            return functional.smooth_l1_loss(value.float()[known], wanted[known].clamp(0, 1))

    return HeightTraining()


def __getattr__(name: str) -> Any:
    if name == "TRAINING":
        return training()
    raise AttributeError(name)
