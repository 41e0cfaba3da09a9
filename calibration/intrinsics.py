"""Intrinsics of one camera from pictures of a board: which model, which views, and whether to trust it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from calibration.boards import Board
from calibration.detection import BoardView, Detections
from calibration.fitting import Fit, fit, fit_pose, rms
from calibration.parameters import FORMS, Form, form_of
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64

FEWEST_VIEWS = 4
"""Fewer hold no camera with distortion, and leave none to predict."""

_GOOD_VIEWS = 10
_FOLDS = 5
_AS_GOOD = 1.01
_CANNOT = 1.5
_OUTLIER = 3.0
_OUTLIER_PX = 0.5
_SAME_PX = 1.0
_LEAST_TILT = 10.0
_GOOD_TILT = 20.0
_FOCAL_SHARE = 0.02
_CELLS = 10
_GOOD_COVERAGE = 0.5
_GOOD_RADIUS = 0.75
_BLURRED = 2.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Intrinsics:
    """A camera's intrinsics, and what speaks for them.

    Attributes:
        fit: of the chosen model to the views.
        views: those that were used.
        board: that they show.
        left_out: pictures that were not used, with the reason.
        held_out_px: by model, root mean square distance in pixels of points that were predicted: of views
            that were not fitted, of which only the pose was; models that do not even fit are not in it.
        coverage: (10, 10) counts of points by place in the picture, the top left first.
        remarks: what makes the result worse than it could be, and what to record.
    """

    fit: Fit
    views: tuple[BoardView, ...]
    board: Board
    left_out: dict[str, str]
    held_out_px: dict[str, float]
    coverage: Float64
    remarks: tuple[str, ...] = field(default=())

    @property
    def camera(self) -> CameraModel:
        """The camera model."""
        return self.fit.camera

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.remarks

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `K` (3, 3), `distortion_model` and `D` as in `CameraInfo`, `rms_px`, ..."""
        camera, names = self.camera, self.fit.form.names
        plain = camera.distortion_model == "none"
        return {
            "width": camera.width,
            "height": camera.height,
            "K": camera.matrix.tolist(),
            "distortion_model": "plumb_bob" if plain else camera.distortion_model,
            "D": [0.0] * 5 if plain else list(camera.distortion),
            "rms_px": self.fit.rms_px,
            "held_out_rms_px": self.held_out_px,
            "sigma": dict(zip(names, self.fit.sigma.tolist(), strict=True)),
            "model": self.fit.form.name,
            "board": str(self.board),
            "views": {
                view.name: {
                    "rms_px": float(value),
                    "points": len(view.ids),
                    "edge_px": view.edge_px,
                }
                for view, value in zip(self.views, self.fit.view_rms_px, strict=True)
            },
            "left_out": self.left_out,
            "coverage": float((self.coverage > 0).mean()),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def calibrate(
    detections: Detections, board: Board, model: str = "auto", progress: Progress | None = None
) -> Intrinsics:
    """Fit a camera to the views of a board.

    Args:
        detections: the views, and why other pictures give none.
        board: that they show.
        model: a name of `parameters.FORMS`, or `auto`: of the models that predict views that they were not
            fitted to within 1 % of the best, the one with the fewest parameters.
        progress: called with a text, what is done, and of how much.

    Raises:
        CalibrationError: too few views, of several sizes, all from one direction, or none that fits.
        ConfigError: no such model.
    """
    forms = list(FORMS.values()) if model == "auto" else [form_of(model)]
    views, left_out = _distinct(detections)
    tell = progress or (lambda *_: None)
    fits: dict[str, Fit] = {}
    held: dict[str, float] = {}
    for index, form in enumerate(forms):
        tell("fitting", index, len(forms))
        try:
            fits[form.name] = fit(form, views, board)
        except CalibrationError:
            if len(forms) == 1:
                raise
    best = min(fits.values(), key=lambda one: one.rms_px, default=None)
    if best is None:
        raise CalibrationError(
            "no camera model explains the pictures", hint="is the board's size right?"
        )
    keep = _fitting(best, views, left_out)
    views = [view for view, good in zip(views, keep, strict=True) if good]
    _check_count(views, left_out)
    fits = {name: one for name, one in fits.items() if one.rms_px <= _CANNOT * best.rms_px}
    for index, (name, one) in enumerate(fits.items()):
        tell("predicting", index, len(fits))
        again = fit(one.form, views, board, replace(one, poses=one.poses[keep]))
        fits[name] = again
        held[name] = _predicted(again, views, board)
    # A model may predict well by parameters that grow together: it holds no focal length.
    known = {name: held[name] for name, one in fits.items() if _focal_share(one) < _FOCAL_SHARE}
    found = fits[_choice(known or held)]
    _check_directions(found)
    coverage = coverage_of(views)
    remarks = _remarks(found, views, coverage)
    return Intrinsics(found, tuple(views), board, left_out, held, coverage, tuple(remarks))


def _distinct(detections: Detections) -> tuple[list[BoardView], dict[str, str]]:
    """Views of one size, each pose once."""
    left_out, views = dict(detections.left_out), list(detections.views)
    sizes = [view.size for view in views]
    usual = max(set(sizes), key=sizes.count)
    odd = next((view for view in views if view.size != usual), None)
    if odd is not None:
        raise CalibrationError(
            f"{odd.name} is {odd.size[0]}x{odd.size[1]}, others are {usual[0]}x{usual[1]}",
            hint="pictures of one camera have one size",
        )
    kept: list[BoardView] = []
    for view in views:
        same = next((other for other in kept if _is_same(view, other)), None)
        if same is None:
            kept.append(view)
        else:
            left_out[view.name] = f"the same pose as {same.name}"
    _check_count(kept, left_out)
    return kept, left_out


def _is_same(view: BoardView, other: BoardView) -> bool:
    if len(view.ids) != len(other.ids) or (view.ids != other.ids).any():
        return False
    return rms(view.pixels - other.pixels) < _SAME_PX


def _check_count(views: Sequence[BoardView], left_out: dict[str, str]) -> None:
    if len(views) >= FEWEST_VIEWS:
        return
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
    raise CalibrationError(
        f"{len(views)} usable views, at least {FEWEST_VIEWS} are needed",
        hint=f"record {_GOOD_VIEWS} to 20 with the board at all places and tilts. {reasons}".strip(),
    )


def _fitting(best: Fit, views: Sequence[BoardView], left_out: dict[str, str]) -> Any:
    """Which views fit the best model as the others do; the reasons of those that do not are noted."""
    by_view = best.view_rms_px
    usual = float(np.median(by_view))
    keep = by_view <= max(_OUTLIER * usual, usual + _OUTLIER_PX)
    for view, value, good in zip(views, by_view, keep, strict=True):
        if not good:
            left_out[view.name] = f"{value:.2f} px off, others {usual:.2f} px"
    return keep


def _predicted(whole: Fit, views: Sequence[BoardView], board: Board) -> float:
    """Root mean square error in pixels of views that were not fitted, but for their pose."""
    folds = min(_FOLDS, len(views))
    missed = []
    for fold in range(folds):
        own = np.arange(len(views)) % folds != fold
        rest = [view for view, mine in zip(views, own, strict=True) if mine]
        part = fit(whole.form, rest, board, replace(whole, poses=whole.poses[own]))
        for view, mine in zip(views, own, strict=True):
            if mine:
                continue
            pose = fit_pose(part.camera, view, board)
            if pose is None:
                return float("inf")
            missed.append(pose[1])
    return rms(np.concatenate(missed))


def _choice(held: dict[str, float]) -> str:
    least = min(held.values())

    def parameters(name: str) -> int:
        form: Form = FORMS[name]
        return len(form.names)

    good = [name for name, value in held.items() if value <= least * _AS_GOOD]
    return min(good, key=lambda name: (parameters(name), held[name]))


def _tilts(found: Fit) -> Float64:
    """(V, V) angles in degrees between the normals of the board in the views."""
    normals = np.array([cv2.Rodrigues(pose[:3])[0][:, 2] for pose in found.poses])
    return np.asarray(np.degrees(np.arccos(np.clip(np.abs(normals @ normals.T), 0, 1))))


def _focal_share(found: Fit) -> float:
    """How well the focal length is known, as a share of it."""
    return float(found.sigma[0] / found.values[0])


def _check_directions(found: Fit) -> None:
    tilt = float(_tilts(found).max())
    share = _focal_share(found)
    again = "tilt the board by 20 to 40 degrees, about both axes and both ways"
    if tilt < _LEAST_TILT:
        raise CalibrationError(
            f"all views show the board under one angle, within {tilt:.0f} degrees: that does not hold "
            "a focal length",
            hint=f"record again: {again}",
        )
    if not share < _FOCAL_SHARE:
        raise CalibrationError(
            f"the focal length is known to {100 * share:.1f} % only",
            hint=f"record more views: {again}",
        )


def coverage_of(views: Sequence[BoardView]) -> Float64:
    """(10, 10) counts of seen points by place in the picture, rows from the top."""
    counts = np.zeros((_CELLS, _CELLS))
    for view in views:
        cells = np.floor((view.pixels + 0.5) / view.size * _CELLS).astype(int)
        column, row = np.clip(cells, 0, _CELLS - 1).T
        np.add.at(counts, (row, column), 1)
    return counts


def _remarks(found: Fit, views: Sequence[BoardView], coverage: Float64) -> list[str]:
    remarks = []
    if len(views) < _GOOD_VIEWS:
        remarks.append(f"{len(views)} views: {_GOOD_VIEWS} or more hold distortion better")
    tilt = float(_tilts(found).max())
    if tilt < _GOOD_TILT:
        remarks.append(f"the board is tilted by {tilt:.0f} degrees at most: tilt it by 20 to 40")
    share = float((coverage > 0).mean())
    if share < _GOOD_COVERAGE:
        remarks.append(
            f"{100 * share:.0f} % of the picture saw the board: move it to {emptiest(coverage)}"
        )
    size = np.array(views[0].size)
    middle = found.values[2:4]
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) - middle
    seen = np.concatenate([view.pixels for view in views]) - middle
    reached = np.hypot(*seen.T).max() / np.hypot(*corners.T).max()
    if reached < _GOOD_RADIUS:
        remarks.append(
            f"no point is farther out than {100 * reached:.0f} % of the way to the corners: "
            "distortion beyond is a guess"
        )
    edges = np.array([view.edge_px for view in views])
    if (edges > 0).any():
        usual = float(np.median(edges[edges > 0]))
        for view in views:
            if view.edge_px > _BLURRED * usual:
                remarks.append(
                    f"{view.name} is blurred: edges of {view.edge_px:.0f} px, others {usual:.0f}"
                )
    return remarks


def emptiest(coverage: Float64) -> str:
    """Where in the picture the board was seen least, in words; `coverage` as of `coverage_of`."""
    thirds = {}
    for row, above in enumerate(("top", "middle", "bottom")):
        for column, side in enumerate(("left", "centre", "right")):
            part = coverage[3 * row : 3 * row + 4, 3 * column : 3 * column + 4]
            thirds[f"the {above} {side}"] = float((part > 0).mean())
    return ", ".join(sorted(thirds, key=lambda place: thirds[place])[:3])
