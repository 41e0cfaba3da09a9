"""3D boxes as whoever finds them gives them, for tests of what judges them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Found:
    center: np.ndarray[Any, Any]
    size: np.ndarray[Any, Any]
    yaw: np.ndarray[Any, Any]
    velocity: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    class_ids: np.ndarray[Any, Any]
