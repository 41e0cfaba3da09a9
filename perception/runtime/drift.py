"""Whether sensors still sit and tick as the rig says, watched beside a stream at little cost.

Now and then one pair of samples is looked at, of a sensor that measures distances and of the camera that its
extrinsics lead into; some looks make a verdict, and verdicts that hold make the sensor `misaligned`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from perception.errors import AnySenseError, ConfigError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.drift_look import Estimate, Look, look, pair_of, skew, turned
from perception.runtime.result import SensorWarning
from perception.sensors.registry import kind_of

Quantity = Literal["pitch", "yaw", "time"]
UNITS: Mapping[Quantity, str] = {"pitch": "degrees", "yaw": "degrees", "time": "ms"}

_LOG = logging.getLogger("anysense.drift")
_APART_NS = 100_000_000
"""Samples further apart are not compared: too much moves in between."""

_PICTURES = 4  # of a camera that are kept: clouds come later than pictures
_SURE = 3.0
_SKEW_VERDICTS = 4
"""Verdicts whose looks tell of time together: rates of turning must differ between them."""

_SAME_DEG, _SAME_M = 0.1, 0.01  # a rig that was changed by more is another one


@dataclass(frozen=True)
class DriftPolicy:
    """How sensors are watched.

    Attributes:
        period_s: between looks, at all pairs in turn; one look takes about 40 ms of a core.
        looks: that make a verdict.
        held: verdicts in a row that make a sensor `misaligned`, and as many of others that end it.
        most_deg: pitch and yaw that a sensor may be turned by.
        most_ms: by how much its stamps may be off.
        leave_out: a sensor that is `misaligned` takes no part in results; if not, it is only told.

    Raises:
        ConfigError: a number that makes no sense.
    """

    period_s: float = 3.0
    looks: int = 6
    held: int = 3
    most_deg: float = 0.6
    most_ms: float = 30.0
    leave_out: bool = False

    def __post_init__(self) -> None:
        for name in ("period_s", "most_deg", "most_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and (value > 0 or (name == "period_s" and value == 0))):
                raise ConfigError(f"drift.{name} must be positive", where="drift")
        if self.looks < 2 or self.held < 1:
            raise ConfigError("drift.looks must be at least 2, held at least 1", where="drift")


@dataclass(frozen=True)
class DriftVerdict:
    """What some looks say.

    Attributes:
        sensor: that measures distances.
        camera: that it is compared with; which of the two has moved cannot be told.
        quantity: `pitch` and `yaw` are rotations about the camera's x and y axes by which the rig is off,
            degrees; `time` is what is to be added to the sensor's stamps, milliseconds.
        estimate, sigma: of it; sigma is inf where it cannot be told.
        stamp_ns: of the last sample that was looked at.
    """

    sensor: str
    camera: str
    quantity: Quantity
    estimate: float
    sigma: float
    stamp_ns: int

    @property
    def known(self) -> bool:
        """Whether it tells anything."""
        return math.isfinite(self.sigma)

    def __str__(self) -> str:
        return (
            f"{self.quantity} {self.estimate:+.2g} {UNITS[self.quantity]} (sigma {self.sigma:.2g})"
        )


@dataclass
class _Held:
    """How often in a row one quantity was off to one side, and how often not."""

    off: int = 0
    side: float = 0.0
    well: int = 0
    alarm: DriftVerdict | None = None

    def follow(self, verdict: DriftVerdict, policy: DriftPolicy) -> None:
        """Count a verdict; one that tells nothing changes nothing."""
        if not verdict.known:
            return
        most = policy.most_ms if verdict.quantity == "time" else policy.most_deg
        size, side = abs(verdict.estimate), math.copysign(1.0, verdict.estimate)
        if size > most and size > _SURE * verdict.sigma:
            self.off = self.off + 1 if side == self.side else 1
            self.side, self.well = side, 0
        else:
            self.off, self.well = 0, self.well + 1
        if self.off >= policy.held:
            self.alarm = verdict
        elif self.well >= policy.held:
            self.alarm = None


@dataclass
class _Pair:
    """A sensor and its camera: the looks since the last verdict, and those before."""

    camera: CameraModel | None
    extrinsics: RigidTransform | None
    looks: list[Look] = field(default_factory=list)
    earlier: deque[Look] = field(default_factory=deque)
    held: dict[Quantity, _Held] = field(default_factory=dict)


class DriftMonitor:
    """Watches the sensors of a stream.  To be used from one thread; looks are taken on one of its own.

    Args:
        policy: how; None does not, and everything else does nothing.
        background: take looks on another thread; if not, within `poll`.
        on_verdict: told of each verdict.

    Attributes:
        verdicts: the last one by sensor and quantity.
    """

    def __init__(
        self,
        policy: DriftPolicy | None,
        *,
        background: bool = False,
        on_verdict: Callable[[DriftVerdict], None] | None = None,
    ) -> None:
        self.policy = policy
        self.verdicts: dict[tuple[str, Quantity], DriftVerdict] = {}
        self._tell = on_verdict or (lambda verdict: _LOG.debug("%s: %s", verdict.sensor, verdict))
        self._background = background
        self._thread: threading.Thread | None = None
        self._closed = False
        self._samples: dict[str, deque[Sample]] = {}
        self._pairs: dict[str, _Pair] = {}
        self._turn: deque[str] = deque()
        self._looked_ns: int | None = None
        self._at_work: tuple[Future[Look | None], Sample, Sample] | None = None
        self._broken: set[str] = set()
        self._warnings: Mapping[str, SensorWarning] = {}  # replaced as a whole: others read it

    def note(self, sample: Sample) -> None:
        """A sample that was accepted, with its calibration and its stamp on the reference clock."""
        sensor = sample.sensor
        if self.policy is None or sensor in self._broken:
            return
        kept = self._samples.get(sensor)
        if kept is None:
            measures = kind_of(sample.kind).points is not None
            kept = self._samples[sensor] = deque(maxlen=1 if measures else _PICTURES)
            if measures:
                self._turn.append(sensor)
        kept.append(sample)

    def poll(self, now_ns: int) -> None:
        """Take up what was looked at, and begin with another look where it is time."""
        policy = self.policy
        if policy is None or self._closed:
            return
        if self._at_work is not None:
            if not self._at_work[0].done():
                return
            looked, self._at_work = self._at_work, None
            self._done(*looked)
        passed = None if self._looked_ns is None else now_ns - self._looked_ns
        if passed is not None and 0 <= passed < policy.period_s * 1e9:
            return
        if self._thread is not None and self._thread.is_alive():
            return  # at a look that was forgotten meanwhile
        found = self._next()
        if found is None:
            return
        self._looked_ns = now_ns
        points, picture, before, camera = found
        asked: Future[Look | None] = Future()
        looking = (asked, points, picture, camera, before)
        if not self._background:
            _look(*looking)
            self._done(asked, points, picture)
            return
        self._at_work = asked, points, picture
        # No daemon, as threads of daemons are: a process that ended while OpenCV is at work in one would
        # be aborted by C++.
        self._thread = threading.Thread(target=_look, args=looking, name="drift", daemon=False)
        self._thread.start()

    def warning(self, sensor: str) -> SensorWarning | None:
        """What there is to say of a sensor, None when nothing is known against it; from any thread."""
        return None if self.policy is None else self._warnings.get(sensor)

    @property
    def busy(self) -> bool:
        """Whether a look is being taken."""
        return self._at_work is not None and not self._at_work[0].done()

    @property
    def left_out(self) -> frozenset[str]:
        """The sensors that take no part in results."""
        if self.policy is None or not self.policy.leave_out:
            return frozenset()
        return frozenset(self._warnings)

    def forget(self) -> None:
        """Let go of samples and looks, as at a jump of the sensors' clock; verdicts stay."""
        self._samples.clear()
        self._turn.clear()
        self._looked_ns = None
        self._at_work = None
        for pair in self._pairs.values():
            pair.looks.clear()
            pair.earlier.clear()

    def close(self) -> None:
        """Begin no other look; returns at once, though one at hand goes on."""
        self._closed = True

    def _next(self) -> tuple[Sample, Sample, Sample | None, CameraModel] | None:
        """The pair whose turn it is, with the picture before its own, and the camera's intrinsics."""
        for _ in range(len(self._turn)):
            sensor = self._turn[0]
            self._turn.rotate(-1)
            points = self._samples[sensor][-1]
            newest = [kept[-1] for kept in self._samples.values() if kept.maxlen != 1]
            pair = pair_of(points, [one for one in newest if one.sensor != sensor])
            if pair is None:
                continue
            pictures = list(self._samples[pair[0].sensor])
            apart = [abs(one.time_ns - points.time_ns) for one in pictures]
            index = int(np.argmin(apart))
            if apart[index] <= _APART_NS:
                del self._samples[sensor]  # none is looked at twice
                self._turn.remove(sensor)
                return points, pictures[index], pictures[index - 1] if index else None, pair[1]
        return None

    def _done(self, future: Future[Look | None], points: Sample, picture: Sample) -> None:
        sensor = points.sensor
        try:
            found = future.result()
        except Exception as error:  # a monitor must not cost the stream anything
            level = logging.WARNING if isinstance(error, AnySenseError) else logging.ERROR
            _LOG.log(level, "%s is no longer watched: %s", sensor, error)
            self._broken.add(sensor)
            return
        pair = self._pairs.get(sensor)
        if pair is None or not _same(pair, points):
            pair = self._pairs[sensor] = _Pair(points.camera, points.extrinsics)
            self._warn()
        if found is None:
            return
        pair.looks.append(found)
        policy = self.policy
        if policy is not None and len(pair.looks) >= policy.looks:
            self._judge(policy, pair, points, picture.sensor)

    def _judge(self, policy: DriftPolicy, pair: _Pair, points: Sample, camera: str) -> None:
        pair.earlier.extend(pair.looks)
        while len(pair.earlier) > _SKEW_VERDICTS * policy.looks:
            pair.earlier.popleft()
        pitch, yaw = turned(pair.looks)
        pair.looks.clear()
        found: dict[Quantity, Estimate] = {
            "pitch": pitch,
            "yaw": yaw,
            "time": skew([*pair.earlier]),
        }
        for quantity, one in found.items():
            verdict = DriftVerdict(
                points.sensor, camera, quantity, one.value, one.sigma, points.time_ns
            )
            self.verdicts[points.sensor, quantity] = verdict
            pair.held.setdefault(quantity, _Held()).follow(verdict, policy)
            self._tell(verdict)
        self._warn()

    def _warn(self) -> None:
        told = {sensor: _told(sensor, pair) for sensor, pair in self._pairs.items()}
        self._warnings = {sensor: one for sensor, one in told.items() if one is not None}


