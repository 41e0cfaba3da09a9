"""Fitting one camera to views of a board: least squares over intrinsics and all poses at once.

The projection is that of `CameraModel`, whose derivatives are taken by central differences: what is fitted
is what the runtime uses, whatever the model.  Blunders are weighed down by Cauchy's loss (Triggs et al.,
"Bundle Adjustment: A Modern Synthesis", 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import least_squares

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.outcome import sigma_of
from calibration.parameters import Form, camera_of, first_guess, steps_of
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64

_STEPS = 60
_ROUNDS = 2
_BLUNDER = 5.0
_DONE = 1e-9
_MOVE = 1e-6  # metres, as the boards' points
_FOCALS = (0.35, 0.55, 0.8, 1.1, 1.6, 2.4)
_TRIED_STEPS = 6
_CAUCHY = 3.0
_LOST = 1e4


@dataclass(frozen=True)
class Fit:
    """A camera fitted to views.

    Attributes:
        form, values: the parameters, see `parameters.Form.names`.
        size: (width, height) of the pictures.
        poses: (V, 6) rotation vector (radians) and translation (metres) from the board to the camera.
        residuals: of each view (N, 2) pixels, seen less predicted.
        covariance: of the parameters, from the Jacobian and the residuals.
    """

    form: Form
    values: Float64
    size: tuple[int, int]
    poses: Float64
    residuals: tuple[Float64, ...]
    covariance: Float64

    @property
    def camera(self) -> CameraModel:
        """The camera model."""
        return camera_of(self.form, self.values, self.size)

    @property
    def rms_px(self) -> float:
        """Root mean square of the distances of seen and predicted points, in pixels."""
        return rms(np.concatenate(self.residuals))

    @property
    def view_rms_px(self) -> Float64:
        """The same by view."""
        return np.array([rms(part) for part in self.residuals])

    @property
    def sigma(self) -> Float64:
        """Standard deviations of the parameters."""
        return sigma_of(self.covariance)


def rms(residuals: Float64) -> float:
    """Root mean square length of (N, 2) residuals."""
    return float(np.sqrt(np.mean(np.sum(residuals**2, axis=1)))) if len(residuals) else 0.0


def project_view(camera: CameraModel, pose: Float64, points: Float64) -> Float64:
    """(N, 2) pixels of a board's points (N, 3) under a pose; far off where the model does not cover them."""
    return _pixels(camera, points @ cv2.Rodrigues(pose[:3])[0].T + pose[3:])


def _pixels(camera: CameraModel, seen: Float64) -> Float64:
    pixels, valid = camera.project(seen)
    return np.where(valid[:, None], pixels, _LOST * max(camera.width, camera.height))


def fit(
    form: Form,
    views: Sequence[BoardView],
    board: Board,
    start: Fit | None = None,
) -> Fit:
    """Fit a camera to views.

    Args:
        form: of camera model.
        views: of pictures of one size.
        board: that they show.
        start: of the same form, to go on from: parameters and the poses of these views, in order.

    Raises:
        CalibrationError: the views do not hold a camera.
    """
    size = views[0].size
    if start is not None:
        return _descend(form, views, board, size, start.values, start.poses, _STEPS)
    best: Fit | None = None
    for share in _FOCALS:
        values = first_guess(form, size, share * max(size))
        poses = first_poses(camera_of(form, values, size), views, board)
        if poses is None:
            continue
        try:
            tried = _descend(form, views, board, size, values, poses, _TRIED_STEPS, rounds=1)
        except CalibrationError:
            continue
        if best is None or tried.rms_px < best.rms_px:
            best = tried
    if best is None:
        raise CalibrationError(
            f"no {form.name} camera explains the pictures", hint="is the board's size right?"
        )
    return _descend(form, views, board, size, best.values, best.poses, _STEPS)


