"""Is a sensor's sample worth using?  Its kind's check of the content, frozen ones, and hysteresis."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass, field

import numpy as np

from perception.frame import Sample
from perception.runtime.result import HealthState
from perception.sensors.registry import KINDS

__all__ = ["HealthConfig", "HealthMonitor", "HealthState"]

_CHECKSUM_STEP = 61
"""Bytes between those that enter the frozen check: a prime, so that it wanders over the columns."""


@dataclass(frozen=True)
class HealthConfig:
    """Thresholds of the content checks of our kinds, and of frozen ones of all; others bring their own.

    Attributes:
        dark_level: an image whose `dark_percentile` gray value (0..255) is below this is dark.
        dark_percentile: see `dark_level`; a night scene with a few lights stays usable.
        saturated_level: gray values from this on count as saturated.
        saturated_share: an image with more saturated pixels than this share is saturated.
        min_valid_share: a depth image with fewer valid pixels is dark (the sensor sees nothing).
        min_points: a cloud with fewer returns is dark; (0, 0, 0) is none.
        min_thermal_spread: a thermal image with a smaller spread (in its unit) is dark.
        frozen_after: a frozen sensor is one that gives at least this many samples in a row whose
            bytes are all the same ...
        frozen_ms: ... while its stamps go on for at least this long.  `frozen_after` 0 turns the
            check off, as for a simulator without noise, where nothing may change for long.
        recover_after: a failed sensor is trusted again after this many good samples in a row.
    """

    dark_level: float = 8.0
    dark_percentile: float = 99.0
    saturated_level: int = 250
    saturated_share: float = 0.8
    min_valid_share: float = 0.02
    min_points: int = 50
    min_thermal_spread: float = 1e-3
    frozen_after: int = 3
    frozen_ms: float = 300.0
    recover_after: int = 2


@dataclass
class _Track:
    checksum: int = -1
    full_checksum: int | None = None  # of all bytes, known once the quick one has repeated
    repeats: int = 0
    since_ns: int = 0  # stamp of the first of the equal samples
    state: HealthState = "ok"
    good: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class HealthMonitor:
    """Follows the content of every sensor from sample to sample."""

    config: HealthConfig = field(default_factory=HealthConfig)
    _tracks: dict[str, _Track] = field(default_factory=dict)

    def check(self, sample: Sample) -> HealthState:
        """The sensor's state after this sample; a bad state holds until it has recovered."""
        track = self._tracks.setdefault(sample.sensor, _Track())
        kind = KINDS[sample.kind]
        found: HealthState = kind.check(sample, self.config if kind.health is None else kind.health)
        with track.lock:
            if found == "ok" and self._frozen(sample, track):
                found = "frozen"
            return self._with_hysteresis(track, found)

    def recovering(self, sensor: str) -> bool:
        """Whether the sensor's last sample was good, though it is not trusted again yet."""
        track = self._tracks.get(sensor)
        return track is not None and track.state != "ok" and track.good > 0

    def mark(self, sensor: str, state: HealthState) -> None:
        """Note a failure that was found elsewhere, such as a malformed sample."""
        track = self._tracks.setdefault(sensor, _Track())
        track.state, track.good = state, 0

    def state(self, sensor: str) -> HealthState:
        """The sensor's last known state."""
        return self._tracks[sensor].state if sensor in self._tracks else "lost"

    def reset(self) -> None:
        """Forget everything, as after a jump in time."""
        self._tracks.clear()

    def _with_hysteresis(self, track: _Track, found: HealthState) -> HealthState:
        if found != "ok":
            track.state, track.good = found, 0
        elif track.state != "ok":
            track.good += 1
            if track.good >= self.config.recover_after:
                track.state = "ok"
        return track.state

    def _frozen(self, sample: Sample, track: _Track) -> bool:
        if self.config.frozen_after <= 0:
            return False
        flat = np.ascontiguousarray(sample.data).view(np.uint8).reshape(-1)
        checksum = zlib.crc32(flat[::_CHECKSUM_STEP].tobytes())
        # All bytes are looked at only where a share of them has repeated: a live picture never pays.
        same = checksum == track.checksum
        full = zlib.crc32(flat.data) if same else None
        same = same and track.full_checksum in (None, full)
        track.checksum, track.full_checksum = checksum, full
        stamp = sample.stamp_ns or 0
        if not same:
            track.repeats, track.since_ns = 1, stamp
            return False
        track.repeats += 1
        long_enough = stamp - track.since_ns >= self.config.frozen_ms * 1e6
        return track.repeats >= self.config.frozen_after and long_enough
