"""Where a LiDAR and a camera sit to each other: one least squares over all poses of a board.

Unknown are the transform, the board's pose in each view, and by how much the plate seems larger than it is
(a beam is wide).  Residuals are the plate's points off its plane, its edges off the outline, and the board's
pose off the one that the camera saw, each in standard deviations; edges have Cauchy's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.fitting import fit_pose, project_view, rms
from calibration.pairing import Places
from calibration.plates import Plate, PlateView, outline_distance
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

Mask = NDArray[np.bool_]

_WIDER_M = 0.02  # what is expected of the beam's width
_CAUCHY = 2.5
_STEP = 1e-5
_STEPS = 40
_LEAST_PX = 0.05
_ROUNDING = 1e-12
_DONE = 1e-6
_BLUNDER = 3.0
_LEAST_SCALE = 0.3


@dataclass(frozen=True)
class BoardPose:
    """A board as the camera saw it.

    Attributes:
        view: its points.
        pose: from the plate's frame (the board's, moved to its middle) to the camera's.
        root: (6, 6) square root of the information about small motions of the plate, see `moved`.
        rms_px: root mean square distance of its points from where they should be.
    """

    view: BoardView
    pose: RigidTransform
    root: Float64
    rms_px: float

    @property
    def places(self) -> Places:
        """Its middle and normal."""
        return Places(self.pose.translation, self.pose.rotation[:, 2])


@dataclass(frozen=True)
class Pair:
    """One pose of the board, in the picture and in the cloud of the same name."""

    name: str
    board: BoardPose
    plate: PlateView


@dataclass(frozen=True)
class Noise:
    """What a LiDAR's points are off by beyond what each plate says of its own.

    Attributes:
        line_m: standard deviation of the bias of a whole scan line.
        edge_scale: how many times more edges are off than half the distance of two rays explains.
    """

    line_m: float = 0.0
    edge_scale: float = 1.0


def line_bias(plates: Sequence[PlateView]) -> float:
    """Standard deviation of the bias of whole scan lines, from how they scatter about planes; metres."""
    excess, free = 0.0, 0
    for view in plates:
        lines = len(view.counts)
        if lines > 3:
            random = (lines - 3) / lines * np.sum(view.noise_m**2 / view.counts)
            excess += float(np.sum(view.line_off_m**2) - random)
            free += lines - 3
    return float(np.sqrt(max(0.0, excess / free))) if free else 0.0


@dataclass(frozen=True)
class Joint:
    """The fit over all poses.

    Attributes:
        transform: from the LiDAR's frame to the camera's.
        covariance: (6, 6) of x, y, z in metres and rotations about the camera's axes in radians.
        scatter: how many times more the poses differ than their noise says; it is in the covariance.
        wider_m: by how much the plate seems larger on each side.
    """

    transform: RigidTransform
    covariance: Float64
    scatter: float
    wider_m: float
    noise: Noise


def small(values: Float64) -> RigidTransform:
    """A motion from (6,): metres along x, y, z and a rotation vector in radians."""
    return RigidTransform(cv2.Rodrigues(np.asarray(values[3:], np.float64))[0], values[:3])


def moved(transform: RigidTransform, values: Float64) -> RigidTransform:
    """A transform whose errors are (6,) as in a rig's covariance: translation, then rotation about the axes
    of the frame that it leads to."""
    turn = cv2.Rodrigues(np.asarray(values[3:], np.float64))[0]
    return RigidTransform(turn @ transform.rotation, transform.translation + values[:3])


def _motion(values: Float64) -> Float64:
    """(4, 4) of `small`, without its checks."""
    found = np.eye(4)
    found[:3, :3] = cv2.Rodrigues(np.ascontiguousarray(values[3:6]))[0]
    found[:3, 3] = values[:3]
    return found


def _undone(matrix: Float64) -> Float64:
    """(4, 4) the inverse of a rigid one."""
    found = np.eye(4)
    found[:3, :3] = matrix[:3, :3].T
    found[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return found


def middle_of(board: Board) -> Float64:
    """(3,) the middle of a board's points in its frame."""
    return np.asarray((board.points.min(axis=0) + board.points.max(axis=0)) / 2)


