"""The problem of one LiDAR and several cameras that see a board: views, residuals, and covariance.

Residuals are those of the cameras (`calibration.cameras`) and of the LiDAR (`calibration.joint`), whose board
is now the one that all cameras saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from calibration.boards import Board
from calibration.cameras import Bundle, Seen, jackknife
from calibration.joint import (
    BoardPose,
    Joint,
    Noise,
    Pair,
    Problem,
    line_bias,
    loss_of,
    moved,
    plate_alone,
    small,
    spread_of,
)
from calibration.plates import Plate, PlateView
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

_STEPS, _DONE = 50, 1e-6
_CAUCHY = 2.5


@dataclass
class Views:
    """What sensors saw of the board, and where they are to begin with."""

    models: Mapping[str, CameraModel]
    board: Board
    plate: Plate
    known: dict[str, dict[str, BoardPose]]  # by camera and pose
    plates: dict[str, PlateView]  # by pose
    start: dict[str, RigidTransform]  # other cameras
    lidar: RigidTransform
    seen: list[Seen]
    both: int  # of how many poses the first camera and the LiDAR show something

    @property
    def first(self) -> str:
        """The camera by which all are placed."""
        return next(iter(self.models))

    def without(self, stems: set[str]) -> Views:
        """The same without some poses."""
        return replace(
            self,
            seen=[one for one in self.seen if one.stem not in stems],
            plates={stem: own for stem, own in self.plates.items() if stem not in stems},
        )


class RigFit:
    """Residuals and Jacobian of cameras, then of the LiDAR, over the parameters of the bundle and behind them
    the LiDAR's place and the plate's excess."""

    def __init__(self, views: Views) -> None:
        self.views = views
        bundle = Bundle(
            views.seen, views.first, views.start, views.models, views.board, views.plate.pattern
        )
        self.bundle, self.stems = bundle, list(views.plates)
        self.pose_of_row = bundle.pose_of_row
        # Cameras have residuals of their own: nothing holds the board in the LiDAR's part.
        view_of = {one.stem: one.view for one in views.seen}
        self.pairs = [
            Pair(s, BoardPose(view_of[s], bundle.boards[s], np.zeros((6, 6)), 0.0), views.plates[s])
            for s in self.stems
        ]
        own = [np.arange(bundle.count)[bundle.board_columns(stem)] for stem in self.stems]
        self.columns = np.concatenate([bundle.count + np.arange(7), *own])
        self.count = bundle.count + 7
        self.noise = Noise(line_bias([pair.plate for pair in self.pairs]))
        self._set()

    def _set(self) -> None:
        self.lidar = Problem(self.pairs, self.views.plate, self.views.lidar, self.noise)
        self.cameras = len(self.pose_of_row)
        self.robust = np.concatenate([np.ones(self.cameras, bool), self.lidar.robust])

    def residuals(self, x: Float64) -> Float64:
        """All in standard deviations."""
        own = self.lidar.residuals(x[self.columns])
        return np.concatenate([self.bundle.residuals(x[: self.bundle.count]), own])

    def jacobian(self, x: Float64) -> Float64:
        """Derivatives of `residuals`."""
        found = np.zeros((len(self.robust), self.count))
        found[: self.cameras, : self.bundle.count] = self.bundle.jacobian(x[: self.bundle.count])
        found[self.cameras :, self.columns] = self.lidar.jacobian(x[self.columns])
        return found

    def solve(self, x: Float64) -> Float64:
        """The parameters; how well points and edges are known is told by what is left of them."""
        for _ in range(2):
            x = least_squares(
                self.residuals,
                x,
                self.jacobian,
                x_scale="jac",
                loss=loss_of(self.robust),
                max_nfev=_STEPS,
                ftol=_DONE,
            ).x
            self.bundle.rescale(self.bundle.missed(x[: self.bundle.count]))
            edges = np.concatenate(self.lidar.edges(x[self.columns])) * self.noise.edge_scale
            self.noise = replace(self.noise, edge_scale=spread_of(edges))
            self._set()
        return x

    def starts(self, x: Float64) -> dict[str, RigidTransform]:
        """Where the other cameras are."""
        names = self.bundle.names
        return {n: moved(self.views.start[n], x[6 * i : 6 * i + 6]) for i, n in enumerate(names)}

    def lidar_at(self, x: Float64) -> RigidTransform:
        """Where the LiDAR is."""
        return moved(self.views.lidar, x[self.bundle.count : self.bundle.count + 6])

    def joint(self, x: Float64, covariance: Float64 | None = None, scatter: float = 1.0) -> Joint:
        """The LiDAR's part of the answer."""
        known = np.zeros((6, 6)) if covariance is None else covariance
        return Joint(self.lidar_at(x), known, scatter, float(x[-1]), self.noise)

    def boards(self, x: Float64) -> list[Pair]:
        """The LiDAR's poses with the board where the fit has it, in the first camera."""
        found = []
        for pair in self.pairs:
            at = pair.board.pose @ small(x[self.bundle.board_columns(pair.name)])
            found.append(replace(pair, board=replace(pair.board, pose=at)))
        return found

    def covariance(self, x: Float64) -> tuple[Float64, float]:
        """(6S, 6S) of all places and by how much more the LiDAR's poses differ than their noise says."""
        slope, off = self.jacobian(x), self.residuals(x)
        front, back = slice(0, self.cameras), slice(self.cameras, None)
        weight = np.sqrt(loss_of(self.robust)(off**2)[1])
        clipped = np.minimum(np.abs(off[front]), _CAUCHY)
        free = max(1, self.cameras - self.bundle.count)
        variance = max(1.0, float(np.sum(clipped**2)) / free)
        known = np.concatenate([np.ones(self.cameras), weight[back]])[:, None] * slope
        inverse = np.linalg.pinv(known.T @ known, hermitian=True)
        varied = self.lidar.varied(known[back]) + variance * known[front].T @ known[front]
        places = np.r_[np.arange(6 * len(self.bundle.names)), self.bundle.count + np.arange(6)]
        inner = (inverse @ varied @ inverse)[np.ix_(places, places)]
        scatter = self._scatter(x, slope[front] * weight[front, None], (off * weight)[front])
        between = self._between(slope * weight[:, None], off * weight)
        # Poses may differ by more than their noise says, and not by the same for each sensor.
        more = [scatter**2] * (len(self.bundle.names) + 1)
        for index in range(len(self.bundle.names)):
            own = slice(6 * index, 6 * index + 6)
            excess = np.trace(np.linalg.pinv(inner[own, own], hermitian=True) @ between[own, own])
            more[index] = max(1.0, float(excess) / 6)
        root = np.sqrt(np.repeat(more, 6))
        return root[:, None] * inner * root, scatter

    def _between(self, slope: Float64, off: Float64) -> Float64:
        """Covariance of the cameras' places as poses differ."""
        index_of = {stem: index for index, stem in enumerate(self.bundle.stems)}
        pose_of_row = [
            np.full(4 + len(block.edges) + 6, index_of[stem])
            for block, stem in zip(self.lidar.blocks, self.stems, strict=True)
        ]
        of_row = np.concatenate([self.pose_of_row, *pose_of_row, np.array([-1])])
        count = 6 * len(self.bundle.names)
        columns = np.r_[np.arange(count), self.bundle.count + np.arange(7)]
        boards = [self.bundle.board_columns(stem) for stem in self.bundle.stems]
        return jackknife(slope, off, of_row, columns, boards)[:count, :count]

    def _scatter(self, x: Float64, slope: Float64, off: Float64) -> float:
        """By how much more cameras and LiDAR differ about the board than their noise says."""
        together = self.lidar.costs(x[self.columns])
        for index, stem in enumerate(self.stems):
            rows = self.pose_of_row == self.bundle.stems.index(stem)
            basis = np.linalg.qr(slope[rows, self.bundle.board_columns(stem)])[0]
            together[index] += float(np.sum((basis.T @ off[rows]) ** 2))
        plate, excess = self.views.plate, float(x[-1])
        alone = [plate_alone(plate, pair.plate, self.noise, excess)[1] for pair in self.pairs]
        planes = sum(min(3.0, 0.75 * float(np.trace(block.spread))) for block in self.lidar.blocks)
        free = max(1.0, 3 * len(self.pairs) + planes - 7)
        return float(np.sqrt(max(1.0, np.maximum(together - np.array(alone), 0).sum() / free)))


def lidar_to_camera(
    camera: RigidTransform, lidar: RigidTransform, covariance: Float64
) -> tuple[RigidTransform, Float64]:
    """From the LiDAR to a camera, of both by the first one, and its covariance (6, 6).

    Args:
        camera, lidar: to the first camera.
        covariance: (12, 12) of both, as in a rig.
    """
    back = camera.rotation.T
    x, y, z = lidar.translation - camera.translation
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    by = np.zeros((6, 12))
    by[:3, :3], by[:3, 6:9], by[:3, 3:6] = -back, back, back @ cross
    by[3:, 3:6], by[3:, 9:] = -back, back
    return camera.inverse() @ lidar, by @ covariance @ by.T
