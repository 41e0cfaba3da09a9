"""Stamps of recorded messages that have none, or one of another clock than the other sensors'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from perception.frame import Modality

SAME_CLOCK_NS = 10_000_000_000
"""How far stamps may lie from the time of recording, against the other sensors', to be of their clock."""

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
        counters: `unstamped_<modality>` and `other_clock_<modality>`.
    """

    def __init__(self, lags: Mapping[Modality, int]) -> None:
        self._lags = dict(lags)
        self.notes: dict[Modality, str] = {}
        self.counters: Counter[str] = Counter()

    def mend(self, modality: Modality, stamp_ns: int, arrived_ns: int) -> int:
        """The stamp to use for a message.

        Args:
            modality: its sensor.
            stamp_ns: of its header.
            arrived_ns: when it was recorded.
        """
        lag = arrived_ns - stamp_ns
        reference = min(self._lags, key=lambda m: abs(self._lags[m]), default=modality)
        base = self._lags.get(reference, 0)
        # As long under way as the sensor whose stamps are best; where all stamps are far from the time
        # of arrival, as in a simulation that was recorded by the wall clock, this keeps to their clock.
        arrived = arrived_ns - base
        own = self._lags.get(modality)
        if stamp_ns == 0:
            fits = own is not None and abs(lag - own) <= SAME_CLOCK_NS
            if fits or arrived == stamp_ns:
                return stamp_ns
            self._note("unstamped", modality, f"{modality}: no stamp (0)")
            return arrived
        if own is not None and abs(own - base) > SAME_CLOCK_NS:
            boot = stamp_ns < _SINCE_BOOT_NS < arrived
            what = "of time since boot" if boot else f"{abs(own - base) / 1e9:.0f} s off"
            line = f"{modality}: stamps are {what}, those of {reference} are not"
            self._note("other_clock", modality, line)
            return arrived
        self.notes.pop(modality, None)
        return stamp_ns

    def _note(self, reason: str, modality: Modality, line: str) -> None:
        self.counters[f"{reason}_{modality}"] += 1
        self.notes[modality] = f"{line}; the time of recording is used"
