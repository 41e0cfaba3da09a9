"""Boxes from what a network says of the ground: their centres are peaks of a map for each class.

Zhou et al., "Objects as Points", 2019; Yin et al., "Center-based 3D Object Detection and Tracking", CVPR
2021.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.boxes import wrapped
from perception.geometry.grid import BirdseyeSpec

Float32 = NDArray[np.float32]

FIELD_NAMES = ("dx", "dy", "z", "log_l", "log_w", "log_h", "sin", "cos", "vx", "vy")
"""Of the fields: the centre's place beside its cell's in cells, then metres, radians and metres a second."""

_PEAK = np.ones((3, 3), np.uint8)
_LARGEST_LOG = 4.6  # of a size in metres: 100 m, and 1 cm
_MOST_PEAKS = 1000


class GroundBoxes(NamedTuple):
    """Boxes in the base frame, best first: (N, 3), (N, 3), (N,), (N, 2), (N,), (N,)."""

    center: Float32
    size: Float32
    yaw: Float32
    velocity: Float32
    scores: Float32
    class_ids: NDArray[np.int64]


def decode_centers(
    heatmap: Float32,
    fields: Float32,
    spec: BirdseyeSpec,
    *,
    min_score: float,
    most: int,
    apart: bool = True,
) -> GroundBoxes:
    """Boxes at the peaks of the maps of their classes.

    A peak is as high as the eight cells about it, of its class.

    Args:
        heatmap: (K, R, C) logits by class.
        fields: (10, R, C), see `FIELD_NAMES`.
        spec: the grid on the ground; R and C are its rows and columns, or an even share of them.
        min_score: least score.
        most: boxes at most.
        apart: a box whose centre lies in a better one of its class is left out.
    """
    kind, row, column, logit = _peaks(heatmap, min_score)
    at = fields[:, row, column]
    step = [side / cells for side, cells in zip(spec.shape, heatmap.shape[1:], strict=True)]
    x = spec.x[0] + (row + 0.5 + at[0]) * (step[0] * spec.cell_m)
    y = spec.y[0] + (column + 0.5 + at[1]) * (step[1] * spec.cell_m)
    found = GroundBoxes(
        np.stack([x, y, at[2]], axis=1).astype(np.float32),
        np.exp(at[3:6].clip(-_LARGEST_LOG, _LARGEST_LOG)).T.astype(np.float32),
        wrapped(np.arctan2(at[6], at[7])).astype(np.float32),
        at[8:10].T.astype(np.float32),
        (1 / (1 + np.exp(-logit))).astype(np.float32),
        kind,
    )
    kept = _apart(found, most) if apart else np.arange(min(most, len(kind)))
    return GroundBoxes._make(np.ascontiguousarray(values[kept]) for values in found)


def _peaks(
    heatmap: Float32, min_score: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Float32]:
    """Class, row, column and logit of each, best first; of equals in the order of the map."""
    share = min(max(min_score, 1e-6), 1 - 1e-6)
    least = np.float32(np.log(share / (1 - share)))
    found: list[NDArray[np.int64]] = []
    for kind, plane in enumerate(heatmap):
        highest = cv2.dilate(np.ascontiguousarray(plane, np.float32), _PEAK)
        row, column = np.nonzero((plane >= least) & (plane >= highest))
        found.append(np.stack([np.full(len(row), kind), row, column]).astype(np.int64))
    kinds, rows, columns = np.concatenate(found, axis=1)
    logits = heatmap[kinds, rows, columns]
    order = np.argsort(-logits, kind="stable")[:_MOST_PEAKS]
    return kinds[order], rows[order], columns[order], logits[order]


def _apart(boxes: GroundBoxes, most: int) -> NDArray[np.int64]:
    """Which boxes stay, best first, when each takes the weaker ones of its class in its footprint away."""
    kept = np.ones(len(boxes.scores), bool)
    for kind in np.unique(boxes.class_ids):
        own = np.flatnonzero(boxes.class_ids == kind)
        covers = np.triu(_covers(boxes, own), 1)
        left = np.ones(len(own), bool)
        for i in np.flatnonzero(covers.any(axis=1)).tolist():
            if left[i]:
                left &= ~covers[i]
        kept[own] = left
    return np.flatnonzero(kept)[:most]


def _covers(boxes: GroundBoxes, own: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(N, N) whether the middle of the second lies in the footprint of the first, of these boxes."""
    (x, y), half = boxes.center[own, :2].T, boxes.size[own, :2] / 2
    yaw = boxes.yaw[own, None]
    cos, sin = np.cos(yaw), np.sin(yaw)
    dx, dy = x - x[:, None], y - y[:, None]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    return (np.abs(along) <= half[:, :1]) & (np.abs(across) <= half[:, 1:])
