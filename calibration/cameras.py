"""Where cameras sit to each other, from poses of a board that they saw: one bundle adjustment.

Intrinsics are known and stay; unknown are the cameras' places and the board's pose in each view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.boards import Board
from calibration.detection import BoardView, Detections
from calibration.extrinsics import FEWEST_POSES, check_tilts
from calibration.fitting import project_view, rms
from calibration.joint import board_pose, differences, middle_of, moved, small
from calibration.outcome import Doubted, plain_sigma, sigma_of
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

_NEAR_DEG, _NEAR_M, _NEAR_SHARE = 6.0, 0.03, 0.05
_OUTLIER, _OUTLIER_PX = 4.0, 1.0
_CAUCHY = 2.5
_STEPS = 50
_LEAST_PX = 0.05
_DOUBT_M, _DOUBT_DEG = 0.03, 0.5
_DOUBT_SHARE = 0.005
_AGREE = 0.5
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CameraPlace:
    """Where a camera was found.

    Attributes:
        transform: from its optical frame to that of the first camera.
        covariance: (6, 6) of x, y, z in metres and rotations about the first camera's axes in radians.
        rms_px: root mean square distance of its points from where the fit puts them.
        poses: how many it shares with the first camera.
    """

    transform: RigidTransform
    covariance: Float64
    rms_px: float
    poses: int

    @property
    def sigma(self) -> Float64:
        """(6,) standard deviations."""
        return sigma_of(self.covariance)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "to_reference": self.transform.matrix.tolist(),
            "sigma": plain_sigma(self.sigma),
            "covariance": self.covariance.tolist(),
            "rms_px": self.rms_px,
            "poses": self.poses,
        }


@dataclass(frozen=True)
class Cameras(Doubted):
    """The places of cameras, and what speaks for them.

    Attributes:
        places: of all but the first camera, by name.
        rms_px: of the first camera's points.
        left_out: poses by camera that were not used, with the reason.
        doubts: why the result is not to be trusted.
    """

    places: dict[str, CameraPlace]
    rms_px: float
    left_out: dict[str, dict[str, str]]
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "cameras": {name: place.to_dict() for name, place in self.places.items()},
            "rms_px": self.rms_px,
            "left_out": self.left_out,
            "doubts": list(self.doubts),
            "trusted": self.trusted,
        }


@dataclass(frozen=True)
class Seen:
    """A board in one camera's picture of one pose."""

    stem: str
    camera: str
    view: BoardView
    pose: RigidTransform


def calibrate_cameras(
    detections: Mapping[str, Detections], models: Mapping[str, CameraModel], board: Board
) -> Cameras:
    """Place cameras by the first of them.

    Args:
        detections: the board in each camera's pictures, by the camera's name; pictures of one pose have one
            stem.
        models: intrinsics by name.
        board: that they show.

    Raises:
        CalibrationError: too few poses that two cameras share, all under one angle, or that do not agree.
    """
    first, *others = detections
    left_out: dict[str, dict[str, str]] = {
        name: {Path(k).stem: v for k, v in own.left_out.items()} for name, own in detections.items()
    }
    known = {name: _poses(name, detections[name], models[name], board) for name in detections}
    seen: list[Seen] = []
    start: dict[str, RigidTransform] = {}
    for name in others:
        shared = [stem for stem in known[first] if stem in known[name]]
        if len(shared) < FEWEST_POSES:
            raise CalibrationError(
                f"{first} and {name} share {len(shared)} poses of the board, {FEWEST_POSES} are needed",
                hint="pictures of one pose must have one name: record 10 or more poses that both see",
            )
        check_tilts([known[first][stem].pose.rotation[:, 2] for stem in shared])
        start[name], turned = agreed(
            [known[first][s] for s in shared], [known[name][s] for s in shared], name
        )
        for stem, one in zip(shared, turned, strict=True):
            if one is None:
                left_out[name][stem] = f"shows another pose than {first}: did the board move?"
            else:
                seen.append(one)
    stems = {one.stem for one in seen}
    seen = [known[first][stem] for stem in known[first] if stem in stems] + seen
    fit = Bundle(seen, first, start, models, board)
    x, missed = fit.solve()
    by_view = np.array([rms(part) for part in missed])
    most = {
        name: max(
            _OUTLIER_PX, _OUTLIER * float(np.median(by_view[[s.camera == name for s in seen]]))
        )
        for name in detections
    }
    bad = [value > most[one.camera] for value, one in zip(by_view, seen, strict=True)]
    if any(bad):
        for one, value, out in zip(seen, by_view, bad, strict=True):
            if out:
                left_out[one.camera][one.stem] = (
                    f"{value:.1f} px off, others less than {most[one.camera]:.1f}"
                )
        gone = {one.stem for one, out in zip(seen, bad, strict=True) if out}
        seen = [one for one in seen if one.stem not in gone]
        if len({one.stem for one in seen}) < FEWEST_POSES:
            raise CalibrationError(
                "fewer than four poses agree", hint="record again, standing still"
            )
        fit = Bundle(seen, first, start, models, board)
        x, missed = fit.solve()
    return _judged(fit, x, missed, left_out, models)


