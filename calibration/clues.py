"""What frames say of where a LiDAR is to a camera, as sums that any pose can be scored by.

Two clues, each where the other is poor: edges of clouds on edges of pictures (`calibration.alignment`), and
the mutual information of reflectivity and brightness, Pandey et al., "Automatic Targetless Extrinsic
Calibration of a 3D Lidar and Camera by Maximizing Mutual Information", AAAI 2012.  Both values are taken by
what is usual close by: else shadows, and how reflectivity falls with distance, say more than markings do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from calibration.alignment import edges_of_cloud
from perception.frame import is_return
from perception.geometry.camera import CameraModel
from perception.geometry.edges import edge_strength
from perception.geometry.transforms import Float64, RigidTransform

BLOCKS, BANDS = 10, 8
"""Parts in time, and across the picture, that may be left out."""

_WIDEST_PX = 1280
_MARGIN = np.radians(10.0)
_NEAREST_M = 1.0
_ROW = np.radians(0.3)
_AROUND = 21  # rays along a scan line that say what is usual
_CONTINUOUS, _CONTINUOUS_RAYS = 0.05, 5
_LEAST_CONTRAST = 0.03
_LOCAL_DEG, _SHARP_PX = 0.95, 1.2
_BINS = 16
_SAMPLES = 3000
_ROUGH = 3  # a share of the points will do where everything is blurred


@dataclass(frozen=True)
class Sums:
    """What a score is made of, by cell (a part in time and across the picture).

    Attributes:
        edges: (cells, 2) strengths of pictures at edges of clouds, times their weights; and the weights.
        counts: (cells, bins, bins) how often a reflectivity met a brightness.
    """

    edges: Float64
    counts: Float64


def edge_score(edges: Float64) -> float:
    """Mean strength, in standard deviations of pictures, of (..., 2) sums."""
    strength, weight = edges.reshape(-1, 2).sum(axis=0)
    return float(strength / max(weight, 1e-9))


def information(counts: Float64) -> float:
    """Mutual information, in nats, of (..., bins, bins) counts."""
    share = counts.reshape(-1, *counts.shape[-2:]).sum(axis=0)
    share = share / max(share.sum(), 1e-9)
    apart = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    there = share > 0
    return float(np.sum(share[there] * np.log(share[there] / apart[there])))


class Clues:
    """Edges and reflectivities of clouds near the picture, with the pictures of their moments.

    Args:
        frames: gray pictures (H, W) of the camera's size, 0 to 255, each with the cloud (N, C >= 3) of its
            moment in the LiDAR's frame: x, y, z in metres, and reflectivity if there is a fourth column.
        camera: intrinsics.
        guess: from the LiDAR's frame to the camera's optical frame.
        seed: of which points are taken.

    Attributes:
        edges: how many edges of clouds there are.
        blocks: how many parts in time.
        by: what is compared with brightness: `reflectivity`, or `range` where clouds have none that varies.
    """

    def __init__(
        self,
        frames: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        camera: CameraModel,
        guess: RigidTransform,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        size = min(1.0, _WIDEST_PX / camera.width)
        small = round(camera.width * size), round(camera.height * size)
        self._camera = camera.scaled(small[0] / camera.width, small[1] / camera.height)
        self.per_degree = self._camera.fx * np.pi / 180
        self._guess, self.blocks = guess, min(BLOCKS, max(len(frames), 1))
        self.by = _compared([cloud for _, cloud in frames])
        strengths, shades, edges, samples = [], [], list[Float64](), list[Float64]()
        for index, (gray, cloud) in enumerate(frames):
            values = np.asarray(gray, np.float32)
            if size < 1:
                values = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
            smooth = cv2.GaussianBlur(values, (0, 0), _SHARP_PX)
            strengths.append([edge_strength(smooth, *along) for along in ((1, 0), (0, 1))])
            shades.append(self._local_shade(values))
            block = index * self.blocks // len(frames)
            edges.append(self._edges(cloud, index, block))
            samples.append(self._samples(cloud, index, block, rng))
        self._strengths = np.array(strengths, np.float32)
        self._shades = _ranks(np.array(shades, np.float32))
        self._edge = np.concatenate(edges) if edges else np.zeros((0, 7))
        self._sample = np.concatenate(samples) if samples else np.zeros((0, 6))
        self._sample[:, 5] = _bins(self._sample[:, 5])
        # What is taken of it where little is needed must not be all of one frame.
        self._edge, self._sample = (rng.permutation(part) for part in (self._edge, self._sample))
        self.edges = len(self._edge)
        self.look(0.2, 0.08)

    def look(self, edge_deg: float, shade_deg: float, *, rough: bool = False) -> None:
        """Blur pictures by so many degrees from now on; `rough` takes part of the points."""
        self._share = _ROUGH if rough else 1
        self.keep()
        wide = max(edge_deg * self.per_degree, 0.6)
        maps = np.stack(
            [[cv2.GaussianBlur(m, (0, 0), wide) for m in two] for two in self._strengths]
        )
        middle, deviation = (
            maps.mean(axis=(2, 3), keepdims=True),
            maps.std(axis=(2, 3), keepdims=True),
        )
        self._maps = (maps - middle) / np.maximum(deviation, 1e-6)
        wide = max(shade_deg * self.per_degree, 0.6)
        self._shade_maps = np.stack([cv2.GaussianBlur(m, (0, 0), wide) for m in self._shades])

    def sums(self, move: Float64) -> Sums:
        """At the guess with errors (6,): metres, then radians about the camera's axes (`joint.moved`)."""
        turn = cv2.Rodrigues(np.asarray(move[3:], np.float64))[0]
        at = self._guess.translation + move[:3]
        cells = self.blocks * BANDS
        part = self._edge_now
        u, v, seen = self._pixels(part[:, :3] @ turn.T + at)
        part = part[seen]
        first = part[:, 3].astype(np.int64) * 2 + part[:, 6].astype(np.int64)
        found = _between(self._maps.reshape(-1, *self._maps.shape[2:]), first, u, v)
        cell = part[:, 4].astype(np.int64)
        edges = np.stack([np.bincount(cell, w, cells) for w in (found * part[:, 5], part[:, 5])], 1)
        part = self._sample_now
        u, v, seen = self._pixels(part[:, :3] @ turn.T + at)
        part = part[seen]
        shade = _between(self._shade_maps, part[:, 3].astype(np.int64), u, v) * (_BINS - 1)
        low = np.clip(np.floor(shade).astype(np.int64), 0, _BINS - 2)
        bin_ = (part[:, 4].astype(np.int64) * _BINS + part[:, 5].astype(np.int64)) * _BINS + low
        counts = np.bincount(bin_, 1 - (shade - low), cells * _BINS**2)
        counts += np.bincount(bin_ + 1, shade - low, cells * _BINS**2)
        shape = (cells, _BINS, _BINS)
        return Sums(edges.astype(np.float64), counts.reshape(shape).astype(np.float64))

    def keep(self, blocks: NDArray[np.bool_] | None = None) -> None:
        """Score some parts in time only, (blocks,) bool; all without."""
        self._edge_now, self._sample_now = self._edge[:: self._share], self._sample[:: self._share]
        if blocks is not None:
            cells = np.repeat(blocks, BANDS)
            self._edge_now = self._edge_now[cells[self._edge_now[:, 4].astype(np.int64)]]
            self._sample_now = self._sample_now[cells[self._sample_now[:, 4].astype(np.int64)]]

    def _pixels(self, points: Float64) -> tuple[Float64, Float64, NDArray[np.bool_]]:
        u, v, seen = self._camera.project_columns(*points.T)
        with np.errstate(invalid="ignore"):
            seen = seen & (u >= 0) & (u < self._camera.width - 1.001)
            seen &= (v >= 0) & (v < self._camera.height - 1.001)
        return u[seen], v[seen], seen

    def _near(self, points: Float64) -> tuple[NDArray[np.bool_], Float64]:
        """Which points may come into the picture, and their band of it."""
        there = self._guess.apply(points)
        u, v, seen = self._camera.project_columns(*there.T)
        margin = float(np.tan(_MARGIN)) * self._camera.fx
        with np.errstate(invalid="ignore"):
            seen = seen & (there[:, 2] > _NEAREST_M) & (np.abs(u - self._camera.width / 2) < margin
                                                        + self._camera.width / 2)  # fmt: skip
            seen &= np.abs(v - self._camera.height / 2) < margin + self._camera.height / 2
        share = np.clip(u[seen] / self._camera.width, 0, 1 - 1e-9)
        return seen, np.floor(share * BANDS)

    def _edges(self, cloud: NDArray[Any], index: int, block: int) -> Float64:
        """(N, 7) turned x, y, z; frame, cell, weight, top."""
        found = edges_of_cloud(cloud)
        seen, band = self._near(found.points)
        turned = found.points[seen] @ self._guess.rotation.T
        rest = [
            np.full(len(band), index),
            block * BANDS + band,
            found.weights[seen],
            found.tops[seen],
        ]
        return np.column_stack([turned, *rest])

    def _samples(
        self, cloud: NDArray[Any], index: int, block: int, rng: np.random.Generator
    ) -> Float64:
        """(N, 6) turned x, y, z; frame, cell, value."""
        good = is_return(cloud, _NEAREST_M)
        xyz = np.asarray(cloud[good, :3], np.float64)
        raw = np.asarray(cloud[good, 3], np.float64) if self.by == "reflectivity" else None
        value, smooth = _local_value(xyz, raw)
        seen, band = self._near(xyz)
        own = np.flatnonzero(seen & smooth)
        own = rng.permutation(own)[:_SAMPLES]
        where = np.zeros(len(xyz))
        where[seen] = band
        turned = xyz[own] @ self._guess.rotation.T
        return np.column_stack(
            [turned, np.full(len(own), index), block * BANDS + where[own], value[own]]
        )

    def _local_shade(self, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        wide = _LOCAL_DEG * self.per_degree
        middle = cv2.GaussianBlur(gray, (0, 0), wide)
        spread = cv2.GaussianBlur(gray * gray, (0, 0), wide) - middle * middle
        return np.asarray((gray - middle) / (np.sqrt(np.maximum(spread, 0)) + 3), np.float32)


def _compared(clouds: Sequence[NDArray[Any]]) -> str:
    there = [cloud[is_return(cloud), 3] for cloud in clouds if cloud.shape[1] > 3]
    values = np.concatenate(there) if len(there) == len(clouds) and there else np.zeros(0)
    return (
        "reflectivity"
        if len(values) and np.ptp(values) > 0 and np.isfinite(values).all()
        else "range"
    )


def _local_value(xyz: Float64, raw: Float64 | None) -> tuple[Float64, NDArray[np.bool_]]:
    """(N,) reflectivity, or range, by what is usual on the same scan line near by; and (N,) where it counts:
    next to where ranges jump, reflectivities do as well, of another cause."""
    ranges = np.linalg.norm(xyz, axis=1)
    up = np.arcsin(np.clip(xyz[:, 2] / np.maximum(ranges, 1e-9), -1, 1))
    order = np.lexsort((np.arctan2(xyz[:, 1], xyz[:, 0]), np.round(up / _ROW)))
    along = ranges[order]
    values = np.log(along) if raw is None else raw[order] / max(float(np.percentile(raw, 99)), 1e-6)
    if not len(values):
        return values, np.zeros(0, bool)
    middle = uniform_filter1d(values, _AROUND)
    spread = np.sqrt(np.maximum(uniform_filter1d(values * values, _AROUND) - middle * middle, 0))
    smooth = np.abs(along - uniform_filter1d(along, _CONTINUOUS_RAYS)) < _CONTINUOUS * along
    found, good = np.empty(len(xyz)), np.ones(len(xyz), bool)
    found[order] = (values - middle) / (spread + _LEAST_CONTRAST)
    if raw is not None:
        good[order] = smooth
    return found, good


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """From 0 to 1, by how many are smaller."""
    if not values.size:
        return values
    levels = np.quantile(values[:, ::8, ::8], np.linspace(0, 1, 256))
    return np.interp(values, levels, np.linspace(0, 1, 256)).astype(np.float32)


def _bins(values: Float64) -> NDArray[np.intp]:
    if not len(values):
        return np.zeros(0, np.intp)
    limits = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(limits, values, side="right")


def _between(
    maps: NDArray[np.float32], index: NDArray[np.int64], u: Float64, v: Float64
) -> Float64:
    """(N,) values of maps (K, H, W) between pixels."""
    x, y = u.astype(np.int64), v.astype(np.int64)
    a, b = u - x, v - y
    width = maps.shape[2]
    at = (index * maps.shape[1] + y) * width + x
    flat = maps.reshape(-1)
    top = flat[at] * (1 - a) + flat[at + 1] * a
    return np.asarray(top * (1 - b) + (flat[at + width] * (1 - a) + flat[at + width + 1] * a) * b)
