"""Sensor faults by the injector's names: schedules, and what each one does to a message.

What happens to messages on their way is `perception.corruptions.delivery`'s; here is what happens within
them.  Knows messages, but no node.
"""

from __future__ import annotations

import copy
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysense_ros.codec import RosCodec
from anysense_ros.conversions import byte_array, to_ns, to_sample, to_stamp
from perception.adapters.messages import CLOUD, IMAGE
from perception.corruptions import (
    Active,
    Channel,
    Delivered,
    Event,
    FaultSchedule,
    corrupt,
    faults_of,
    severity_of,
)
from perception.corruptions.content import check_fault
from perception.errors import AnySenseError, ConfigError, names_hint
from perception.frame import KINDS, Kind, as_kind, check_name
from perception.sensors.faults import SEVERITIES
from perception.sensors.lidar.faults import dead_bands
from perception.sensors.names import is_kind
from perception.sensors.registry import kind_of

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
_ON_THE_WAY = {
    "drop": "lost",
    "freeze": "frozen",
    "stamp_jump": "clock_jump",
    **{name: name for name in ("delay", "jitter", "burst", "reorder", "duplicate")},
    **{name: name for name in ("stamp_offset", "stamp_noise", "clock_drift")},
}
"""Faults that leave what is in a message alone, and their names in `perception.corruptions`."""

_NAMES = (*FAULTS, *(name for name in _ON_THE_WAY if name not in FAULTS))
_NO_VALUE = ("none", "drop", "freeze", "black", "saturate", "encoding", "null")
_SHARES = {"nan", "beam_loss"}
_IN_BYTES = {"black", "saturate", "encoding", "nan", "beam_loss"}


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
    """A fault of one sensor: `value` in seconds, a share in 0..1, or a severity of 1 to 5, by kind of fault.

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
        if not is_kind(of):
            raise ConfigError(
                f"unknown sensor '{self.sensor}'", where="fault", hint=names_hint(of, KINDS)
            )
        if self.content:
            check_fault(of, self.kind, self.severity)
            return
        if self.kind not in _NAMES:
            hint = names_hint(self.kind, (*_NAMES, *kind_of(of).faults))
            raise ConfigError(f"unknown fault '{self.kind}'", where=where, hint=hint)
        if not _makes_sense(self.kind, of):
            raise ConfigError(f"{self.kind} makes no sense", where=where)
        if not math.isfinite(self.value):
            raise ConfigError("value is not finite", where=where)
        if self.kind not in _NO_VALUE and self.value == 0:
            raise ConfigError(f"{self.kind} needs a value", where=where)
        if self.kind in _SHARES and not 0 < self.value <= 1:
            raise ConfigError("value is a share in 0..1", where=where)
        if self.kind in ("delay", "jitter", "burst") and not 0 < self.value <= 60:
            raise ConfigError("value is a time of up to 60 s", where=where)
        self.on_the_way()

    @property
    def content(self) -> bool:
        """Whether it is one of the kind's own, by severity, see `perception.corruptions`."""
        return self.kind not in _NAMES and self.kind in kind_of(self.of or self.sensor).faults

    @property
    def severity(self) -> int:
        """Of a content fault; 0 when the value is none."""
        return int(self.value) if self.value in SEVERITIES else 0

    def on_the_way(self, since_ns: int = 0) -> list[Active]:
        """What becomes of messages on their way, since when.

        Raises:
            ConfigError: the value makes no sense.
        """
        name = _ON_THE_WAY.get(self.kind)
        value = 1.0 if self.kind in _NO_VALUE else self.value
        return [] if name is None else [Active(name, value, since_ns)]


def _makes_sense(fault: str, of: Kind) -> bool:
    kind = kind_of(of)
    if fault in _IN_BYTES and not {IMAGE, CLOUD}.intersection(kind.ros_types[:1]):
        return False
    if fault == "saturate":
        return kind.has_picture
    if fault == "nan":  # colours have no value that says nothing
        return kind.points is not None
    return fault != "beam_loss" or fault in faults_of(of)