def _poses(name: str, found: Detections, camera: CameraModel, board: Board) -> dict[str, Seen]:
    poses = {}
    for view in found.views:
        pose = board_pose(camera, view, board)
        if pose is not None:
            stem = Path(view.name).stem
            poses[stem] = Seen(stem, name, view, pose.pose)
    return poses


def agreed(
    own: Sequence[Seen], other: Sequence[Seen], name: str
) -> tuple[RigidTransform, list[Seen | None]]:
    """Where another camera is, as most poses say, and its views with points in the order of the first's.

    A board that looks the same upside down may be numbered from either end.
    """
    turned = [(one, upside_down(one)) for one in other]
    tried = [
        [mine.pose @ one.pose.inverse() for one in both]
        for mine, both in zip(own, turned, strict=True)
    ]
    best, most = tried[0][0], -1
    for guess in (one for both in tried for one in both):
        count = sum(
            any(near(guess, one, mine) for one in both)
            for both, mine in zip(tried, own, strict=True)
        )
        if count > most:
            best, most = guess, count
    if most < max(FEWEST_POSES, _AGREE * len(own)):
        raise CalibrationError(
            f"only {most} of {len(own)} poses agree on where {name} is",
            hint="pictures of one name must show the same pose, standing still; are board and intrinsics "
            "right, and is no camera mirrored?",
        )
    chosen: list[Seen | None] = []
    for both, guesses, mine in zip(turned, tried, own, strict=True):
        fitting = [v for v, guess in zip(both, guesses, strict=True) if near(best, guess, mine)]
        chosen.append(fitting[0] if fitting else None)
    return best, chosen


def upside_down(one: Seen) -> Seen:
    order = one.view.ids.max() - one.view.ids
    turn = RigidTransform(_HALF_TURN, np.zeros(3))
    return replace(one, view=replace(one.view, ids=order), pose=one.pose @ turn)


def near(guess: RigidTransform, other: RigidTransform, mine: Seen) -> bool:
    turn = np.degrees(np.linalg.norm(cv2.Rodrigues(guess.rotation @ other.rotation.T)[0]))
    # Compared where the board is: errors of the angle move the origin more.
    at = mine.pose.translation
    back = guess.inverse().apply(at[None]) - other.inverse().apply(at[None])
    return bool(
        turn < _NEAR_DEG and np.linalg.norm(back) < _NEAR_M + _NEAR_SHARE * np.linalg.norm(at)
    )


