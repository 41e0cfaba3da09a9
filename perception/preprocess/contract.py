"""The preprocessing contract: how decoded samples become network inputs.

It is stored in `bundle.yaml`, and training and serving run the same code on it, so that a network
never meets inputs that it was not trained on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.frame import MODALITIES, Modality

CHANNELS: dict[Modality, int] = {"rgb": 3, "depth": 2, "thermal": 2, "lidar": 4}
"""Channels of each modality's network input."""


# Far beyond any sensor, and far from where float32 overflows.
_Value = Annotated[float, Field(ge=-1e6, le=1e6)]
_Scale = Annotated[float, Field(ge=1e-6, le=1e6)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GridSpec(_Spec):
    """The reference image grid that all inputs are brought to, in pixels.

    `fit` says how an image of another aspect ratio is brought there: `stretch` scales both axes on
    their own, `letterbox` keeps the ratio and pads right and bottom.
    """

    height: int = Field(480, ge=32, le=4096, multiple_of=32)
    width: int = Field(640, ge=32, le=4096, multiple_of=32)
    fit: Literal["stretch", "letterbox"] = "stretch"


class RgbSpec(_Spec):
    """Mean and standard deviation of R, G, B on the 0..255 scale (ImageNet by default)."""

    mean: tuple[_Value, _Value, _Value] = (123.675, 116.28, 103.53)
    std: tuple[_Scale, _Scale, _Scale] = (58.395, 57.12, 57.375)


class DepthSpec(_Spec):
    """Depth becomes inverse depth, (1/z - 1/max_m) / (1/min_m - 1/max_m), and a validity mask.

    Depths outside [min_m, max_m] and non-finite ones are invalid; both channels are 0 there.
    `m_per_count8` is what a step of an 8 bit depth file is worth, in metres, when nothing else says
    so: such files carry no scale of their own.
    """

    min_m: _Scale = 0.4
    max_m: _Scale = 20.0
    m_per_count8: _Scale | None = None

    @model_validator(mode="after")
    def _ordered(self) -> DepthSpec:
        if self.min_m >= self.max_m:
            raise ValueError("depth: min_m must be below max_m")
        return self


class ThermalRule(_Spec):
    """Maps raw thermal values to 0..1: between two fixed values, or between two percentiles."""

    kind: Literal["linear", "percentile"] = "linear"
    low: _Value = 0.0
    high: _Value = 255.0

    @model_validator(mode="after")
    def _ordered(self) -> ThermalRule:
        if self.low >= self.high:
            raise ValueError("thermal rule: low must be below high")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError("thermal rule: percentiles must be within 0..100")
        return self


class ThermalSpec(_Spec):
    """The scale rule for each thermal unit; channels are the scaled value, centered, and validity."""

    counts8: ThermalRule = ThermalRule()
    counts16: ThermalRule = ThermalRule(kind="percentile", low=1.0, high=99.0)
    kelvin: ThermalRule = ThermalRule(kind="percentile", low=1.0, high=99.0)


class LidarSpec(_Spec):
    """LiDAR projected into the reference camera: range, intensity, height, validity.

    range is divided by `max_range_m`; height above ground (sensor z + `sensor_height_m`) by
    `height_scale_m`; `dilate_px` grows every return by that many pixels, nearest wins.
    """

    max_range_m: _Scale = 80.0
    sensor_height_m: _Value = 1.7
    height_scale_m: _Scale = 3.0
    dilate_px: int = Field(1, ge=0, le=8)


class PreprocessContract(_Spec):
    """All preprocessing of one bundle."""

    modalities: tuple[Modality, ...] = Field(min_length=1)
    grid: GridSpec = GridSpec()
    rgb: RgbSpec = RgbSpec()
    depth: DepthSpec = DepthSpec()
    thermal: ThermalSpec = ThermalSpec()
    lidar: LidarSpec = LidarSpec()

    @model_validator(mode="after")
    def _canonical(self) -> PreprocessContract:
        wanted = tuple(m for m in MODALITIES if m in self.modalities)
        if wanted != self.modalities:
            raise ValueError(f"modalities must be unique and in the order {', '.join(MODALITIES)}")
        return self

    def input_shape(self, modality: Modality) -> tuple[int, int, int, int]:
        """Shape (1, C, H, W) of the network input of `modality`."""
        return (1, CHANNELS[modality], self.grid.height, self.grid.width)
