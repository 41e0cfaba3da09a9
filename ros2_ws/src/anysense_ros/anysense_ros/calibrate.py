"""Entry point of the node that calibrates live; see `anysense_ros.calibrate_node`."""

from __future__ import annotations

import sys
from typing import Any

import cv2

from anysense_ros import processes
from perception.extras import require


def _make() -> Any:
    require("the node calibrate", "scipy")
    from anysense_ros.calibrate_node import CalibrateNode

    return CalibrateNode()


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros calibrate`."""
    cv2.setNumThreads(2)  # the sensors' drivers want cores, too
    return processes.run(_make, lambda node: node.close(), lambda node: node.start(), args)


if __name__ == "__main__":
    sys.exit(main())
