"""The clock of a stream, and settings that follow from how often its sensors speak."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Real
from statistics import median
from typing import NamedTuple

from perception.errors import ConfigError
from perception.runtime.arrival import SensorTiming
from perception.runtime.policy import Policy
from perception.runtime.settings import StreamSettings

_PERIODS_LOST = 5
_TIMEOUT_NS = (300_000_000, 10_000_000_000)
_WINDOW_NS = (5_000_000, 60_000_000)
_PERIODS_USED = 2.5
_OBSERVED = 16
_CHANGE = 0.25


class Moment(NamedTuple):
    """When a message arrived.

    Attributes:
        now_ns: on a clock that does not go back.
        clock_ns: on the clock that stamps are expected to be on.
    """

    now_ns: int
    clock_ns: int


class Clock:
    """The system's clocks.

    Attributes:
        simulated: time goes at another pace than the monotonic clock's, and has to be asked for often.
    """

    simulated: bool = False

    def now_ns(self) -> int:
        """The present time, which does not go back."""
        return time.monotonic_ns()

    def reading(self) -> Moment:
        """The present time on both clocks."""
        return Moment(time.monotonic_ns(), time.time_ns())


class Rates:
    """How often sensors speak, and the timeouts that follow from it.

    Args:
        names: the sensors whose timeouts are to follow.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._last: dict[str, int] = {}
        self._steps: dict[str, deque[int]] = {name: deque(maxlen=_OBSERVED) for name in names}

    def note(self, sensor: str, now_ns: int) -> None:
        """Note a message; one after a silence longer than any timeout says nothing about the rate."""
        step = now_ns - self._last.get(sensor, now_ns)
        self._last[sensor] = now_ns
        if sensor in self._steps and 0 < step < _TIMEOUT_NS[1]:
            self._steps[sensor].append(step)

    def adapt(self, settings: StreamSettings) -> StreamSettings | None:
        """The settings with timeouts of several observed periods; None where little would change."""
        changed = {}
        for sensor, steps in self._steps.items():
            if len(steps) < _OBSERVED:
                continue
            timing = settings.sensors[sensor]
            wanted = _timeout_ns(median(steps))
            if abs(wanted - timing.timeout_ns) > _CHANGE * timing.timeout_ns:
                changed[sensor] = replace(timing, timeout_ns=wanted)
        return replace(settings, sensors={**settings.sensors, **changed}) if changed else None


def _timeout_ns(period_ns: float) -> int:
    return round(min(max(_PERIODS_LOST * period_ns, _TIMEOUT_NS[0]), _TIMEOUT_NS[1]))


def settings_for(
    sensors: Mapping[str, float | SensorTiming | None], policy: Policy | None = None
) -> tuple[StreamSettings, Rates]:
    """Settings of a stream from its sensors' rates.

    A sensor is lost after five of its periods (0.3 to 10 s), groups reach half a period of the fastest
    sensor far (5 to 60 ms), and features are used for two and a half periods of the slowest, but at
    least for the policy's own `max_age_ms`.

    Args:
        sensors: by name, the rate in Hz, None where it is unknown, or a `SensorTiming` that stays.
        policy: None takes the default one, with that `max_age_ms`.

    Raises:
        ConfigError: no sensor, or a rate that is none.
    """
    if not isinstance(sensors, Mapping):
        what = f"a {type(sensors).__name__}, expected rates in Hz by sensor"
        raise ConfigError(
            what, where="sensors", hint="{'rgb': 30}, or None where a rate is unknown"
        )
    rates: dict[str, float] = {}
    for name, given in sensors.items():
        if given is None or isinstance(given, SensorTiming):
            continue
        if isinstance(given, bool) or not isinstance(given, Real) or not 0 < given < 1e5:
            raise ConfigError(f"a rate of {given!r} Hz", where=name, hint="samples per second")
        rates[name] = float(given)
    if not sensors:
        raise ConfigError("needs a sensor", where="stream")
    window = SensorTiming().window_ns
    if rates:
        window = round(min(max(0.5e9 / max(rates.values()), _WINDOW_NS[0]), _WINDOW_NS[1]))
    timing = {}
    for name, given in sensors.items():
        if isinstance(given, SensorTiming):
            timing[name] = given
        elif name in rates:
            timing[name] = SensorTiming(window_ns=window, timeout_ns=_timeout_ns(1e9 / rates[name]))
        else:
            timing[name] = SensorTiming(window_ns=window)
    if policy is None:
        slowest = max((1e3 * _PERIODS_USED / rate for rate in rates.values()), default=0.0)
        policy = Policy(max_age_ms=max(Policy().max_age_ms, slowest))
    follow = {name for name, given in sensors.items() if not isinstance(given, SensorTiming)}
    return StreamSettings(timing, policy=policy), Rates(follow)
