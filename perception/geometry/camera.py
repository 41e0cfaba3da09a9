"""Camera models: pinhole with the distortions of ROS `sensor_msgs/CameraInfo`.

`plumb_bob` (Brown-Conrady, 5 parameters), `rational_polynomial` (8, 12 or 14 parameters, of which the
thin-prism and tilt terms must be zero) and `equidistant` (Kannala-Brandt, 4), as OpenCV defines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.errors import CalibrationError

Float64 = NDArray[np.float64]

DISTORTION_LENGTHS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
_ALIASES = {"": "none", "fisheye": "equidistant", "kannala_brandt4": "equidistant"}
_FOLD_SAMPLES = 2000
_INVERSE_STEPS = 40


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of one camera.

    Pixel (0, 0) is the center of the top left pixel, as in OpenCV and ROS.

    Attributes:
        width, height: image size in pixels.
        fx, fy, cx, cy: focal lengths and principal point in pixels.
        distortion_model: a key of `DISTORTION_LENGTHS`.
        distortion: its coefficients, in OpenCV's order.
        frame_id: the optical frame (z forward, x right, y down).

    Raises:
        CalibrationError: sizes or focal lengths that cannot be, or coefficients that do not fit.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()
    frame_id: str = ""

    def __post_init__(self) -> None:
        where = f"camera {self.frame_id}".strip()
        model = _ALIASES.get(self.distortion_model, self.distortion_model)
        values = tuple(float(v) for v in self.distortion)
        if model != "equidistant" and not any(values):
            model, values = "none", ()
        for name in ("fx", "fy", "cx", "cy"):  # numpy scalars do not go into YAML
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "distortion_model", model)
        object.__setattr__(self, "distortion", values)
        if self.width < 1 or self.height < 1:
            raise CalibrationError(f"image size {self.width}x{self.height}", where=where)
        numbers = (self.fx, self.fy, self.cx, self.cy, *values)
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                "uncalibrated: focal lengths must be positive and finite", where=where
            )
        if model not in DISTORTION_LENGTHS:
            raise CalibrationError(
                f"unknown distortion model '{model}'",
                where=where,
                hint=", ".join(DISTORTION_LENGTHS),
            )
        if len(values) not in DISTORTION_LENGTHS[model]:
            raise CalibrationError(f"{model} with {len(values)} coefficients", where=where)
        if any(values[8:]):
            raise CalibrationError("thin-prism and tilt terms are not supported", where=where)

    @staticmethod
    def from_camera_info(info: Mapping[str, Any], *, rectified: bool = False) -> CameraModel:
        """From the fields of a `CameraInfo`: width, height, k (9), d, distortion_model, p (12).

        Args:
            info: the fields; keys may be lower or upper case.
            rectified: the image is already rectified: use P and no distortion.
        """
        fields = {key.lower(): value for key, value in info.items()}
        try:
            size = int(fields["width"]), int(fields["height"])
            matrix = [float(v) for v in (fields["p"] if rectified else fields["k"])]
            model, d = (
                str(fields.get("distortion_model", "")),
                [float(v) for v in fields.get("d", ())],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"CameraInfo lacks or garbles a field: {error}") from error
        if len(matrix) != (12 if rectified else 9):
            raise CalibrationError(f"CameraInfo matrix has {len(matrix)} entries")
        fx, cx, fy, cy = (matrix[i] for i in ((0, 2, 5, 6) if rectified else (0, 2, 4, 5)))
        frame = str(fields.get("frame_id", ""))
        if rectified or not d:
            return CameraModel(*size, fx, fy, cx, cy, frame_id=frame)
        return CameraModel(*size, fx, fy, cx, cy, model, tuple(d), frame)

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> CameraModel:
        """From `to_dict`'s form."""
        try:
            fx, fy, cx, cy = (float(v) for v in fields["intrinsics"])
            return CameraModel(
                int(fields["width"]),
                int(fields["height"]),
                fx,
                fy,
                cx,
                cy,
                str(fields.get("distortion_model", "none")),
                tuple(float(v) for v in fields.get("distortion", ())),
                str(fields.get("frame_id", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CalibrationError):
                raise
            raise CalibrationError(f"camera lacks or garbles a field: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML; `intrinsics` is fx, fy, cx, cy."""
        return {
            "width": self.width,
            "height": self.height,
            "intrinsics": [self.fx, self.fy, self.cx, self.cy],
            "distortion_model": self.distortion_model,
            "distortion": list(self.distortion),
            "frame_id": self.frame_id,
        }

    @property
    def matrix(self) -> Float64:
        """The (3, 3) camera matrix K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def scaled(self, sx: float, sy: float) -> CameraModel:
        """The model of the image resized by factors sx, sy (pixel edges stay pixel edges)."""
        return CameraModel(
            max(1, round(self.width * sx)),
            max(1, round(self.height * sy)),
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            self.distortion_model,
            self.distortion,
            self.frame_id,
        )

    @cached_property
    def max_tangent(self) -> float:
        """Largest tan(angle to the axis) that the distortion maps without folding back."""
        if self.distortion_model in ("none", "equidistant"):
            return np.inf
        r = np.linspace(0, 4.0, _FOLD_SAMPLES)
        distorted = r * self._radial(r * r)
        falling = np.flatnonzero(np.diff(distorted) <= 0)
        return float(r[falling[0]]) if falling.size else np.inf

    def _radial(self, r2: Float64) -> Float64:
        d = (*self.distortion, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        above = 1 + r2 * (d[0] + r2 * (d[1] + r2 * d[4]))
        if self.distortion_model != "rational_polynomial":
            return above
        below = 1 + r2 * (d[5] + r2 * (d[6] + r2 * d[7]))
        return above / below

    def project(self, points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Project points of the optical frame.

        Args:
            points: (N, 3) metres.

        Returns:
            (N, 2) pixel coordinates u, v, and (N,) whether the point lies before the camera and
            within the angle that the distortion model covers (not whether it is in the image).
        """
        x, y, z = points.T
        valid = z > 1e-6
        depth = np.where(valid, z, 1)
        a, b = x / depth, y / depth
        if self.distortion_model == "equidistant":
            a, b = self._distort_equidistant(a, b)
        elif self.distortion_model != "none":
            r2 = a * a + b * b
            valid = valid & (r2 < self.max_tangent**2)
            a, b = self._distort_polynomial(a, b, r2)
        return np.stack([a * self.fx + self.cx, b * self.fy + self.cy], axis=1), valid

    def _distort_polynomial(self, a: Any, b: Any, r2: Any) -> tuple[Any, Any]:
        p1, p2 = self.distortion[2:4]
        radial = self._radial(r2)
        return (
            a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a),
            b * radial + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b,
        )

    def _distort_equidistant(self, a: Any, b: Any) -> tuple[Any, Any]:
        k1, k2, k3, k4 = self.distortion
        r = np.sqrt(a * a + b * b)
        theta = np.arctan(r)
        t2 = theta * theta
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.where(r > 1e-9, bent / r, 1.0)
        return a * factor, b * factor

    def unproject(self, uv: ArrayLike, depth: ArrayLike) -> Float64:
        """Points (N, 3) of the optical frame from pixels (N, 2) and z-depths (N,) in metres."""
        pixels = np.asarray(uv, np.float64).reshape(-1, 2)
        z = np.asarray(depth, np.float64).reshape(-1)
        bent = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        if self.distortion_model == "equidistant":
            rays = self._straighten_equidistant(bent)
        elif self.distortion_model != "none":
            rays = self._straighten_polynomial(bent)
        else:
            rays = bent
        return np.column_stack([rays * z[:, None], z])

    def _straighten_polynomial(self, bent: Float64) -> Float64:
        """Fixed-point inversion of the polynomial distortion."""
        rays = bent
        for _ in range(_INVERSE_STEPS):
            a, b = rays.T
            moved = np.column_stack(self._distort_polynomial(a, b, a * a + b * b))
            rays = rays + (bent - moved)
        return rays

    def _straighten_equidistant(self, bent: Float64) -> Float64:
        """Newton inversion of the angle polynomial."""
        k1, k2, k3, k4 = self.distortion
        radius = np.linalg.norm(bent, axis=1)
        theta = radius.copy()
        for _ in range(_INVERSE_STEPS):
            t2 = theta * theta
            value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + 9 * t2 * k4)))
            theta = theta - (value - radius) / np.where(np.abs(slope) > 1e-6, slope, 1e-6)
        factor = np.where(radius > 1e-9, np.tan(theta) / np.maximum(radius, 1e-12), 1.0)
        return bent * factor[:, None]
