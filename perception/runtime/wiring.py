"""How a bundle's graphs are joined: which encoder serves an input, and what its tensors are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError, names_hint
from perception.frame import check_name
from perception.sensors.names import is_kind

FUSER, PRESENCE, IMAGE = "fuser", "presence", "image"

V = TypeVar("V")


def composed(name: str, tensor: str = IMAGE) -> str:
    """What one graph for several inputs calls a tensor of one of them: its `image` as the input."""
    return name if tensor == IMAGE else f"{name}.{tensor}"


def composed_feeds(given: Mapping[str, V | Mapping[str, V]]) -> dict[str, V]:
    """What one graph for several inputs takes, by its names: of each, its tensors or its `image` alone."""
    found: dict[str, V] = {}
    for name, own in given.items():
        tensors = own if isinstance(own, Mapping) else {IMAGE: own}
        found |= {composed(name, tensor): value for tensor, value in tensors.items()}
    return found


@dataclass(frozen=True)
class Wiring:
    """The names of what goes from input to encoder to fuser.

    An encoder takes the tensors of its kind, `image` for most, and gives features by bare names, such
    as `f4`; the fuser takes `<input>.<feature>`.  Bundles of schema 1, whose separator is `_`, have one
    encoder for each input, whose tensors bear its name in the encoder already: it takes `rgb` and gives
    `rgb_f4`.

    Attributes:
        encoders: by input, the name of its encoder graph.
        presence: the inputs that the fuser's `presence` tells of, in its order; it may tell of some
            that this bundle lacks.
        separator: `.`, or `_` for graphs of schema 1.
    """

    encoders: Mapping[str, str]
    presence: tuple[str, ...]
    separator: Literal[".", "_"] = "."

    @staticmethod
    def of(encoders: Mapping[str, str]) -> Wiring:
        """That of newly exported graphs."""
        return Wiring(dict(encoders), tuple(encoders))

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs."""
        return tuple(self.encoders)

    def by_input(self) -> Wiring:
        """The same where engines are by input, as a pipeline has them, and not by encoder."""
        return replace(self, encoders={name: name for name in self.encoders})

    def tensor(self, name: str, tensor: str = IMAGE) -> str:
        """What an input's encoder calls one of the tensors that it takes."""
        return tensor if self.separator == "." else self.encoders[name]

    def feeds(self, name: str, given: V | Mapping[str, V]) -> dict[str, V]:
        """What an input's encoder takes, by its names: its tensors by name, or its `image` alone."""
        tensors = given if isinstance(given, Mapping) else {IMAGE: given}
        return {self.tensor(name, tensor): value for tensor, value in tensors.items()}

    def feature(self, name: str, output: str) -> str:
        """What the fuser calls an output of an input's encoder."""
        if self.separator == ".":
            return f"{name}.{output}"
        start = f"{self.encoders[name]}_"
        return f"{name}_{output.removeprefix(start)}" if output.startswith(start) else output

    def features(self, name: str, outputs: Mapping[str, V]) -> dict[str, V]:
        """The outputs of an input's encoder by the fuser's names for them."""
        return {self.feature(name, output): value for output, value in outputs.items()}

    def present(self, names: Collection[str]) -> NDArray[np.float32]:
        """The fuser's `presence` where these inputs are there."""
        return np.array([name in names for name in self.presence], np.float32)


def wired_inputs(inputs: Mapping[str, str], sensors: Mapping[str, str] | None) -> dict[str, str]:
    """By sensor, its input, in the order of the inputs, whose kinds are given by name.

    Raises:
        ConfigError: there is no such input, one of another kind, or two sensors are for one; or no sensor.
    """
    if sensors is None:
        return {name: name for name in inputs}
    if not isinstance(sensors, Mapping):
        what = f"a {type(sensors).__name__}, expected inputs of the bundle by sensor"
        raise ConfigError(what, where="sensors", hint="{'cam_front': 'rgb'}")
    if not sensors:
        raise ConfigError("needs a sensor", where="sensors")
    for sensor, name in sensors.items():
        check_name(sensor)
        if name not in inputs:
            raise ConfigError(
                f"the bundle has no input '{name}'",
                where=sensor,
                hint=names_hint(name, inputs),
            )
        if sensor != inputs[name] and is_kind(sensor):
            raise ConfigError(f"is for an input of kind {inputs[name]}", where=sensor)
        other = next(s for s, n in sensors.items() if n == name)
        if other != sensor:
            raise ConfigError(f"{other} and {sensor} are for the same input", where=name)
    return {s: n for n in inputs for s, own in sensors.items() if own == n}


def match_inputs(
    kinds: Mapping[str, str],
    inputs: Mapping[str, str],
    given: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """By sensor, the input of a bundle that it is for, as `Pipeline.load` takes it.

    An input is for the sensor that is given for it, else for the one of its name and kind, else, where
    it is the only input of a kind of which there is one sensor, for that.  One that is for no sensor
    keeps its own name for that of its sensor, which is missing.

    Args:
        kinds: the sensors' kinds, by name.
        inputs: the inputs' kinds, by name.
        given: by sensor, its input.

    Raises:
        ConfigError: there is no such input, or it is of another kind, or it is given twice.
    """
    found = wired_inputs(inputs, given) if given else {}
    for sensor, name in found.items():
        if (kind := kinds.get(sensor, inputs[name])) != inputs[name]:
            raise ConfigError(f"is {kind}, input {name} is {inputs[name]}", where=sensor)
    for name, kind in inputs.items():
        alike = [sensor for sensor, own in kinds.items() if own == kind]
        single = len(alike) == list(inputs.values()).count(kind) == 1
        sensor = alike[0] if single and name not in alike else name
        if name not in found.values() and sensor not in found:
            found[sensor] = name
    return found