def board_pose(
    camera: CameraModel, view: BoardView, board: Board, off_middle: Float64 | None = None
) -> BoardPose | None:
    """The board's pose in a picture and how well it is known; None where the camera cannot see it so.

    Args:
        camera: intrinsics.
        view: the board in the picture.
        board: what it is.
        off_middle: (3,) metres by which its pattern is off the middle of its plate, whose pose is told;
            0 by default.

    Raises:
        CalibrationError: the picture is not of the camera's size.
    """
    if view.size != (camera.width, camera.height):
        raise CalibrationError(
            f"is {view.size[0]}x{view.size[1]}, its camera {camera.width}x{camera.height}",
            where=view.name,
            hint="intrinsics are those of pictures of one size",
        )
    found = fit_pose(camera, view, board)
    if found is None:
        return None
    values, missed = found
    middle = middle_of(board) - (0 if off_middle is None else off_middle)
    points = board.points[view.ids] - middle
    turn = cv2.Rodrigues(values[:3])[0]
    pose = RigidTransform(turn, values[3:] + turn @ middle)

    def put(x: Float64) -> Float64:
        at = pose @ small(x)
        vector = np.concatenate([cv2.Rodrigues(at.rotation)[0].ravel(), at.translation])
        return project_view(camera, vector, points).ravel()

    slope = differences(put, np.zeros(6))
    free = max(1, missed.size - 6)
    sigma = max(float(np.sqrt(np.sum(missed**2) / free)), _LEAST_PX)
    return BoardPose(view, pose, np.linalg.qr(slope / sigma)[1], rms(missed))


def differences(function: Callable[[Float64], Float64], x: Float64) -> Float64:
    """Derivatives by central differences, (residuals, parameters)."""
    columns = []
    for index in range(len(x)):
        step = np.zeros(len(x))
        step[index] = _STEP
        columns.append((function(x + step) - function(x - step)) / (2 * _STEP))
    return np.stack(columns, axis=1)


class _Block:
    """Residuals of one plate in a cloud, given its pose there."""

    def __init__(self, plate: Plate, view: PlateView, noise: Noise) -> None:
        self.plate, self.view = plate, view
        # Points of one line share its bias: many of them are taken to say no more about it than one does.
        # Their slope could say more, but on real plates it is off as well.
        counts, inner, shared = view.counts, view.noise_m**2, noise.line_m**2
        weights = 1 / (inner + counts * shared)
        moments = np.einsum("k,kij->ij", weights, view.lines)
        ridge = _ROUNDING * np.trace(moments) * np.eye(4)
        self.root = np.linalg.cholesky(moments + ridge).T
        # What the noise leaves of `root` times the plane, given those weights.
        sums = view.lines[:, :, 3]
        varied = np.einsum("k,kij->ij", weights**2 * inner, view.lines)
        varied += np.einsum("k,ki,kj->ij", weights**2 * shared, sums, sums)
        back = np.linalg.inv(self.root)
        self.spread = back.T @ varied @ back
        self.weight = 1 / (noise.edge_scale * view.edge_sigma_m)
        self.edges = np.column_stack([view.edges, np.ones(len(view.edges))])

    def edges_off(self, to_plate: Float64, wider: float) -> Float64:
        """(M,) metres."""
        places = self.edges @ to_plate[:2].T
        return outline_distance(places, self.plate.halves + wider)

    def residuals(self, to_plate: Float64, wider: float) -> Float64:
        """(4 + M,) in standard deviations; `to_plate` (4, 4) leads from the sensor to the plate."""
        off = self.edges_off(to_plate, wider) * self.weight
        return np.concatenate([self.root @ to_plate[2], off])

    def slope(self, to_plate: Float64, by: Float64, wider: float) -> Float64:
        """(4 + M, P + 1) their derivatives by parameters of which `by` (P, 4, 4) are those of `to_plate`,
        and by the excess."""
        places, halves = self.edges @ to_plate[:2].T, self.plate.halves + wider
        columns = [
            outline_distance(places + step, halves) - outline_distance(places - step, halves)
            for step in np.eye(2) * _STEP
        ]
        gradient = np.stack(columns, axis=1) / (2 * _STEP)
        moves = np.einsum("pij,mj->pmi", by[:, :2], self.edges)
        off = np.einsum("mi,pmi->mp", gradient, moves) * self.weight[:, None]
        grown = outline_distance(places, halves + _STEP) - outline_distance(places, halves - _STEP)
        excess = np.concatenate([np.zeros(4), grown / (2 * _STEP) * self.weight])
        return np.column_stack([np.vstack([(by[:, 2] @ self.root.T).T, off]), excess])

    def robust(self) -> Mask:
        """(4 + M,) which of them have Cauchy's loss."""
        return np.arange(4 + len(self.edges)) >= 4