def first_poses(camera: CameraModel, views: Sequence[BoardView], board: Board) -> Float64 | None:
    """(V, 6) poses of the board under a camera; None where a view allows none."""
    poses = []
    for view in views:
        rays = camera.unproject(view.pixels, 1.0)
        good = np.isfinite(rays).all(axis=1) & (np.abs(rays[:, :2]) < 20).all(axis=1)
        if good.sum() < max(4, len(rays) // 2):
            return None
        points = board.points[view.ids[good]]
        try:
            found, turn, move = cv2.solvePnP(
                points,
                np.ascontiguousarray(rays[good, :2]),
                np.eye(3),
                None,
                flags=cv2.SOLVEPNP_IPPE,
            )
        except cv2.error:
            return None
        if not found or not np.isfinite(move).all():
            return None
        poses.append(np.concatenate([turn.ravel(), move.ravel()]))
    return np.array(poses)


def fit_pose(camera: CameraModel, view: BoardView, board: Board) -> tuple[Float64, Float64] | None:
    """The pose (6,) of a board under a known camera, and the residuals (N, 2); None where there is none."""
    first = first_poses(camera, [view], board)
    if first is None:
        return None
    pose, points = first[0], board.points[view.ids]
    damping, missed = 1e-3, view.pixels - project_view(camera, pose, points)
    for _ in range(_STEPS):
        slope = _pose_slope(camera, pose, points).reshape(-1, 6)
        normal, gradient = slope.T @ slope, slope.T @ missed.ravel()
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), gradient)
        now = view.pixels - project_view(camera, pose + step, points)
        if np.sum(now**2) < np.sum(missed**2):
            small = np.sum(missed**2) - np.sum(now**2) < _DONE * np.sum(missed**2)
            pose, missed, damping = pose + step, now, max(damping / 5, 1e-12)
            if small:
                break
        else:
            damping *= 8
            if damping > 1e8:
                break
    return pose, missed


def _pose_slope(camera: CameraModel, pose: Float64, points: Float64) -> Float64:
    """(N, 2, 6) derivatives of the pixels by the pose."""
    turn, by_turn = cv2.Rodrigues(pose[:3])
    inner = _point_slope(camera, points @ turn.T + pose[3:])
    moved = np.einsum("kij,nj->nik", by_turn.reshape(3, 3, 3), points)
    return np.concatenate([inner @ moved, inner], axis=2)


def _point_slope(camera: CameraModel, seen: Float64) -> Float64:
    """(N, 2, 3) derivatives of the pixels by the point in the camera's frame."""
    columns = []
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = _MOVE
        ahead, behind = (_pixels(camera, seen + s * step) for s in (1, -1))
        columns.append((ahead - behind) / (2 * _MOVE))
    return np.stack(columns, axis=2)


def _camera_slope(form: Form, values: Float64, size: tuple[int, int], seen: Float64) -> Float64:
    """(N, 2, P) derivatives of the pixels by the camera's parameters, of points in its frame."""
    columns = []
    for index, width in enumerate(steps_of(values)):
        step = np.zeros(len(values))
        step[index] = width
        ahead, behind = (_pixels(camera_of(form, values + s * step, size), seen) for s in (1, -1))
        columns.append((ahead - behind) / (2 * width))
    return np.stack(columns, axis=2)


def _descend(
    form: Form,
    views: Sequence[BoardView],
    board: Board,
    size: tuple[int, int],
    values: Float64,
    poses: Float64,
    steps: int,
    rounds: int = _ROUNDS,
) -> Fit:
    problem = _Problem(form, views, board, size)
    x = np.concatenate([values, poses.ravel()])
    for _ in range(rounds):  # the scale of what is no blunder is known only after the first
        problem.scale = _scale(problem.missed(x))
        x = least_squares(
            problem.residuals,
            x,
            problem.jacobian,
            x_scale="jac",
            loss="cauchy",
            f_scale=_CAUCHY * problem.scale,
            max_nfev=steps,
            ftol=_DONE,
            xtol=_DONE,
            gtol=None,
        ).x
    count = len(values)
    values, poses = x[:count], x[count:].reshape(-1, 6)
    camera_of(form, values, size)  # says so where it is none
    missed = problem.missed(x)
    return Fit(form, values, size, poses, tuple(missed), problem.covariance(x))


