"""Whether a LiDAR fits a camera, told without a board: edges of clouds must lie on edges of pictures.

Where a near thing ends before a far one, ranges jump and the picture mostly changes; the closer the one lies
to the other, the higher the score, whose maximum over small rotations says how far a rig is off.  After
Levinson and Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013, with edges at sides and at
tops apart, and the spread of the maximum by a jackknife over frames and parts of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.edges import (
    BIAS_DEG,
    Edges,
    edge_strengths,
    edges_of_cloud,
    spread_edges,
)
from perception.geometry.transforms import Float64, RigidTransform

__all__ = ["BIAS_DEG", "Alignment", "Edges", "align", "edges_of_cloud"]

AXES = ("x", "y", "z")
"""Of the camera's optical frame: pitch, yaw, roll."""

REACH_DEG = 6.0
FEWEST_EDGES = 300
LEAST_CONTRAST = 0.25

_NEAREST_M = 1.0
_MARGIN = np.radians(8.0)
_BLOCKS, _BANDS = 10, 8
_FINE_DEG = 0.2
_PERTURBED_DEG = (-1.0, -0.5, 0.5, 1.0)


@dataclass(frozen=True)
class Alignment:
    """How a LiDAR fits a camera.

    Attributes:
        frames, edges: that were used.
        score: at the pose of the rig; in standard deviations of the picture's edge strength.
        best: the highest score, at the pose that fits best.
        contrast: by how much `best` exceeds the usual score of wrong poses.
        offset_deg: (3,) by which rotation about the camera's optical x, y, z axes the rig's pose differs from
        the
            best one: rig = rotation(offset) best.
        sigma_deg: (3,) standard deviations of these, the method's own bias included; inf where unknown.
        perturbed: score by axis and degrees away from the rig's pose.
    """

    frames: int
    edges: int
    score: float
    best: float
    contrast: float
    offset_deg: tuple[float, float, float]
    sigma_deg: tuple[float, float, float]
    perturbed: dict[tuple[str, float], float]

    @property
    def is_maximum(self) -> bool:
        """Whether the rig's pose scores higher than those half a degree and a degree beside it."""
        return self.score > max(self.perturbed.values(), default=-np.inf)


class _View:
    """One frame: the edges of its cloud near the picture, and the edges of its picture."""

    def __init__(
        self, gray: NDArray[Any], edges: Edges, camera: CameraModel, extrinsics: RigidTransform
    ) -> None:
        self.camera = camera
        points = extrinsics.apply(edges.points)
        pixels, seen = camera.project(points)
        margin = float(np.tan(_MARGIN)) * camera.fx
        low, high = -margin, np.array([camera.width, camera.height]) + margin
        seen &= ((pixels > low) & (pixels < high)).all(axis=1) & (points[:, 2] > _NEAREST_M)
        self.points, self.weights, self.tops = points[seen], edges.weights[seen], edges.tops[seen]
        share = np.clip(pixels[seen, 0] / camera.width, 0, 1 - 1e-9)
        self.bands = (share * _BANDS).astype(np.int64)
        self._strength = edge_strengths(gray)
        self._maps: dict[float, NDArray[np.float32]] = {}

    def _map(self, wide_px: float) -> NDArray[np.float32]:
        """(2, H, W): strength of upright and of level edges within some pixels; mean 0, deviation 1."""
        if wide_px not in self._maps:
            self._maps[wide_px] = spread_edges(self._strength, wide_px)
        return self._maps[wide_px]

    def score(self, turn: Float64, wide_px: float) -> Float64:
        """(bands, 2): in upright bands of the picture sums of strengths after a rotation, and of weights."""
        pixels, seen = self.camera.project(self.points @ turn.T)
        with np.errstate(invalid="ignore"):
            u, v = np.nan_to_num(np.round(pixels), nan=-1, posinf=-1, neginf=-1).T
        seen &= (u >= 0) & (u < self.camera.width) & (v >= 0) & (v < self.camera.height)
        rows, columns = v[seen].astype(np.int64), u[seen].astype(np.int64)
        strength = self._map(wide_px)[self.tops[seen].astype(np.int64), rows, columns]
        weights, bands = self.weights[seen], self.bands[seen]
        sums = [np.bincount(bands, by, _BANDS) for by in (strength * weights, weights)]
        return np.stack(sums, axis=1)