def loss_of(robust: Mask) -> Callable[[Float64], Float64]:
    """Cauchy's loss of some residuals, none of the others, as scipy wants it."""
    square = _CAUCHY**2

    def loss(z: Float64) -> Float64:
        inner = 1 + z / square
        return np.stack(
            [
                np.where(robust, square * np.log(inner), z),
                np.where(robust, 1 / inner, 1.0),
                np.where(robust, -1 / (square * inner**2), 0.0),
            ]
        )

    return loss


def _cost(residuals: Float64, robust: Mask) -> float:
    return float(loss_of(robust)(residuals**2)[0].sum())


def plate_alone(
    plate: Plate, view: PlateView, noise: Noise, wider: float = 0.0
) -> tuple[RigidTransform, float]:
    """The plate's pose in a cloud by itself, and the cost that is left."""
    block = _Block(plate, view, noise)
    robust = block.robust()

    first = view.pose.matrix

    def to_plate(x: Float64) -> Float64:
        return _undone(first @ _motion(x))

    def slope(x: Float64) -> Float64:
        by = differences(lambda v: to_plate(v).ravel(), x).T.reshape(-1, 4, 4)
        return block.slope(to_plate(x), by, wider)[:, :6]

    done = least_squares(
        lambda x: block.residuals(to_plate(x), wider),
        np.zeros(6),
        slope,
        loss=loss_of(robust),
        max_nfev=_STEPS,
        ftol=_DONE,
    )
    return view.pose @ small(done.x), 2 * float(done.cost)


def fit_joint(pairs: Sequence[Pair], plate: Plate, start: RigidTransform) -> Joint:
    """Fit the transform to all poses.

    Args:
        pairs: two or more; more than one normal.
        plate: that they show.
        start: near the solution.
    """
    noise = Noise(line_bias([pair.plate for pair in pairs]))
    transform, wider, x, problem = _descend(pairs, plate, start, noise)
    # How well edges are known is told by what is left of them.
    noise = Noise(noise.line_m, spread_of(np.concatenate(problem.edges(x))))
    transform, wider, x, problem = _descend(pairs, plate, transform, noise)
    slope, robust = problem.jacobian(x), problem.robust
    weight = np.sqrt(loss_of(robust)(problem.residuals(x) ** 2)[1])
    slope = slope * weight[:, None]
    inverse = np.linalg.pinv(slope.T @ slope, hermitian=True)
    covariance = (inverse @ problem.varied(slope) @ inverse)[:6, :6]
    together = problem.costs(x)
    alone = np.array([plate_alone(plate, pair.plate, noise, wider)[1] for pair in pairs])
    planes = sum(min(3.0, 0.75 * float(np.trace(block.spread))) for block in problem.blocks)
    free = max(1.0, 3 * len(pairs) + planes - 7)
    scatter = float(np.sqrt(max(1.0, np.maximum(together - alone, 0).sum() / free)))
    return Joint(transform, covariance * scatter**2, scatter, wider, noise)


def spread_of(edges: Float64) -> float:
    """Root mean square of normalized edges without blunders.

    The median would not do: between two rays all places are equally likely, and its factor is another.
    """
    usual = max(1.0, 1.4826 * float(np.median(np.abs(edges))))
    inner = edges[np.abs(edges) < _BLUNDER * usual]
    return max(_LEAST_SCALE, float(np.sqrt(np.mean(inner**2))))


