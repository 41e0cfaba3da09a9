"""Reading and writing bags, and recordings as the messages of a bag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from perception.adapters.messages import TF
from perception.bags.messages import (
    ROSBAGS,
    BagMessage,
    Codec,
    camera_message,
    sample_message,
    transforms_message,
    typestore,
)
from perception.data.base import Recording
from perception.errors import AnySenseError, DataError
from perception.frame import MODALITIES, Modality

TOPICS: dict[Modality, str] = {
    "rgb": "/sensors/rgb/image_raw",
    "depth": "/sensors/depth/image_raw",
    "thermal": "/sensors/thermal/image_raw",
    "lidar": "/sensors/lidar/points",
}
TF_STATIC = "/tf_static"
REFERENCE_FRAME = "camera_optical"


def info_topic(modality: Modality) -> str:
    """The topic of a camera's intrinsics."""
    return f"/sensors/{modality}/camera_info"


def messages_of(recording: Recording, codec: Codec = ROSBAGS) -> Iterator[BagMessage]:
    """A recording's samples as messages: `TOPICS`, `info_topic` and /tf_static, in order of stamp.

    All image-like sensors share the frame of the reference camera, as their images are aligned; a
    sensor with extrinsics gets a frame of its own name.
    """
    mounted: set[str] = set()
    for index in range(len(recording)):
        frame = recording.frame(index)
        for modality, sample in frame.items():
            own = sample.extrinsics is not None
            frame_id = modality if own else REFERENCE_FRAME
            if sample.extrinsics is not None and modality not in mounted:
                mounted.add(modality)
                mount = (REFERENCE_FRAME, frame_id, sample.extrinsics)
                yield transforms_message(TF_STATIC, [mount], sample.stamp_ns, codec)
            if sample.camera is not None and modality != "lidar":
                topic = info_topic(modality)
                yield camera_message(topic, sample.camera, sample.stamp_ns, frame_id, codec)
            yield sample_message(TOPICS[modality], sample, frame_id, codec)


def read_bag(path: Path, topics: Iterable[str] | None = None) -> Iterator[BagMessage]:
    """The messages of a bag in order of recording.

    Args:
        path: a rosbag2 folder (MCAP or sqlite3) or a single .mcap file.
        topics: only these.

    Raises:
        DataError: it is no bag, or damaged.
        MissingDependencyError: `rosbags` is not installed.
    """
    store = typestore()
    from rosbags.highlevel import AnyReader

    wanted = None if topics is None else set(topics)
    try:
        with AnyReader([Path(path)], default_typestore=store) as reader:
            chosen = [c for c in reader.connections if wanted is None or c.topic in wanted]
            if not chosen:
                return
            for connection, stamp, data in reader.messages(connections=chosen):
                yield BagMessage(connection.topic, connection.msgtype, stamp, bytes(data))
    except AnySenseError:
        raise
    except FileNotFoundError as error:
        raise DataError("no such bag", where=str(path)) from error
    except (
        Exception
    ) as error:  # rosbags, the storage's parser and the decompressor each have their own
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot be read as a bag: {line}", where=str(path)) from error


def topics_of(path: Path) -> dict[str, str]:
    """Topics of a bag, with their message types.

    Raises:
        DataError: it is no bag.
    """
    store = typestore()
    from rosbags.highlevel import AnyReader

    try:
        with AnyReader([Path(path)], default_typestore=store) as reader:
            return {c.topic: c.msgtype for c in reader.connections}
    except FileNotFoundError as error:
        raise DataError("no such bag", where=str(path)) from error
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot be read as a bag: {line}", where=str(path)) from error


def write_bag(path: Path, messages: Iterable[BagMessage]) -> int:
    """Write a rosbag2 folder with MCAP storage; returns the number of messages.

    Raises:
        DataError: the folder exists.
    """
    store = typestore()
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

    if Path(path).exists():
        raise DataError("exists already", where=str(path), hint="choose another --out")
    connections: dict[str, Any] = {}
    count = 0
    try:
        with Writer(Path(path), version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            for message in messages:
                if message.topic not in connections:
                    latched = [_latched()] if message.type == TF else []
                    connections[message.topic] = writer.add_connection(
                        message.topic,
                        message.type,
                        typestore=store,
                        offered_qos_profiles=latched,
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
        DataError: a topic is not in the bag, or none is found.
    """
    known = topics_of(path)
    for modality, topic in given.items():
        if topic not in known:
            raise DataError(
                f"no topic {topic} for {modality}", where=str(path), hint=", ".join(sorted(known))
            )
    found = given or {m: TOPICS[m] for m in MODALITIES if TOPICS[m] in known}
    if not found:
        raise DataError(
            "no sensor topic found", where=str(path), hint="name them: --topic rgb=/camera/image"
        )
    return found
