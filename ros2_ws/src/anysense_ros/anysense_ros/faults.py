"""Sensor faults: their schedule, and what each one does to a message.  Knows messages, but no node."""

from __future__ import annotations

import copy
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from anysense_ros.conversions import byte_array, to_ns, to_stamp
from perception.errors import ConfigError
from perception.frame import KINDS, Kind, as_kind, check_name

FAULTS = (
    "none",
    "drop",
    "delay",
    "jitter",
    "freeze",
    "black",
    "saturate",
    "encoding",
    "null",
    "nan",
    "beam_loss",
    "stamp_jump",
)
_NEEDS_VALUE = {"delay", "jitter", "nan", "beam_loss", "stamp_jump"}
_SHARES = {"nan", "beam_loss"}
_ONLY = {"beam_loss": ("lidar",), "nan": ("depth", "lidar"), "saturate": KINDS[:3]}
_BEAM_RAD = math.radians(0.5)


ONE_OF_A_KIND: Mapping[str, Kind] = {kind: kind for kind in KINDS}


def named_sensors(names: Sequence[str]) -> dict[str, Kind]:
    """By sensor, its kind, of names such as `rgb`, or `front=rgb` for one that is not called as its kind.

    Raises:
        ConfigError, InputError: no sensor can be called so, or the kind is unknown.
    """
    found: dict[str, Kind] = {}
    for entry in names:
        name, _, kind = entry.partition("=")
        found[check_name(name, "sensors")] = as_kind(kind or name)
        if name in KINDS and found[name] != name:
            raise ConfigError(f"{name} cannot be a {kind}", where="sensors")
    return found


@dataclass(frozen=True)
class Fault:
    """A fault of one sensor: `value` in seconds, or a share in 0..1, by kind of fault.

    Attributes:
        sensor: its name.
        kind: of the fault.
        of: the sensor's kind; empty: its name.

    Raises:
        ConfigError: no such fault, not for this sensor, or a value that cannot be.
    """

    sensor: str
    kind: str
    value: float = 0.0
    of: str = ""

    def __post_init__(self) -> None:
        where, of = f"fault of {self.sensor}", self.of or self.sensor
        if of not in KINDS:
            raise ConfigError(
                f"unknown sensor '{self.sensor}'", where="fault", hint=", ".join(KINDS)
            )
        if self.kind not in FAULTS:
            raise ConfigError(f"unknown fault '{self.kind}'", where=where, hint=", ".join(FAULTS))
        if of not in _ONLY.get(self.kind, KINDS):
            raise ConfigError(
                f"{self.kind} makes no sense", where=where, hint=f"only {_ONLY[self.kind]}"
            )
        if not math.isfinite(self.value):
            raise ConfigError("value is not finite", where=where)
        if self.kind in _NEEDS_VALUE and self.value == 0:
            raise ConfigError(f"{self.kind} needs a value", where=where)
        if self.kind in _SHARES and not 0 < self.value <= 1:
            raise ConfigError("value is a share in 0..1", where=where)
        if self.kind in ("delay", "jitter") and not 0 < self.value <= 60:
            raise ConfigError("value is a time of up to 60 s", where=where)


@dataclass(frozen=True)
class Event:
    """A fault from `at_s` for `for_s` seconds (infinity: to the end)."""

    at_s: float
    for_s: float
    fault: Fault


