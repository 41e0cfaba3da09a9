"""camera_info and TF messages for the library's `LiveCalibration`."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from anysense_ros.conversions import to_camera, to_ns, to_transform
from perception.errors import CalibrationError
from perception.frame import Modality
from perception.geometry.live import IMAGES, LiveCalibration

__all__ = ["IMAGES", "Calibration"]


class Calibration(LiveCalibration):
    """Takes in messages; what is wrong with one is kept in `problems`, by what it concerns."""

    def __init__(self, source: str, reference_frame: str) -> None:
        super().__init__(source, reference_frame)
        self.problems: dict[str, str] = {}
        self._seen: dict[Modality, tuple[object, ...]] = {}

    def on_camera(self, modality: Modality, info: CameraInfo) -> None:
        """Take in a camera_info."""
        fields = (info.k.tobytes(), tuple(info.d), info.width, info.height, info.distortion_model)
        if self._seen.get(modality) == fields:
            return
        self._seen[modality] = fields
        try:
            self.note_camera(modality, to_camera(info))
        except CalibrationError as error:
            self.problems[f"{modality} camera_info"] = str(error)
        else:
            self.problems.pop(f"{modality} camera_info", None)

    def on_transforms(self, message: TFMessage, static: bool) -> None:
        """Take in a /tf or /tf_static message."""
        for one in message.transforms:
            key = f"tf {one.child_frame_id}"
            parent, child = one.header.frame_id, one.child_frame_id
            try:
                transform, stamp = to_transform(one), to_ns(one.header.stamp)
                self.tree.set(parent, child, transform, stamp, static=static)
            except CalibrationError as error:
                self.problems[key] = str(error)
            else:
                self.problems.pop(key, None)
