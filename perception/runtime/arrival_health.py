"""The health of sensors as far as their messages' times tell: late, lost, skewed, one stamp again and again.

What their samples show is the pipeline's to judge, see `perception.runtime.health`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from perception.frame import Sample
from perception.runtime.collector import Collector
from perception.runtime.result import HealthState, SensorWarning

LATE_AFTER = 3
"""Late, or equally stamped, samples in a row that make a fault: now and then there is one of any."""


@dataclass
class _Fault:
    """What a sensor is not trusted for, and how many good samples it has given since."""

    state: HealthState
    line: str
    good: int = 0


class ArrivalHealth:
    """Follows when the samples of a stream come, and with what stamps.

    Args:
        collector: which the samples go through.

    Attributes:
        counters: `<state>_<sensor>` for each fault, and each sample that it kept out.
        unstamped: by sensor whose messages bear no stamp, the last one that was given to it.
    """

    def __init__(self, collector: Collector) -> None:
        self.counters: Counter[str] = Counter()
        self.unstamped: dict[str, int] = {}
        self._collector = collector
        self._untold: set[str] = set()  # those of which nobody expects stamps
        self._faults: dict[str, _Fault] = {}
        self._told: set[tuple[str, str]] = set()  # losses, until a sample comes
        self._lates: Counter[str] = Counter()  # late samples in a row
        self._repeats: Counter[str] = Counter()  # equal stamps in a row

    def dated(self, sample: Sample, clock_ns: int, *, told: bool = True) -> Sample:
        """The sample, with its arrival for a stamp when it came without one.

        Args:
            sample: a decoded sample of one of the sensors.
            clock_ns: when it arrived, on the clock that stamps are expected to be on.
            told: results warn of stamps that are missing.
        """
        sensor = sample.sensor
        self._untold.discard(sensor) if told else self._untold.add(sensor)
        if sample.stamp_ns is not None:
            self.unstamped.pop(sensor, None)
            return sample
        now = clock_ns + self._collector.clocks.base_ns
        # A simulated clock may stand between two messages; their stamps must differ all the same.
        stamp = max(now, self.unstamped.get(sensor, now - 1) + 1)
        if stamp - now > self._collector.jump_ns:
            stamp = now  # the clock was set back
        self.unstamped[sensor] = stamp
        return replace(sample, stamp_ns=stamp)

    def accepted(self, sensor: str, recover_after: int) -> bool:
        """Note an accepted sample; whether its sensor is trusted, as after so many in a row."""
        self._repeats[sensor] = 0
        self._told -= {(sensor, "lost"), (sensor, "frozen")}
        del self._lates[sensor]
        fault = self._faults.get(sensor)
        if fault is None:
            return True
        fault.good += 1
        if fault.good >= recover_after:
            del self._faults[sensor]
            return True
        self.counters[f"{fault.state}_{sensor}"] += 1
        fault.line = f"{sensor}: sensor is {fault.state}"
        return False

    def turned_away(self, sensor: str, disposition: str) -> bool:
        """Note what a sample that the collector did not take says; whether the sensor has failed now."""
        self._repeats[sensor] = self._repeats[sensor] + 1 if disposition == "duplicate" else 0
        if disposition == "late":
            self._lates[sensor] += 1
        elif disposition == "skewed" and sensor in self._collector.clocks.out:
            self._told.discard((sensor, "lost"))
            self._fail(sensor, "skewed", self._collector.clocks.line(sensor))
            return True
        return False

    def losses(self, now_ns: int) -> Iterator[str]:
        """The sensors that have just been lost, or found to repeat one stamp."""
        if not (idle := self._collector.idle(now_ns)):
            return
        lost = self._collector.lost(now_ns)
        for sensor in idle:
            if self._collector.heard_ns(sensor) is None:
                continue
            timeout = self._collector.sensors[sensor].timeout_ns / 1e6
            if sensor in lost:
                state: HealthState = "lost"
                line = f"{sensor}: no message for more than {timeout:.0f} ms"
            elif self._repeats[sensor] >= LATE_AFTER:
                state = "frozen"
                line = f"{sensor}: the same stamp again and again for more than {timeout:.0f} ms"
            else:
                continue
            if (sensor, state) not in self._told:
                self._told.add((sensor, state))
                self._fail(sensor, state, line)
                yield sensor

    def well(self, sensor: str) -> bool:
        """Whether nothing speaks against a sensor."""
        return sensor not in self._faults

    def recovering(self, sensor: str) -> bool:
        """Whether the sensor's last sample came in time, though it is not trusted again yet."""
        fault = self._faults.get(sensor)
        return fault is not None and fault.good > 0

    def reset(self) -> None:
        """Forget the faults, as at a jump of the sensors' clock."""
        self._faults.clear()

    def warning(
        self, sensor: str, now_ns: int, content: HealthState, said: SensorWarning | None
    ) -> SensorWarning | None:
        """What there is to say about a sensor, None when all is well.

        Args:
            sensor: its name.
            now_ns: the present time.
            content: its health by what its samples show.
            said: what was found in them.
        """
        state, fault = self.state(sensor, now_ns, content), self._faults.get(sensor)
        if fault is not None and (not fault.good or content in ("ok", "lost") or said is None):
            return SensorWarning(sensor, state, fault.line)
        if said is not None:
            return said
        if state == "late":
            line = (
                f"{sensor}: messages come when newer groups have left: longer on the way than the "
                "deadline, or stamps that are behind"
            )
        elif sensor in self.unstamped and sensor not in self._untold:
            line = f"{sensor}: no stamps in its messages; arrival is taken"
        else:
            line = self._collector.clocks.line(sensor)
        return SensorWarning(sensor, state, line) if line else None

    def state(self, sensor: str, now_ns: int, content: HealthState) -> HealthState:
        """A sensor's health, given that of its samples' content."""
        fault = self._faults.get(sensor)
        if self._collector.is_lost(sensor, now_ns):
            return "lost"
        if fault is not None and (not fault.good or content in ("ok", "lost")):
            return fault.state
        if self._lates[sensor] >= LATE_AFTER and content in ("ok", "lost"):
            return "late"
        return content

    def _fail(self, sensor: str, state: HealthState, line: str) -> None:
        self._faults[sensor] = _Fault(state, line)
        self.counters[f"{state}_{sensor}"] += 1
