"""Writes ~/status to a CSV file, and pictures of the overlay at every change of state."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from anysense_msgs.msg import PerceptionStatus
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import Image

from anysense_ros import processes
from anysense_ros.conversions import to_ns
from perception.errors import ConfigError
from perception.files.writing import write_image
from perception.frame import KINDS

STATES = ("full", "degraded", "hold", "stop")
COLUMNS = ("time_s", "stamp_ns", "used", "state", "latency_ms", "engine_ms")
"""After these come `age_ms_<sensor>` and `health_<sensor>` of each sensor."""


class StatusRecorder(Node):  # type: ignore[misc]
    """Listens to `~/status` and `~/overlay` (to be remapped), writes status.csv and overlay_*.png.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self) -> None:
        super().__init__("status_recorder")
        text = ParameterDescriptor(description="folder for the files", read_only=True)
        folder = Path(str(self.declare_parameter("out", "out/ros_demo", text).value))
        text = ParameterDescriptor(description="sensors with columns of their own", read_only=True)
        self._sensors = list(self.declare_parameter("sensors", list(KINDS), text).value)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("overlay_*.png"):
                old.unlink()
            self._file = (folder / "status.csv").open("w", newline="")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error}", where=str(folder)) from error
        self._folder = folder
        self._writer = csv.writer(self._file)
        self._writer.writerow(
            [*COLUMNS, *(f"{c}_{s}" for c in ("age_ms", "health") for s in self._sensors)]
        )
        self._start = time.monotonic()
        self._picture: tuple[str, ...] | None = None
        self._used: tuple[str, ...] = ()
        self._pictures = 0
        self.create_subscription(PerceptionStatus, "~/status", self._on_status, 50)
        self.create_subscription(Image, "~/overlay", self._on_overlay, 1)

    def _on_status(self, message: PerceptionStatus) -> None:
        sensors = {s.name: s for s in message.sensors}
        self._used = tuple(message.used)
        row: list[Any] = [
            f"{time.monotonic() - self._start:.3f}",
            to_ns(message.header.stamp),
            "+".join(message.used),
            STATES[message.state],
            _number(message.latency_ms),
            _number(message.engine_ms),
        ]
        row += [_number(sensors[m].age_ms) if m in sensors else "" for m in self._sensors]
        row += [sensors[m].health if m in sensors else "" for m in self._sensors]
        self._writer.writerow(row)
        self._file.flush()

    def _on_overlay(self, message: Image) -> None:
        if self._used == self._picture or not self._used:
            return
        self._picture = self._used
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        seconds = time.monotonic() - self._start
        name = f"overlay_{self._pictures:02d}_{seconds:.1f}s_{'+'.join(self._used)}.png"
        write_image(self._folder / name, pixels)
        self._pictures += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros status_recorder`."""
    return processes.run(StatusRecorder, lambda n: n.close(), None, args)


if __name__ == "__main__":
    sys.exit(main())
