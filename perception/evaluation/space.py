"""Failures of the sensors round a vehicle, by amounts that others publish: what is tried with bundles that
find boxes in space."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping

import numpy as np

from perception.corruptions.content import SHARED
from perception.corruptions.scans import Beams, beams_of, fewer_beams, measured_before, seen_ahead
from perception.data.base import Recording
from perception.evaluation.past import Past
from perception.evaluation.variants import (
    BEAMS,
    FULL,
    LATE,
    VIEW,
    Damage,
    Failure,
    Given,
    Harm,
    SpaceRow,
    Told,
)
from perception.frame import Kind, Sample
from perception.geometry.trajectory import LONGEST_GAP_NS, Trajectory, between
from perception.runtime.manifest import BundleManifest
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS

BEAMS_LEFT = (32, 16, 8, 4, 1)
HALF_VIEW_DEG = 60.0
TURNED_SEVERITIES = (1, 2, 4)
"""Of the fault `extrinsics`: half a degree, one, and two."""
LATE_S = (0.05, 0.1, 0.15, 0.3)

_TURNED = "extrinsics"
_CLOUDS_LOOKED_AT = 5
_SAME_TIME_S = 0.01
_LED_UP_S = 0.35
_MOTION_NS = 100_000_000
"""How a vehicle moved is told by poses about so far apart."""


def finds_in_space(manifest: BundleManifest) -> bool:
    """Whether a bundle's own network says where things are on a grid on the ground, and is judged by it."""
    return any(
        getattr(spec, "birdseye", None) is not None and TASKS[name].meter is not None
        for name, spec in manifest.tasks.every.items()
    )


def space_rows(
    kinds: Mapping[str, Kind], reference: str | None
) -> tuple[dict[SpaceRow, Given], dict[str, str]]:
    """What is given in each row.

    Args:
        kinds: of all sensors, by name.
        reference: the sensor at whose time results are given when all are there.

    Returns:
        The rows, that of all sensors first; and by name of a group, why it cannot be tried.
    """
    clouds = [name for name, kind in kinds.items() if not kind_of(kind).has_picture]
    cameras = [name for name in kinds if name not in clouds]
    title = " and ".join(dict.fromkeys(kind_of(kinds[name]).title for name in clouds))
    rows: dict[SpaceRow, Given] = {SpaceRow("full", "all sensors", FULL): dict.fromkeys(kinds)}
    lacking: dict[str, str] = {}
    rows |= dict(_missing(kinds, clouds, cameras, title))

    found = [*_failing(clouds, cameras, title)]
    if not clouds:
        lacking["beams, view"] = "no sensor gives points"
    if not clouds or not cameras:
        lacking["late"] = "needs a sensor that gives points and a camera"
    elif reference in clouds:
        lacking["late"] = f"results are given at the time of {reference}"
    else:
        found += _late_rows(clouds, title)
    for row, names, harm in found:
        rows[row] = {name: harm if name in names else None for name in kinds}
    return rows, lacking


def _failing(
    clouds: list[str], cameras: list[str], title: str
) -> Iterator[tuple[SpaceRow, list[str], Harm]]:
    """Rows in which all sensors are there, who fails, and how."""
    for count in BEAMS_LEFT if clouds else ():
        name = f"{title} with {count} beam" + "s" * (count > 1)
        row = SpaceRow("beams", name, ("space", "beams", count), count)
        yield row, clouds, Failure(BEAMS, count)
    if clouds:
        name = f"{title} sees {HALF_VIEW_DEG:g}° to each side"
        row = SpaceRow("view", name, ("space", "view", HALF_VIEW_DEG), HALF_VIEW_DEG)
        yield row, clouds, Failure(VIEW, HALF_VIEW_DEG)
    for severity in TURNED_SEVERITIES if cameras else ():
        amount = SHARED[_TURNED].severity.at(severity)
        name, key = f"cameras turned by {amount:g}°", ("space", "calibration", amount)
        yield SpaceRow("calibration", name, key, amount), cameras, Damage(_TURNED, severity)


def _late_rows(clouds: list[str], title: str) -> Iterator[tuple[SpaceRow, list[str], Harm]]:
    for odometry in (False, True):
        for seconds in LATE_S:
            name = f"{title} {round(seconds * 1e3)} ms late" + ", odometry" * odometry
            key = ("space", "late", seconds, odometry)
            row = SpaceRow("late", name, key, seconds, odometry)
            yield row, clouds, Failure(LATE, seconds, odometry)


def _missing(
    kinds: Mapping[str, Kind], clouds: list[str], cameras: list[str], title: str
) -> Iterator[tuple[SpaceRow, Given]]:
    if clouds and cameras:
        for name, left in ((f"no {title}", cameras), ("no camera", clouds)):
            key = ("space", "missing", frozenset(left))
            yield SpaceRow("missing", name, key, kinds_missing=True), dict.fromkeys(left)
    for group in (clouds, cameras):
        for name in group if len(group) > 1 else ():
            others = [n for n in kinds if n != name]
            key = ("space", "missing", frozenset(others))
            yield SpaceRow("missing", f"without {name}", key), dict.fromkeys(others)


