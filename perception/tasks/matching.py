"""Classes of a bundle and of a recording, matched by name; what several tasks' meters use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.tasks.spec import ClassSpec

BACKGROUND = "background"
"""A class of this name in a recording takes all that its other classes do not name."""


def class_map(classes: Sequence[ClassSpec], names: Sequence[str]) -> NDArray[np.uint8]:
    """(256,) recording's id by the bundle's id, 255 for classes that the recording lacks.

    Args:
        classes: the bundle's.
        names: the recording's, by id.
    """
    table = np.full(256, 255, np.uint8)
    shared = [one.name for one in classes if one.name in names]
    if shared and BACKGROUND in names:
        table[[one.id for one in classes]] = names.index(BACKGROUND)
    for one in classes:
        if one.name in names:
            table[one.id] = names.index(one.name)
    return table


def number(value: float) -> float | None:
    """None for NaN."""
    return None if math.isnan(value) else float(value)