def load_schedule(
    path: Path, kinds: Mapping[str, Kind] = ONE_OF_A_KIND
) -> tuple[list[Event], float]:
    """Read a schedule: its events, and after how many seconds it begins anew (0 = never).

    `kinds` are the sensors that it may name, for example:

    events:
      - {at: 5, for: 3, sensor: rgb, fault: black}
      - {at: 10, sensor: [depth, lidar], fault: drop}
    loop: 30

    Raises:
        ConfigError: it is missing, no YAML, or an event makes no sense.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("cannot be read", where=str(path)) from error
    except Exception as error:  # PyYAML lets more than YAMLError through
        raise ConfigError("not YAML", where=str(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("events"), list):
        raise ConfigError("no list 'events'", where=str(path))
    unknown = set(content) - {"events", "loop"}
    if unknown:
        raise ConfigError(f"unknown entry '{min(map(str, unknown))}'", where=str(path))
    events = []
    for index, entry in enumerate(content["events"]):
        try:
            events += _events(entry, kinds)
        except ConfigError as error:
            raise ConfigError(str(error), where=f"{path}: event {index + 1}") from error
    loop = content.get("loop", 0)
    if not isinstance(loop, int | float) or loop < 0:
        raise ConfigError("loop must be a number of seconds", where=str(path))
    return events, float(loop)


def _events(entry: Any, kinds: Mapping[str, Kind]) -> list[Event]:
    if not isinstance(entry, dict):
        raise ConfigError("expected a table")
    unknown = set(entry) - {"at", "for", "sensor", "fault", "value"}
    if unknown or not {"at", "sensor", "fault"} <= set(entry):
        raise ConfigError("needs at, sensor, fault; may have for, value")
    try:
        at, value = float(entry["at"]), float(entry.get("value", 0.0))
        span = float(entry.get("for", math.inf))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"not a number: {error}") from error
    if not (math.isfinite(at) and at >= 0 and span > 0):
        raise ConfigError("at must not be negative, for must be positive")
    sensors = entry["sensor"] if isinstance(entry["sensor"], list) else [entry["sensor"]]
    return [
        Event(at, span, Fault(str(s), str(entry["fault"]), value, kinds.get(str(s), "")))
        for s in sensors
    ]


def active(events: Sequence[Event], loop_s: float, time_s: float, sensor: str) -> Fault | None:
    """The fault that a sensor has at a time of the schedule; of several the last one listed."""
    at = time_s % loop_s if loop_s > 0 else time_s
    found = [
        e.fault for e in events if e.fault.sensor == sensor and e.at_s <= at < e.at_s + e.for_s
    ]
    return found[-1] if found else None


class FaultySensor:
    """Applies faults to the messages of one sensor, remembering what it last showed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._last: Any = None

    def apply(self, message: Any, fault: Fault | None) -> tuple[Any, float]:
        """The message as the robot gets it, None when it gets none, and its delay in seconds."""
        kind = fault.kind if fault is not None else "none"
        value = fault.value if fault is not None else 0.0
        if kind == "freeze":
            frozen = copy.copy(self._last if self._last is not None else message)
            self._last = self._last if self._last is not None else message
            frozen.header = message.header
            return frozen, 0.0
        self._last = message
        if kind == "drop":
            return None, 0.0
        if kind == "delay":
            return message, value
        if kind == "jitter":
            return message, float(self._random.uniform(0, value))
        return self._changed(message, kind, value), 0.0

    def _changed(self, message: Any, kind: str, value: float) -> Any:
        if kind == "none":
            return message
        changed = copy.copy(message)
        if kind == "null":
            changed = type(message)()
            changed.header = message.header
        elif kind == "stamp_jump":
            changed.header = copy.deepcopy(message.header)
            changed.header.stamp = to_stamp(to_ns(message.header.stamp) + round(value * 1e9))
        elif hasattr(message, "fields"):
            self._change_cloud(changed, kind, value)
        else:
            self._change_image(changed, kind, value)
        return changed

    def _change_image(self, message: Any, kind: str, value: float) -> None:
        if kind == "encoding":
            message.encoding = "unknown8"
        elif kind == "black":
            message.data = array("B", bytes(len(message.data)))
        elif kind == "saturate":
            pixels = _pixels(message)
            top = 1000.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
            message.data = byte_array(np.full_like(pixels, top))
        elif kind == "nan":
            pixels = _pixels(message).copy()
            hit = self._random.random(len(pixels)) < value
            pixels[hit] = np.nan if pixels.dtype.kind == "f" else 0
            message.data = byte_array(pixels)

    def _change_cloud(self, message: Any, kind: str, value: float) -> None:
        if kind == "encoding":
            message.fields = copy.deepcopy(message.fields)
            for field in message.fields[:1]:
                field.name = "azimuth"
            return
        rows = np.frombuffer(message.data, np.uint8)
        count = message.width * message.height
        rows = rows[: count * message.point_step].reshape(count, message.point_step)
        if kind == "black":
            keep = np.zeros(count, bool)
        elif kind == "nan":
            keep = self._random.random(count) >= value
        else:
            keep = self._surviving_beams(message, rows, value)
        rows = rows[keep]
        message.height, message.width = 1, len(rows)
        message.row_step = message.point_step * len(rows)
        message.data = byte_array(rows)

    def _surviving_beams(self, message: Any, rows: NDArray[np.uint8], share: float) -> Any:
        """Which points stay when a share of the beams, told apart by elevation, is gone."""
        offsets = {f.name: f.offset for f in message.fields}
        if not {"x", "y", "z"} <= set(offsets) or not len(rows):
            return np.ones(len(rows), bool)
        x, y, z = (
            np.ascontiguousarray(rows[:, offsets[n] : offsets[n] + 4]).view("<f4")[:, 0]
            for n in "xyz"
        )
        with np.errstate(all="ignore"):
            beam = np.nan_to_num(np.arctan2(z, np.hypot(x, y)) / _BEAM_RAD).astype(np.int64)
        # The same beams stay dead from cloud to cloud: which ones follows from their number.
        dead = np.array([np.random.default_rng(abs(int(b)) * 2 + (b < 0)).random() < share
                         for b in np.unique(beam)])  # fmt: skip
        return ~dead[np.unique(beam, return_inverse=True)[1]]


def _pixels(message: Any) -> NDArray[Any]:
    bits = "f4" if "32F" in message.encoding else "u2" if "16" in message.encoding else "u1"
    order = ">" if message.is_bigendian else "<"
    usable = len(message.data) // int(bits[1]) * int(bits[1])
    return np.frombuffer(message.data, np.uint8)[:usable].view(order + bits)
