"""What is left of a cloud by an amount that others publish: so many beams, so much of the view, so old.

Beside the faults by severity, which stay what they are: these have no severities, and belong to one table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return
from perception.geometry.boxes import inside
from perception.geometry.transforms import RigidTransform
from perception.sensors.lidar.faults import BEAM_DEG

_LEAST_SHARE = 1e-3
_MARGIN_M = 0.1
"""What was measured so little beside an object is of it."""

_STEP_DEG = 0.02
_FAR_M = 8.0  # of what is nearer, elevations change as the vehicle moves during a scan
_COARSEST_DEG, _FINEST_DEG = 3.0, 0.1
_REGULAR = 0.5
_AS_GOOD = 0.85
_FINE = 8


@dataclass(frozen=True)
class Beams:
    """The beams of a LiDAR, by their elevation.

    Attributes:
        pitch_deg: how far they are apart.
        first_deg: the elevation of number 0.
        numbers: (B,) int64, rising, of those that there are.
        regular: whether returns lie on such beams; else bands of elevation stand for them.
    """

    pitch_deg: float
    first_deg: float
    numbers: NDArray[np.int64]
    regular: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def of(self, elevations_deg: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) numbers of the beams that returns are nearest to."""
        return np.rint((elevations_deg - self.first_deg) / self.pitch_deg).astype(np.int64)

    def spread(self, count: int) -> NDArray[np.int64]:
        """So many of them, evenly spread, the one just below the horizon among them; all where there are not
        more."""
        every = len(self.numbers)
        if count >= every:
            return self.numbers
        below = self.first_deg + self.numbers * self.pitch_deg < 0
        first = max(0, int(below.sum()) - 1) * count % every
        return self.numbers[(first + np.arange(count) * every) // count]


def beams_of(clouds: Iterable[Sample]) -> Beams:
    """The beams of a LiDAR, from some of its clouds.

    Where returns lie at elevations that are the same distance apart, these are its beams: the distance is the
    period at which a histogram of elevations is most coherent, the longest of those that are about as good.
    Else, as of LiDARs whose beams are spread unevenly, bands of `sensors.lidar.faults.BEAM_DEG` stand for
    them.  Those count that hold a thousandth of the returns.
    """
    found = [_elevations(cloud)[1:] for cloud in clouds]
    every = np.concatenate([e for e, _ in found]) if found else np.zeros(0)
    far = np.concatenate([e[away > _FAR_M] for e, away in found]) if found else every
    regular = _period(far if far.size else every)
    pitch, first = regular or (BEAM_DEG, BEAM_DEG / 2)
    whole = Beams(pitch, first, np.zeros(0, np.int64), regular is not None)
    numbers, counts = np.unique(whole.of(every), return_counts=True)
    kept = numbers[counts >= _LEAST_SHARE * max(1, counts.sum())]
    return replace(whole, numbers=np.asarray(kept, np.int64))


def _elevations(
    sample: Sample,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Which points are returns, their elevations in degrees, and how far away they are."""
    row = np.flatnonzero(is_return(sample.data))
    xyz = sample.data[row, :3].astype(np.float64)
    away = np.sqrt(np.square(xyz).sum(axis=1))
    return row, np.degrees(np.arcsin((xyz[:, 2] / away).clip(-1, 1))), away


def _period(elevations_deg: NDArray[np.float64]) -> tuple[float, float] | None:
    """At which distance elevations lie, and one of them, in degrees; None where they do not."""
    if not elevations_deg.size:
        return None
    edges = np.arange(-90, 90 + _STEP_DEG / 2, _STEP_DEG)
    counts = np.histogram(elevations_deg, edges)[0] / elevations_deg.size
    size = _FINE * len(counts)
    strength = np.abs(np.fft.rfft(counts, size))
    per_deg = np.fft.rfftfreq(size, _STEP_DEG)
    strength[(per_deg < 1 / _COARSEST_DEG) | (per_deg > 1 / _FINEST_DEG)] = 0
    best = float(strength.max())
    if best < _REGULAR:
        return None
    start = int(np.argmax(strength >= _AS_GOOD * best))
    length = int(np.argmin(strength[start:] >= _AS_GOOD * best))
    rate = float(per_deg[start + int(np.argmax(strength[start : start + max(1, length)]))])
    centers = (edges[:-1] + edges[1:]) / 2
    phase = np.angle((counts * np.exp(2j * np.pi * rate * centers)).sum())
    return 1 / rate, float(phase / (2 * np.pi * rate))


def fewer_beams(sample: Sample, beams: Beams, count: int) -> Sample:
    """The cloud with so many of a LiDAR's beams, see `Beams.spread`.

    Args:
        sample: (N, C >= 3) in the LiDAR's frame.
        beams: see `beams_of`.
        count: at least 1.

    Returns:
        It with the returns of these; the sample itself where there are no more beams than that.

    Raises:
        ValueError: none is to be left.
    """
    if count < 1:
        raise ValueError(f"{count} beams")
    if count >= len(beams):
        return sample
    row, elevations, _ = _elevations(sample)
    return _rows(sample, row[np.isin(beams.of(elevations), beams.spread(count))])


def seen_ahead(sample: Sample, half_deg: float) -> Sample:
    """The returns within so many degrees to the left and right of straight ahead, seen from above.

    Ahead is the vehicle's x where the sensor's place on it is known, else the sensor's own.
    """
    row = np.flatnonzero(is_return(sample.data))
    xyz = sample.data[row, :3].astype(np.float64)
    if sample.pose is not None:
        xyz = xyz @ sample.pose.rotation.T
    within = np.abs(np.arctan2(xyz[:, 1], xyz[:, 0])) <= np.radians(half_deg)
    return _rows(sample, row[within])


def measured_before(
    sample: Sample,
    seconds: float,
    back: RigidTransform,
    center: NDArray[np.float64],
    size: NDArray[np.float64],
    yaw: NDArray[np.float64],
    velocity: NDArray[np.float64],
) -> Sample:
    """The cloud with its returns where they would have been measured some time before.

    What stands still is moved as the vehicle did, what lies in an object as that did, too.  It is not
    measured anew: which surfaces are hit, and how densely, stays that of the present place.

    Args:
        sample: (N, C >= 3) with stamp and pose.
        seconds: how long before.
        back: from the present base frame to that of then.
        center, size, yaw: objects in the present base frame, (N, 3), (N, 3) and (N,), as of `TruthBoxes3d`.
        velocity: (N, 2) metres per second over the ground in its axes; what is not finite stands still.

    Raises:
        ValueError: it has no stamp or pose.
    """
    if sample.pose is None or sample.stamp_ns is None:
        raise ValueError("needs a stamp and a pose")
    row = np.flatnonzero(is_return(sample.data))
    base = sample.pose.apply(sample.data[row, :3].astype(np.float64))
    known = np.isfinite(velocity).all(axis=1)
    if known.any():
        center, size, yaw = center[known], size[known], yaw[known]
        of = inside(base, center, size, yaw, margin=_MARGIN_M)
        of &= base[None, :, 2] > (center[:, 2] - size[:, 2] / 2)[:, None]  # not the ground below it
        hit = np.flatnonzero(of.any(axis=0))
        base[hit, :2] -= velocity[known][of[:, hit].argmax(axis=0)] * seconds
    out = np.array(sample.data)
    out[row, :3] = sample.pose.inverse().apply(back.apply(base))
    return replace(sample, data=out, stamp_ns=sample.stamp_ns - round(seconds * 1e9))


def _rows(sample: Sample, row: NDArray[np.intp]) -> Sample:
    times = None if sample.times is None else sample.times[row]
    return replace(sample, data=np.ascontiguousarray(sample.data[row]), times=times)
