"""Pictures that a model makes besides, such as the sensors' fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from perception.tasks.spec import TaskSpec
from perception.tasks.task import Form, Task, TaskContext

PREFIX = "image_"
"""Start of the graph outputs: (1, C, H, W) in 0..1."""


class PicturesSpec(TaskSpec):
    """Names of the pictures that the model makes besides, see `Result.images`."""

    names: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], ...] = Field(
        min_length=1
    )

    @model_validator(mode="after")
    def _distinct(self) -> PicturesSpec:
        if len(set(self.names)) < len(self.names):
            raise ValueError("an image is given twice")
        return self

    def described(self) -> str:
        """The names."""
        return ", ".join(self.names)


def as_picture(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An (H, W, C) uint8 picture of `size` from (C, h, w) float32 in 0..1."""
    scaled = (image.clip(0, 1) * 255).round().astype(np.uint8)
    picture = np.ascontiguousarray(np.moveaxis(scaled, 0, -1))
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, -1)


def _forms(spec: PicturesSpec, grid: tuple[int, int]) -> tuple[Form, ...]:
    return ({f"{PREFIX}{name}": (1, None, None, None) for name in spec.names},)


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> dict[str, NDArray[np.uint8]]:
    grid = ctx.grid
    return {
        n.removeprefix(PREFIX): as_picture(grid.crop(v[0]), grid.source) for n, v in tensors.items()
    }


PICTURES = Task(
    name="pictures",
    spec=PicturesSpec,
    parts=("images",),
    forms=_forms,
    decode=_decode,
    alone=False,
    summary=lambda value, spec: {},
    files=lambda value, spec: {f"{PREFIX}{name}": picture for name, picture in value.items()},
    training="perception.training.tasks.pictures:PICTURES",
    publisher="anysense_ros.publishing.pictures:PicturesPublisher",
)
