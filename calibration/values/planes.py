"""Depth pictures of a board, with the depth that each pixel should have: the board's plane, as a picture of
the same camera shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from calibration.boards import Board
from calibration.detection import BoardView, Detections
from calibration.joint import BoardPose, board_pose
from perception.errors import AnySenseError, CalibrationError
from perception.files.listing import list_files
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64
from perception.sensors.depth.decode import load_depth
from perception.sensors.depth.recordings import SUFFIXES

_MOST_PIXELS = 600
_FEWEST_PIXELS = 40
_SEEN_SHARE = 0.2
_MISFIT = 0.002  # of the picture's width: corners are not where the camera's intrinsics put them
_LEAST_MISFIT_PX = 2.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PlaneView:
    """A board's plane in one depth picture; N of its pixels, evenly spread.

    Attributes:
        name: of the picture.
        true: (N,) metres along the optical axis, of the board's plane.
        seen: (N,) metres that the depth picture has there.
        stretch: (N,) how many times longer the way along the ray is than along the axis.
    """

    name: str
    true: Float64
    seen: Float64
    stretch: Float64

    @property
    def distance(self) -> float:
        """Metres, the middle of what is true."""
        return float(np.median(self.true))


def plane_views(
    detections: Detections,
    folder: Path,
    camera: CameraModel,
    board: Board,
    scale: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[PlaneView], dict[str, str]]:
    """Planes of a board in depth pictures.

    Args:
        detections: the board in pictures of the camera whose pixels the depth pictures have.
        folder: depth pictures, PNG, TIFF or .npy; picture and depth of one pose have one stem.
        camera: intrinsics.
        board: that they show.
        scale: metres per step of integers, see `load_depth`.
        progress: called with a text, what is done, and of how much.

    Returns:
        The views, and the poses that give none, with the reason.

    Raises:
        CalibrationError: no depth pictures, names that do not match, or depth of another size.
    """
    files = list_files(folder, SUFFIXES, error=CalibrationError)
    left_out = {Path(name).stem: reason for name, reason in detections.left_out.items()}
    seen = {Path(view.name).stem: view for view in detections.views}
    both = [stem for stem in seen if stem in files]
    if not both:
        raise CalibrationError(
            f"no picture and depth picture have the same name: '{next(iter(seen), '')}' is none of "
            f"'{next(iter(files))}' and the others",
            where=str(folder),
            hint="record a picture and a depth picture of each pose while the board stands still, and name "
            "them alike",
        )
    left_out |= {stem: "no depth picture of this name" for stem in seen if stem not in files}
    found = []
    for index, stem in enumerate(both):
        if progress is not None:
            progress("reading depth", index, len(both))
        try:
            view = _plane_view(stem, seen[stem], files[stem], camera, board, scale)
        except CalibrationError:
            raise
        except AnySenseError as error:
            left_out[stem] = error.message
            continue
        if isinstance(view, str):
            left_out[stem] = view
        else:
            found.append(view)
    return found, left_out


def _plane_view(
    stem: str, view: BoardView, path: Path, camera: CameraModel, board: Board, scale: float | None
) -> PlaneView | str:
    """The view, or why there is none."""
    pose = board_pose(camera, view, board)
    if pose is None or pose.rms_px > max(_LEAST_MISFIT_PX, _MISFIT * camera.width):
        off = "" if pose is None else f", {pose.rms_px:.1f} px off"
        return f"its corners are no board under these intrinsics{off}"
    depth = load_depth(path, scale).data
    if depth.shape != (camera.height, camera.width):
        raise CalibrationError(
            f"is {depth.shape[1]}x{depth.shape[0]}, the pictures {camera.width}x{camera.height}",
            where=str(path),
            hint="give depth in the pixels of the pictures: the depth camera's own infrared picture, or "
            "depth that its driver registers to the colour camera",
        )
    return _sampled(stem, view, pose, depth.astype(np.float64), camera)


def _sampled(
    stem: str, view: BoardView, pose: BoardPose, depth: Float64, camera: CameraModel
) -> PlaneView | str:
    hull = cv2.convexHull(view.pixels.astype(np.float32)).round().astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(depth.shape, np.uint8), hull, 1)
    y, x = np.nonzero(mask)
    known = np.isfinite(depth[y, x])
    if known.sum() < max(_FEWEST_PIXELS, _SEEN_SHARE * len(x)):
        return f"{100 * known.mean():.0f} % of the board has depth: too near, too far, or it shines"
    y, x = y[known], x[known]
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_PIXELS)).astype(np.int64))
    y, x = y[some], x[some]
    rays = camera.unproject(np.column_stack([x, y]), 1.0)
    normal, middle = pose.pose.rotation[:, 2], pose.pose.translation
    true = float(normal @ middle) / (rays @ normal)
    good = np.isfinite(true) & (true > 0)
    if good.sum() < _FEWEST_PIXELS:
        return "the board is seen edge-on"
    stretch = np.linalg.norm(rays, axis=1)
    return PlaneView(stem, true[good], depth[y, x][good], stretch[good])
