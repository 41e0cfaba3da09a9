"""What is left of a cloud by an amount that others publish: so many beams, so much of the view, so old.

Beside the faults by severity, which stay what they are: these have no severities, and belong to one table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return
from perception.geometry.boxes import inside
from perception.geometry.transforms import RigidTransform
from perception.sensors.lidar.faults import bands

_LEAST_SHARE = 1e-3
_MARGIN_M = 0.1
"""What was measured so little beside an object is of it."""


def beams_of(clouds: Iterable[Sample]) -> NDArray[np.int64]:
    """The beams of a LiDAR: bands of elevation, 0.4 degrees high, that hold a thousandth of its returns each.

    Bands stand for beams where nothing else tells them apart (`sensors.lidar.faults.BEAM_DEG`); where clouds
    are brought to one moment, a beam's returns lie in two of them.

    Returns:
        (B,) numbers of bands, rising; 0 lies just above the horizon.
    """
    found = [band for cloud in clouds if len(band := _bands(cloud)[1])]
    if not found:
        return np.zeros(0, np.int64)
    numbers, counts = np.unique(np.concatenate(found), return_counts=True)
    return np.asarray(numbers[counts >= _LEAST_SHARE * counts.sum()], np.int64)


def _bands(sample: Sample) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Which points are returns, and the band of each of these."""
    row = np.flatnonzero(is_return(sample.data))
    xyz = sample.data[row, :3].astype(np.float64)
    away = np.sqrt(np.square(xyz).sum(axis=1))
    return row, bands(xyz[:, 2] / away)


def fewer_beams(sample: Sample, beams: NDArray[np.int64], count: int) -> Sample:
    """The cloud with so many of a LiDAR's beams, evenly spread, the one just below the horizon among them.

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
    level = max(0, int(np.searchsorted(beams, 0)) - 1)
    first = level * count % len(beams)
    chosen = beams[(first + np.arange(count) * len(beams)) // count]
    row, own = _bands(sample)
    return _rows(sample, row[np.isin(own, chosen)])


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
