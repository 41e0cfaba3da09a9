"""Thermal pictures in recordings: as files, as messages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.adapters.outgoing import Types, image_message
from perception.errors import InputError
from perception.frame import Sample
from perception.sensors.images import picture_bytes
from perception.sensors.kind import Hints, Inspection

SUFFIXES = (".png", ".jpg", ".jpeg", ".npy", ".tif", ".tiff")
FILE_UNIT = "centikelvin"

USUAL_KELVIN = (220.0, 420.0)
"""Of median temperatures; others are taken for a wrong unit."""

CENTIKELVIN = "counts look like temperatures in 0.01 K: thermal_unit: centikelvin?"


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    """Temperatures in kelvin as PNG of 16 bit steps of 0.01 K, 0 where there is none."""
    if sample.unit not in ("", "kelvin"):
        raise InputError(f"{sample.unit} are no temperatures, which are written in {FILE_UNIT}")
    steps = np.nan_to_num(sample.data * 100.0)
    path.write_bytes(picture_bytes(steps.round().clip(0, 65535).astype(np.uint16), path.suffix))


def to_message(sample: Sample, types: Types) -> Any:
    """As `Image`: counts as mono8 or mono16, others as float32."""
    encoding, dtype = {"counts8": ("mono8", "u1"), "counts16": ("mono16", "u2")}.get(
        sample.unit, ("32FC1", "f4")
    )
    return image_message(types, sample, encoding, dtype)


def inspect(sample: Sample) -> Inspection:
    """Pictures without a value, temperatures that are none, counts that are."""
    finite = sample.data[np.isfinite(sample.data)]
    errors: tuple[str, ...] = () if finite.size else ("no valid value",)
    low, high = USUAL_KELVIN
    if finite.size and sample.unit == "kelvin":
        median = float(np.median(finite))
        if not low <= median <= high:
            errors = (f"median temperature is {median:.1f} K: is thermal_unit right?",)
    counts = sample.unit == "counts16" and low <= 0.01 * float(np.median(sample.data)) <= high
    return Inspection(errors, (CENTIKELVIN,) if counts else ())
