"""Reading and writing bags, and recordings as the messages of a bag."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from perception.adapters.messages import TF
from perception.adapters.outgoing import check_stamp
from perception.bags.mcap import ALWAYS, Within
from perception.bags.messages import (
    ROSBAGS,
    BagMessage,
    Codec,
    camera_message,
    sample_message,
    transforms_message,
    typestore,
)
from perception.bags.storage import Bag, open_bag
from perception.data.base import Recording
from perception.errors import DataError
from perception.files.writing import writing_folder
from perception.frame import KINDS, Kind
from perception.sensors.registry import kind_of

TF_STATIC, MOVING = "/tf_static", "/tf"
REFERENCE_FRAME = "camera_optical"
_NAMED = 12


def sensor_topic(sensor: str, kind: str) -> str:
    """The topic of a sensor's samples."""
    return f"/sensors/{sensor}/{'image_raw' if kind_of(kind).has_picture else 'points'}"


TOPICS: dict[Kind, str] = {kind: sensor_topic(kind, kind) for kind in KINDS}
"""Those of sensors that are called as their kind."""


def info_topic(sensor: str) -> str:
    """The topic of a camera's intrinsics."""
    return f"/sensors/{sensor}/camera_info"


def messages_of(recording: Recording, codec: Codec = ROSBAGS) -> Iterator[BagMessage]:
    """A recording's samples as messages: `sensor_topic`, `info_topic` and /tf_static, in order of stamp.

    All image-like sensors share the frame of the reference camera, as their images are aligned; a
    sensor with extrinsics gets a frame of its own name.

    Raises:
        DataError: a stamp that no message can have; the line names the frame.
    """
    mounted: set[str] = set()
    for index in range(len(recording)):
        frame = recording.frame(index)
        for sensor, sample in frame.items():
            check_stamp(sample.time_ns, where=f"frame {recording.ids[index]}, {sensor}")
            own = sample.extrinsics is not None
            frame_id = sensor if own else REFERENCE_FRAME
            if sample.extrinsics is not None and sensor not in mounted:
                mounted.add(sensor)
                mount = (REFERENCE_FRAME, frame_id, sample.extrinsics)
                yield transforms_message(TF_STATIC, [mount], sample.time_ns, codec)
            if sample.camera is not None and kind_of(sample.kind).has_picture:
                topic = info_topic(sensor)
                yield camera_message(topic, sample.camera, sample.time_ns, frame_id, codec)
            yield sample_message(sensor_topic(sensor, sample.kind), sample, frame_id, codec)


def read_bag(path: Path, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
    """The messages of a bag in order of recording.

    Args:
        path: a rosbag2 folder (MCAP or sqlite3) or one of its files.
        topics: only these.

    Raises:
        DataError: it is no bag of ROS 2, or damaged.
    """
    with open_bag(path) as bag:
        yield from messages_in(bag, topics)


def messages_in(
    bag: Bag,
    topics: Collection[str] | None = None,
    *,
    hinted: bool = False,
    within: Within = ALWAYS,
) -> Iterator[BagMessage]:
    """The messages of an open bag in order of recording.

    Args:
        bag: the bag.
        topics: only these.
        hinted: leave out the parts that by the bag's own index have none of them.
        within: only those recorded from the first of these times on, before the second, in nanoseconds.

    Raises:
        DataError: it is damaged.
    """
    typestore()
    for channel, stamp, data in bag.messages(topics, hinted=hinted, within=within):
        if channel.encoding == "cdr":
            yield BagMessage(channel.topic, channel.type, stamp, data)


def topics_of(path: Path) -> dict[str, str]:
    """Topics of a bag, with their message types; several types of one topic are joined by ' and '.

    Raises:
        DataError: it is no bag.
    """
    return {topic: " and ".join(types) for topic, types in _types_by_topic(path).items()}


def _types_by_topic(path: Path) -> dict[str, tuple[str, ...]]:
    typestore()
    found: dict[str, tuple[str, ...]] = {}
    with open_bag(path) as bag:
        for channel in bag.channels:
            kind = channel.type if channel.encoding == "cdr" else f"{channel.encoding} data"
            if kind not in found.get(channel.topic, ()):
                found[channel.topic] = (*found.get(channel.topic, ()), kind)
    return found


def write_bag(path: Path, messages: Iterable[BagMessage]) -> int:
    """Write a rosbag2 folder with MCAP storage, whole or not at all; returns the number of messages.

    Raises:
        DataError: the folder exists or cannot be written, or a message is of before 1970.
    """
    store = typestore()
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

    if Path(path).exists():
        raise DataError("exists already", where=str(path), hint="choose another --out")
    connections: dict[str, Any] = {}
    count = 0
    with writing_folder(path) as folder:
        try:
            with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
                for message in messages:
                    if message.stamp_ns < 0:
                        raise DataError(
                            f"a message of {message.stamp_ns} ns: a bag has no times before 1970",
                            where=message.topic,
                        )
                    latched = message.type == TF and message.topic != MOVING
                    if message.topic not in connections:
                        connections[message.topic] = writer.add_connection(
                            message.topic,
                            message.type,
                            typestore=store,
                            offered_qos_profiles=[_latched()] if latched else [],
                        )
                    writer.write(connections[message.topic], message.stamp_ns, message.data)
                    count += 1
        except WriterError as error:
            raise DataError(f"cannot be written: {error}", where=str(path)) from error
    return count


def _latched() -> Any:
    """Offered QoS of /tf_static, without which players would not let late subscribers have it."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    never = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )


def sensor_topics(
    path: Path,
    given: Mapping[str, str],
    kinds: Mapping[str, Kind] | None = None,
    naming: str = "--topic {}={}",
) -> dict[str, str]:
    """Which topic of a bag is which sensor: those given, otherwise our own names.

    Args:
        path: the bag.
        given: topics by sensor.
        kinds: the sensors' kinds, by name; if not given, each is called as its kind.
        naming: how whoever asks is told a sensor's topic, for the line that says that none is found.

    Raises:
        DataError: a topic is not in the bag or of a type that the sensor cannot have, or none is found.
    """
    known = _types_by_topic(path)
    kinds = {kind: kind for kind in KINDS} if kinds is None else kinds
    for sensor, topic in given.items():
        if topic not in known:
            hint = _fitting(known, kinds[sensor])
            raise DataError(f"no topic {topic} for {sensor}", where=str(path), hint=hint)
    own = {sensor: sensor_topic(sensor, kind) for sensor, kind in kinds.items()}
    found = dict(given) or {sensor: topic for sensor, topic in own.items() if topic in known}
    if not found:
        sensor, kind = next(iter(kinds.items()))
        hint = f"name them, as {naming.format(sensor, '/camera/image')}; {_fitting(known, kind)}"
        raise DataError("no sensor topic found", where=str(path), hint=hint)
    for sensor, topic in found.items():
        kind = kinds[sensor]
        if not set(known[topic]) & set(kind_of(kind).ros_types):
            raise DataError(
                f"topic {topic} is {' and '.join(known[topic])}, which is no {kind}",
                where=str(path),
                hint=_fitting(known, kind),
            )
    return found


def _fitting(known: dict[str, tuple[str, ...]], kind: Kind) -> str:
    """The topics that could be a sensor of this kind."""
    wanted = kind_of(kind).ros_types
    fitting = sorted(topic for topic, types in known.items() if set(types) & set(wanted))
    if not fitting:
        return f"the bag has no {' or '.join(wanted)}"
    more = f" and {len(fitting) - _NAMED} more" if len(fitting) > _NAMED else ""
    return f"could be {', '.join(fitting[:_NAMED])}{more}"
