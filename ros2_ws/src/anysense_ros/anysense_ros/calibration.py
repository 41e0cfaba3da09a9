"""What the node knows about its sensors: the library's, under the name it has here."""

from __future__ import annotations

from perception.adapters.calibration import MessageCalibration as Calibration

__all__ = ["Calibration"]
