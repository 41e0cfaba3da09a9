"""How the vehicle moves while sensors measure: odometry as it comes, and clouds as if measured at once."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import replace

import numpy as np

from perception.frame import Sample
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

_STEP_S = 0.002
"""Points that were measured within this time are moved alike: 6 cm at 30 m/s."""

_MOST_STEPS = 500
_MOST_POSES = 2000
_LONGEST_NS = 10_000_000_000


class Odometry:
    """Where the vehicle was lately.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[RigidTransform] = []
        self._made: Trajectory | None = None
        self._lock = threading.Lock()

    @staticmethod
    def of(trajectory: Trajectory) -> Odometry:
        """What a recording says, all of it."""
        found = Odometry()
        found._stamps, found._poses = trajectory.stamps_ns.tolist(), list(trajectory.poses)
        return found

    def note(self, stamp_ns: int, pose: RigidTransform) -> None:
        """Take in a pose of the base frame in a fixed one (REP 105 `odom`).

        Of a stamp that is known already the first pose stays; a jump back by more than is kept forgets all.
        """
        with self._lock:
            stamps = self._stamps
            if stamps and abs(stamp_ns - stamps[-1]) > _LONGEST_NS:
                stamps.clear()
                self._poses.clear()
            place = bisect_left(stamps, stamp_ns)
            if place < len(stamps) and stamps[place] == stamp_ns:
                return
            stamps.insert(place, stamp_ns)
            self._poses.insert(place, pose)
            first = bisect_left(stamps, stamps[-1] - _LONGEST_NS)
            first = max(first, len(stamps) - _MOST_POSES)
            del stamps[:first], self._poses[:first]
            self._made = None

    def __len__(self) -> int:
        return len(self._stamps)

    def moved(self, from_ns: int, to_ns: int) -> RigidTransform | None:
        """From the base frame at one time to that at another; None where odometry does not say it."""
        if from_ns == to_ns:
            return RigidTransform.identity()
        with self._lock:
            if self._made is None and self._stamps:
                self._made = Trajectory(np.array(self._stamps, np.int64), tuple(self._poses))
            known = self._made
        return None if known is None else known.moved(from_ns, to_ns)


def deskewed(sample: Sample, odometry: Odometry) -> Sample | None:
    """A cloud as if all its points had been measured at its stamp.

    Args:
        sample: points in the sensor's frame, with `pose`, `times` and stamp.
        odometry: the vehicle's.

    Returns:
        It, without `times`; None where one of these, or the motion at one of the times, is not known.
    """
    times, pose, points = sample.times, sample.pose, sample.data
    if times is None or pose is None or sample.stamp_ns is None or len(times) != len(points):
        return None
    finite = np.isfinite(times)
    step = np.where(finite, np.round(np.where(finite, times, 0) / _STEP_S), 0).astype(np.int64)
    steps, which = np.unique(step, return_inverse=True)
    if len(steps) > _MOST_STEPS:
        return None
    rows = []
    for number in steps.tolist():
        at = sample.stamp_ns + round(number * _STEP_S * 1e9)
        moved = odometry.moved(at, sample.stamp_ns)
        if moved is None:
            return None
        whole = pose.inverse() @ moved @ pose
        rows.append(np.column_stack([whole.rotation, whole.translation]))
    table = np.array(rows, np.float32).reshape(-1, 3, 4)
    x, y, z = (points[:, axis].astype(np.float32) for axis in range(3))
    out = np.array(points, np.float32)
    for axis in range(3):
        a, b, c, d = (table[:, axis, k].take(which) for k in range(4))
        out[:, axis] = a * x + b * y + c * z + d
    nothing = (points[:, :3] == 0).all(axis=1)  # no return stays none
    out[nothing, :3] = 0
    return replace(sample, data=out, times=None)
