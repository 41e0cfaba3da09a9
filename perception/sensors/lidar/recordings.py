"""Clouds in recordings: as files, as messages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.adapters.files import CLOUD_SUFFIXES
from perception.adapters.outgoing import Types, cloud_message
from perception.errors import DataError
from perception.frame import Sample
from perception.sensors.kind import Hints, Inspection

SUFFIXES = (".npz", *(s for s in CLOUD_SUFFIXES if s != ".npz"))

FARTHEST_MEDIAN_M = 400.0


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    """As .npz of float32 `points`, and `time` where it is known of each."""
    if path.suffix != SUFFIXES[0]:
        raise DataError(f"clouds are not written as {path.suffix}", hint=SUFFIXES[0])
    points = sample.data.astype(np.float32)
    if sample.times is None:
        np.savez_compressed(path, points=points)
    else:
        np.savez_compressed(path, points=points, time=sample.times.astype(np.float32))


def to_message(sample: Sample, types: Types) -> Any:
    """As `PointCloud2` of x, y, z and intensity."""
    names = ("x", "y", "z", "intensity")[: sample.data.shape[1]]
    return cloud_message(types, sample, sample.data[:, :4], names)


def inspect(sample: Sample) -> Inspection:
    """Empty clouds, and those that are too large."""
    if len(sample.data) == 0:
        return Inspection(("cloud is empty",))
    away = float(np.median(np.linalg.norm(sample.data[:, :3], axis=1)))
    if away > FARTHEST_MEDIAN_M:
        return Inspection((f"median range is {away:.4g} m: are these millimetres?",))
    return Inspection()
