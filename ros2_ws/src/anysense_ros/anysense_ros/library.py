"""The library's calibration package, which is called `anysense.calibration` where the wheel is installed."""

from __future__ import annotations

try:
    from anysense.calibration.formats.ros import published
except ModuleNotFoundError as error:  # in the source tree, or an editable install
    if error.name not in ("anysense", "anysense.calibration"):
        raise
    from calibration.formats.ros import published

__all__ = ["published"]
