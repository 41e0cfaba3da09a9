"""Reading and writing bags, and recordings as the messages of a bag."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from perception.adapters.messages import SENSOR_TYPES, TF
from perception.bags.messages import (
    ROSBAGS,
    BagMessage,
    Codec,
    camera_message,
    check_stamp,
    sample_message,
    transforms_message,
    typestore,
)
from perception.bags.storage import Bag, open_bag
from perception.data.base import Recording
from perception.errors import DataError
from perception.files.writing import writing_folder
from perception.frame import MODALITIES, Modality

TOPICS: dict[Modality, str] = {
    "rgb": "/sensors/rgb/image_raw",
    "depth": "/sensors/depth/image_raw",
    "thermal": "/sensors/thermal/image_raw",
    "lidar": "/sensors/lidar/points",
}
TF_STATIC = "/tf_static"
REFERENCE_FRAME = "camera_optical"
_NAMED = 12


def info_topic(modality: Modality) -> str:
    """The topic of a camera's intrinsics."""
    return f"/sensors/{modality}/camera_info"


def messages_of(recording: Recording, codec: Codec = ROSBAGS) -> Iterator[BagMessage]:
    """A recording's samples as messages: `TOPICS`, `info_topic` and /tf_static, in order of stamp.

    All image-like sensors share the frame of the reference camera, as their images are aligned; a
    sensor with extrinsics gets a frame of its own name.

    Raises:
        DataError: a stamp that no message can have; the line names the frame.
    """
    mounted: set[str] = set()
    for index in range(len(recording)):
        frame = recording.frame(index)
        for modality, sample in frame.items():
            check_stamp(sample.time_ns, where=f"frame {recording.ids[index]}, {modality}")
            own = sample.extrinsics is not None
            frame_id = modality if own else REFERENCE_FRAME
            if sample.extrinsics is not None and modality not in mounted:
                mounted.add(modality)
                mount = (REFERENCE_FRAME, frame_id, sample.extrinsics)
                yield transforms_message(TF_STATIC, [mount], sample.time_ns, codec)
            if sample.camera is not None and modality != "lidar":
                topic = info_topic(modality)
                yield camera_message(topic, sample.camera, sample.time_ns, frame_id, codec)
            yield sample_message(TOPICS[modality], sample, frame_id, codec)


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
    bag: Bag, topics: Collection[str] | None = None, *, hinted: bool = False
) -> Iterator[BagMessage]:
    """The messages of an open bag in order of recording.

    Args:
        bag: the bag.
        topics: only these.
        hinted: leave out the parts that by the bag's own index have none of them.

    Raises:
        DataError: it is damaged.
    """
    typestore()
    for channel, stamp, data in bag.messages(topics, hinted=hinted):
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
                    if message.topic not in connections:
                        connections[message.topic] = writer.add_connection(
                            message.topic,
                            message.type,
                            typestore=store,
                            offered_qos_profiles=[_latched()] if message.type == TF else [],
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


def modality_topics(path: Path, given: dict[Modality, str]) -> dict[Modality, str]:
    """Which topic of a bag is which sensor: those given, otherwise our own names.

    Raises:
        DataError: a topic is not in the bag or of a type that the sensor cannot have, or none is found.
    """
    known = _types_by_topic(path)
    for modality, topic in given.items():
        if topic not in known:
            raise DataError(
                f"no topic {topic} for {modality}", where=str(path), hint=_fitting(known, modality)
            )
    found = given or {m: TOPICS[m] for m in MODALITIES if TOPICS[m] in known}
    if not found:
        raise DataError(
            "no sensor topic found", where=str(path), hint="name them: --topic rgb=/camera/image"
        )
    for modality, topic in found.items():
        if not set(known[topic]) & set(SENSOR_TYPES[modality]):
            raise DataError(
                f"topic {topic} is {' and '.join(known[topic])}, which is no {modality}",
                where=str(path),
                hint=_fitting(known, modality),
            )
    return found


def _fitting(known: dict[str, tuple[str, ...]], modality: Modality) -> str:
    """The topics that could be this sensor."""
    wanted = SENSOR_TYPES[modality]
    fitting = sorted(topic for topic, types in known.items() if set(types) & set(wanted))
    if not fitting:
        return f"the bag has no {' or '.join(wanted)}"
    more = f" and {len(fitting) - _NAMED} more" if len(fitting) > _NAMED else ""
    return f"could be {', '.join(fitting[:_NAMED])}{more}"
