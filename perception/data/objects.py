"""What boxes in space a recording has: how many of each class, how far, how many points on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Recording, TruthBoxes3d

_QUANTILES = (0.1, 0.5, 0.9)
_MOVES_MPS = 0.5


def object_counts(recording: Recording) -> dict[str, dict[str, Any]]:
    """Counts of a recording's boxes in space by class name, empty where it has none.

    Of each class `boxes` (those that count), `ignored`, `moving` (faster than 0.5 m/s), `distance_m` and
    `points` (10 %, 50 % and 90 % of the boxes have no more), and `occlusion` (boxes of level 0 to 3); the
    last four of boxes that count, and what nobody wrote down is left out.
    """
    return counts_of(map(recording.in_space, range(len(recording))), recording)


def counts_of(
    frames: Iterable[TruthBoxes3d | None], recording: Recording
) -> dict[str, dict[str, Any]]:
    """As `object_counts`, of the boxes of these frames, whose classes are the recording's."""
    found = [boxes for boxes in frames if boxes is not None and len(boxes)]
    if not found:
        return {}
    table = np.concatenate([_rows(boxes) for boxes in found])
    names = [own.name for own in recording.info.det_classes]
    return {name: _counts(table[table[:, 0] == i]) for i, name in enumerate(names)}


def _rows(boxes: TruthBoxes3d) -> NDArray[np.float64]:
    """Class, ignored, speed, distance, points and occlusion of each."""
    return np.column_stack(
        [
            boxes.class_ids,
            boxes.ignore,
            np.linalg.norm(boxes.velocity, axis=1),
            np.linalg.norm(boxes.center[:, :2], axis=1),
            boxes.points,
            boxes.occlusion,
        ]
    )


def _counts(table: NDArray[np.float64]) -> dict[str, Any]:
    own = table[table[:, 1] == 0]
    found: dict[str, Any] = {"boxes": len(own), "ignored": len(table) - len(own)}
    if len(own) == 0:
        return found
    if np.isfinite(own[:, 2]).all():
        found["moving"] = int((own[:, 2] > _MOVES_MPS).sum())
    found["distance_m"] = [round(float(v), 1) for v in np.quantile(own[:, 3], _QUANTILES)]
    if (own[:, 4] >= 0).all():
        found["points"] = [round(float(v)) for v in np.quantile(own[:, 4], _QUANTILES)]
    if (own[:, 5] >= 0).all():
        found["occlusion"] = [int((own[:, 5] == level).sum()) for level in range(4)]
    return found
