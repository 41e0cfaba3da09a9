"""camera_info and TF messages for `LiveCalibration`."""

from __future__ import annotations

from typing import Any

from perception.adapters.messages import camera_fields, to_ns, to_transform
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.live import LiveCalibration
from perception.geometry.motion import Odometry
from perception.geometry.transforms import RigidTransform

_LONGEST_KEY = 80
_MOST_PROBLEMS = 64
"""Problems kept at a time; of more, the oldest are forgotten."""


class MessageCalibration(LiveCalibration):
    """Takes in messages; what is wrong with one is kept in `problems`, by what it concerns.

    A bad transform in a message does not take the good ones beside it along.

    Attributes:
        odometry: how the vehicle's base frame moves, of `on_odometry`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.problems: dict[str, str] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._last: dict[str, Any] = {}
        self.odometry = Odometry()

    def on_camera(self, sensor: str, info: Any) -> bool:
        """Take in a `CameraInfo`; False, and a line in `problems`, when it cannot be used."""
        key = f"{sensor} camera_info"
        if self._last.get(sensor) is info:  # recordings give one object as long as it says the same
            return key not in self.problems
        fields = camera_fields(info)
        self._last[sensor] = info
        if self._seen.get(sensor) == fields:
            return key not in self.problems
        self._seen[sensor] = fields
        try:
            self.note_camera(sensor, *CameraModel.choices_of_camera_info(fields))
        except CalibrationError as error:
            self._note(key, str(error))
            return False
        self.problems.pop(key, None)
        return True

    def on_transforms(self, message: Any, static: bool, received_ns: int | None = None) -> int:
        """Take in a `TFMessage`.

        Args:
            message: the message.
            static: whether it is of /tf_static.
            received_ns: its time of arrival, which transforms without a stamp (0) get.

        Returns:
            How many of its transforms cannot be used; each has a line in `problems`.
        """
        bad = 0
        for one in message.transforms:
            parent, child = one.header.frame_id, one.child_frame_id
            key = f"tf {child[:_LONGEST_KEY]}"
            try:
                transform, stamp = to_transform(one), to_ns(one.header.stamp)
                if not stamp and received_ns is not None:
                    stamp = received_ns
                self.tree.set(parent, child, transform, stamp, static=static)
            except CalibrationError as error:
                self._note(key, str(error))
                bad += 1
            else:
                self.problems.pop(key, None)
        return bad

    def on_odometry(self, message: Any) -> bool:
        """Take in a `nav_msgs/Odometry`; False, and a line in `problems`, when it cannot be used.

        One of another frame than the base frame (`child_frame_id`) counts where the tree connects both.
        """
        child = message.child_frame_id.lstrip("/") or self.base
        try:
            at, turn = message.pose.pose.position, message.pose.pose.orientation
            pose = RigidTransform.from_quaternion_xyzw(
                (turn.x, turn.y, turn.z, turn.w), (at.x, at.y, at.z)
            )
            stamp = to_ns(message.header.stamp)
            self.odometry.note(stamp, pose @ self.tree.lookup(child, self.base, stamp))
        except CalibrationError as error:
            self._note("odometry", f"odometry of '{child[:_LONGEST_KEY]}': {error}")
            return False
        self.problems.pop("odometry", None)
        return True

    def _note(self, key: str, line: str) -> None:
        self.problems.pop(key, None)
        self.problems[key] = line
        while len(self.problems) > _MOST_PROBLEMS:
            del self.problems[next(iter(self.problems))]