class Bundle:
    """Residuals and Jacobian over the places of cameras but the first, and the boards' poses after them."""

    def __init__(
        self,
        seen: Sequence[Seen],
        first: str,
        start: Mapping[str, RigidTransform],
        models: Mapping[str, CameraModel],
        board: Board,
        off_middle: Float64 | None = None,
    ) -> None:
        self.seen, self.first, self.start, self.models = seen, first, start, models
        self.names = list(start)
        self.stems = list(dict.fromkeys(one.stem for one in seen))
        self.boards: dict[str, RigidTransform] = {}
        for one in seen:
            at = one.pose if one.camera == first else start[one.camera] @ one.pose
            self.boards.setdefault(one.stem, at)
        self.points = board.points - middle_of(board)
        if off_middle is not None:
            self.points = self.points + off_middle
        self.scale = dict.fromkeys(models, 1.0)

    def _missed(self, one: Seen, values: Float64) -> Float64:
        """(2N,) pixels, of (12,) parameters: the camera's place and the board's pose."""
        at = self.boards[one.stem] @ small(values[6:])
        if one.camera != self.first:
            at = moved(self.start[one.camera], values[:6]).inverse() @ at
        vector = np.concatenate([cv2.Rodrigues(at.rotation)[0].ravel(), at.translation])
        put = project_view(self.models[one.camera], vector, self.points[one.view.ids])
        return (one.view.pixels - put).ravel()

    @property
    def count(self) -> int:
        """How many parameters there are."""
        return 6 * (len(self.names) + len(self.stems))

    def board_columns(self, stem: str) -> slice:
        """Parameters of the board's pose."""
        board = 6 * (len(self.names) + self.stems.index(stem))
        return slice(board, board + 6)

    def _columns(self, one: Seen) -> tuple[slice, slice]:
        camera = 0 if one.camera == self.first else 6 * self.names.index(one.camera)
        return slice(camera, camera + 6), self.board_columns(one.stem)

    def _own(self, one: Seen, x: Float64) -> Float64:
        place, board = self._columns(one)
        return np.concatenate([x[place], x[board]])

    def missed(self, x: Float64) -> list[Float64]:
        """(N, 2) pixels by view."""
        return [self._missed(one, self._own(one, x)).reshape(-1, 2) for one in self.seen]

    def by_camera(self, missed: Sequence[Float64]) -> dict[str, float]:
        """Root mean square in pixels by which points are off."""
        own: dict[str, list[Float64]] = {name: [] for name in self.models}
        for part, one in zip(missed, self.seen, strict=True):
            own[one.camera].append(part)
        return {name: rms(np.concatenate(parts)) for name, parts in own.items()}

    def residuals(self, x: Float64) -> Float64:
        """All in standard deviations."""
        parts = zip(self.missed(x), self.seen, strict=True)
        return np.concatenate([part.ravel() / self.scale[one.camera] for part, one in parts])

    def jacobian(self, x: Float64) -> Float64:
        """Derivatives of `residuals`."""
        rows = [2 * len(one.view.ids) for one in self.seen]
        found, start = np.zeros((sum(rows), len(x))), 0
        for one, count in zip(self.seen, rows, strict=True):

            def missed(values: Float64, one: Seen = one) -> Float64:
                return self._missed(one, values)

            part = differences(missed, self._own(one, x)) / self.scale[one.camera]
            place, board = self._columns(one)
            if one.camera != self.first:
                found[start : start + count, place] = part[:, :6]
            found[start : start + count, board] = part[:, 6:]
            start += count
        return found

    @property
    def pose_of_row(self) -> NDArray[np.intp]:
        """(rows of the residuals,) the index of the pose that each is of."""
        rows = [2 * len(one.view.ids) for one in self.seen]
        return np.repeat([self.stems.index(one.stem) for one in self.seen], rows)

    def between_poses(self, slope: Float64, off: Float64) -> Float64:
        """Covariance of the cameras' places as poses differ, see `jackknife`.

        Args:
            slope, off: the Jacobian and residuals at the solution.
        """
        root = 1 / np.sqrt(1 + (off / _CAUCHY) ** 2)
        places = np.arange(6 * len(self.names))
        boards = [self.board_columns(stem) for stem in self.stems]
        return jackknife(slope * root[:, None], off * root, self.pose_of_row, places, boards)

    def rescale(self, missed: Sequence[Float64]) -> None:
        """Take how well a camera's points are known from what is left of them."""
        for name in self.models:
            own = [p for p, one in zip(missed, self.seen, strict=True) if one.camera == name]
            if not own:
                continue
            usual = 1.4826 * float(np.median(np.abs(np.concatenate(own))))
            self.scale[name] = max(usual, _LEAST_PX)

    def solve(self) -> tuple[Float64, list[Float64]]:
        """Parameters and what is missed by view."""
        x = np.zeros(self.count)
        for _ in range(2):
            x = least_squares(
                self.residuals,
                x,
                self.jacobian,
                x_scale="jac",
                loss="cauchy",
                f_scale=_CAUCHY,
                max_nfev=_STEPS,
            ).x
            missed = self.missed(x)
            self.rescale(missed)
        return x, missed


