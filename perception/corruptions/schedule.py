"""When which sensor has which fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perception.corruptions.content import check_fault, faults_of
from perception.corruptions.delivery import DELIVERY, check_amount
from perception.errors import AnySenseError, ConfigError, names_hint
from perception.files.text import read_yaml
from perception.frame import check_name
from perception.sensors.faults import SEVERITIES, check_severity

_ENTRIES = ("events", "loop", "seed")
_MOST_EVENTS = 10_000
_LONGEST_S = 1e9


@dataclass(frozen=True)
class Event:
    """A fault of a sensor for a time.

    Attributes:
        sensor: its name.
        fault: a delivery fault, or a content fault of its kind.
        start_s, stop_s: seconds from the schedule's beginning, stop excluded; infinity: to the end.
        severity: 1 to 5.
        amount: of a delivery fault, in the unit of its severity, instead of that.

    Raises:
        ConfigError: times or the severity make no sense.
    """

    sensor: str
    fault: str
    start_s: float = 0.0
    stop_s: float = math.inf
    severity: int = 3
    amount: float | None = None

    def __post_init__(self) -> None:
        where = f"fault of {self.sensor}"
        if not (math.isfinite(self.start_s) and 0 <= self.start_s < self.stop_s):
            raise ConfigError("must begin at 0 s or later, and end after that", where=where)
        check_severity(self.severity, where)

    def check(self, kinds: Mapping[str, str]) -> None:
        """Refuse what the sensor cannot have; `kinds` are those of the sensors by name.

        Raises:
            ConfigError: it is no sensor of these, or not a fault of its kind.
        """
        if self.sensor not in kinds:
            raise ConfigError(
                f"unknown sensor '{self.sensor}'",
                where="fault",
                hint=names_hint(self.sensor, kinds),
            )
        kind, where = kinds[self.sensor], f"fault of {self.sensor}"
        if self.fault in DELIVERY:
            check_amount(self.fault, self.delivery_amount)
            return
        if self.fault not in faults_of(kind):
            hint = names_hint(self.fault, (*DELIVERY, *faults_of(kind)))
            raise ConfigError(f"unknown fault '{self.fault[:40]}'", where=where, hint=hint)
        check_fault(kind, self.fault, self.severity)
        if self.amount is not None:
            raise ConfigError(f"{self.fault} takes a severity, no value", where=where)

    @property
    def delivery_amount(self) -> float:
        """How much, of a delivery fault."""
        return DELIVERY[self.fault].at(self.severity) if self.amount is None else self.amount


@dataclass(frozen=True)
class FaultSchedule:
    """Faults over time.

    Attributes:
        events: in the order in which they count: of two of one fault at a time, the last one.
        loop_s: after so many seconds it begins anew; 0 = never.
        seed: of what is random in them.

    Raises:
        ConfigError: the loop is no length of time.
    """

    events: tuple[Event, ...] = field(default=())
    loop_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.loop_s < _LONGEST_S:
            raise ConfigError("loop must be a number of seconds", where="schedule")

    def active(self, sensor: str, time_s: float) -> tuple[Event, ...]:
        """The faults that a sensor has at a time, in the order of `events`, each but once."""
        at = time_s % self.loop_s if self.loop_s > 0 else time_s
        found: dict[str, Event] = {}
        for event in self.events:
            if event.sensor == sensor and event.start_s <= at < event.stop_s:
                found.pop(event.fault, None)
                found[event.fault] = event
        return tuple(found.values())

    def began_s(self, event: Event, time_s: float) -> float:
        """When the event that is active at `time_s` began, of its repetitions the present one."""
        rounds = math.floor(time_s / self.loop_s) if self.loop_s > 0 else 0
        return rounds * self.loop_s + event.start_s

    def check(self, kinds: Mapping[str, str]) -> FaultSchedule:
        """Refuse faults that these sensors (kinds by name) cannot have; returns itself.

        Raises:
            ConfigError: there is one.
        """
        for number, event in enumerate(self.events, 1):
            try:
                event.check(kinds)
            except ConfigError as error:
                raise ConfigError(
                    error.message, where=f"event {number}: {error.where}", hint=error.hint
                ) from error
        return self

    @staticmethod
    def parse(given: Iterable[str], seed: int = 0) -> FaultSchedule:
        """Faults for all of the time, each as `SENSOR:FAULT` or `SENSOR:FAULT:SEVERITY`.

        Raises:
            ConfigError, InputError: one is not of this form.
        """
        events = []
        for text in given:
            parts = text.split(":")
            severity = parts[2] if len(parts) == 3 else "3"
            if len(parts) not in (2, 3) or severity not in map(str, SEVERITIES):
                raise ConfigError(
                    f"'{text[:80]}' is no fault",
                    hint="SENSOR:FAULT:SEVERITY, severity 1 to 5, as rgb:motion_blur:3",
                )
            events.append(Event(check_name(parts[0], "fault"), parts[1], severity=int(severity)))
        return FaultSchedule(tuple(events), seed=seed)

    @staticmethod
    def read(
        path: str | Path,
        check: Callable[[Event], object] = lambda event: None,
    ) -> FaultSchedule:
        """Read a schedule, for example:

        events:
          - {at: 5, for: 3, sensor: rgb, fault: motion_blur, severity: 4}
          - {at: 10, sensor: [depth, lidar], fault: delay, value: 0.25}
        loop: 30

        `at` and `for` are seconds, without `for` it is to the end; `value` stands for the severity, in
        the fault's unit; `seed` may be given beside `loop`.

        Args:
            path: a YAML file.
            check: refuses an event by a `ConfigError`.

        Raises:
            ConfigError: it cannot be read, or an event makes no sense; says which.
        """
        content = read_yaml(path, error=ConfigError)
        if not isinstance(content, dict) or not isinstance(content.get("events"), list):
            raise ConfigError("no list 'events'", where=str(path))
        unknown = set(map(str, content)) - set(_ENTRIES)
        if unknown:
            name = min(unknown)
            hint = names_hint(name, _ENTRIES)
            raise ConfigError(f"unknown entry '{name[:80]}'", where=str(path), hint=hint)
        events: list[Event] = []
        for index, entry in enumerate(content["events"]):
            try:
                for event in _events(entry):
                    check(event)
                    events.append(event)
            except AnySenseError as error:
                raise ConfigError(str(error), where=f"{path}: event {index + 1}") from error
            if len(events) > _MOST_EVENTS:
                raise ConfigError(f"more than {_MOST_EVENTS} events", where=str(path))
        loop, seed = content.get("loop", 0), content.get("seed", 0)
        if not _is_number(loop) or not 0 <= loop < _LONGEST_S:
            raise ConfigError("loop must be a number of seconds", where=str(path))
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ConfigError("seed must be a whole number of at least 0", where=str(path))
        return FaultSchedule(tuple(events), float(loop), seed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _events(entry: Any) -> list[Event]:
    if not isinstance(entry, dict):
        raise ConfigError("expected a table")
    unknown = set(entry) - {"at", "for", "sensor", "fault", "value", "severity"}
    if unknown or not {"at", "sensor", "fault"} <= set(entry):
        raise ConfigError("needs at, sensor, fault; may have for, and severity or value")
    times = {name: entry[name] for name in ("at", "for", "value") if name in entry}
    for name, value in times.items():
        if not _is_number(value):
            raise ConfigError(f"{name} is not a number: {str(value)[:40]}")
    if "value" in entry and "severity" in entry:
        raise ConfigError("has a severity and a value; one of them")
    at, span = float(times["at"]), float(times.get("for", math.inf))
    if not (math.isfinite(at) and at >= 0 and span > 0):
        raise ConfigError("at must not be negative, for must be positive")
    amount = float(times["value"]) if "value" in times else None
    sensors = entry["sensor"] if isinstance(entry["sensor"], list) else [entry["sensor"]]
    fault, severity = str(entry["fault"]), entry.get("severity", 3)
    return [Event(str(s), fault, at, at + span, severity, amount) for s in sensors]
