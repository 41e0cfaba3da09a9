"""How the sensors of a bag or a recording turned, for `anysense calibrate time-offset`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.data.base import Recording
from perception.data.registry import READERS, kind_name, open_recording, parse_data_argument
from perception.errors import AnySenseError, ConfigError, DataError, InputError, names_hint
from perception.sensors.names import is_kind, kinds
from perception.sensors.registry import kind_of, usable_kinds

if TYPE_CHECKING:
    from calibration.timing.clocks import StampClock
    from calibration.timing.motion import Motion
    from perception.bags.messages import BagMessage
    from perception.frame import Sample

IMU = "sensor_msgs/msg/Imu"
_NO_STAMP, _STRANGE = "no stamp", "cannot be decoded"
_LATE = "a stamp no later than the one before"

Progress = Callable[[str, int, int], None]


@dataclass
class Track:
    """What was read of one sensor.

    Attributes:
        name: of the sensor.
        kind: of the sensor, empty for a gyroscope.
        motion: how it turned.
        clock: its stamps beside arrivals; None where a recording has none.
        left_out: how many samples, by why.
        by_stamps: a bag without times of arrival.
    """

    name: str
    kind: str
    motion: Motion
    clock: StampClock | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    by_stamps: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind or "imu",
            "samples": len(self.motion.stamps_ns),
            "rate_hz": 1e9 / self.motion.period_ns,
            "clock": None if self.clock is None else self.clock.to_dict(),
            "left_out": dict(self.left_out),
        }


class _Reader:
    """Takes one sensor's samples."""

    def __init__(self, name: str, kind: str) -> None:
        from calibration.timing.clouds import CloudMotion
        from calibration.timing.pictures import PictureMotion

        self.name, self.kind = name, kind
        self.stamps: list[int] = []
        self.arrivals: list[int] = []
        self.rates: list[Any] = []
        self.left_out: Counter[str] = Counter()
        pictures = bool(kind) and kind_of(kind).has_picture
        self._motion: PictureMotion | CloudMotion
        self._motion = PictureMotion() if pictures else CloudMotion()

    def push(self, sample: Sample, stamp_ns: int) -> None:
        """A decoded sample."""
        self._motion.push(stamp_ns, sample.data)

    def note(self, stamp_ns: int, arrived_ns: int) -> None:
        """When a message was stamped, and when it arrived."""
        self.stamps.append(stamp_ns)
        self.arrivals.append(arrived_ns)

    def track(self) -> Track:
        """What came of it.

        Raises:
            DataError: too few samples.
        """
        from calibration.timing.clocks import stamp_clock
        from calibration.timing.motion import gyro_motion

        try:
            motion = gyro_motion(self.stamps, self.rates) if self.rates else self._motion.motion()
        except DataError as error:
            said = ", ".join(f"{n} {why}" for why, n in self.left_out.items())
            problem = f"{error.message}; left out: {said}" if said else error.message
            raise DataError(problem, where=self.name, hint=error.hint) from error
        left_out = Counter(self.left_out)
        if motion.dropped:
            left_out[_LATE] = motion.dropped
        timeless = bool(self.arrivals) and len(set(self.arrivals)) == 1
        clock = None
        if self.arrivals and not timeless:
            clock = stamp_clock(self.stamps, self.arrivals)
        return Track(self.name, self.kind, motion, clock, left_out, timeless)


def read_tracks(
    args: argparse.Namespace, names: list[str], progress: Progress | None = None
) -> dict[str, Track]:
    """How the sensors turned, in the order of `names`.

    Raises:
        ConfigError, DataError: there is no such recording, topic or sensor, or too little of it.
    """
    text = args.recording
    if ":" in text and kind_name(text.partition(":")[0]) in READERS and not Path(text).exists():
        for option in ("topic", "kind"):
            if getattr(args, option):
                raise ConfigError("is for bags only", where=f"--{option}")
        return _of_recording(text, names, progress)
    return _of_bag(Path(text), args, names)


def _of_recording(text: str, names: list[str], progress: Progress | None) -> dict[str, Track]:
    kind, root = parse_data_argument(text)
    recording = open_recording(kind, root)
    there = recording.info.sensors
    for name in names:
        if name not in there:
            hint = names_hint(name, there)
            raise ConfigError(f"the recording has no sensor '{name}'", where="--sensors", hint=hint)
    readers = {name: _Reader(name, there[name]) for name in names}
    for index in range(len(recording)):
        if progress is not None:
            progress("reading", index, len(recording))
        for name, sample in recording.frame(index).items():
            if name not in readers:
                continue
            if sample.stamp_ns is None:
                readers[name].left_out[_NO_STAMP] += 1
                continue
            readers[name].push(sample, sample.stamp_ns - _applied(recording, name))
    return {name: reader.track() for name, reader in readers.items()}


