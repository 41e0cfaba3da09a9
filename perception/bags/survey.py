"""What a recording says about its own timing: rates, delays and clocks of its sensors."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median_low

from perception.bags.files import read_bag
from perception.bags.messages import BagMessage
from perception.bags.stamps import SAME_CLOCK_NS, StampMender
from perception.errors import DataError
from perception.runtime.arrival import SensorTiming

_ENOUGH = 200
"""Messages of each sensor that are looked at."""

_MOST = 5000
"""Messages that are looked at in all, where some sensor has fewer than enough."""

_PERIODS = 3
"""Periods of silence after which a sensor counts as lost, when that is longer than the default."""

_TRANSFORM_AGE_NS = 2_000_000_000
_MOST_TIMEOUT_NS = 3_600_000_000_000


@dataclass(frozen=True)
class SensorSurvey:
    """One sensor's timing.

    Attributes:
        arrivals_ns: when its messages were recorded.
        stamps_ns: what their headers say, 0 for none.
    """

    arrivals_ns: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)

    @property
    def period_ns(self) -> int:
        """Median step between messages; 0 with less than two."""
        arrivals = _steps(self.arrivals_ns)
        stamps = _steps([s for s in self.stamps_ns if s])
        return max(arrivals, stamps)  # messages recorded in bursts have no step between them

    @property
    def lags_ns(self) -> list[int]:
        """From stamp to arrival, shortest first; of the messages that have a stamp."""
        pairs = zip(self.arrivals_ns, self.stamps_ns, strict=True)
        return sorted(arrived - stamp for arrived, stamp in pairs if stamp)


@dataclass(frozen=True)
class Survey:
    """The timing of a recording.

    Attributes:
        sensors: by name.
        by_stamps: the recording has no times of its own; stamps stand for them.
    """

    sensors: Mapping[str, SensorSurvey]
    by_stamps: bool = False

    def stamps(self) -> StampMender:
        """Mends this recording's stamps."""
        if self.by_stamps:
            return StampMender({})
        lags = {m: s.lags_ns for m, s in self.sensors.items()}
        return StampMender({m: one[len(one) // 2] for m, one in lags.items() if one})

    def timing(self, offsets_ns: Mapping[str, int], most_window_ns: int) -> dict[str, SensorTiming]:
        """When to expect samples: no sensor is lost, and no group missed, for a slow rate alone.

        Args:
            offsets_ns: what to add to the sensors' stamps.
            most_window_ns: samples further apart are never of one time.
        """
        usual = SensorTiming()
        window = self._window_ns(most_window_ns)
        return {
            m: SensorTiming(
                offset_ns=offsets_ns.get(m, 0),
                window_ns=window,
                timeout_ns=max(usual.timeout_ns, min(_PERIODS * s.period_ns, _MOST_TIMEOUT_NS)),
            )
            for m, s in self.sensors.items()
        }

    @property
    def transform_age_ns(self) -> int:
        """How old transforms of /tf may be: as on the node, or three periods of the slowest sensor."""
        slowest = max((s.period_ns for s in self.sensors.values()), default=0)
        return max(_TRANSFORM_AGE_NS, min(_PERIODS * slowest, _MOST_TIMEOUT_NS))

    def _window_ns(self, most_ns: int) -> int:
        """A quarter of the fastest sensor's period, within bounds: a slow robot's samples of one time."""
        fastest = min((s.period_ns for s in self.sensors.values() if s.period_ns), default=0)
        return max(SensorTiming.window_ns, min(fastest // 4, most_ns))

    def deadline_ns(self, least_ns: int, most_window_ns: int) -> int:
        """How long to wait for the slowest sensor's delivery; `least_ns` where all are fast.

        Args:
            least_ns: at least so long.
            most_window_ns: as for `timing`.
        """
        lags = [s.lags_ns for s in self.sensors.values() if s.lags_ns]
        window = self._window_ns(most_window_ns)
        if window > SensorTiming.window_ns:  # samples of one time may be taken so far apart
            least_ns += window
        if not lags or self.by_stamps:
            return least_ns
        nearest = min((one[len(one) // 2] for one in lags), key=abs)
        # Lags of another clock say nothing about delivery.
        lags = [one for one in lags if abs(one[len(one) // 2] - nearest) <= SAME_CLOCK_NS]
        early = min(one[len(one) // 10] for one in lags)
        late = max(one[(len(one) - 1) * 9 // 10] for one in lags)
        return max(least_ns, min((late - early) * 3 // 2, 2 * SAME_CLOCK_NS))


def survey(path: Path, topics: Mapping[str, str]) -> Survey:
    """Look at the first messages of the sensors of a bag.

    Raises:
        DataError: it cannot be read, or neither its messages nor the recording have times.
    """
    by_topic = {topic: m for m, topic in topics.items()}
    found = {m: SensorSurvey() for m in topics}
    for number, message in enumerate(read_bag(path, by_topic)):
        sensor = found[by_topic[message.topic]]
        stamp = header_stamp(message)
        if stamp is not None and len(sensor.stamps_ns) < _ENOUGH:
            sensor.arrivals_ns.append(message.stamp_ns)
            sensor.stamps_ns.append(stamp)
        if number == _MOST or all(len(s.stamps_ns) >= _ENOUGH for s in found.values()):
            break
    arrivals = {t for s in found.values() for t in s.arrivals_ns}
    stamps = {t for s in found.values() for t in s.stamps_ns}
    several = any(len(s.stamps_ns) > 1 for s in found.values())
    timeless = several and len(arrivals) == 1
    if timeless and len(stamps) == 1:
        raise DataError(
            "neither its messages nor the recording have times: all are the same", where=str(path)
        )
    return Survey(found, by_stamps=timeless)


def header_stamp(message: BagMessage) -> int | None:
    """The stamp with which every message that has a header begins; None when it is cut off before."""
    if len(message.data) < 12:
        return None
    order = "<" if message.data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack(f"{order}iI", message.data[4:12])
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _steps(times: list[int]) -> int:
    return median_low(b - a for a, b in pairwise(times)) if times[1:] else 0
