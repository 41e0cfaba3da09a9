"""Runs a pipeline on a bag as it would have run while the bag was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from perception.adapters.calibration import MessageCalibration
from perception.adapters.messages import CAMERA_INFO, TF, to_sample
from perception.bags.files import info_topic, read_bag
from perception.bags.messages import BagMessage, parse
from perception.errors import AnySenseError
from perception.frame import Modality
from perception.runtime.stream import Output, Stream


class Playback:
    """The outputs of a stream on the messages of a bag, in the bag's own time.

    Args:
        stream: what to run.
        topics: the bag's topic of each sensor.
        calibration: where the samples' calibration comes from; camera_info and TF of the bag are
            added to it.
        thermal_unit: see `decode_thermal`.

    Attributes:
        counters: messages by topic, and `malformed_<modality>`.
    """

    def __init__(
        self,
        stream: Stream,
        topics: Mapping[Modality, str],
        calibration: MessageCalibration,
        thermal_unit: str = "auto",
    ) -> None:
        self.stream = stream
        self.topics = {topic: m for m, topic in topics.items()}
        self.calibration = calibration
        self.thermal_unit = thermal_unit
        self.counters: Counter[str] = Counter()
        self._infos = {_info_beside(t): m for t, m in self.topics.items()}
        self._infos |= {info_topic(m): m for m in topics}

    def run(self, path: Path) -> Iterator[Output]:
        """Play a bag to its end.

        Raises:
            DataError: it cannot be read.
            EngineError: the backend failed.
        """
        now = 0
        for message in read_bag(path):
            # What fell due before this message, at the time when it did.
            while now and self.stream.next_deadline_ns() < message.stamp_ns:
                now = max(now, self.stream.next_deadline_ns())
                yield from self.stream.poll(now)
            now = max(now, message.stamp_ns)
            self.counters[message.topic] += 1
            self._take(message, now)
            yield from self.stream.poll(now)
        if now:
            yield from self.stream.poll(now + self.stream.collector.deadline_ns)

    def _take(self, message: BagMessage, now: int) -> None:
        if message.topic in self.topics:
            self._sample(self.topics[message.topic], message, now)
        elif message.type == CAMERA_INFO and message.topic in self._infos:
            self._camera(self._infos[message.topic], message)
        elif message.type == TF:
            self._transforms(message)

    def _sample(self, modality: Modality, message: BagMessage, now: int) -> None:
        try:
            sample = to_sample(modality, parse(message), self.thermal_unit)
            sample = self.calibration.attach(sample)
        except AnySenseError as error:
            self.counters[f"malformed_{modality}"] += 1
            line = str(error)
            named = line if line.startswith(modality) else f"{modality}: {line}"
            self.stream.reject(modality, named, now)
            return
        self.stream.push(sample, now)

    def _camera(self, modality: Modality, message: BagMessage) -> None:
        try:
            usable = self.calibration.on_camera(modality, parse(message))
        except AnySenseError:
            usable = False
        self.counters[f"malformed_{message.topic}"] += not usable

    def _transforms(self, message: BagMessage) -> None:
        try:
            static = message.topic.endswith("tf_static")
            bad = self.calibration.on_transforms(parse(message), static)
        except AnySenseError:
            bad = 1
        self.counters[f"malformed_{message.topic}"] += bad


def _info_beside(topic: str) -> str:
    """Where drivers publish the camera_info of an image topic: beside it."""
    return f"{topic.rsplit('/', 1)[0]}/camera_info"