def _look(
    future: Future[Look | None],
    points: Sample,
    picture: Sample,
    camera: CameraModel,
    before: Sample | None,
) -> None:
    try:
        future.set_result(look(points, picture, camera, before))
    except Exception as error:
        future.set_exception(error)


def _told(sensor: str, pair: _Pair) -> SensorWarning | None:
    alarms = [one.alarm for one in pair.held.values() if one.alarm is not None]
    if not alarms:
        return None
    angles = ", ".join(str(one) for one in alarms if one.quantity != "time")
    times = ", ".join(str(one) for one in alarms if one.quantity == "time")
    told = [f"turned by {angles}"] if angles else []
    told += [f"stamps lack {times}"] if times else []
    line = f"{sensor}: does not fit {alarms[0].camera} as the rig says: {'; '.join(told)}"
    return SensorWarning(sensor, "misaligned", line)


def _same(pair: _Pair, points: Sample) -> bool:
    """Whether a sensor has the calibration that its looks were taken with, as far as matters here."""
    one, other = pair.extrinsics, points.extrinsics
    if pair.camera != points.camera or one is None or other is None:
        return pair.camera == points.camera and one is other
    apart = one.inverse() @ other
    turn = np.degrees(apart.angle)
    return bool(turn < _SAME_DEG and np.linalg.norm(apart.translation) < _SAME_M)
