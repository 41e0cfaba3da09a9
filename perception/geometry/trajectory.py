"""Where a vehicle was: poses over time, as odometry gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.geometry.transforms import RigidTransform

LONGEST_GAP_NS = 500_000_000
"""Between poses further apart than this nothing is interpolated."""

FURTHEST_NS = 100_000_000
"""So far beyond the first and last pose the motion is taken to go on as it did."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of the vehicle's base frame in a fixed frame (REP 105: `odom` or `map`).

    Attributes:
        stamps_ns: (N,) int64, rising.
        poses: as many, from base to the fixed frame.

    Raises:
        CalibrationError: they differ in number, or a stamp is not later than the one before.
    """

    stamps_ns: NDArray[np.int64]
    poses: tuple[RigidTransform, ...]

    def __post_init__(self) -> None:
        stamps = np.asarray(self.stamps_ns, np.int64).reshape(-1)
        object.__setattr__(self, "stamps_ns", stamps)
        object.__setattr__(self, "poses", tuple(self.poses))
        if len(stamps) != len(self.poses):
            raise CalibrationError(f"{len(stamps)} stamps for {len(self.poses)} poses")
        if (wrong := np.flatnonzero(np.diff(stamps) <= 0)).size:
            raise CalibrationError(f"pose {wrong[0] + 1} is not later than the one before")

    def __len__(self) -> int:
        return len(self.poses)

    def at(self, stamp_ns: int) -> RigidTransform | None:
        """The pose at a time, between the two that are next to it; None where these say nothing of it."""
        if len(self) < 2:
            return self.poses[0] if len(self) and stamp_ns == self.stamps_ns[0] else None
        i = int(np.searchsorted(self.stamps_ns, stamp_ns, side="right"))
        i = min(max(i, 1), len(self) - 1)
        before, after = int(self.stamps_ns[i - 1]), int(self.stamps_ns[i])
        beyond = max(before - stamp_ns, stamp_ns - after, 0)
        if after - before > LONGEST_GAP_NS or beyond > FURTHEST_NS:
            exact = {before: i - 1, after: i}.get(stamp_ns)
            return None if exact is None else self.poses[exact]
        return between(self.poses[i - 1], self.poses[i], (stamp_ns - before) / (after - before))

    def moved(self, from_ns: int, to_ns: int) -> RigidTransform | None:
        """From the base frame at one time to the base frame at another; None where it is not known."""
        first, last = self.at(from_ns), self.at(to_ns)
        return None if first is None or last is None else last.inverse() @ first


def between(first: RigidTransform, last: RigidTransform, share: float) -> RigidTransform:
    """The pose at a share of the way: translations linear, rotations along the shortest arc (slerp,
    Shoemake 1985); shares outside of 0..1 go on beyond the ends."""
    a, b = np.array(first.quaternion_xyzw), np.array(last.quaternion_xyzw)
    dot = float(a @ b)
    if dot < 0:
        b, dot = -b, -dot
    angle = float(np.arccos(min(dot, 1.0)))
    if angle < 1e-6:
        q = a + share * (b - a)
    else:
        q = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    at = first.translation + share * (last.translation - first.translation)
    return RigidTransform.from_quaternion_xyzw(q.tolist(), at)