class _Problem:
    """Residuals and Jacobian over the parameters of the camera, and the poses after them."""

    def __init__(
        self, form: Form, views: Sequence[BoardView], board: Board, size: tuple[int, int]
    ) -> None:
        self.form, self.size, self.scale = form, size, 1.0
        self.seen = [view.pixels for view in views]
        self.points = [board.points[view.ids] for view in views]
        self.ends = np.cumsum([len(seen) for seen in self.seen])
        self.count = 4 + len(form.coefficients)
        self.expected = np.array([0.0] * 4 + list(form.first))
        self.held = 1 / np.array([np.inf] * 4 + list(form.widths))

    def missed(self, x: Float64) -> list[Float64]:
        """Seen less predicted, by view; far off where the parameters are those of no camera."""
        try:
            camera = camera_of(self.form, x[: self.count], self.size)
        except CalibrationError:
            return [np.full_like(seen, _LOST) for seen in self.seen]
        put = _pixels(camera, self._turned(x))
        return np.split(np.concatenate(self.seen) - put, self.ends[:-1])

    def _turned(self, x: Float64) -> Float64:
        """The points of all views in the camera's frame."""
        poses = x[self.count :].reshape(-1, 6)
        turns = (cv2.Rodrigues(pose[:3])[0] for pose in poses)
        found = [
            points @ turn.T + pose[3:]
            for points, turn, pose in zip(self.points, turns, poses, strict=True)
        ]
        return np.concatenate(found)

    def residuals(self, x: Float64) -> Float64:
        """All of them, and behind them how far coefficients are from what is expected of them."""
        off = self.scale * self.held * (x[: self.count] - self.expected)
        return np.concatenate([*(part.ravel() for part in self.missed(x)), off])

    def jacobian(self, x: Float64) -> Float64:
        """Derivatives of `residuals`."""
        values, poses = x[: self.count], x[self.count :].reshape(-1, 6)
        camera = camera_of(self.form, values, self.size)
        turned, rows = self._turned(x), 2 * int(self.ends[-1])
        found = np.zeros((rows + self.count, len(x)))
        by_camera = _camera_slope(self.form, values, self.size, turned)
        found[:rows, : self.count] = -by_camera.reshape(-1, self.count)
        inner, first = _point_slope(camera, turned), 0
        for index, (pose, points) in enumerate(zip(poses, self.points, strict=True)):
            last, column = int(self.ends[index]), self.count + 6 * index
            by_turn = cv2.Rodrigues(pose[:3])[1].reshape(3, 3, 3)
            moved = np.einsum("kij,nj->nik", by_turn, points)
            own = np.concatenate([inner[first:last] @ moved, inner[first:last]], axis=2)
            found[2 * first : 2 * last, column : column + 6] = -own.reshape(-1, 6)
            first = last
        found[rows:, : self.count] = np.diag(self.scale * self.held)
        return found

    def covariance(self, x: Float64) -> Float64:
        """Of the camera's parameters: the poses' share of what is unknown is in it."""
        slope, missed = self.jacobian(x), np.concatenate(self.missed(x)).ravel()
        inner = np.abs(missed) < _BLUNDER * self.scale
        free = max(1, int(inner.sum()) - len(x))
        variance = float(np.sum(missed[inner] ** 2)) / free
        slope = slope[np.concatenate([inner, np.ones(self.count, bool)])]
        lengths = np.linalg.norm(slope, axis=0)
        lengths[lengths == 0] = 1.0
        slope = slope / lengths  # pixels and coefficients differ by orders of magnitude
        inverse = np.linalg.pinv(slope.T @ slope, hermitian=True) / lengths / lengths[:, None]
        return np.asarray(variance * inverse[: self.count, : self.count])


def _scale(missed: Sequence[Float64]) -> float:
    """The standard deviation of one coordinate, from the median: blunders do not move it."""
    return max(1.4826 * float(np.median(np.abs(np.concatenate(missed)))), 1e-6)
