"""Depth in recordings: as files, as messages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.adapters.outgoing import Types, image_message
from perception.frame import Sample
from perception.sensors.images import picture_bytes
from perception.sensors.kind import Hints, Inspection

SUFFIXES = (".png", ".npy", ".tif", ".tiff")

PLAUSIBLE_M = (0.15, 150.0)
"""Median depths outside this are taken for a wrong scale."""


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    """As PNG of 16 bit steps of `hints.scale` metres, 0 for no return."""
    scale = 0.001 if hints.scale is None else hints.scale
    steps = np.nan_to_num(sample.data / scale, posinf=0.0, neginf=0.0).round()
    steps[(steps < 0) | (steps > 65535)] = 0  # what 16 bits cannot hold is no return
    path.write_bytes(picture_bytes(steps.astype(np.uint16), path.suffix))


def to_message(sample: Sample, types: Types) -> Any:
    """As `Image` of float32 metres."""
    return image_message(types, sample, "32FC1", "f4")


def inspect(sample: Sample) -> Inspection:
    """Maps without a return; keeps the median in metres, and whether the file was of floats."""
    finite = sample.data[np.isfinite(sample.data)]
    if not finite.size:
        return Inspection(("no valid depth",))
    return Inspection(kept=(float(np.median(finite)), "FC1" in sample.encoding))


def judge(kept: list[tuple[float, bool]]) -> list[str]:
    """Whether the scale can be right."""
    (low, high), median = PLAUSIBLE_M, float(np.median([m for m, _ in kept]))
    if low <= median <= high:
        return []
    why = "metres stored as millimetres?" if median < low else "too large a scale?"
    what = "Floats must be metres" if any(floats for _, floats in kept) else "Set depth_scale"
    return [f"median depth over all frames is {median:.4g} m: {why} {what}"]
