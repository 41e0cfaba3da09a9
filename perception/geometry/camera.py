"""Camera models: pinhole with the distortions of ROS `sensor_msgs/CameraInfo`.

`plumb_bob` (Brown-Conrady, 5 parameters), `rational_polynomial` (8, 12 or 14 parameters, of which the
thin-prism and tilt terms must be zero) and `equidistant` (Kannala-Brandt, 4), as OpenCV defines them; and
`omni` (unified, 5: xi, k1, k2, p1, p2), which ROS has no name for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.errors import CalibrationError, InputError, names_hint
from perception.files.limits import check_pixels
from perception.geometry import equidistant, omni

Float64 = NDArray[np.float64]

DISTORTION_LENGTHS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
    "omni": (5,),
}
_FIELDS = {"width", "height", "intrinsics", "distortion_model", "distortion", "frame_id"}
_NEAREST = 1e-6  # metres before the camera
_ALIASES = {"": "none", "fisheye": "equidistant", "kannala_brandt4": "equidistant"}
_LARGEST_COEFFICIENT = 1e6
_SHORTEST = 0.01  # focal length as a share of the picture: 179 degrees of view without distortion
_TABLE_TANGENT = 10.0
_TABLE_SIZE = 1024
_NEWTON_STEPS = 20
_NEWTON_DONE = 1e-13
_RESIDUAL = 1e-8


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
        if model not in DISTORTION_LENGTHS:
            raise CalibrationError(
                f"unknown distortion model '{model}'",
                where=where,
                hint=names_hint(model, DISTORTION_LENGTHS),
            )
        try:
            values = tuple(float(v) for v in self.distortion)
            sizes = {n: _whole(getattr(self, n)) for n in ("width", "height")}
            lengths = {n: float(getattr(self, n)) for n in ("fx", "fy", "cx", "cy")}
        except (TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"not a number: {error}", where=where) from error
        if model != "equidistant" and not any(values):
            model, values = "none", ()
        for name, number in {**sizes, **lengths}.items():  # numpy scalars do not go into YAML
            object.__setattr__(self, name, number)
        object.__setattr__(self, "distortion_model", model)
        object.__setattr__(self, "distortion", values)
        self._check(where)

    def _check(self, where: str) -> None:
        check_pixels(self.width, self.height, where=where, error=CalibrationError)
        lengths = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(lengths).all() or self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                "uncalibrated: focal lengths must be positive and finite", where=where
            )
        if len(self.distortion) not in DISTORTION_LENGTHS[self.distortion_model]:
            raise CalibrationError(
                f"{self.distortion_model} with {len(self.distortion)} coefficients", where=where
            )
        if not all(abs(v) <= _LARGEST_COEFFICIENT for v in self.distortion):  # NaN fails too
            raise CalibrationError("distortion coefficients are not plausible", where=where)
        if self.distortion_model == "omni" and not 0 <= self.distortion[0] <= omni.LARGEST_XI:
            raise CalibrationError(f"xi is {self.distortion[0]:g}", where=where, hint="0 to 3")
        if any(self.distortion[8:]):
            raise CalibrationError("thin-prism and tilt terms are not supported", where=where)

    @staticmethod
    def from_camera_info(info: Mapping[str, Any], *, rectified: bool = False) -> CameraModel:
        """From the fields of a `CameraInfo`, for the images that it says it goes with.

        Its matrices and size are of the full sensor: the region of interest is cut out first, then
        binned, as sensor_msgs says.

        Args:
            info: width, height, k (9), d, distortion_model, p (12), and where the images are not of
                the full sensor binning_x, binning_y and roi (x_offset, y_offset, width, height);
                keys may be lower or upper case.
            rectified: the image is already rectified: use P and no distortion.

        Raises:
            CalibrationError: a field is missing or cannot be, or the camera is not calibrated.
        """
        return CameraModel.choices_of_camera_info(info, rectified=rectified)[0]

    @staticmethod
    def choices_of_camera_info(
        info: Mapping[str, Any], *, rectified: bool = False
    ) -> tuple[CameraModel, ...]:
        """`from_camera_info`, and for drivers that send what it contradicts the full sensor's model.

        An image of exactly the calibrated size is one of the full sensor, whatever binning and region
        of interest say.

        Returns:
            Models of different image sizes, what sensor_msgs says first.
        """
        fields = {str(key).lower(): value for key, value in info.items()}
        full = _full_camera(fields, rectified)
        try:
            binning = [max(1, int(fields.get(f"binning_{axis}") or 1)) for axis in "xy"]
            roi = fields.get("roi") or {}
            x, y, width, height = (
                int(roi.get(name, 0)) for name in ("x_offset", "y_offset", "width", "height")
            )
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"CameraInfo garbles binning or roi: {error}") from error
        if (x, y, width, height) == (0, 0, 0, 0):
            width, height = full.width, full.height
        elif not (0 <= x <= full.width - width and 0 <= y <= full.height - height):
            if (width, height) == (full.width, full.height):
                return (full,)  # calibrated for this very window
            raise CalibrationError(
                f"CameraInfo has a roi of {width}x{height} at {x}, {y}, outside "
                f"{full.width}x{full.height} pixels"
            )
        part = full.cropped(x, y, width, height).binned(*binning)
        whole = (part.width, part.height) == (full.width, full.height)
        return (part,) if whole else (part, full)

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> CameraModel:
        """From `to_dict`'s form.

        Raises:
            CalibrationError: a field is missing, misspelled or no number.
        """
        unknown = {str(key) for key in fields} - _FIELDS
        if unknown:
            raise CalibrationError(
                f"camera has unknown field '{min(unknown)}'",
                hint=names_hint(min(unknown), sorted(_FIELDS)),
            )
        try:
            fx, fy, cx, cy = (float(v) for v in fields["intrinsics"])
            return _measured(
                CameraModel(
                    _whole(fields["width"]),
                    _whole(fields["height"]),
                    fx,
                    fy,
                    cx,
                    cy,
                    str(fields.get("distortion_model", "none")),
                    tuple(float(v) for v in fields.get("distortion", ())),
                    str(fields.get("frame_id", "")),
                )
            )
        except CalibrationError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
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
        """The model of the image resized by factors sx, sy.

        Pixel edges stay pixel edges, as in `cv2.resize`: the left edge, -0.5, maps to -0.5.
        """
        if not (np.isfinite([sx, sy]).all() and min(sx, sy) > 0):
            raise CalibrationError(f"cannot scale an image by {sx}, {sy}")
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

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """The model of the window of the image whose top left pixel is (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def binned(self, nx: int, ny: int) -> CameraModel:
        """The model of the image whose pixels are nx x ny of this one's; what is left over is cut off.

        Raises:
            CalibrationError: nothing is left.
        """
        if (nx, ny) == (1, 1):
            return self
        exact = self.scaled(1 / nx, 1 / ny)
        return replace(exact, width=self.width // nx, height=self.height // ny)

    @cached_property
    def max_tangent(self) -> float:
        """Largest tan(angle to the axis) before the distortion folds back, inf where it never does.

        Beyond the first extremum of the radial function a point would land on pixels that see
        another direction, often in the middle of the image.
        """
        if self.distortion_model == "none":
            return np.inf
        if self.distortion_model == "equidistant":
            angle = np.sqrt(_first_root(equidistant.slope(self.distortion)))
            return float(np.tan(angle)) if angle < np.pi / 2 else np.inf
        if self.distortion_model == "omni":
            return omni.largest_tangent(self.distortion[0], self._plane.max_tangent)
        above, below = self._radial_fraction
        # f(r) = r N(s) / D(s), s = r^2, rises where (N + 2 s N') D - 2 s N D' > 0.
        grown = np.polynomial.Polynomial([0.0, 2.0])
        rise = (above + grown * above.deriv()) * below - grown * above * below.deriv()
        return float(np.sqrt(min(_first_root(rise.coef), _first_root(below.coef))))

    @cached_property
    def _plane(self) -> CameraModel:
        """What an `omni` model does behind the sphere."""
        return replace(self, distortion_model="plumb_bob", distortion=self.distortion[1:])

    @cached_property
    def _radial_fraction(self) -> tuple[np.polynomial.Polynomial, np.polynomial.Polynomial]:
        """Numerator and denominator of the radial factor as polynomials of r squared."""
        d = (*self.distortion, *(0.0,) * 8)
        above = np.polynomial.Polynomial([1.0, d[0], d[1], d[4]])
        if self.distortion_model != "rational_polynomial":
            return above, np.polynomial.Polynomial([1.0])
        return above, np.polynomial.Polynomial([1.0, d[5], d[6], d[7]])

    def _radial(self, r2: Any) -> Any:
        d = (*self.distortion, *(0.0,) * 8)
        above = 1 + r2 * (d[0] + r2 * (d[1] + r2 * d[4]))
        if self.distortion_model != "rational_polynomial":
            return above
        return above / (1 + r2 * (d[5] + r2 * (d[6] + r2 * d[7])))

    def project(self, points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Project points of the optical frame.

        Args:
            points: (N, 3) metres.

        Returns:
            (N, 2) pixel coordinates u, v, and (N,) whether the point is finite, lies before the
            camera and within the angle that the distortion model covers (not whether it is in the
            image).  Coordinates of points that are not valid mean nothing.

        Raises:
            InputError: another shape.
        """
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"points have shape {points.shape}, expected (N, 3)")
        u, v, valid = self.project_columns(points[:, 0], points[:, 1], points[:, 2])
        return np.stack([u, v], axis=1), valid & np.isfinite(u) & np.isfinite(v)

    def project_columns(self, x: Any, y: Any, z: Any) -> tuple[Any, Any, NDArray[np.bool_]]:
        """`project` on separate coordinates (N,), without the check that they are finite."""
        with np.errstate(all="ignore"):
            valid = z > _NEAREST
            depth = np.where(valid, z, 1)
            u, v, within = self.pixels_of(x / depth, y / depth)
            return u, v, valid if within is None else valid & within

    def pixels_of(self, a: Any, b: Any) -> tuple[Any, Any, NDArray[np.bool_] | None]:
        """Pixels of directions before the camera.

        Args:
            a, b: (N,) x and y where the direction meets the plane z = 1; overwritten.

        Returns:
            u, v, and which directions lie within the angle that the distortion model covers, None for all.
        """
        within = None
        if self.distortion_model != "none":
            r2 = a * a + b * b
            within = r2 < self.max_tangent**2
            if self.distortion_model == "equidistant":
                a, b = equidistant.bent(self.distortion, a, b, r2)
            elif self.distortion_model == "omni":
                a, b = self._bend_sphere(a, b, r2)
            else:
                a, b = self._bend(a, b, r2)
        a *= self.fx
        a += self.cx
        b *= self.fy
        b += self.cy
        return a, b, within

    def _bend(self, a: Any, b: Any, r2: Any) -> tuple[Any, Any]:
        """Brown-Conrady and rational distortion of the plane z = 1."""
        p1, p2 = self.distortion[2:4]
        radial = self._radial(r2)
        if p1 == 0 and p2 == 0:
            return a * radial, b * radial
        return (
            a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a),
            b * radial + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b,
        )

    def _bend_sphere(self, a: Any, b: Any, r2: Any) -> tuple[Any, Any]:
        a, b = omni.to_plane(self.distortion[0], a, b, r2)
        inner = self._plane
        return (a, b) if inner.distortion_model == "none" else inner._bend(a, b, a * a + b * b)

    def unproject(self, uv: ArrayLike, depth: ArrayLike) -> Float64:
        """Points of the optical frame from pixels and z-depths.

        Args:
            uv: (N, 2) pixel coordinates.
            depth: (N,) metres along the optical axis, or one number for all.

        Returns:
            (N, 3) metres; NaN where no direction before the camera lands on the pixel.

        Raises:
            InputError: the shapes do not fit.
        """
        pixels = np.asarray(uv, np.float64)
        z = np.asarray(depth, np.float64)
        if pixels.ndim != 2 or pixels.shape[1] != 2 or z.shape not in ((), (len(pixels),)):
            raise InputError(f"pixels {pixels.shape} and depths {z.shape}, expected (N, 2), (N,)")
        bent = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        with np.errstate(all="ignore"):
            if self.distortion_model == "equidistant":
                rays = equidistant.straightened(self.distortion, bent, self.max_tangent)
            elif self.distortion_model == "omni":
                flat = self._plane.distortion_model == "none"
                plane = bent if flat else self._plane._straighten(bent)
                rays = omni.from_plane(self.distortion[0], plane)
            elif self.distortion_model != "none":
                rays = self._straighten(bent)
            else:
                rays = bent
            z = np.broadcast_to(z, len(pixels))
            return np.column_stack([rays * z[:, None], z + 0 * rays[:, 0]])

    def _straighten(self, bent: Float64) -> Float64:
        """Newton inversion of the polynomial distortion, started from its radial part."""
        p1, p2 = self.distortion[2:4]
        radius = np.hypot(bent[:, 0], bent[:, 1])
        r = np.linspace(0, min(self.max_tangent, _TABLE_TANGENT), _TABLE_SIZE)
        table = r * self._radial(r * r)
        if not table[-1] > table[-2]:  # at a pole of a rational model rounding decides the sign
            table[-1] = np.inf
        first = np.interp(radius, table, r, right=np.inf)
        first = np.where(np.isfinite(first), first, radius)
        a, b = (bent * np.where(radius > 0, first / radius, 1.0)[:, None]).T
        above, below = self._radial_fraction
        for _ in range(_NEWTON_STEPS):
            r2 = a * a + b * b
            n, d = above(r2), below(r2)
            slope = (above.deriv()(r2) * d - n * below.deriv()(r2)) / (d * d)
            moved = self._bend(a, b, r2)
            ea, eb = bent[:, 0] - moved[0], bent[:, 1] - moved[1]
            aa = n / d + 2 * a * a * slope + 2 * p1 * b + 6 * p2 * a
            bb = n / d + 2 * b * b * slope + 6 * p1 * b + 2 * p2 * a
            ab = 2 * a * b * slope + 2 * p1 * a + 2 * p2 * b
            determinant = aa * bb - ab * ab
            da, db = (bb * ea - ab * eb) / determinant, (aa * eb - ab * ea) / determinant
            a, b = a + da, b + db
            if not (np.maximum(np.abs(da), np.abs(db)) > _NEWTON_DONE * (1 + np.abs(a))).any():
                break
        r2 = a * a + b * b
        moved = self._bend(a, b, r2)
        missed = np.hypot(bent[:, 0] - moved[0], bent[:, 1] - moved[1])
        good = (missed < _RESIDUAL * (1 + radius)) & (r2 < self.max_tangent**2)
        return np.where(good[:, None], np.column_stack([a, b]), np.nan)


def _full_camera(fields: Mapping[str, Any], rectified: bool) -> CameraModel:
    """The model of the full sensor, from the fields of a `CameraInfo`."""
    try:
        size = _whole(fields["width"]), _whole(fields["height"])
        matrix = [float(v) for v in (fields["p"] if rectified else fields["k"])]
        model = str(fields.get("distortion_model", ""))
        d = tuple(float(v) for v in fields.get("d", ()))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"CameraInfo lacks or garbles a field: {error}") from error
    if len(matrix) != (12 if rectified else 9):
        raise CalibrationError(f"CameraInfo matrix has {len(matrix)} entries")
    fx, cx, fy, cy = (matrix[i] for i in ((0, 2, 5, 6) if rectified else (0, 2, 4, 5)))
    zeros = (matrix[4], *matrix[8:10]) if rectified else (matrix[3], *matrix[6:8])
    if any(matrix) and (any(zeros) or matrix[10 if rectified else 8] != 1):
        raise CalibrationError(
            "CameraInfo matrix is not fx 0 cx, 0 fy cy, 0 0 1",
            hint="is it transposed, or not filled in?",
        )
    if matrix[1] != 0:
        raise CalibrationError(f"CameraInfo matrix has skew {matrix[1]:g}, none is supported")
    frame = str(fields.get("frame_id", ""))
    known = _ALIASES.get(model, model)
    if rectified or (known != "equidistant" and not d):
        return _measured(CameraModel(*size, fx, fy, cx, cy, frame_id=frame))
    most = max(DISTORTION_LENGTHS.get(known, (0,)))
    if not model and any(d):
        raise CalibrationError(f"CameraInfo has {len(d)} coefficients and no distortion_model")
    d = d if any(d[most:]) else d[:most]  # some drivers fill up with zeros
    return _measured(CameraModel(*size, fx, fy, cx, cy, model, d, frame))


def _measured(camera: CameraModel) -> CameraModel:
    """A model that somebody's file or message says; what cannot be one of a camera is refused."""
    if camera.fx < _SHORTEST * camera.width or camera.fy < _SHORTEST * camera.height:
        raise CalibrationError(
            f"focal lengths of {camera.fx:.3g} and {camera.fy:.3g} pixels are none of a picture of "
            f"{camera.width}x{camera.height}",
            where=f"camera {camera.frame_id}".strip(),
            hint="are they in millimetres, or shares of the picture's size?",
        )
    return camera


def _whole(value: Any) -> int:
    """A number of pixels, which files may write as 640, 640.0 or "640"."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value} is no whole number")
    return number


def _first_root(coefficients: ArrayLike) -> float:
    """Smallest positive root of 1 + c1 s + c2 s^2 + ..., inf when there is none."""
    c = np.asarray(coefficients, np.float64)
    # The reciprocals are the roots of the reversed polynomial, which is monic as c[0] is 1.
    reciprocals = np.roots(c / c[0])
    real = reciprocals[np.abs(reciprocals.imag) <= 1e-7 * np.abs(reciprocals)].real
    real = real[real > 1e-12]
    return float(1 / real.max()) if real.size else np.inf
