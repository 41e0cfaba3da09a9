"""The preprocessing contract: how decoded samples become network inputs.

It is stored in `bundle.yaml`, and training and serving run the same code on it, so that a network
never meets inputs that it was not trained on.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from perception.errors import InputError
from perception.frame import KINDS, RESERVED, Kind, check_name, in_order

CHANNELS: dict[Kind, int] = {"rgb": 3, "depth": 2, "thermal": 2, "lidar": 4}
"""Channels of each kind's network input."""


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


class ViewSpec(GridSpec):
    """What an input's grid means in space.

    `image`: the grid is the sensor's own picture.  `projection`: points are projected into the picture
    of a camera, that of the input `into`, or else the first whose intrinsics are known.
    """

    type: Literal["image", "projection"] = "image"
    into: str | None = None

    @property
    def grid(self) -> GridSpec:
        """Its pixels alone."""
        return GridSpec(height=self.height, width=self.width, fit=self.fit)


_SPECS: dict[Kind, type[_Spec]] = {
    "rgb": RgbSpec,
    "depth": DepthSpec,
    "thermal": ThermalSpec,
    "lidar": LidarSpec,
}


class _Values(dict[str, Any]):
    """What a file says of an input's preprocessing, and of which kind that is."""

    kind: str = ""


def _kind_of(value: Any) -> str | None:
    if isinstance(value, _Values):
        return value.kind
    return next((k for k, spec in _SPECS.items() if isinstance(value, spec)), None)


PreprocessSpec = Annotated[
    Annotated[RgbSpec, Tag("rgb")]
    | Annotated[DepthSpec, Tag("depth")]
    | Annotated[ThermalSpec, Tag("thermal")]
    | Annotated[LidarSpec, Tag("lidar")],
    Discriminator(_kind_of),
]
"""The values of one kind."""


class InputSpec(_Spec):
    """One input of a bundle: what it takes, and how that becomes a network's input.

    Attributes:
        kind: of the sensor.
        encoder: name of the encoder graph; several inputs may share one.  Empty: the input's own name.
        view: the grid that samples are brought to.
        preprocess: the values of its kind.
    """

    kind: Kind
    encoder: str = Field("", pattern=r"^([a-z][a-z0-9_]{0,62})?$")
    view: ViewSpec = ViewSpec()
    preprocess: PreprocessSpec

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, value: Any) -> Any:
        """`preprocess` is read as its kind's; a LiDAR's view is a projection unless it says otherwise."""
        if not isinstance(value, Mapping) or value.get("kind") not in KINDS:
            return value
        kind, own = value["kind"], value.get("preprocess") or {}
        if isinstance(own, Mapping):
            own = _Values(own)
            own.kind = kind
        found = {**value, "preprocess": own}
        view = value.get("view") or {}
        if kind == "lidar" and isinstance(view, Mapping):
            found["view"] = {"type": "projection", **view}
        return found

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if not isinstance(self.preprocess, _SPECS[self.kind]):
            raise ValueError(f"preprocess is none of {self.kind}")
        if (self.view.type == "projection") != (self.kind == "lidar"):
            raise ValueError(f"{self.kind} has no view of type {self.view.type}")
        return self

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (1, C, H, W) of the network's input."""
        return (1, CHANNELS[self.kind], self.view.height, self.view.width)


