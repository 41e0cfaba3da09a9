"""The kinds of sensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perception.frame import Sample, check_name
from perception.plugins import Registry
from perception.sensors.kind import Grid, Inspection, SensorKind
from perception.sensors.names import OURS


def _check(name: str, thing: Any) -> None:
    if not isinstance(thing, SensorKind):
        raise TypeError(f"is a {type(thing).__name__}, not a perception.sensors.kind.SensorKind")
    if thing.name != check_name(name):
        raise ValueError(f"its record is called '{thing.name}'")


KINDS: Registry[SensorKind] = Registry(
    "sensors",
    "kind of sensor",
    {name: f"perception.sensors.{name}:{name.upper()}" for name in OURS},
    _check,
    {
        "tensors": Mapping,
        "resample": Grid,
        "warp": Grid,
        "augment": Grid,
        "from_array": Sample,
        "from_message": Sample,
        "from_file": Sample,
        "example": Sample,
        "draw": np.ndarray,
        "inspect": Inspection,
    },
)


def kind_of(name: str, where: str = "") -> SensorKind:
    """The record of a kind.

    Raises:
        ConfigError: there is none of that name.
        PluginError: it is another distribution's and cannot be used.
    """
    return KINDS.named(name, where)
