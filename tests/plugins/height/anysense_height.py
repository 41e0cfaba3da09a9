"""Height above the ground: what a robot has to drive around, and what it may drive under.

The network gives, for every pixel of a quarter of the grid, how many metres above the ground the
obstacle reaches that is seen there; 0 is free ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from perception.data.base import RecordingInfo, Truth
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
