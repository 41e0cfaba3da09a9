"""What one picture shows of a board while it is held before a camera: where, how, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.extrinsics import square_px
from calibration.fitting import fit_pose
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64

_USUAL_FOCAL = 0.9
"""Of the picture's longer side: a guess at a camera before it is known, for the directions of tilts."""

_LOW, _HIGH = 5.0, 95.0
_STEEP = 99.0


@dataclass(frozen=True)
class Sighting:
    """A board in a picture.

    Attributes:
        view: its points.
        middle: (2,) the middle of its points as shares of the picture's width and height.
        size: square root of the share of the picture that its points enclose.
        tilt: (2,) degrees by which it is turned about the picture's x axis (positive: its lower edge is
            farther away) and y axis (positive: its left side is).
        roll: degrees about the optical axis, from -90 to 90: either end may be up.
        edge_px: pixels that an edge takes from dark to bright.
        square_px: the usual distance of neighbouring points.
        clipped: share of the board that is as bright as the picture can be; 0 for floats.
        contrast: of dark and bright, as a share of what the picture can hold; 1 where it is not of 8 bit.
    """

    view: BoardView
    middle: Float64
    size: float
    tilt: Float64
    roll: float
    edge_px: float
    square_px: float
    clipped: float
    contrast: float


def sighting_of(
    image: NDArray[Any], view: BoardView, board: Board, camera: CameraModel | None = None
) -> Sighting | None:
    """What a view of a board is like.

    Args:
        image: (H, W) the gray picture, unsigned integers or float32.
        view: the board in it.
        board: that it shows.
        camera: its intrinsics, where they are known; else tilts are those under a usual lens.

    Returns:
        None where its points enclose nothing, or are seen in no way that a board can be held.
    """
    size = np.array(view.size, float)
    hull = cv2.convexHull(view.pixels.astype(np.float32))
    area = float(cv2.contourArea(hull))
    if camera is None or (camera.width, camera.height) != view.size:
        focal = _USUAL_FOCAL * max(view.size)
        camera = CameraModel(*view.size, focal, focal, *((size - 1) / 2))
    found = fit_pose(camera, view, board)
    if found is None or area <= 0:
        return None
    turn = cv2.Rodrigues(found[0][:3])[0]
    x, y, z = turn[:, 2]
    roll = float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
    square = square_px(view, board)
    edge, clipped, contrast = _looks(image, hull, square)
    return Sighting(
        view,
        (view.pixels.mean(axis=0) + 0.5) / size,
        float(np.sqrt(area / size.prod())),
        np.degrees([np.arctan2(-y, z), np.arctan2(x, z)]),
        (roll + 90) % 180 - 90,
        edge,
        square,
        clipped,
        contrast,
    )


def _looks(image: NDArray[Any], hull: NDArray[Any], square: float) -> tuple[float, float, float]:
    """Width of edges in pixels, share of clipped pixels, and contrast, within a hull."""
    left, top, width, height = cv2.boundingRect(hull)
    left, top = max(left, 0), max(top, 0)
    part = image[top : top + height, left : left + width]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillConvexPoly(mask, np.round(hull - [left, top]).astype(np.int32), 1)
    inside, values = mask > 0, part[mask > 0]
    edge = _edge_px(part.astype(np.float32), inside, square)
    clipped, contrast = 0.0, 1.0
    if np.issubdtype(image.dtype, np.unsignedinteger):
        clipped = float((values >= np.iinfo(image.dtype).max).mean())
    if image.dtype == np.uint8:
        low, high = np.percentile(values, (_LOW, _HIGH))
        contrast = float(high - low) / 255
    return edge, clipped, contrast


def _edge_px(part: NDArray[np.float32], inside: NDArray[np.bool_], square: float) -> float:
    """How wide edges are: what dark and bright squares differ by, over the steepest slopes.

    A heated board is brighter in its middle by more than its squares differ: the mean over some squares is
    taken out first.
    """
    part = np.nan_to_num(part)
    radius = float(np.clip(square, 1.0, max(part.shape)))
    own = part - cv2.GaussianBlur(part, (0, 0), radius)
    slope = np.hypot(
        cv2.Sobel(own, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(own, cv2.CV_32F, 0, 1, scale=1 / 8)
    )
    low, high = np.percentile(own[inside], (_LOW, _HIGH))
    steepest = float(np.percentile(slope[inside], _STEEP))
    return float(high - low) / steepest if steepest > 0 else float("inf")
