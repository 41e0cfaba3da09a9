"""The kinds of sensors by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from perception.errors import AnySenseError, meant
from perception.frame import Sample, check_name
from perception.plugins import Registry, check_fields
from perception.sensors.drawing import check_picture
from perception.sensors.kind import Grid, Hints, Inspection, SensorKind, TensorSpec
from perception.sensors.names import OURS

_SUFFIX = re.compile(r"(\.[a-z0-9_]+)+")
_TYPE = re.compile(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*")


def _check(name: str, thing: Any) -> None:
    if not isinstance(thing, SensorKind):
        raise TypeError(f"is a {type(thing).__name__}, not a perception.sensors.kind.SensorKind")
    if thing.name != check_name(name):
        raise ValueError(f"its record is called '{thing.name}'")
    check_fields(thing)
    if not issubclass(thing.spec, BaseModel):
        raise TypeError(f"spec is {thing.spec.__name__}, which is no pydantic model")
    _check_words(thing)


def _check_words(kind: SensorKind) -> None:
    """Refuse words of a record that nothing could fit."""
    known = tuple(f.name for f in fields(Hints))
    units = kind.units if kind.units[:1] in ((), ("auto",)) else ()
    layouts, views = ("image", "points"), ("image", "projection", "birdseye")
    for field, given, fits, wanted, choices in (
        ("layout", (kind.layout,), layouts.__contains__, "image or points", layouts),
        ("views", kind.views, views.__contains__, "image, projection or birdseye", views),
        ("hints", kind.hints, known.__contains__, f"one of {', '.join(known)}", known),
        ("suffixes", kind.suffixes, _SUFFIX.fullmatch, "such as .npy", ()),
        ("ros_types", kind.ros_types, _TYPE.fullmatch, "such as sensor_msgs/msg/Image", ()),
        ("units", kind.units, units.__contains__, "auto, then what else there is", ()),
        ("file_unit", (kind.file_unit,), ("", *units).__contains__, "one of units", units),
    ):
        for word in given:
            if not fits(word):
                line = f"{field}: {word!r:.40}, expected {wanted}; {meant(word, choices)}"
                raise ValueError(line.removesuffix("; "))
    if not kind.views:
        raise ValueError("views: none is given")


def _check_tensors(value: Any) -> None:
    """Refuse what is no `TensorSpec` by name, of a shape and type that networks take."""
    if not isinstance(value, Mapping) or not value:
        raise TypeError(f"tensors gave {value!r:.80}, not TensorSpec by name")
    for name, tensor in value.items():
        fits = isinstance(name, str) and isinstance(tensor, TensorSpec)
        if not fits or tensor.dtype not in ("float32", "uint8", "int32"):
            raise TypeError(f"tensors gave {name} {tensor!r:.80}: float32, uint8 or int32")
        if not tensor.shape or not all(isinstance(n, int) and n > 0 for n in tensor.shape):
            raise TypeError(f"tensors gave {name} of shape {tensor.shape}")


KINDS: Registry[SensorKind] = Registry(
    "sensors",
    "kind of sensor",
    {name: f"perception.sensors.{name}:{name.upper()}" for name in OURS},
    _check,
    {
        "tensors": _check_tensors,
        "resample": Grid,
        "warp": Grid,
        "augment": Grid,
        "from_array": Sample,
        "from_message": Sample,
        "from_file": Sample,
        "example": Sample,
        "draw": check_picture,
        "inspect": Inspection,
    },
)


def usable_kinds() -> tuple[SensorKind, ...]:
    """All but those of other distributions that cannot be used."""
    found = []
    for name in KINDS:
        with suppress(AnySenseError, ImportError):
            found.append(KINDS[name])
    return tuple(found)


def kind_of(name: str, where: str = "") -> SensorKind:
    """The record of a kind.

    Raises:
        ConfigError: there is none of that name.
        PluginError: it is another distribution's and cannot be used.
    """
    return KINDS.named(name, where)