def jackknife(
    slope: Float64,
    off: Float64,
    pose_of_row: NDArray[np.intp],
    places: NDArray[np.intp],
    boards: Sequence[slice],
) -> Float64:
    """Covariance of some parameters by a jackknife over poses, each left out to first order.

    Args:
        slope, off: the weighted Jacobian and residuals at the solution.
        pose_of_row: (R,) the index of each row's pose, -1 of rows that stay.
        places: (P,) the parameters' columns.
        boards: columns of each pose's board.

    Returns:
        (P, P).
    """
    stays = slope[pose_of_row < 0][:, places]
    total, parts = stays.T @ stays, []
    for index, board in enumerate(boards):
        rows = pose_of_row == index
        basis = np.linalg.qr(slope[rows, board])[0]  # what the board's pose takes up
        own = slope[rows][:, places]
        own = own - basis @ (basis.T @ own)
        parts.append((own.T @ own, own.T @ off[rows]))
        total = total + parts[-1][0]
    moves = np.array(
        [np.linalg.lstsq(total - inner, right, rcond=None)[0] for inner, right in parts]
    )
    moves -= moves.mean(axis=0)
    return np.asarray((len(parts) - 1) / len(parts) * moves.T @ moves)


def _judged(
    fit: Bundle,
    x: Float64,
    missed: Sequence[Float64],
    left_out: dict[str, dict[str, str]],
    models: Mapping[str, CameraModel],
) -> Cameras:
    slope, off = fit.jacobian(x), fit.residuals(x)
    free = max(1, len(off) - len(x))
    variance = float(np.sum(np.minimum(np.abs(off), _CAUCHY) ** 2)) / free
    covariance = np.asarray(np.linalg.pinv(slope.T @ slope, hermitian=True), np.float64)
    covariance = covariance * max(variance, 1.0)
    between = fit.between_poses(slope, off)
    by_camera = fit.by_camera(missed)
    places = {}
    for index, name in enumerate(fit.names):
        own = slice(6 * index, 6 * index + 6)
        count = sum(one.camera == name for one in fit.seen)
        inner = covariance[own, own]
        # Poses may differ by more than their points' noise says: a bent board, one that moved, intrinsics.
        scatter = float(np.trace(np.linalg.pinv(inner, hermitian=True) @ between[own, own])) / 6
        inner = inner * max(1.0, scatter)
        place = CameraPlace(moved(fit.start[name], x[own]), inner, by_camera[name], count)
        places[name] = place
    doubts = doubts_of(places, by_camera, models)
    return Cameras(places, by_camera[fit.first], left_out, tuple(doubts))


def doubts_of(
    places: Mapping[str, CameraPlace],
    by_camera: Mapping[str, float],
    models: Mapping[str, CameraModel],
) -> list[str]:
    """Why places of cameras are not to be trusted; `by_camera` is by how many pixels points are off."""
    doubts = []
    for name, place in places.items():
        move = float(np.linalg.norm(place.sigma[:3]))
        turn = float(np.degrees(np.linalg.norm(place.sigma[3:])))
        if not (move < _DOUBT_M and turn < _DOUBT_DEG):
            doubts.append(f"{name} is known to {100 * move:.1f} cm and {turn:.2f} degrees only")
    for name, value in by_camera.items():
        if value > max(1.0, _DOUBT_SHARE * models[name].width):
            doubts.append(f"points of {name} are {value:.1f} px off: are its intrinsics right?")
    return doubts
