"""Stamps of recorded messages that have none, or one of another clock than the other sensors'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

SAME_CLOCK_NS = 1_000_000_000
"""How far stamps may lie from the time of recording, against the other sensors', to be of their clock:
longer, no delivery takes."""

_SINCE_BOOT_NS = 10 * 365 * 86_400 * 1_000_000_000
"""Stamps below this count the time since the sensor or its computer was switched on."""


class StampMender:
    """Says which time a message was taken at.

    A stamp of 0 says nothing, unless it fits the sensor's other stamps, as at the start of a
    simulation.  Of sensors whose stamps lie more than `SAME_CLOCK_NS` apart for the same time of
    recording, those further from it are of another clock, and cannot be matched by stamp.  For both
    the time of recording is taken, less the delay of the sensor whose stamps are nearest to it.

    Args:
        lags: by sensor, how long after its stamp a message is recorded (nanoseconds, any clock).

    Attributes:
        notes: by sensor, a line on why its last stamp was replaced.
        counters: `unstamped_<sensor>` and `other_clock_<sensor>`.
    """

    def __init__(self, lags: Mapping[str, int]) -> None:
        self._lags = dict(lags)
        best = min(lags.items(), key=lambda lag: abs(lag[1]), default=("", 0))
        self._reference, self._base = best
        self.notes: dict[str, str] = {}
        self.counters: Counter[str] = Counter()

    def date(self, recorded_ns: int) -> int:
        """When a message without a stamp was taken: as long under way as those of the best sensor.

        Where all stamps are far from the time of recording, as in a simulation that was recorded by the
        wall clock, this keeps to their clock.
        """
        return recorded_ns - self._base

    def mend(self, sensor: str, stamp_ns: int, recorded_ns: int) -> int:
        """The stamp to use for a message.

        Args:
            sensor: its sensor.
            stamp_ns: of its header.
            recorded_ns: when it was recorded.
        """
        lag, arrived = recorded_ns - stamp_ns, self.date(recorded_ns)
        own = self._lags.get(sensor)
        if stamp_ns == 0:
            fits = own is not None and abs(lag - own) <= SAME_CLOCK_NS
            if fits or arrived == stamp_ns:
                return stamp_ns
            self._note("unstamped", sensor, f"{sensor}: no stamp (0)")
            return arrived
        if own is not None and abs(own - self._base) > SAME_CLOCK_NS:
            boot = stamp_ns < _SINCE_BOOT_NS < arrived
            what = "of time since boot" if boot else f"{abs(own - self._base) / 1e9:.0f} s off"
            line = f"{sensor}: stamps are {what}, those of {self._reference} are not"
            self._note("other_clock", sensor, line)
            return arrived
        self.notes.pop(sensor, None)
        return stamp_ns

    def _note(self, reason: str, sensor: str, line: str) -> None:
        self.counters[f"{reason}_{sensor}"] += 1
        self.notes[sensor] = f"{line}; the time of recording is used"
