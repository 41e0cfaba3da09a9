"""The grid that a sensor's sample is brought to, and the mapping between it and a source image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.errors import InputError

if TYPE_CHECKING:
    from perception.geometry.sights import Sight
    from perception.geometry.views import View


class GridSpec(BaseModel):
    """The reference image grid that all inputs are brought to, in pixels.

    `fit` says how an image of another aspect ratio is brought there: `stretch` scales both axes on
    their own, `letterbox` keeps the ratio and pads right and bottom.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    height: int = Field(480, ge=32, le=4096, multiple_of=32)
    width: int = Field(640, ge=32, le=4096, multiple_of=32)
    fit: Literal["stretch", "letterbox"] = "stretch"


class BirdseyeSpec(BaseModel):
    """A grid on the ground, seen from above, in the vehicle's base frame (REP 105: x forward, y left, z up).

    Row i is what lies `x[0] + i * cell_m` and more ahead, column j what lies `y[0] + j * cell_m` and more to
    the left.  `heights` are where pictures are looked up above a cell, in metres; points count from `z[0]`
    to `z[1]`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    x: tuple[float, float] = (-25.6, 51.2)
    y: tuple[float, float] = (-25.6, 25.6)
    z: tuple[float, float] = (-1.0, 4.0)
    cell_m: float = Field(0.4, gt=0.01, le=10)
    heights: tuple[float, ...] = Field((0.2, 0.8, 1.4, 2.2), min_length=1, max_length=32)

    @model_validator(mode="after")
    def _whole(self) -> BirdseyeSpec:
        for name in "xyz":
            low, high = getattr(self, name)
            if not -500 <= low < high <= 500:
                raise ValueError(f"{name}: from {low:g} to {high:g} m is no range within 500 m")
        for name, count in zip("xy", self.shape, strict=True):
            low, high = getattr(self, name)
            if abs(count * self.cell_m - (high - low)) > 1e-3 * self.cell_m or count % 32:
                what = f"{(high - low) / self.cell_m:g} cells of {self.cell_m:g} m"
                raise ValueError(f"{name}: {what}, expected a multiple of 32")
            if not 32 <= count <= 4096:
                raise ValueError(f"{name}: {count} cells, expected 32 to 4096")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        (x0, x1), (y0, y1) = self.x, self.y
        return round((x1 - x0) / self.cell_m), round((y1 - y0) / self.cell_m)

    @property
    def grid(self) -> GridSpec:
        """Its cells as pixels."""
        return GridSpec(height=self.shape[0], width=self.shape[1])


class ViewSpec(GridSpec):
    """What an input's grid means in space.

    `image`: the grid is the sensor's own picture.  `projection`: points are projected into the picture
    of a camera, that of the input `into`, or else the first whose intrinsics are known.  `birdseye`: points
    fall on the ground grid `birdseye`, whose rows and columns are the grid's.  Pictures with `birdseye` are
    lifted onto it by the network.
    """

    type: Literal["image", "projection", "birdseye"] = "image"
    into: str | None = None
    birdseye: BirdseyeSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _on_the_ground(cls, value: Any) -> Any:
        """Of a ground grid rows and columns need not be said."""
        if isinstance(value, dict) and value.get("type") == "birdseye":
            own = value.get("birdseye") or {}
            found = own if isinstance(own, BirdseyeSpec) else BirdseyeSpec.model_validate(own)
            height, width = found.shape
            return {"height": height, "width": width, **value, "birdseye": found}
        return value

    @model_validator(mode="after")
    def _fits(self) -> ViewSpec:
        own = self.birdseye
        if own is not None and self.type == "projection":
            raise ValueError("points that are projected have no birdseye: type is birdseye")
        if self.type == "birdseye" and (own is None or own.shape != (self.height, self.width)):
            raise ValueError("height and width are not those of birdseye")
        return self

    @property
    def grid(self) -> GridSpec:
        """Its pixels alone."""
        return GridSpec(height=self.height, width=self.width, fit=self.fit)

    def bind(self, source: Sight, reference: Sight, plane_m: float = np.inf) -> View:
        """How pictures of one sensor come to lie on the grid as those of another do.

        What takes long is kept: the same calibration gives the same view.

        Args:
            source: intrinsics, size and pose of the sensor.
            reference: the same of the sensor whose picture the grid is.
            plane_m: how far away things are, in metres, where no depth says it; infinity for far scenes.

        Raises:
            CalibrationError: the plane is not before the camera.
        """
        from perception.geometry.views import bound

        return bound(self, source, reference, plane_m)


@dataclass(frozen=True)
class GridMap:
    """Maps pixels of a source image (height, width) to the reference grid.

    The source is scaled to `scaled` (height, width) and lies in the top left corner of the grid;
    with `stretch` it fills the grid.  Coordinates follow OpenCV: a pixel's center is at +0.5.
    """

    source: tuple[int, int]
    grid: tuple[int, int]
    scaled: tuple[int, int]

    @staticmethod
    def fit(source: tuple[int, int], grid: GridSpec) -> GridMap:
        """The map for a source of (height, width) pixels."""
        height, width = source
        if height < 1 or width < 1:
            raise InputError(f"image of {width}x{height} pixels is empty")
        target = (grid.height, grid.width)
        if grid.fit == "stretch":
            return GridMap(source, target, target)
        ratio = min(grid.height / height, grid.width / width)
        scaled = (max(1, round(height * ratio)), max(1, round(width * ratio)))
        return GridMap(source, target, scaled)

    @property
    def identity(self) -> bool:
        """True when the source already is the grid."""
        return self.source == self.grid == self.scaled

    @property
    def scale(self) -> tuple[float, float]:
        """Factors (x, y) from source to grid pixels."""
        return self.scaled[1] / self.source[1], self.scaled[0] / self.source[0]

    def to_grid(
        self, image: NDArray[Any], *, nearest: bool = False, fill: float = 0.0
    ) -> NDArray[Any]:
        """Resample an (H, W) or (H, W, C) source image onto the grid; padding holds `fill`."""
        if image.shape[:2] != self.source:
            raise InputError(
                f"image has {image.shape[1]}x{image.shape[0]} pixels, "
                f"expected {self.source[1]}x{self.source[0]}"
            )
        if self.identity:
            return image
        if self.scaled != self.source:
            shrinks = self.scaled[0] < self.source[0] and self.scaled[1] < self.source[1]
            mode = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, self.scaled[::-1], interpolation=mode)
        if self.scaled == self.grid:
            return image
        padded = np.full((*self.grid, *image.shape[2:]), fill, image.dtype)
        padded[: self.scaled[0], : self.scaled[1]] = image
        return padded

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of a map of any resolution over the grid that the source covers."""
        if self.scaled == self.grid:
            return image
        height = max(1, round(image.shape[-2] * self.scaled[0] / self.grid[0]))
        width = max(1, round(image.shape[-1] * self.scaled[1] / self.grid[1]))
        return image[..., :height, :width]

    def boxes_to_source(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) in grid pixels to source pixels, clipped to the image."""
        sx, sy = self.scale
        boxes = np.asarray(xyxy / np.array([sx, sy, sx, sy]), np.float32)
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, self.source[1])
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, self.source[0])
        return boxes

    def boxes_to_grid(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) in source pixels to grid pixels."""
        sx, sy = self.scale
        return np.asarray(xyxy * np.array([sx, sy, sx, sy]), np.float32)
