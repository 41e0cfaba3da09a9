"""Clouds of a LiDAR as scans: folders of them, and which ray has which neighbour.

Rays are told apart by their direction from the origin, so that clouds have to be in the sensor's own frame;
which scan line (ring) a point is of need not be known.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perception.adapters.files import CLOUD_SUFFIXES
from perception.errors import CalibrationError
from perception.files.listing import list_files
from perception.geometry.transforms import Float64
from perception.sensors.lidar.decode import load_lidar

FEWEST_POINTS = 100

_SAMPLED = 400
_SAME_LINE = 0.5  # of a line's spacing, or of a step along it
_STEEPEST = np.radians(80)
_LINE_UNITS = 10.0
_NEIGHBOURS = 16


def cloud_files(folder: Path) -> dict[str, Path]:
    """The clouds of a folder by stem, numbers by their value.

    Raises:
        CalibrationError: no such folder, or no cloud in it.
    """
    return list_files(folder, CLOUD_SUFFIXES, error=CalibrationError)


def read_points(path: Path) -> Float64:
    """(N, 3) float64 metres, without what is no return.

    Raises:
        AnySenseError: it cannot be read.
    """
    points = np.asarray(load_lidar(path).data[:, :3], np.float64)
    return points[np.isfinite(points).all(axis=1)]


class Scan:
    """Points with the directions of their rays.

    Args:
        points: (N, 3) float64 metres in the sensor's own frame.

    Attributes:
        ranges: (N,) metres.
        rays: (N, 3) unit vectors.
        angles: (N, 2) azimuth about z and elevation, radians.
    """

    def __init__(self, points: Float64) -> None:
        self.points = points
        self.ranges = np.linalg.norm(points, axis=1)
        self.rays = points / np.maximum(self.ranges, 1e-9)[:, None]
        flat = np.hypot(points[:, 0], points[:, 1])
        self.angles = np.column_stack(
            [np.arctan2(points[:, 1], points[:, 0]), np.arctan2(points[:, 2], flat)]
        )

    @cached_property
    def step(self) -> float:
        """The usual angle between two rays that follow each other on a scan line, radians."""
        found = self._nearest(cKDTree(self.angles).query(self.angles[self._some], 2)[0][:, 1])
        return max(found, 1e-5)

    @cached_property
    def spacing(self) -> float:
        """The usual angle between two scan lines, radians."""
        order = np.argsort(self.angles[:, 0])
        azimuth, elevation = self.angles[order].T
        gaps = []
        for index in self._some:
            at = self.angles[index]
            first, last = np.searchsorted(azimuth, [at[0] - self.step, at[0] + self.step])
            apart = np.abs(elevation[first:last] - at[1])
            apart = apart[apart > _SAME_LINE * self.step]
            if len(apart):
                gaps.append(float(apart.min()))
        return self._nearest(np.array(gaps)) if gaps else self.step

    @cached_property
    def _some(self) -> NDArray[np.intp]:
        level = np.flatnonzero(np.abs(self.angles[:, 1]) < _STEEPEST)
        return level[:: max(1, len(level) // _SAMPLED)]

    @staticmethod
    def _nearest(values: Float64) -> float:
        values = values[(values > 1e-7) & np.isfinite(values)]
        return float(np.median(values)) if len(values) else 0.0

    def beside(
        self, own: NDArray[np.intp], among: NDArray[np.intp], steps: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The next ray to the left and to the right on the same scan line.

        Args:
            own: (K,) indices of points.
            among: (M,) indices of points that may be neighbours.
            steps: how many steps off a neighbour may be.

        Returns:
            Twice (K,) indices of points, -1 where there is none.
        """
        scale = np.array([1 / self.step, _LINE_UNITS / max(self.spacing, self.step)])
        places = self.angles[among] * scale
        asked = self.angles[own] * scale
        middle = float(np.median(asked[:, 0]))
        around = 2 * np.pi / self.step  # what is asked for may lie behind the sensor
        places[:, 0] = (places[:, 0] - middle + around / 2) % around
        asked[:, 0] = (asked[:, 0] - middle + around / 2) % around
        count = min(_NEIGHBOURS, len(among))
        apart, found = cKDTree(places).query(asked, count, distance_upper_bound=steps)
        found = np.where(np.isfinite(apart), found, 0).reshape(len(own), count)
        apart = apart.reshape(found.shape)
        off = places[found] - asked[:, None]
        on_line = (
            np.isfinite(apart)
            & (np.abs(off[:, :, 1]) < _SAME_LINE * _LINE_UNITS)
            & (among[found] != own[:, None])
        )
        sides = []
        for sign in (1, -1):
            ahead = np.where(on_line & (sign * off[:, :, 0] > 1e-3), sign * off[:, :, 0], np.inf)
            best = ahead.argmin(axis=1)
            row = np.arange(len(own))
            sides.append(np.where(np.isfinite(ahead[row, best]), among[found[row, best]], -1))
        return sides[0], sides[1]