def _descend(
    pairs: Sequence[Pair], plate: Plate, start: RigidTransform, noise: Noise
) -> tuple[RigidTransform, float, Float64, Problem]:
    problem = Problem(pairs, plate, start, noise)
    x = least_squares(
        problem.residuals,
        np.zeros(7 + 6 * len(pairs)),
        problem.jacobian,
        x_scale="jac",
        loss=loss_of(problem.robust),
        max_nfev=_STEPS,
        ftol=_DONE,
    ).x
    return moved(start, x[:6]), float(x[6]), x, problem


class Problem:
    """Residuals and Jacobian over the transform, the plate's excess and the boards' poses."""

    def __init__(
        self, pairs: Sequence[Pair], plate: Plate, start: RigidTransform, noise: Noise
    ) -> None:
        self.pairs, self.first = pairs, start.matrix
        self.boards = [pair.board.pose.matrix for pair in pairs]
        self.blocks = [_Block(plate, pair.plate, noise) for pair in pairs]
        held = np.zeros(6, bool)
        self.robust = np.concatenate(
            [part for block in self.blocks for part in (block.robust(), held)] + [held[:1]]
        )

    def _to_plate(self, index: int, values: Float64) -> Float64:
        """(4, 4) from the LiDAR to the plate, of (12,) parameters."""
        mounted = self.first.copy()
        mounted[:3, :3] = cv2.Rodrigues(np.ascontiguousarray(values[3:6]))[0] @ mounted[:3, :3]
        mounted[:3, 3] += values[:3]
        return _undone(self.boards[index] @ _motion(values[6:])) @ mounted

    def _own(self, index: int, x: Float64) -> Float64:
        return np.concatenate([x[:6], x[7 + 6 * index : 13 + 6 * index]])

    def _parts(self, x: Float64) -> list[Float64]:
        found = []
        for index, (pair, block) in enumerate(zip(self.pairs, self.blocks, strict=True)):
            own = self._own(index, x)
            off = block.residuals(self._to_plate(index, own), float(x[6]))
            found.append(np.concatenate([off, pair.board.root @ own[6:]]))
        return found

    def residuals(self, x: Float64) -> Float64:
        """All of them; behind them how far the excess is from none."""
        return np.concatenate([*self._parts(x), x[6:7] / _WIDER_M])

    def jacobian(self, x: Float64) -> Float64:
        """Derivatives of `residuals`."""
        found, first = np.zeros((len(self.robust), len(x))), 0
        for index, (pair, block) in enumerate(zip(self.pairs, self.blocks, strict=True)):
            own, column = self._own(index, x), 7 + 6 * index

            def entries(values: Float64, index: int = index) -> Float64:
                return self._to_plate(index, values).ravel()

            by = differences(entries, own).T.reshape(-1, 4, 4)
            part = block.slope(self._to_plate(index, own), by, float(x[6]))
            last = first + len(part)
            found[first:last, :6] = part[:, :6]
            found[first:last, column : column + 6] = part[:, 6:12]
            found[first:last, 6] = part[:, 12]
            found[last : last + 6, column : column + 6] = pair.board.root
            first = last + 6
        found[-1, 6] = 1 / _WIDER_M
        return found

    def varied(self, slope: Float64) -> Float64:
        """(P, P) the covariance of the gradient: less than the weights say where these are cautious."""
        found = slope.T @ slope
        first = 0
        for block in self.blocks:
            rows = slope[first : first + 4]
            found += rows.T @ (block.spread - np.eye(4)) @ rows
            first += 4 + len(block.edges) + 6
        return found

    def edges(self, x: Float64) -> list[Float64]:
        """Of each pose, edges off the outline in standard deviations."""
        parts = zip(self._parts(x), self.blocks, strict=True)
        return [part[4 : 4 + len(block.edges)] for part, block in parts]

    def costs(self, x: Float64) -> Float64:
        """(V,) of each pose."""
        robust = [np.concatenate([b.robust(), np.zeros(6, bool)]) for b in self.blocks]
        return np.array([_cost(p, r) for p, r in zip(self._parts(x), robust, strict=True)])