def _applied(recording: Recording, name: str) -> int:
    """What the recording's own rig has added to stamps already."""
    rig = getattr(recording, "rig", None)
    own = None if rig is None else rig.sensors.get(name)
    return 0 if own is None else own.time_offset_ns


def _of_bag(path: Path, args: argparse.Namespace, names: list[str]) -> dict[str, Track]:
    from perception.bags.files import read_bag, topics_of

    known = topics_of(path)
    told = dict(_pair(text, "--kind") for text in args.kind)
    given = dict(_pair(text, "--topic") for text in args.topic)
    for option, values in (("--kind", told), ("--topic", given)):
        for name in values.keys() - set(names):
            raise ConfigError(
                f"'{name}' is not among --sensors", where=option, hint=names_hint(name, names)
            )
    topics = {_topic(path, name, given, known): name for name in names}
    if len(topics) < len(names):
        raise ConfigError("two sensors have one topic", where="--topic")
    readers: dict[str, _Reader] = {}
    skipped: dict[str, Counter[str]] = {name: Counter() for name in names}
    for message in read_bag(path, topics):
        name = topics[message.topic]
        if (why := _take(message, name, told, readers)) is not None:
            skipped[name][why] += 1
    for name in names:
        if name not in readers:
            said = ", ".join(f"{n} messages: {why}" for why, n in skipped[name].items())
            raise DataError(said or "has no messages", where=f"{path}: {name}")
        readers[name].left_out = skipped[name]
    return {name: readers[name].track() for name in names}


def _topic(path: Path, name: str, given: Mapping[str, str], known: Mapping[str, str]) -> str:
    own = f"/sensors/{name}/"
    guessed = [
        topic for topic in known if topic in (f"{own}image_raw", f"{own}points", f"{own}imu")
    ]
    topic = given.get(name) or (guessed[0] if guessed else "")
    if topic not in known:
        hint = names_hint(topic, [t for t, k in known.items() if _readable(k)])
        problem = f"no topic {topic} for {name}" if topic else f"which topic is {name}?"
        raise ConfigError(problem, where=str(path), hint=f"--topic {name}=TOPIC; {hint}")
    if not _readable(known[topic]):
        problem = f"topic {topic} is {known[topic]}: no picture, cloud or Imu"
        raise ConfigError(problem, where=str(path))
    return topic


def _readable(type_name: str) -> bool:
    return type_name == IMU or any(type_name in kind.ros_types for kind in usable_kinds())


def _take(
    message: BagMessage, name: str, told: Mapping[str, str], readers: dict[str, _Reader]
) -> str | None:
    """Have a message's sensor take it; why not, where it cannot."""
    from perception.bags.messages import parse
    from perception.bags.survey import header_stamp

    stamp = header_stamp(message)
    if not stamp:
        return _NO_STAMP
    try:
        parsed = parse(message)
        if message.type == IMU:
            reader = readers.setdefault(name, _Reader(name, ""))
            rate = parsed.angular_velocity
            found = np.array([rate.x, rate.y, rate.z])
            if not np.isfinite(found).all() or np.abs(found).max() > 1e3:
                return _STRANGE
            reader.rates.append(found)
        else:
            sample = _decoded(parsed, message.type, name, told, readers)
            readers[name].push(sample, stamp)
    except InputError:
        return _STRANGE
    readers[name].note(stamp, message.stamp_ns)
    return None


def _decoded(
    parsed: Any, type_name: str, name: str, told: Mapping[str, str], readers: dict[str, _Reader]
) -> Sample:
    """The message as its kind reads it: the one that is told, or the first that can."""
    from perception.sensors.samples import to_sample

    if name in readers:
        return to_sample(readers[name].kind, parsed, sensor=name)
    wanted = told.get(name) or (name if is_kind(name) else "")
    if wanted and not is_kind(wanted):
        raise ConfigError(f"no kind '{wanted}'", where="--kind", hint=names_hint(wanted, kinds()))
    fitting = [kind.name for kind in usable_kinds() if type_name in kind.ros_types]
    error: AnySenseError = InputError(f"no {wanted} is read from {type_name}", where=name)
    for kind in [wanted] if wanted else fitting:
        try:
            sample = to_sample(kind, parsed, sensor=name)
        except InputError as failed:
            error = failed
            continue
        readers[name] = _Reader(name, kind)
        return sample
    raise error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"'{text}' is not NAME=VALUE", where=option)
    return name, value
