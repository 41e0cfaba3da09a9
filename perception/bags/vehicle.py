"""Recordings of a vehicle that knows where it was, as messages: odometry and TF beside what sensors saw."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.outgoing import check_stamp, cloud_message, header
from perception.bags.files import MOVING, TF_STATIC, info_topic, sensor_topic
from perception.bags.messages import (
    ROSBAGS,
    BagMessage,
    Codec,
    camera_message,
    sample_message,
    transforms_message,
)
from perception.data.base import Recording
from perception.errors import DataError
from perception.frame import Sample
from perception.geometry.transforms import RigidTransform
from perception.sensors.registry import kind_of

ODOM_FRAME, ODOM_TOPIC = "odom", "/odom"
ODOMETRY = "nav_msgs/msg/Odometry"

Columns = Callable[[int, str], Mapping[str, NDArray[Any]]]
"""What is known of each point of a frame's cloud, by the index of the frame and the sensor: (N,) arrays by
the name that their field is to have, such as `ring`."""


def _nothing(index: int, sensor: str) -> Mapping[str, NDArray[Any]]:
    return {}


def vehicle_messages(
    recording: Recording, columns: Columns = _nothing, codec: Codec = ROSBAGS
) -> Iterator[BagMessage]:
    """What sensors saw (`sensor_topic`, `info_topic`), where they sit (/tf_static, from the rig's base) and
    where the vehicle was (/tf from `odom` to the base, and /odom), in order of stamp.

    Args:
        recording: with a trajectory, and a rig that names its base and all sensors.
        columns: more fields of clouds.
        codec: that makes the messages.

    Raises:
        DataError: it has no trajectory or no base, a sensor has no place, or a stamp is none of a message.
    """
    where, rig, trajectory = recording.info.name, recording.rig, recording.trajectory
    if not rig.base or trajectory is None or not len(trajectory):
        what = "does not say where the vehicle was"
        raise DataError(what, where=where, hint="it takes poses.csv, and base in rig.yaml")
    mounts = []
    for sensor in recording.info.sensors:
        if (mount := rig.in_base(sensor)) is None:
            raise DataError(f"rig.yaml does not say where {sensor} sits", where=where)
        mounts.append((rig.base, rig.sensors[sensor].frame_id or sensor, mount))
    start = min(int(trajectory.stamps_ns[0]), recording.stamp_ns(0))
    check_stamp(start, where=where)
    yield transforms_message(TF_STATIC, mounts, start, codec)
    parts = (_motion(recording, codec), _seen(recording, columns, codec))
    yield from heapq.merge(*parts, key=lambda message: message.stamp_ns)


def _motion(recording: Recording, codec: Codec) -> Iterator[BagMessage]:
    trajectory, base = recording.trajectory, recording.rig.base
    assert trajectory is not None
    for i, pose in enumerate(trajectory.poses):
        stamp = int(trajectory.stamps_ns[i])
        check_stamp(stamp, where=f"pose {i}")
        yield transforms_message(MOVING, [(ODOM_FRAME, base, pose)], stamp, codec)
        # The velocity is that from the pose before, or towards the one behind where a drive begins.
        step = min(stamp - int(trajectory.stamps_ns[i - 1]) if i else 10**8, 10**8)
        moved = trajectory.moved(stamp, stamp - step) or trajectory.moved(stamp + step, stamp)
        yield odometry_message(pose, moved, step, stamp, base, codec)


def odometry_message(
    pose: RigidTransform,
    moved: RigidTransform | None,
    step_ns: int,
    stamp_ns: int,
    base: str,
    codec: Codec = ROSBAGS,
) -> BagMessage:
    """Where the base is in the fixed frame, and how it moves.

    Args:
        pose: from base to the fixed frame.
        moved: from the base frame to that of `step_ns` before; None for no velocity.
        step_ns: nanoseconds.
        stamp_ns: of the pose.
        base: the base frame's name.
        codec: that makes the message.
    """
    seconds = step_ns / 1e9
    linear = np.zeros(3) if moved is None else moved.translation / seconds
    # Of a rotation by a small angle the vector part of the quaternion is half the rotation.
    angular = np.zeros(3) if moved is None else 2 * np.array(moved.quaternion_xyzw[:3]) / seconds
    vector = [
        codec.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, v), strict=True)))
        for v in (linear, angular)
    ]
    point = dict(zip("xyz", map(float, pose.translation), strict=True))
    turn = dict(zip("xyzw", map(float, pose.quaternion_xyzw), strict=True))
    placed = codec.make(
        "geometry_msgs/msg/Pose",
        position=codec.make("geometry_msgs/msg/Point", **point),
        orientation=codec.make("geometry_msgs/msg/Quaternion", **turn),
    )
    twist = codec.make("geometry_msgs/msg/Twist", linear=vector[0], angular=vector[1])
    message = codec.make(
        ODOMETRY,
        header=header(codec, stamp_ns, ODOM_FRAME),
        child_frame_id=base,
        pose=codec.make(
            "geometry_msgs/msg/PoseWithCovariance", pose=placed, covariance=np.zeros(36)
        ),
        twist=codec.make(
            "geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)
        ),
    )
    return BagMessage(ODOM_TOPIC, ODOMETRY, stamp_ns, codec.serialize(message, ODOMETRY))


def _seen(recording: Recording, columns: Columns, codec: Codec) -> Iterator[BagMessage]:
    for index in range(len(recording)):
        for sensor, sample in recording.frame(index).items():
            check_stamp(sample.time_ns, where=f"frame {recording.ids[index]}, {sensor}")
            frame_id = recording.rig.sensors[sensor].frame_id or sensor
            kind = kind_of(sample.kind)
            if sample.camera is not None and kind.has_picture:
                stamp = sample.time_ns
                yield camera_message(info_topic(sensor), sample.camera, stamp, frame_id, codec)
            topic, more = sensor_topic(sensor, sample.kind), columns(index, sensor)
            if more:
                yield _cloud(topic, replace(sample, frame_id=frame_id), more, codec)
            else:
                yield sample_message(topic, sample, frame_id, codec)


def _cloud(
    topic: str, sample: Sample, more: Mapping[str, NDArray[Any]], codec: Codec
) -> BagMessage:
    names = ("x", "y", "z", "intensity", *more)
    table = np.column_stack([sample.data[:, :4], *more.values()])
    message = cloud_message(codec, sample, table, names)
    name = kind_of(sample.kind).ros_types[0]
    return BagMessage(topic, name, sample.time_ns, codec.serialize(message, name))