class PreprocessContract(RootModel[Mapping[str, InputSpec]]):
    """All preprocessing of one bundle: its inputs by name, in the order of `frame.in_order`.

    Where there is one input of a kind, called as its kind, there is a short form:
    `{modalities: [rgb, depth], grid: ..., rgb: ..., depth: ...}`.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "modalities" not in value:
            return value
        unknown = sorted(map(str, set(value) - {"modalities", "grid", *KINDS}))
        if unknown:
            raise ValueError(f"'{unknown[0]}' is unknown: modalities, grid, {', '.join(KINDS)}")
        names = list(value["modalities"] or ())
        wrong = [n for n in names if n not in KINDS]
        if wrong or names != list(in_order(names)):
            raise ValueError(f"modalities must be unique and in the order {', '.join(KINDS)}")
        grid = value.get("grid") or {}
        grid = grid.model_dump() if isinstance(grid, GridSpec) else grid
        for kind in [k for k in KINDS if k not in names and isinstance(value.get(k), Mapping)]:
            try:
                _SPECS[kind].model_validate(
                    value[kind]
                )  # what no input uses is checked all the same
            except ValidationError as error:
                raise ValueError(f"{kind}: {error.errors()[0]['msg']}") from error
        return {n: {"kind": n, "view": grid, "preprocess": value.get(n) or {}} for n in names}

    @model_validator(mode="after")
    def _checked(self) -> PreprocessContract:
        if not self.root:
            raise ValueError("needs an input")
        encoders: dict[str, tuple[Any, ...]] = {}
        found: dict[str, InputSpec] = {}
        for name in in_order(self.root):
            spec = self.root[name]
            try:
                check_name(name)
            except InputError as error:
                raise ValueError(str(error)) from error
            if name in KINDS and name != spec.kind:
                raise ValueError(f"{name}: an input of another kind cannot be called so")
            if (into := spec.view.into) is not None and into not in self.root:
                raise ValueError(f"{name}.view.into: there is no input '{into}'")
            if into is not None and (spec.kind != "lidar" or self.root[into].kind == "lidar"):
                raise ValueError(f"{name}.view.into: only a lidar is projected, into a camera")
            if spec.encoder in RESERVED:
                raise ValueError(f"{name}: no encoder can be called '{spec.encoder}'")
            spec = spec if spec.encoder else spec.model_copy(update={"encoder": name})
            same = (spec.kind, spec.shape)
            if encoders.setdefault(spec.encoder, same) != same:
                raise ValueError(f"{name}: others of encoder '{spec.encoder}' have other inputs")
            found[name] = spec
        object.__setattr__(self, "root", MappingProxyType(found))
        return self

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def __getitem__(self, name: str) -> InputSpec:
        return self.root[name]

    def items(self) -> ItemsView[str, InputSpec]:
        """Names and inputs."""
        return self.root.items()

    def __copy__(self) -> PreprocessContract:
        return PreprocessContract.model_construct(self.root)

    def __deepcopy__(self, memo: object = None) -> PreprocessContract:
        return self.__copy__()  # nothing in it can be changed

    def __reduce__(self) -> tuple[type[PreprocessContract], tuple[dict[str, InputSpec]]]:
        return PreprocessContract, (dict(self.root),)

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {name: spec.model_dump(exclude_none=True) for name, spec in self.root.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(self.root)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The same, as they are called where models are built."""
        return tuple(self.root)

    @property
    def kinds(self) -> dict[str, Kind]:
        """By input, its kind."""
        return {name: spec.kind for name, spec in self.root.items()}

    @property
    def encoders(self) -> dict[str, str]:
        """By input, the name of its encoder."""
        return {name: spec.encoder for name, spec in self.root.items()}

    @property
    def grid(self) -> GridSpec:
        """The grid of the first input, which those of all are unless a bundle says otherwise."""
        return next(iter(self.root.values())).view.grid

    def input_shape(self, name: str) -> tuple[int, int, int, int]:
        """Shape (1, C, H, W) of the network input called `name`."""
        return self.root[name].shape

    def views(self, sensors: Mapping[str, str] | None = None) -> dict[str, str]:
        """By LiDAR that is projected into the picture of a certain camera (`ViewSpec.into`), that camera.

        Args:
            sensors: by name of a sensor, its input; those of other inputs are called as these.
        """
        named = {name: sensor for sensor, name in (sensors or {}).items()}
        into = {name: spec.view.into for name, spec in self.root.items()}
        return {named.get(n, n): named.get(camera, camera) for n, camera in into.items() if camera}

    def only(self, names: Iterable[str]) -> PreprocessContract:
        """These inputs alone."""
        return PreprocessContract({n: self.root[n] for n in names})
