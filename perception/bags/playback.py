"""Runs a pipeline on a bag as it would have run while the bag was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from perception.adapters.calibration import MessageCalibration
from perception.adapters.messages import CAMERA_INFO, TF
from perception.bags.ahead import ahead
from perception.bags.files import info_topic, messages_in
from perception.bags.messages import BagMessage, parse
from perception.bags.storage import Bag, open_bag
from perception.bags.survey import Survey, header_stamp
from perception.corruptions import FaultInjector, FaultSchedule
from perception.errors import AnySenseError
from perception.files.limits import MAX_STEPS
from perception.frame import Sample, check_least_range
from perception.runtime.core import StreamCore
from perception.runtime.result import Result
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of
from perception.sensors.samples import to_sample

_MOST_BEATS = 3000
"""Times that a gap in the recording is looked into: ten minutes of heartbeats."""

ODOMETRY = "nav_msgs/msg/Odometry"

STATIC = "tf_static"
"""How topics end whose transforms hold at all times."""

_STAMP = slice(4, 12)
"""Where the stamp of a message in CDR lies that begins with a header."""

_Played = tuple[BagMessage, Any]
"""A message, and what it says: a sample, a parsed message, why it cannot be read, or None."""

_TRANSPORTS = ("compressed", "compressedDepth", "raw")


class Playback:
    """The results of a stream on the messages of a bag, in the bag's own time.

    Args:
        stream: what to run.
        topics: the bag's topic of each sensor.
        calibration: where the samples' calibration comes from; camera_info and TF of the bag are
            added to it.
        survey: what is known of the bag's timing.
        hints: by sensor, what its messages do not say.
        faults: what sensors suffer, from the first sample on.
        odometry: topic of `nav_msgs/Odometry` that says how the vehicle moves; empty for none.
        ahead: a thread of its own reads and decodes messages while the stream is at those before.

    Attributes:
        counters: messages by topic, and `malformed_<sensor>`.
        stamps: mends the samples' stamps, and counts it.
        odometry: the topic of odometry.
        skipped_ns: time in which nothing was recorded, and for which there are no results.

    Raises:
        InputError: the least range is no length.
    """

    def __init__(
        self,
        stream: StreamCore,
        topics: Mapping[str, str],
        calibration: MessageCalibration,
        survey: Survey,
        hints: Mapping[str, Hints] | None = None,
        *,
        faults: FaultSchedule | None = None,
        odometry: str = "",
        ahead: bool = False,
    ) -> None:
        self.stream, self.odometry = stream, odometry
        self._ahead = ahead
        if odometry:
            stream.pipeline.odometry = calibration.odometry
        self.topics = {topic: sensor for sensor, topic in topics.items()}
        self.kinds = {sensor: stream.pipeline.kinds[sensor] for sensor in topics}
        self.calibration = calibration
        self.faults = FaultInjector(faults or FaultSchedule())
        self.hints = {sensor: Hints() for sensor in topics} | dict(hints or {})
        for own in self.hints.values():
            check_least_range(own.least_range_m)
        self.counters: Counter[str] = Counter()
        self.stamps = survey.stamps()
        self.skipped_ns = 0
        self._by_stamps = survey.by_stamps
        self._beats = 0
        self._infos: dict[str, list[str]] = {}
        self._last_infos: dict[str, tuple[bytes, Any]] = {}
        for sensor, topic in topics.items():
            pixels = kind_of(self.kinds[sensor]).has_picture
            for info in {info_beside(topic), info_topic(sensor)} if pixels else ():
                self._infos.setdefault(info, []).append(sensor)
        # One camera_info beside two image topics may be of either.
        self._guessed = {m for ms in self._infos.values() if len(ms) > 1 for m in ms}

    def run(self, path: Path) -> Iterator[Result]:
        """Play a bag to its end.

        Raises:
            DataError: it cannot be read.
            EngineError: the backend failed.
        """
        with open_bag(path) as bag:
            self.prepare(bag)
            yield from self.play(messages_in(bag))

    def prepare(self, bag: Bag) -> None:
        """Take in what holds for all of a bag, before any of its messages are played."""
        if self.calibration.uses_tree(self.kinds):
            self._static_transforms(bag)

    def lines(self, result: Result) -> list[str]:
        """What is wrong, by the result that `run` gave last, and with the stamps of its samples."""
        notes = self.stamps.notes.items()
        return [*result.lines, *(line for sensor, line in notes if sensor in result.samples)]

    def _static_transforms(self, bag: Bag) -> None:
        """Take in the first of each of the static transforms, which hold before they were recorded, too.

        Recorders get /tf_static when they find its publisher, often after the first samples.  What is
        wrong with them is counted when they come.
        """
        topics = {c.topic for c in bag.channels if c.type == TF and _is_static(c.topic)}
        seen: set[str] = set()
        for number, message in enumerate(messages_in(bag, topics, hinted=True)):
            if number == MAX_STEPS:
                return
            try:
                transforms = parse(message).transforms
            except AnySenseError:
                continue
            taken = self.stamps.date(message.stamp_ns)
            for one in transforms:
                child = one.child_frame_id.lstrip("/")
                alone = SimpleNamespace(transforms=[one])
                if child not in seen and not self.calibration.on_transforms(alone, True, taken):
                    seen.add(child)

    def calibrate(self, message: BagMessage) -> None:
        """Take in a camera_info or transforms that were recorded before anything is played."""
        if message.topic not in self.topics:
            self._take(message, self._decoded(message), message.stamp_ns, message.stamp_ns)

    @property
    def calibrating(self) -> tuple[str, ...]:
        """The topics of camera_info that are looked at."""
        return tuple(self._infos)

    def play(self, messages: Iterable[BagMessage]) -> Generator[Result, None, None]:
        """The results of messages, which come in order of recording, and of what is due after the last.

        Raises:
            EngineError: the backend failed.
        """
        now: int | None = None
        with closing(self._read(messages)) as read:
            for message, found in read:
                recorded = self._recorded(message, now)
                if now is not None:
                    yield from self._until(now, recorded)
                now = recorded if now is None else max(now, recorded)
                self.counters[message.topic] += 1
                self._take(message, found, recorded, now)
                yield from self._poll(now)
        while now is not None:
            times = (self.stream.collector.next_deadline_ns(), self.faults.next_ns())
            due = min((t for t in times if t is not None), default=None)
            if due is None:
                return
            now = max(now, due)
            yield from self._poll(now)

    def _read(self, messages: Iterable[BagMessage]) -> Generator[_Played, None, None]:
        """Messages, and what they say."""
        read = ((message, self._decoded(message)) for message in messages)
        return ahead(read, _bytes_of) if self._ahead else read

    def _decoded(self, message: BagMessage) -> Any:
        """What a message says, by itself: a sample, a parsed message, why it cannot be read, or None."""
        sensor, type_ = self.topics.get(message.topic), message.type
        try:
            if sensor is not None:
                kind = self.kinds[sensor]
                if type_ not in kind_of(kind).ros_types:
                    return None
                return to_sample(kind, parse(message), sensor=sensor, hints=self.hints[sensor])
            if type_ == CAMERA_INFO:
                return self._info(message) if message.topic in self._infos else None
            if type_ == TF or (type_ == ODOMETRY and message.topic == self.odometry):
                return parse(message)
        except AnySenseError as error:
            return error
        return None

    def _info(self, message: BagMessage) -> Any:
        """A `CameraInfo`; the one before where only the stamp is another, as with most of them."""
        data = message.data
        rest = data[: _STAMP.start] + data[_STAMP.stop :]
        before = self._last_infos.get(message.topic)
        if before is None or before[0] != rest:
            before = self._last_infos[message.topic] = rest, parse(message)
        return before[1]

    def _poll(self, now: int) -> Iterator[Result]:
        """What falls due: samples, those that a fault held up among them, then results."""
        for sample, _ in self.faults.poll(now):
            self.stream.push(sample, now)
        yield from self.stream.poll(now)

    def _next_ns(self) -> int:
        due = self.stream.next_deadline_ns()
        held_up = self.faults.next_ns()
        return due if held_up is None else min(due, held_up)

    def _recorded(self, message: BagMessage, now: int | None) -> int:
        """When a message was recorded, or by its stamp where the recording does not say."""
        if not self._by_stamps:
            return message.stamp_ns
        stamp = header_stamp(message) if message.topic in self.topics else None
        return stamp or now or 0

    def _until(self, now: int, then: int) -> Iterator[Result]:
        """What fell due before `then`, at the time when it did; of a long gap only the beginning."""
        for _ in range(min(_MOST_BEATS, MAX_STEPS - self._beats)):
            due = self._next_ns()
            if due >= then:
                return
            now = max(now, due)
            self._beats += 1
            yield from self._poll(now)
        if self._next_ns() < then:
            self.skipped_ns += then - now

    def _take(self, message: BagMessage, found: Any, recorded: int, now: int) -> None:
        sensor = self.topics.get(message.topic)
        if found is None:
            return
        if sensor is not None:
            self._sample(sensor, found, recorded, now)
        elif message.type == CAMERA_INFO:
            for name in self._infos[message.topic]:
                self._heard(message.topic, found, self._camera(name))
        elif message.type == TF:
            static, taken = _is_static(message.topic), self.stamps.date(recorded)
            take_in = self.calibration.on_transforms
            self._heard(message.topic, found, lambda tf: take_in(tf, static, taken))
        elif message.type == ODOMETRY:
            self._heard(message.topic, found, lambda o: not self.calibration.on_odometry(o))

    def _camera(self, sensor: str) -> Callable[[Any], int]:
        return lambda info: not self.calibration.on_camera(sensor, info)

    def _heard(self, topic: str, found: Any, bad: Callable[[Any], int]) -> None:
        """Count what cannot be used of calibration and odometry."""
        try:
            if isinstance(found, AnySenseError):
                raise found
            count = bad(found)
        except AnySenseError:
            count = 1
        self.counters[f"malformed_{topic}"] += count

    def _sample(self, sensor: str, found: Sample | AnySenseError, recorded: int, now: int) -> None:
        try:
            if isinstance(found, AnySenseError):
                raise found
            stamp = self.stamps.mend(sensor, found.time_ns, recorded)
            own = found if stamp == found.stamp_ns else replace(found, stamp_ns=stamp)
            sample = self.calibration.attach(own)
            camera = sample.camera
            if sensor in self._guessed and camera is not None:
                fits = (camera.height, camera.width) == sample.data.shape[:2]
                sample = sample if fits else replace(sample, camera=None)
        except AnySenseError as error:
            self.counters[f"malformed_{sensor}"] += 1
            self.stream.reject(sensor, str(error), now)
            return
        self.faults.push(sample, now)


def _bytes_of(played: _Played) -> int:
    message, found = played
    own = found.data.nbytes if isinstance(found, Sample) else 0
    return len(message.data) + own


def _is_static(topic: str) -> bool:
    """Whether transforms of this topic hold at all times."""
    return topic.endswith(STATIC)


def info_beside(topic: str) -> str:
    """Where drivers publish the camera_info of an image topic: beside it, whatever the transport."""
    base, _, last = topic.rpartition("/")
    if last in _TRANSPORTS:
        base = base.rpartition("/")[0]
    return f"{base}/camera_info"
