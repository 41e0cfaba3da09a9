"""Finding a board's points in pictures: of colour cameras, and of thermal ones with either contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from perception.adapters.files import PICTURE_SUFFIXES, naming, picture_of
from perception.errors import AnySenseError, CalibrationError, ConfigError, InputError, names_hint
from perception.files.listing import list_files
from perception.files.text import read_bytes
from perception.geometry.transforms import Float64

Gray = NDArray[np.uint8]

_SEARCHED_PX = 1000
"""The longer side of the picture in which corners are searched: they are found to a tenth of its pixels."""

_LOCAL_SHARES = (0.0, 1 / 80, 1 / 50, 1 / 25)
"""Radii of the local means that a picture is freed from, as shares of its width; 0: of none."""

_QUICK = 2
_SPREAD = 50.0
_FEWEST_SHARE = 0.25
_FEWEST_POINTS = 8
_TILED_PX = 3.0


@dataclass(frozen=True)
class BoardView:
    """What one picture shows of a board.

    Attributes:
        name: of the picture.
        size: (width, height) in pixels.
        ids: (N,) which of the board's points.
        pixels: (N, 2) float64 where they are seen; (0, 0) is the center of the top left pixel.
        edge_px: how many pixels an edge of the board takes from dark to bright; 0 if not known.
    """

    name: str
    size: tuple[int, int]
    ids: NDArray[np.int64]
    pixels: Float64
    edge_px: float = 0.0


@dataclass(frozen=True)
class Detections:
    """The views of a folder, and why the other pictures give none.

    Attributes:
        views: of the board.
        left_out: the other pictures, with the reason.
        hint: where most give none, what one of them shows in place of the board.
    """

    views: tuple[BoardView, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    hint: str = ""


def detect_folder(
    folder: Path, board: Board, progress: Callable[[str, int, int], None] | None = None
) -> Detections:
    """Find the board in every picture of a folder.

    Args:
        folder: PNG, JPEG or TIFF, 8 or 16 bit, gray or colour.
        board: what to find.
        progress: called with a text, the number of pictures done, and of all.

    Raises:
        CalibrationError: no pictures, or the board is in none of them.
        ConfigError: a dictionary that is not known.
    """
    files = list_files(folder, PICTURE_SUFFIXES, error=CalibrationError)
    views, left_out = [], {}
    for index, path in enumerate(files.values()):
        if progress is not None:
            progress("finding the board", index, len(files))
        try:
            view = detect(read_gray(path), board, path.name)
        except InputError as error:
            left_out[path.name] = error.message
            continue
        if view is None:
            left_out[path.name] = "no board found: not wholly seen, blurred, or without contrast"
        else:
            views.append(view)
    if not views:
        raise CalibrationError(
            f"no board {board} in any of {len(files)} pictures",
            where=str(folder),
            hint=_what_else(next(iter(files.values())), board),
        )
    hint = ""
    if len(views) < len(left_out):
        hint = _what_else(next(p for p in files.values() if p.name in left_out), board)
    return Detections(tuple(views), left_out, hint)


def read_gray(path: Path) -> NDArray[Any]:
    """A picture as (H, W) uint8, uint16 or float32.

    Raises:
        AnySenseError: it cannot be read.
    """
    with naming(path):
        image = picture_of(read_bytes(path), path).upright()
    if image.ndim == 3:
        return np.asarray(cv2.cvtColor(image[:, :, :3], cv2.COLOR_RGB2GRAY))
    return image


def detect(
    image: NDArray[Any], board: Board, name: str = "", *, thorough: bool = True
) -> BoardView | None:
    """Find a board's points in one picture.

    Args:
        image: (H, W) of any unsigned integers or floats; only differences within it count.
        board: what to find.
        name: of the picture, for errors and reports.
        thorough: try all that is known of faint boards; without, the two likeliest ways, as for the next of
            many pictures while somebody waits: one without a board takes a quarter of the time.

    Returns:
        None where the board is not found.

    Raises:
        InputError: no picture of one channel.
        ConfigError: a dictionary that is not known.
    """
    if image.ndim != 2 or min(image.shape) < 16:
        raise InputError(f"no gray picture: {image.shape}", where=name)
    find = {
        "chessboard": _chessboard,
        "circles": _circles,
        "charuco": _charuco,
        "aprilgrid": _aprilgrid,
    }[board.kind]
    ways = _variants(image, larger=board.kind == "chessboard")
    for gray, scale in ways if thorough else islice(ways, _QUICK):
        found = find(gray, board)
        if found is None:
            continue
        ids, pixels, edge = found
        pixels = (np.asarray(pixels, np.float64).reshape(-1, 2) + 0.5) / scale - 0.5
        size = (image.shape[1], image.shape[0])
        return BoardView(name, size, np.asarray(ids, np.int64).ravel(), pixels, edge / scale)
    return None


Found = tuple[Any, Any, float]


def _variants(image: NDArray[Any], *, larger: bool) -> Iterator[tuple[Gray, float]]:
    """The picture as 8 bit in several ways, the likeliest first, with its scale.

    A heated board is brightest in its middle by more than its squares differ: what is left after the
    local mean and contrast are taken out shows them.
    """
    scale = min(1.0, _SEARCHED_PX / max(image.shape))
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if scale < 1:
        values = cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    spread = float(values.max() - values.min())
    if spread <= 0:
        return
    grays = []
    for share in _LOCAL_SHARES:
        gray = stretched(values) if not share else _flattened(values, share, spread)
        grays.append(gray)
        yield gray, scale
    if scale < 1:  # small boards far away are lost in the smaller picture
        yield stretched(image.astype(np.float32)), 1.0
    elif larger:  # and squares of a few pixels want more of them
        for gray in grays[1:3]:
            yield cv2.resize(gray, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), 2.0


def stretched(values: NDArray[np.float32]) -> Gray:
    """A picture (H, W) of any range as uint8, its darkest and brightest half percent cut off."""
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.uint8)


def _flattened(values: NDArray[np.float32], share: float, spread: float) -> Gray:
    radius = max(2.0, share * values.shape[1])
    above = values - cv2.GaussianBlur(values, (0, 0), radius)
    contrast = np.sqrt(cv2.GaussianBlur(above * above, (0, 0), radius)) + 2e-4 * spread
    return np.clip(128 + above / contrast * _SPREAD, 0, 255).astype(np.uint8)


def _chessboard(gray: Gray, board: Board) -> Found | None:
    size = (board.columns, board.rows)
    found, corners = cv2.findChessboardCornersSB(gray, size, flags=cv2.CALIB_CB_ACCURACY)
    if not found:
        return None
    sharpness, _ = cv2.estimateChessboardSharpness(gray, size, corners)
    return np.arange(len(corners)), corners, float(sharpness[0])


def _circles(gray: Gray, board: Board) -> Found | None:
    """Dark or bright circles, in the order of OpenCV: rows of `columns` circles."""
    flags = cv2.CALIB_CB_ASYMMETRIC_GRID | cv2.CALIB_CB_CLUSTERING
    maker: Any = cv2  # its type stubs lack the blob detector
    settings = maker.SimpleBlobDetector_Params()
    settings.minArea, settings.maxArea = 12.0, gray.size / 50
    settings.minDistBetweenBlobs = 3.0
    finder = maker.SimpleBlobDetector_create(settings)
    for picture in (gray, 255 - gray):
        found, centers = cv2.findCirclesGrid(
            picture, (board.columns, board.rows), None, flags, finder
        )
        if found:
            return np.arange(len(centers)), centers, 0.0
    return None


def _dictionary(name: str, tags: bool) -> Any:
    known = {
        key.removeprefix("DICT_").removeprefix("APRILTAG_").lower(): getattr(cv2.aruco, key)
        for key in dir(cv2.aruco)
        if key.startswith("DICT_APRILTAG_" if tags else "DICT_") and (tags or "APRILTAG" not in key)
    }
    if name.lower() not in known:
        hint = names_hint(name, sorted(known))
        raise ConfigError(f"no dictionary '{name}'", where="--board", hint=hint)
    return cv2.aruco.getPredefinedDictionary(known[name.lower()])


def _charuco(gray: Gray, board: Board) -> Found | None:
    dictionary = _dictionary(board.dictionary, tags=False)
    size = (board.columns, board.rows)
    for legacy in (False, True):  # where the first square is white or black, as before OpenCV 4.6
        pattern = cv2.aruco.CharucoBoard(size, board.square_m, board.marker_m, dictionary)
        pattern.setLegacyPattern(legacy)
        try:
            corners, ids, _, _ = cv2.aruco.CharucoDetector(pattern).detectBoard(gray)
        except cv2.error as error:  # more markers than the dictionary has
            raise ConfigError(
                f"{board} wants more markers than its dictionary has", where="--board"
            ) from error
        if ids is not None and len(ids) >= _enough(board):
            return ids, corners, 0.0
    return None


def _enough(board: Board) -> float:
    return max(_FEWEST_POINTS, _FEWEST_SHARE * len(board.points))


def _aprilgrid(gray: Gray, board: Board) -> Found | None:
    """Tags row by row; which corner of a tag is which, and whether rows rise, is found by what fits.

    Kalibr counts rows from below and OpenCV's markers may be turned against those of AprilTag.
    """
    settings = cv2.aruco.DetectorParameters()
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_APRILTAG
    finder = cv2.aruco.ArucoDetector(_dictionary(board.dictionary, tags=True), settings)
    quads, ids, _ = finder.detectMarkers(gray)
    if ids is None:
        return None
    ids = ids.ravel()
    inside = ids < board.columns * board.rows
    # This refinement counts pixels from the corner of the first one, not from its center.
    ids, seen = ids[inside], np.asarray(quads, np.float64).reshape(-1, 4, 2)[inside] - 0.5
    if 4 * len(ids) < _enough(board):
        return None
    points = board.points.reshape(-1, 4, 3)[ids][:, :, :2]
    best, order = np.inf, (0, False)
    for turn, flipped in product(range(4), (False, True)):
        turned = np.roll(seen[:, ::-1] if flipped else seen, turn, axis=1)
        plane, _ = cv2.findHomography(points.reshape(-1, 2), turned.reshape(-1, 2))
        if plane is None:
            continue
        put = cv2.perspectiveTransform(points.reshape(1, -1, 2), plane)[0]
        missed = float(np.sqrt(np.mean((put - turned.reshape(-1, 2)) ** 2)))
        if missed < best:
            best, order = missed, (turn, flipped)
    if best > _TILED_PX * max(1.0, max(gray.shape) / _SEARCHED_PX):
        return None
    turned = np.roll(seen[:, ::-1] if order[1] else seen, order[0], axis=1)
    return (4 * ids[:, None] + np.arange(4)).ravel(), turned.reshape(-1, 2), 0.0


def _what_else(path: Path, board: Board) -> str:
    """What a picture holds in place of the board that was asked for."""
    hint = "is the board wholly in the pictures, and sharp?"
    try:
        image = read_gray(path)
        if board.kind == "chessboard":
            hint = "inner corners are counted, not squares; is the board wholly in the pictures?"
            sizes = ((-1, -1), (1, 1), (-1, 0), (0, -1), (1, 0), (0, 1), (-2, -2))
            tried = [(board.columns + a, board.rows + b) for a, b in sizes]
            for columns, rows in tried:
                if min(columns, rows) < 3:
                    continue
                other = Board("chessboard", columns, rows, board.square_m)
                if detect(image, other) is not None:
                    return f"{path.name} shows one of {columns}x{rows} inner corners"
        elif detect(np.ascontiguousarray(image[:, ::-1]), board) is not None:
            return f"{path.name} is mirrored: markers are read in its mirror image"
    except AnySenseError:
        pass
    return hint
