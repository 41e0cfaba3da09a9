"""Camera models as vectors of parameters, for fitting: fx, fy, cx, cy, and the distortion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.errors import CalibrationError, ConfigError, names_hint
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64


@dataclass(frozen=True)
class Form:
    """One form of camera model.

    Attributes:
        name: as users say it.
        model: the distortion model of `CameraModel`.
        coefficients: names of those that are fitted.
        first: what they are before any picture.
        widths: (coefficients,) standard deviations of what is expected of them before any picture; inf
            for no expectation.
    """

    name: str
    model: str
    coefficients: tuple[str, ...]
    first: tuple[float, ...]
    widths: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return ("fx", "fy", "cx", "cy", *self.coefficients)


_FREE = float("inf")
FORMS = {
    form.name: form
    for form in (
        Form("pinhole", "none", (), (), ()),
        Form(
            "plumb_bob",
            "plumb_bob",
            ("k1", "k2", "p1", "p2", "k3"),
            (0.0,) * 5,
            (_FREE,) * 4 + (10.0,),
        ),
        # A quotient whose halves may grow together for ever: held by a wide expectation.
        Form(
            "rational",
            "rational_polynomial",
            ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
            (0.0,) * 8,
            (10.0, 10.0, _FREE, _FREE, 10.0, 10.0, 10.0, 10.0),
        ),
        Form("equidistant", "equidistant", ("k1", "k2", "k3", "k4"), (0.0,) * 4, (10.0,) * 4),
        Form(
            "omni",
            "omni",
            ("xi", "k1", "k2", "p1", "p2"),
            (1.0, 0.0, 0.0, 0.0, 0.0),
            (10.0, 10.0, 10.0, _FREE, _FREE),
        ),
    )
}
"""By name; the order is that of `auto`, which takes the first of those that predict equally well."""


def form_of(name: str) -> Form:
    """The form of a name; those of ROS do as well.

    Raises:
        ConfigError: there is none.
    """
    aliases = {"none": "pinhole", "rational_polynomial": "rational", "fisheye": "equidistant"}
    found = FORMS.get(aliases.get(name, name))
    if found is None:
        hint = names_hint(name, ("auto", *FORMS))
        raise ConfigError(f"no camera model '{name}'", where="--model", hint=hint)
    return found


def camera_of(
    form: Form, values: Float64, size: tuple[int, int], frame_id: str = ""
) -> CameraModel:
    """The camera of (4 + coefficients,) parameters.

    Raises:
        CalibrationError: no camera has them.
    """
    if not np.isfinite(values).all():
        raise CalibrationError("parameters are not finite")
    fx, fy, cx, cy, *rest = (float(value) for value in values)
    return CameraModel(*size, fx, fy, cx, cy, form.model, tuple(rest), frame_id)


def values_of(form: Form, camera: CameraModel) -> Float64:
    """The parameters of a camera of that form; coefficients that it lacks are 0."""
    rest = (*camera.distortion, *(0.0,) * len(form.coefficients))[: len(form.coefficients)]
    return np.array([camera.fx, camera.fy, camera.cx, camera.cy, *rest])


def steps_of(values: Float64) -> Float64:
    """By how much each parameter is moved for a central difference."""
    return np.where(np.arange(len(values)) < 4, 1e-3, 1e-6) * np.maximum(1.0, np.abs(values) * 1e-3)


def first_guess(form: Form, size: tuple[int, int], focal: float) -> Float64:
    """Parameters of an undistorted camera of a focal length in pixels, its axis in the middle."""
    scale = 2.0 if form.model == "omni" else 1.0  # its focal length is that of the sphere's image
    middle = [(size[0] - 1) / 2, (size[1] - 1) / 2]
    return np.array([focal * scale, focal * scale, *middle, *form.first])
