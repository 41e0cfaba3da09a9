"""A ROS 2 bag (MCAP or sqlite3): messages of one time as frames, not labeled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from perception.adapters.calibration import MessageCalibration
from perception.adapters.messages import CAMERA_INFO, TF
from perception.bags.files import info_topic, read_bag, sensor_topics, topics_of
from perception.bags.messages import BagMessage, parse
from perception.bags.playback import info_beside
from perception.bags.stamps import StampMender
from perception.bags.survey import header_stamp, survey
from perception.data.base import first_reference
from perception.errors import AnySenseError, ConfigError, DataError, meant, names_hint
from perception.files.limits import MAX_ARRAY_BYTES
from perception.frame import KINDS, Sample, as_kind, check_name, in_order
from perception.geometry.rig import Rig, SensorCalibration
from perception.importers.recording import COUNTS, in_steps
from perception.importers.source import Item, Source, Stored
from perception.sensors.registry import kind_of
from perception.sensors.samples import to_sample

_OWN = "@"
_STATIC = "tf_static"


def bag(
    root: Path,
    reference: str = "",
    window_ms: float = 50.0,
    complete: bool = False,
    unit: str = "auto",
    **topics: str,
) -> Source:
    """A frame for each message of the reference, with the messages of the others nearest to it.

    Args:
        root: the bag, a folder or one of its files.
        reference: the sensor that frames are made for; by default the first color camera.
        window_ms: others are taken that are not further away in time.  A message is of one frame.
        complete: only frames that all sensors have a message of.
        unit: of thermal messages, as in `anysense replay`.
        **topics: by sensor its topic; `front=rgb@/front/image` where its name is not its kind.  None:
            topics that `anysense record` writes.

    Raises:
        ConfigError: a sensor's kind is not known, or there is no such reference.
        DataError: it cannot be read, lacks a topic, or no message has a time.
    """
    kinds, given = sensors_of(topics)
    found = sensor_topics(root, given, kinds or None, "bag,{}={}:BAG")
    kinds = {name: kinds.get(name, name) for name in in_order(found)}
    reference = reference or first_reference(kinds)
    if reference not in kinds:
        hint = names_hint(reference, list(kinds))
        raise ConfigError(f"no sensor '{reference[:40]}' is taken", where="reference", hint=hint)
    reader = _Reader(root, found, kinds, unit)
    groups = grouped(reader.stamps, reference, round(window_ms * 1e6))
    groups = [group for group in groups if not complete or len(group) == len(kinds)]
    if not groups:
        raise DataError("no messages are of one time", where=str(root), hint="window_ms=200")
    first = {name: reader.sample(name, 0) for name in kinds if reader.stamps[name]}
    rig, notes = reader.rig(first)
    sizes = {
        n: (s.data.shape[0], s.data.shape[1])
        for n, s in first.items()
        if kind_of(s.kind).has_picture
    }
    fields = {}
    for sample in first.values():
        if kind_of(sample.kind).units:
            known = sample.unit if sample.unit in COUNTS else kind_of(sample.kind).file_unit
            fields[f"{sample.kind}_unit"] = known
    items = [
        Item(
            f"{index:06d}",
            {name: partial(reader.stored, name, number) for name, number in group.items()},
            sizes={name: size for name, size in sizes.items() if name in group},
            stamp_ns=reader.stamps[reference][group[reference]],
            rig=rig,
        )
        for index, group in enumerate(groups)
    ]
    return Source(root.resolve().stem, kinds, items, fields=fields, licence="unknown", notes=notes)


def sensors_of(topics: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Kinds and topics by sensor, of `front=rgb@/front/image` and the like.

    Raises:
        ConfigError: a sensor's kind is not known, or its name cannot be one.
    """
    kinds, given = {}, {}
    for name, text in topics.items():
        kind, at, topic = text.partition(_OWN)
        if not at:
            kind, topic = name, text
            if name not in KINDS:
                hint = f"{name}=KIND@{text[:80]}, KIND one of {', '.join(KINDS)}"
                hint = f"{meant(name, KINDS)} {hint}".lstrip()
                raise ConfigError(f"which kind of sensor is '{name[:40]}'?", hint=hint)
        kinds[check_name(name, "bag")] = as_kind(kind)
        given[name] = topic
    return kinds, given


def grouped(
    stamps: Mapping[str, list[int]], reference: str, window_ns: int
) -> list[dict[str, int]]:
    """Numbers of the messages of each frame by sensor, in order of time.

    Args:
        stamps: of each sensor's messages, by number.
        reference: each of its messages is a frame; of several of one time, the first.
        window_ns: messages of others belong to the nearest frame, if they are not further away; of
            several the nearest.
    """
    own = stamps[reference]
    frames: list[dict[str, int]] = []
    times: list[int] = []
    for number in sorted(range(len(own)), key=own.__getitem__):
        if not times or own[number] > times[-1]:
            times.append(own[number])
            frames.append({reference: number})
    for name, others in stamps.items():
        if name == reference:
            continue
        best: dict[int, tuple[int, int]] = {}
        for number, stamp in enumerate(others):
            right = bisect_left(times, stamp)
            near = [i for i in (right - 1, right) if 0 <= i < len(times)]
            index = min(near, key=lambda i: abs(times[i] - stamp), default=None)
            if index is not None and abs(times[index] - stamp) <= window_ns:
                best[index] = min(best.get(index, (2**63, 0)), (abs(times[index] - stamp), number))
        for index, (_, number) in best.items():
            frames[index][name] = number
    return frames