def load_schedule(path: Path, kinds: Mapping[str, Kind] = ONE_OF_A_KIND) -> FaultSchedule:
    """Read a schedule of `FAULTS` for sensors of these kinds, see `FaultSchedule.read`.

    Raises:
        ConfigError: it is missing, no YAML, or an event makes no sense.
    """
    return FaultSchedule.read(path, lambda event: _fault(event, kinds))


def _fault(event: Event, kinds: Mapping[str, Kind]) -> Fault:
    of = kinds.get(event.sensor, "")
    own = is_kind(of) and event.fault not in _NAMES and event.fault in kind_of(of).faults
    if own and event.amount is None:
        return Fault(event.sensor, event.fault, event.severity, of)
    return Fault(event.sensor, event.fault, event.amount or 0.0, of)


def active(
    schedule: FaultSchedule,
    time_s: float,
    sensor: str,
    kinds: Mapping[str, Kind] = ONE_OF_A_KIND,
) -> tuple[Fault | None, float]:
    """The fault that a sensor has at a time of the schedule, and when it began; of several the last one."""
    found = schedule.active(sensor, time_s)
    if not found:
        return None, 0.0
    return _fault(found[-1], kinds), schedule.began_s(found[-1], time_s)


class FaultySensor:
    """Applies faults to the messages of one sensor: pushed as they come in, polled as they go out."""

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._random = seed, np.random.default_rng(seed)
        self._way: Channel[Any] = Channel(seed)
        self._count = 0

    def push(self, message: Any, now_ns: int, fault: Fault | None, since_ns: int = 0) -> None:
        """A message comes in at `now_ns`, while there is a fault since `since_ns`."""
        self._count += 1
        if fault is not None and fault.content:
            message = self._spoilt(message, fault)
        elif fault is not None:
            message = self._changed(message, fault.kind, fault.value)
        met = [] if fault is None else fault.on_the_way(since_ns)
        self._way.push(message, to_ns(message.header.stamp), now_ns, met)

    def poll(self, now_ns: int) -> list[tuple[Any, int]]:
        """The messages that go out by now, and when each does."""
        return [(_stamped(d), d.arrived_ns) for d in self._way.poll(now_ns)]

    def next_ns(self) -> int | None:
        """When the next one goes out, if nothing more comes in; None: nothing waits."""
        return self._way.next_ns()

    def _spoilt(self, message: Any, fault: Fault) -> Any:
        """Decoded, spoilt, and encoded anew; what cannot be decoded goes on as it is."""
        kind = kind_of(fault.of or fault.sensor)
        if kind.from_message is None or kind.to_message is None:
            return message
        severity = severity_of(kind.name, fault.kind)
        still = severity is not None and severity.still
        seed = (self._seed,) if still else (self._seed, self._count)
        try:
            sample = to_sample(kind.name, message)
        except AnySenseError:
            return message
        spoilt = kind.to_message(corrupt(sample, fault.kind, fault.severity, seed), RosCodec())
        spoilt.header = message.header
        return spoilt

    def _changed(self, message: Any, kind: str, value: float) -> Any:
        if kind == "none" or kind in _ON_THE_WAY:
            return message
        changed = copy.copy(message)
        if kind == "null":
            changed = type(message)()
            changed.header = message.header
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
            up = np.nan_to_num(z / np.sqrt(x * x + y * y + z * z))
        # The same beams stay dead from cloud to cloud.
        return ~dead_bands(up, share, np.random.default_rng(self._seed))


def _stamped(delivered: Delivered[Any]) -> Any:
    """The message with the stamp that it comes out with."""
    message = delivered.payload
    if delivered.stamp_ns is None or delivered.stamp_ns == to_ns(message.header.stamp):
        return message
    changed = copy.copy(message)
    changed.header = copy.deepcopy(message.header)
    changed.header.stamp = to_stamp(delivered.stamp_ns)
    return changed


def _pixels(message: Any) -> NDArray[Any]:
    bits = "f4" if "32F" in message.encoding else "u2" if "16" in message.encoding else "u1"
    order = ">" if message.is_bigendian else "<"
    usable = len(message.data) // int(bits[1]) * int(bits[1])
    return np.frombuffer(message.data, np.uint8)[:usable].view(order + bits)
