"""When a stream says that it has nothing to say."""

from __future__ import annotations

from perception.runtime.collector import Collector


class Heartbeat:
    """Falls due where for a time nothing was given, and is given where the sensors are silent.

    Args:
        collector: which the samples go through.

    Attributes:
        every_ns: how long after the last output or heartbeat it is due.
    """

    def __init__(self, collector: Collector) -> None:
        self.every_ns = 0
        self._collector = collector
        self._beat_ns: int | None = None
        self._answered_ns: int | None = None  # when the last output or heartbeat was given

    def due(self, now_ns: int) -> bool:
        """Whether it is time to look whether the sensors are silent."""
        return self._beat_ns is not None and now_ns - self._beat_ns >= self.every_ns

    def silent(self, now_ns: int) -> bool:
        """Whether no sensor gives anything to make an output of."""
        sensors = self._collector.sensors
        longest = max(t.timeout_ns for t in sensors.values())
        mute = self._answered_ns is not None and now_ns - self._answered_ns >= longest
        return mute or len(self._collector.idle(now_ns)) == len(sensors)

    def note(self, now_ns: int, answered: bool) -> None:
        """Note that it was looked at, and whether something was given."""
        if answered or self._answered_ns is None:
            self._answered_ns = now_ns
        if answered or self._beat_ns is None or self.due(now_ns):
            self._beat_ns = now_ns

    def next_ns(self) -> int:
        """When it is due next."""
        return (self._beat_ns or 0) + self.every_ns