def led_up(trajectory: Trajectory) -> Trajectory:
    """With a pose before each run of poses, from where the vehicle came if it moved as it then began to.

    Recordings are often made of pieces; of the first frames of each nobody wrote down where the vehicle was
    just before.
    """
    stamps, poses = trajectory.stamps_ns.tolist(), list(trajectory.poses)
    starts = [0, *(np.flatnonzero(np.diff(trajectory.stamps_ns) > LONGEST_GAP_NS) + 1).tolist()]
    before = round(_LED_UP_S * 1e9)
    for start, end in reversed(list(zip(starts, [*starts[1:], len(stamps)], strict=True))):
        last = bisect_right(stamps, stamps[start] + _MOTION_NS, start, end) - 1 if end else 0
        last = min(max(last, start + 1), end - 1)
        if last > start:
            share = -before / (stamps[last] - stamps[start])
            pose = between(poses[start], poses[last], share)
            stamps.insert(start, stamps[start] - before)
            poses.insert(start, pose)
    return Trajectory(np.array(stamps, np.int64), tuple(poses))


class FailingClouds:
    """Clouds of sensors that fail as a row says.

    Args:
        recording: all frames.
        past: finds earlier ones; None where frames are no sequence.
        views: as of `Recording.seen`.

    Attributes:
        trajectory: the recording's, `led_up`.
    """

    def __init__(self, recording: Recording, past: Past | None, views: Mapping[str, str]) -> None:
        self._recording, self._past, self._views = recording, past, views
        known = recording.trajectory
        self.trajectory = None if known is None else led_up(known)
        self._beams: dict[str, Beams] = {}
        self._told: dict[tuple[float, int], tuple[float | None, bool]] = {}

    def made(self, index: int, sample: Sample, failure: Failure) -> Sample | None:
        """What a sensor gives; None where it cannot be shown with this frame.

        Args:
            index: of the frame.
            sample: of that frame.
            failure: of the sensor.
        """
        if failure.what == BEAMS:
            found = fewer_beams(sample, self._known_beams(sample.sensor), int(failure.amount))
            return None if found is sample else found
        if failure.what == VIEW:
            return seen_ahead(sample, failure.amount)
        return self._late(index, sample, failure)

    def _known_beams(self, sensor: str) -> Beams:
        if sensor not in self._beams:
            count = len(self._recording)
            step = max(1, count // _CLOUDS_LOOKED_AT)
            frames = (self._recording.frame(i) for i in range(0, count, step))
            self._beams[sensor] = beams_of(f[sensor] for f in frames if sensor in f)
        return self._beams[sensor]

    def _late(self, index: int, sample: Sample, failure: Failure) -> Sample | None:
        """As it was recorded that long before, if it was, else with its points moved."""
        now, seconds = sample.time_ns, failure.amount
        recorded = self._recorded(index, sample.sensor, seconds)
        then = now - round(seconds * 1e9) if recorded is None else recorded.time_ns
        back = None if self.trajectory is None else self.trajectory.moved(now, then)
        if back is None and (failure.odometry or recorded is None):
            return None
        found = recorded
        if found is None:
            assert back is not None
            truth = self._recording.in_space(index)
            boxes = None if truth is None else truth.to_base(self._recording.rig)
            if boxes is None or sample.pose is None:
                return None
            own = (boxes.center, boxes.size, boxes.yaw, boxes.velocity)
            found = measured_before(sample, seconds, back, *own)
        moved = None if back is None else float(np.linalg.norm(back.translation))
        self._told[seconds, index] = moved, recorded is None
        return found

    def _recorded(self, index: int, sensor: str, seconds: float) -> Sample | None:
        before = None if self._past is None else self._past.before(index, seconds)
        if before is None:
            return None
        stamps = (self._recording.stamp_ns(i) for i in (index, before))
        off = abs(next(stamps) - next(stamps) - seconds * 1e9)
        if off > _SAME_TIME_S * 1e9:
            return None
        frame = self._recording.seen(before, self._views)
        at_ns = frame.stamp_ns
        own = frame.get(sensor)
        return own if own is None or at_ns is None else own.stamped(at_ns)

    def told(self) -> Told:
        """Of all that were made."""
        found = Told(
            {
                sensor: {"count": len(own), "apart_deg": own.pitch_deg, "regular": own.regular}
                for sensor, own in self._beams.items()
            }
        )
        for (seconds, _), (moved, made) in self._told.items():
            found.made[seconds] = found.made.get(seconds, 0) + made
            if moved is not None:
                found.moved_m.setdefault(seconds, []).append(moved)
        return found


def unreached(row: SpaceRow, recording: Recording) -> str:
    """Why no frame could show a row."""
    if row.group == "beams":
        return "the LiDAR has no more beams"
    if row.group == "late":
        known = (
            "where the vehicle was" if recording.trajectory is None else "the motion so long before"
        )
        return f"{known} is not known, and no frame is from then"
    return "no frame has these sensors with their places"
