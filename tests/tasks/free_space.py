"""A task as another distribution brings it: how much of each column of the picture is free, from below."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.tasks.spec import Classes, TaskSpec
from perception.tasks.task import Meter, Task, TaskContext


class FreeSpaceSpec(TaskSpec):
    """`free` names the classes of a recording that can be driven on."""

    free: tuple[str, ...] = ("class 0",)
    gain: float = 1.0
    classes: Classes = ()


def forms(spec: FreeSpaceSpec, grid: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    columns = grid[1] // 8
    return {"free_share": (1, columns), "free_sure": (1, columns)}, {"free_logits": (1, columns)}


def decode(tensors: dict[str, np.ndarray], ctx: TaskContext) -> np.ndarray:
    """(W,) float32 share of each column, in the source's pixels."""
    if ctx.spec.gain < 0:
        raise ValueError("there is no gain below 0")
    share = tensors.get("free_share")
    if share is None:
        share = 1 / (1 + np.exp(-tensors["free_logits"]))
    columns = ctx.grid.crop(share[None, 0])[0]
    at = np.arange(ctx.grid.source[1]) * len(columns) // ctx.grid.source[1]
    return (columns[at] * ctx.spec.gain).astype(np.float32)


class FreeSpaceMeter(Meter):
    """`free_agreement`: 1 - the mean difference of the shares."""

    def __init__(self, spec: FreeSpaceSpec, ids: list[int]) -> None:
        self._ids, self._errors = ids, list[float]()

    def add(self, value: Any, truth: Any, size: Any) -> bool:
        if truth.labels is None:
            return False
        blocked = ~np.isin(truth.labels, self._ids)[::-1]
        free = np.where(blocked.any(0), blocked.argmax(0), len(blocked)) / len(blocked)
        self._errors.append(1.0 if value is None else float(np.abs(value - free).mean()))
        return True

    def scores(self) -> dict[str, float | None]:
        return {"free_agreement": 1 - float(np.mean(self._errors)) if self._errors else None}


def meter(spec: FreeSpaceSpec, info: Any) -> FreeSpaceMeter | None:
    ids = [c.id for c in info.seg_classes if c.name in spec.free]
    return FreeSpaceMeter(spec, ids) if ids else None


def draw(picture: np.ndarray, value: np.ndarray, spec: FreeSpaceSpec, opacity: float) -> np.ndarray:
    out = picture.copy()
    rows = np.arange(len(out))[::-1, None]
    out[rows < value * len(out)] = (0, 255, 0)
    return out


FREE_SPACE = Task(
    name="free_space",
    spec=FreeSpaceSpec,
    forms=forms,
    decode=decode,
    meter=meter,
    judged={"free_agreement": "free space"},
    to_dict=lambda value, spec: {"free_space": [round(float(v), 3) for v in value]},
    draw=draw,
)
