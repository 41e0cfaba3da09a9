"""Colors in recordings: as files, as messages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.adapters.outgoing import Types, image_message
from perception.frame import Sample
from perception.sensors.images import picture_bytes
from perception.sensors.kind import Hints, Inspection

SUFFIXES = (".png", ".jpg", ".jpeg")


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    """As PNG."""
    path.write_bytes(picture_bytes(sample.data, path.suffix))


def to_message(sample: Sample, types: Types) -> Any:
    """As `Image` of rgb8."""
    return image_message(types, sample, "rgb8", "u1")


def inspect(sample: Sample) -> Inspection:
    """Pictures that show nothing."""
    return Inspection(("image is all one value",) if np.ptp(sample.data) == 0 else ())
