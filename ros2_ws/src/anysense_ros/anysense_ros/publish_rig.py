"""Publishes a rig file as camera_info topics and /tf_static."""

from __future__ import annotations

import sys
from pathlib import Path

from rclpy.node import Node

from anysense_ros import processes
from anysense_ros.diagnostics import OK, WARN, Diagnostics
from anysense_ros.parameters import Spec, declare_one, given_to, refuse_unknown
from anysense_ros.rig_topics import RigTopics
from perception.errors import ConfigError
from perception.geometry.rig import load_rig

SPECS = (
    Spec("rig", "", "rig file, see docs/data.md", read_only=True),
    Spec("camera_info_period_s", 1.0, "camera_info is sent anew", 0.01, 3600.0, read_only=True),
    Spec("tf", True, "publish /tf_static, too", read_only=True),
)
_REPORT_S = 1.0


class PublishRig(Node):  # type: ignore[misc]
    """`~/<sensor>/camera_info` of each camera, and /tf_static, of a rig file that is read once.

    Raises:
        ConfigError, CalibrationError: a parameter is wrong, or the file cannot be read.
    """

    def __init__(self) -> None:
        super().__init__("publish_rig")
        refuse_unknown(given_to(self), [spec.name for spec in SPECS])
        for spec in SPECS:
            declare_one(self, spec)
        path = str(self.get_parameter("rig").value)
        if not path:
            raise ConfigError("is empty", where="parameter rig", hint="-p rig:=rig.yaml")
        rig = load_rig(Path(path))
        period, tf = (self.get_parameter(spec.name).value for spec in SPECS[1:])
        self._topics = RigTopics(self, period, tf)
        lines = self._topics.publish(rig)
        for line in lines:
            self.get_logger().warning(line)
        self._diagnostics = Diagnostics(self)
        text = "; ".join(lines) or f"{len(rig.sensors)} sensors"
        self._diagnostics.set("rig", WARN if lines else OK, text, {"rig": path})
        self._diagnostics.publish()
        self._timer = self.create_timer(_REPORT_S, self._diagnostics.publish)
        self.get_logger().info(f"publishes {path}: {', '.join(rig.sensors)}")


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros publish_rig`."""
    return processes.run(PublishRig, lambda node: None, None, args)


if __name__ == "__main__":
    sys.exit(main())
