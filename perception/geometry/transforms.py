"""Rigid transforms between frames (REP 103: right-handed, metres)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.errors import CalibrationError, InputError

Float64 = NDArray[np.float64]

_ORTHONORMAL_TOLERANCE = 1e-3
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class RigidTransform:
    """A rotation followed by a translation: p' = R p + t.

    Attributes:
        rotation: (3, 3) float64, orthonormal with determinant 1; what is off by less than 1e-3 is
            replaced by the nearest rotation.
        translation: (3,) float64, metres.

    Raises:
        CalibrationError: the rotation is none, or a value is not finite.
    """

    rotation: Float64
    translation: Float64

    def __post_init__(self) -> None:
        rotation = as_matrix(self.rotation, (3, 3), "rotation")
        translation = as_matrix(self.translation, (3,), "translation")
        with np.errstate(all="ignore"):
            error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not error <= _ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
            raise CalibrationError(
                "not a rotation matrix", where="transform", hint="rows must be orthonormal, det = 1"
            )
        if error > _ROUNDING:  # digits were cut off: take the nearest rotation, so R R^T = 1 holds
            left, _, right = np.linalg.svd(rotation)
            rotation = left @ right
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @staticmethod
    def identity() -> RigidTransform:
        """The transform that changes nothing."""
        return RigidTransform(np.eye(3), np.zeros(3))

    @staticmethod
    def from_matrix(matrix: ArrayLike) -> RigidTransform:
        """From a homogeneous (4, 4) or (3, 4) matrix."""
        rows = as_numbers(matrix, "transform matrix")
        if rows.shape not in ((4, 4), (3, 4)):
            raise CalibrationError(f"transform matrix has shape {rows.shape}, expected (4, 4)")
        if rows.shape == (4, 4) and not np.allclose(rows[3], [0, 0, 0, 1]):
            raise CalibrationError("last row of a transform matrix must be 0 0 0 1")
        return RigidTransform(rows[:3, :3], rows[:3, 3])

    @staticmethod
    def from_quaternion_xyzw(quaternion: Sequence[float], translation: ArrayLike) -> RigidTransform:
        """From a quaternion in ROS order (x, y, z, w), normalized here, and a translation."""
        q = as_numbers(quaternion, "quaternion")
        with np.errstate(over="ignore"):
            norm = float(np.linalg.norm(q)) if q.shape == (4,) else 0.0
        if not np.isfinite(norm) or norm < 1e-9:
            raise CalibrationError("a quaternion needs four finite numbers, not all zero")
        x, y, z, w = q / norm
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return RigidTransform(rotation, as_numbers(translation, "translation"))

    @property
    def matrix(self) -> Float64:
        """The homogeneous (4, 4) matrix."""
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = self.rotation, self.translation
        return out

    @property
    def quaternion_xyzw(self) -> tuple[float, float, float, float]:
        """The rotation as a unit quaternion in ROS order, w >= 0."""
        m = self.rotation
        # Shepperd's choice of the largest component keeps the division well conditioned.
        squares = np.array([m[0, 0], m[1, 1], m[2, 2], np.trace(m)])
        i = int(squares.argmax())
        if i == 3:
            q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + squares[3]])
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            q = np.empty(4)
            q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
            q[j], q[k] = m[j, i] + m[i, j], m[k, i] + m[i, k]
            q[3] = m[k, j] - m[j, k]
        x, y, z, w = (q / np.linalg.norm(q) * (-1 if q[3] < 0 else 1)).tolist()
        return x, y, z, w

    @property
    def angle(self) -> float:
        """By how much it turns, in radians, 0 to pi."""
        return float(np.arccos(np.clip((np.trace(self.rotation) - 1) / 2, -1, 1)))

    def apply(self, points: NDArray[Any]) -> NDArray[Any]:
        """Transform points (N, 3), in their own floating dtype (integers become float64).

        Raises:
            InputError: another shape.
        """
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"points have shape {points.shape}, expected (N, 3)")
        kind = points.dtype if np.issubdtype(points.dtype, np.floating) else np.float64
        return points @ self.rotation.T.astype(kind) + self.translation.astype(kind)

    def inverse(self) -> RigidTransform:
        """The transform that undoes this one."""
        return RigidTransform(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: RigidTransform) -> RigidTransform:
        """`(a @ b).apply(p) == a.apply(b.apply(p))`."""
        return RigidTransform(
            self.rotation @ other.rotation, self.rotation @ other.translation + self.translation
        )


def as_numbers(values: ArrayLike, what: str) -> Float64:
    """`values` as an array; what is not numeric is a `CalibrationError` that names `what`."""
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{what} is not numeric") from error


def as_matrix(values: ArrayLike, shape: tuple[int, ...], what: str) -> Float64:
    """`values` as finite numbers of that shape; what cannot be is a `CalibrationError`."""
    out = as_numbers(values, what)
    if out.shape != shape:
        raise CalibrationError(f"{what} has shape {out.shape}, expected {shape}")
    if not np.isfinite(out).all():
        raise CalibrationError(f"{what} holds values that are not finite")
    return out
