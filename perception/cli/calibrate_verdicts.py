"""What the commands of `anysense calibrate` say alike of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from perception.cli.console import note

UNTRUSTED = 3
"""Exit status of an answer, or of a rig that was checked, that is not to be trusted."""

SHOWN = 8
"""Pictures or poses that are named with why they were left out."""


def tell_left_out(left_out: Mapping[str, str], remarks: Iterable[str]) -> None:
    """Name what was not used, with the reason, and then what else there is to be said."""
    for name, reason in list(left_out.items())[:SHOWN]:
        note(f"{name} left out: {reason}")
    if len(left_out) > SHOWN:
        note(f"{len(left_out) - SHOWN} more were left out, see --json")
    for remark in remarks:
        note(remark)


def tell_left_out_by_sensor(left_out: Mapping[str, Mapping[str, str]]) -> None:
    """Name what was not used of each sensor, with the reason."""
    for sensor, poses in left_out.items():
        for name, reason in list(poses.items())[:SHOWN]:
            note(f"{sensor}, {name} left out: {reason}")
        if len(poses) > SHOWN:
            note(f"{len(poses) - SHOWN} more of {sensor} were left out, see --json")