class _Reader:
    """The messages of a bag by sensor and number, read in passes from its start to its end.

    Args:
        path: the bag.
        topics: by sensor.
        kinds: by sensor.
        unit: of thermal messages.

    Attributes:
        stamps: of each sensor's messages, on one clock; see `StampMender`.
    """

    def __init__(
        self, path: Path, topics: Mapping[str, str], kinds: Mapping[str, str], unit: str
    ) -> None:
        self.path, self.topics, self.kinds, self.unit = path, topics, kinds, unit
        self.by_topic = {topic: name for name, topic in topics.items()}
        self.calibration = MessageCalibration(kinds=dict(kinds))
        known = survey(path, topics)
        self.stamps = self._survey(known.stamps(), known.by_stamps)
        self._restart()

    def _survey(self, mender: StampMender, by_stamps: bool) -> dict[str, list[int]]:
        """All stamps, and what calibration the bag has."""
        stamps: dict[str, list[int]] = {name: [] for name in self.topics}
        infos: dict[str, list[str]] = {}
        for name, topic in self.topics.items():
            if kind_of(self.kinds[name]).has_picture:
                for info in {info_beside(topic), info_topic(name)}:
                    infos.setdefault(info, []).append(name)
        static = {
            t for t, kind in topics_of(self.path).items() if kind == TF and t.endswith(_STATIC)
        }
        for message in read_bag(self.path, {*self.by_topic, *infos, *static}):
            if name := self.by_topic.get(message.topic, ""):
                stamp = header_stamp(message)
                if stamp is None:
                    raise self._wrong(message, "is cut off")
                recorded = stamp if by_stamps else message.stamp_ns
                stamps[name].append(mender.mend(name, stamp, recorded))
                continue
            try:
                parsed = parse(message)
            except AnySenseError as error:
                raise self._wrong(message, error.message) from error
            if message.type == CAMERA_INFO:
                for name in infos.get(message.topic, ()):
                    self.calibration.on_camera(name, parsed)
            elif message.type == TF:
                self.calibration.on_transforms(parsed, True, message.stamp_ns)
        return stamps

    def _wrong(self, message: BagMessage, what: str) -> DataError:
        return DataError(
            f"message of {message.topic} at {message.stamp_ns}: {what}", where=str(self.path)
        )

    def _restart(self) -> None:
        self._messages = read_bag(self.path, set(self.by_topic))
        self._passed = dict.fromkeys(self.topics, 0)
        self._kept: dict[tuple[str, int], BagMessage] = {}
        self._bytes = 0

    def _message(self, name: str, number: int) -> BagMessage:
        """A message; those passed on the way are kept until they are asked for, or passed over."""
        if number < self._passed[name] and (name, number) not in self._kept:
            self._restart()
        while (name, number) not in self._kept:
            message = next(self._messages, None)
            if message is None:
                raise DataError("changed while it was read", where=str(self.path))
            own = self.by_topic[message.topic]
            self._kept[own, self._passed[own]] = message
            self._passed[own] += 1
            self._bytes += len(message.data)
            while self._bytes > MAX_ARRAY_BYTES and len(self._kept) > 1:
                oldest = next(key for key in self._kept if key != (name, number))
                self._bytes -= len(self._kept.pop(oldest).data)
        found = self._kept.pop((name, number))
        self._bytes -= len(found.data)
        for key in [k for k in self._kept if k[0] == name and k[1] < number]:
            self._bytes -= len(self._kept.pop(key).data)
        return found

    def sample(self, name: str, number: int) -> Sample:
        """A decoded message.

        Raises:
            DataError: it holds no such sample.
        """
        message = self._message(name, number)
        try:
            return to_sample(self.kinds[name], parse(message), self.unit, sensor=name)
        except AnySenseError as error:
            raise self._wrong(message, error.message) from error

    def stored(self, name: str, number: int) -> Stored:
        """What a file of it holds."""
        return in_steps(self.sample(name, number))

    def rig(self, first: Mapping[str, Sample]) -> tuple[Rig | None, list[str]]:
        """Intrinsics of camera_info, and the places of /tf_static; what is not known is noted.

        Args:
            first: a sample of each sensor.
        """
        sensors, notes = {}, []
        for name, sample in first.items():
            try:
                seen = self.calibration.attach(replace(sample, stamp_ns=None))
            except AnySenseError as error:
                notes.append(f"{name} is not calibrated: {error.message}")
                continue
            camera = seen.camera
            if kind_of(sample.kind).has_picture:
                if camera is None or (camera.height, camera.width) != sample.data.shape[:2]:
                    continue
                sensors[name] = SensorCalibration(
                    camera,
                    seen.extrinsics,
                    sample.frame_id,
                    kind=sample.kind,
                    source=self.path.name,
                )
            elif seen.extrinsics is not None:
                sensors[name] = SensorCalibration(
                    camera, seen.extrinsics, sample.frame_id, kind=sample.kind
                )
        return (Rig(sensors) if sensors else None), notes
