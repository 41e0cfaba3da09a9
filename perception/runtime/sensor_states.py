"""What is told of every sensor of a stream: its state, what there is to say about it, and its counts.

Its arrivals, what its samples show, and where it looks are each followed elsewhere (`arrival_health`,
`health`, `drift`); here they become one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from perception.runtime.arrival_health import ArrivalHealth
from perception.runtime.collector import Collector
from perception.runtime.drift import DriftMonitor
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import HealthState, SensorReport, SensorWarning
from perception.runtime.waiting import reported


class SensorStates:
    """The states of a stream's sensors.  May be asked from any thread.

    Args:
        pipeline: its health is that of what samples show.
        collector: which the samples go through.
        arrivals: the health of arrivals.
        drift: the watch over where the sensors look.
        is_stalled: whether a sensor's encoder does not answer.
        said: by sensor, what was found in its last sample; others may forget of it.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        collector: Collector,
        arrivals: ArrivalHealth,
        drift: DriftMonitor,
        is_stalled: Callable[[str], bool],
        said: dict[str, SensorWarning],
    ) -> None:
        self._pipeline, self._collector = pipeline, collector
        self._arrivals, self._drift, self._is_stalled = arrivals, drift, is_stalled
        self._said = said

    def say(self, sensor: str, warning: SensorWarning | None) -> None:
        """Note what was found in a sensor's last sample; None: nothing."""
        if warning is None:
            self._said.pop(sensor, None)
        else:
            self._said[sensor] = warning

    def clear(self) -> None:
        """Forget what was found in samples, as at a jump of the sensors' clock."""
        self._said.clear()

    def healths(self, now_ns: int) -> dict[str, HealthState]:
        """By sensor, its state at a time."""
        return {sensor: self._state(sensor, now_ns) for sensor in self._collector.sensors}

    def warnings(self, now_ns: int) -> tuple[SensorWarning, ...]:
        """What there is to say about the sensors that are not well."""
        found = (self._warning(sensor, now_ns) for sensor in self._collector.sensors)
        return tuple(w for w in found if w is not None)

    def coming_back(self, sensor: str) -> bool:
        """Whether the last sample of a sensor was good, though it may not be trusted again yet."""
        content, arrivals = self._pipeline.health, self._arrivals
        well = content.state(sensor) == "ok" or content.recovering(sensor)
        return well and (arrivals.well(sensor) or arrivals.recovering(sensor))

    def reports(
        self, now_ns: int, fates: Mapping[str, Counter[str]], waiting: Mapping[str, int]
    ) -> dict[str, SensorReport]:
        """By sensor, its report.

        Args:
            now_ns: the present time, on the clock of arrivals.
            fates: by sensor, those of its samples.
            waiting: by sensor, how many samples have none yet.
        """
        reports: dict[str, SensorReport] = {}
        for sensor in self._collector.sensors:
            heard = self._collector.heard_ns(sensor)
            silent = math.nan if heard is None else max(0, now_ns - heard) / 1e6
            counts = Counter(dict(fates[sensor]))  # another thread may be counting
            reports[sensor] = reported(
                counts,
                health=self._state(sensor, now_ns),
                silent_ms=silent,
                waiting=waiting[sensor],
                offset_ns=self._collector.clocks.offset_ns(sensor),
                warning=self._warning(sensor, now_ns),
            )
        return reports

    def _state(self, sensor: str, now_ns: int) -> HealthState:
        content = "stalled" if self._is_stalled(sensor) else self._pipeline.health.state(sensor)
        state = self._arrivals.state(sensor, now_ns, content)
        return "misaligned" if state == "ok" and self._drift.warning(sensor) else state

    def _warning(self, sensor: str, now_ns: int) -> SensorWarning | None:
        content = self._pipeline.health.state(sensor)
        found = self._arrivals.warning(sensor, now_ns, content, self._said.get(sensor))
        return self._drift.warning(sensor) if found is None else found