def align(
    frames: Sequence[tuple[NDArray[Any], Edges]],
    camera: CameraModel,
    extrinsics: RigidTransform,
) -> Alignment:
    """Find the rotation at which the edges of clouds lie best on those of pictures.

    Args:
        frames: gray pictures (H, W) of the camera's size, each with the edges of the cloud of its moment.
        camera: intrinsics.
        extrinsics: from the LiDAR's frame to the camera's optical frame, as the rig says.
    """
    views = [_View(gray, edges, camera, extrinsics) for gray, edges in frames]
    views = [view for view in views if len(view.points)]
    count = sum(len(view.points) for view in views)
    if not views:
        nothing = (0.0, 0.0, 0.0)
        return Alignment(0, 0, 0.0, 0.0, 0.0, nothing, (np.inf,) * 3, {})
    pixels = camera.fx * np.pi / 180  # in a degree
    at, grid = _coarse(views, pixels)
    best_at, sigma = _fine(views, at, pixels)
    wide = _FINE_DEG * pixels
    best, own = _total(views, best_at, wide), _total(views, np.zeros(3), wide)
    perturbed = {
        (name, away): _total(views, away * np.eye(3)[axis], wide)
        for axis, name in enumerate(AXES[:2])
        for away in _PERTURBED_DEG
    }
    x, y, z = (-best_at).tolist()
    return Alignment(
        len(views),
        count,
        own,
        best,
        float(grid.max() - np.median(grid)),
        (x, y, z),
        sigma,
        perturbed,
    )


def _turn(degrees: Float64) -> Float64:
    return np.asarray(cv2.Rodrigues(np.radians(degrees))[0], np.float64)


def _total(views: Sequence[_View], degrees: Float64, wide_px: float) -> float:
    sums = np.sum([view.score(_turn(degrees), wide_px) for view in views], axis=(0, 1))
    return float(sums[0] / max(sums[1], 1e-9))


def _coarse(views: Sequence[_View], pixels: float) -> tuple[Float64, Float64]:
    """The best pitch and yaw on ever finer grids, in degrees, and the scores of the first grid."""
    at, first = np.zeros(3), np.zeros(0)
    for reach, step, wide in ((REACH_DEG, 0.75, 0.75), (0.75, 0.25, 0.4), (0.3, 0.1, _FINE_DEG)):
        steps = np.arange(-reach, reach + step / 2, step)
        places = [at + [pitch, yaw, 0.0] for pitch, yaw in product(steps, steps)]
        scores = np.array([_total(views, place, wide * pixels) for place in places])
        first = first if len(first) else scores
        at = places[int(scores.argmax())]
    return at, first


def _fine(
    views: Sequence[_View], at: Float64, pixels: float
) -> tuple[Float64, tuple[float, float, float]]:
    """The maximum of a quadratic about the best place, and standard deviations by leaving out blocks."""
    wide = _FINE_DEG * pixels
    for reach in (1.2, 0.6):  # of roll, which the grids left alone
        rolls = at + np.outer(np.linspace(-reach, reach, 9), [0, 0, 1.0])
        at = rolls[int(np.argmax([_total(views, place, wide) for place in rolls]))]
    steps = np.array(list(product((-1.0, 0.0, 1.0), repeat=3))) * [0.25, 0.25, 0.6]
    sums = np.array([[view.score(_turn(at + step), wide) for view in views] for step in steps])
    whole = sums.sum(axis=(1, 2))  # of (steps, views, bands, 2)
    best = _peak(steps, whole[:, 0] / np.maximum(whole[:, 1], 1e-9))
    frames = np.array_split(np.arange(len(views)), min(len(views), _BLOCKS))
    # Frames that follow one another see nearly the same, and those of a robot that stands the very same:
    # what both ways of leaving out tell is minded.
    by_frame = [whole - sums[:, block].sum(axis=(1, 2)) for block in frames if len(frames) > 1]
    by_band = [whole - sums[:, :, band].sum(axis=1) for band in range(_BANDS)]
    spread = np.maximum(_spread(steps, by_frame), _spread(steps, by_band))
    x, y, z = np.sqrt(spread + np.square(BIAS_DEG)).tolist()
    return at + best, (x, y, z)


def _spread(steps: Float64, left: Sequence[Float64]) -> Float64:
    """(3,) variance of the maximum by the jackknife: sums without each block in turn."""
    if not left:
        return np.zeros(3)
    peaks = [_peak(steps, one[:, 0] / np.maximum(one[:, 1], 1e-9)) for one in left]
    return np.asarray((len(left) - 1) * np.var(peaks, axis=0), np.float64)


def _peak(steps: Float64, scores: Float64) -> Float64:
    """Where a quadratic through the scores is highest, within the steps; flat directions stay at 0."""
    x, y, z = steps.T
    left = np.column_stack([np.ones(len(x)), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z])
    c = np.linalg.lstsq(left, scores, rcond=None)[0]
    bend = np.array([[2 * c[4], c[7], c[8]], [c[7], 2 * c[5], c[9]], [c[8], c[9], 2 * c[6]]])
    values, vectors = np.linalg.eigh(bend)
    along = vectors.T @ c[1:4]
    with np.errstate(divide="ignore", invalid="ignore"):
        move = np.where(values < -1e-6, -along / values, 0.0)
    most = np.abs(steps).max(axis=0)
    return np.clip(vectors @ move, -most, most)
