"""The preprocessing contract: how decoded samples become network inputs.

It is stored in `bundle.yaml`, and training and serving run the same code on it, so that a network
never meets inputs that it was not trained on.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from perception.errors import InputError, names_hint
from perception.frame import RESERVED, Kind, as_kind, check_name, in_order
from perception.geometry.grid import BirdseyeSpec, GridSpec, ViewSpec
from perception.sensors.kind import SensorKind, TensorSpec
from perception.sensors.names import OURS, is_kind, kinds
from perception.sensors.registry import KINDS


class InputSpec(BaseModel):
    """One input of a bundle: what it takes, and how that becomes a network's input.

    Attributes:
        kind: of the sensor.
        encoder: name of the encoder graph; several inputs may share one.  Empty: the input's own name.
        view: the grid that samples are brought to.
        preprocess: the values of its kind, `SensorKind.spec`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind
    encoder: str = Field("", pattern=r"^([a-z][a-z0-9_]{0,62})?$")
    view: ViewSpec = ViewSpec()
    preprocess: Any = Field(validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, value: Any) -> Any:
        """`preprocess` may be left out; a view is of its kind's usual type unless it says otherwise."""
        if not isinstance(value, Mapping) or not is_kind(value.get("kind")):
            return value
        found = {**value, "preprocess": value.get("preprocess") or {}}
        view = value.get("view") or {}
        if isinstance(view, Mapping):
            found["view"] = {"type": KINDS[value["kind"]].views[0], **view}
        return found

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        return as_kind(kind)

    @field_validator("preprocess", mode="plain")
    @classmethod
    def _values(cls, value: Any, info: ValidationInfo) -> Any:
        if "kind" not in info.data:  # which is told already
            return value
        spec = KINDS[info.data["kind"]].spec
        if isinstance(value, BaseModel) and not isinstance(value, spec):
            raise ValueError(f"preprocess is none of {info.data['kind']}")
        return spec.model_validate(value)

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if self.view.type not in self.sensor.views:
            raise ValueError(f"{self.kind} has no view of type {self.view.type}")
        return self

    @property
    def sensor(self) -> SensorKind:
        """The record of its kind."""
        return KINDS[self.kind]

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The network's inputs by name, without the batch axis."""
        return self.sensor.tensors(self.preprocess, self.view)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (1, C, H, W) of the network's input `image`, which pictures and projections have."""
        return (1, *self.tensors["image"].shape)


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
        known = kinds()
        unknown = sorted(map(str, set(value) - {"modalities", "grid", *known}))
        if unknown:
            hint = names_hint(unknown[0], ("modalities", "grid", *known))
            raise ValueError(f"'{unknown[0]}' is unknown: {hint}")
        given = value["modalities"]
        names = list(given) if isinstance(given, list | tuple) else []
        wrong = [n for n in names if n not in known]
        if wrong or names != list(in_order(names)) or (given and not names):
            raise ValueError(f"modalities must be unique and in the order {', '.join(known)}")
        grid = value.get("grid") or {}
        grid = grid.model_dump() if isinstance(grid, GridSpec) else grid
        for kind in [k for k in known if k not in names and isinstance(value.get(k), Mapping)]:
            try:  # what no input uses is checked all the same
                KINDS[kind].spec.model_validate(value[kind])
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
            if name != spec.kind and is_kind(name):
                raise ValueError(f"{name}: an input of another kind cannot be called so")
            if (into := spec.view.into) is not None and into not in self.root:
                hint = names_hint(into, self.root)
                raise ValueError(f"{name}.view.into: there is no input '{into}'; {hint}")
            projected = spec.view.type == "projection"
            if into is not None and not (projected and self.root[into].sensor.has_picture):
                raise ValueError(f"{name}.view.into: only points are projected, into a camera")
            if spec.encoder in RESERVED:
                raise ValueError(f"{name}: no encoder can be called '{spec.encoder}'")
            spec = spec if spec.encoder else spec.model_copy(update={"encoder": name})
            same = (spec.kind, spec.tensors)
            if encoders.setdefault(spec.encoder, same) != same:
                raise ValueError(f"{name}: others of encoder '{spec.encoder}' have other inputs")
            found[name] = spec
        ground = {spec.view.birdseye for spec in found.values()}
        if len(ground) > 1:
            raise ValueError("view.birdseye: all inputs have the same, or none has one")
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
    def birdseye(self) -> BirdseyeSpec | None:
        """The grid on the ground that all inputs are brought to by the network, None where there is none."""
        return next(iter(self.root.values())).view.birdseye

    @property
    def grid(self) -> GridSpec:
        """The grid on the ground; else that of the first input, which those of all are unless a bundle says
        otherwise."""
        first = next(iter(self.root.values())).view
        return first.grid if first.birdseye is None else first.birdseye.grid

    def input_shape(self, name: str) -> tuple[int, ...]:
        """Shape (1, C, H, W) of the network input called `name`."""
        return self.root[name].shape

    def views(self, sensors: Mapping[str, str] | None = None) -> dict[str, str]:
        """By sensor that is projected into the picture of a certain camera (`ViewSpec.into`), that camera.

        Args:
            sensors: by name of a sensor, its input; those of other inputs are called as these.
        """
        named = {name: sensor for sensor, name in (sensors or {}).items()}
        into = {name: spec.view.into for name, spec in self.root.items()}
        return {named.get(n, n): named.get(camera, camera) for n, camera in into.items() if camera}

    def grounded(self, sensors: Mapping[str, str] | None = None) -> frozenset[str]:
        """The sensors whose inputs come to lie on the ground grid, and which need a pose; as of `views`."""
        named = {name: sensor for sensor, name in (sensors or {}).items()}
        return frozenset(named.get(n, n) for n, s in self.root.items() if s.view.birdseye)

    def only(self, names: Iterable[str]) -> PreprocessContract:
        """These inputs alone."""
        return PreprocessContract({n: self.root[n] for n in names})


CHANNELS: dict[Kind, int] = {
    name: KINDS[name].tensors(KINDS[name].spec(), ViewSpec())["image"].shape[0] for name in OURS
}
"""Channels of the network input of each kind of ours."""
