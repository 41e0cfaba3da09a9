"""What the kinds of pictures share: the check of an array, and the way to the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError, DataError, InputError
from perception.files.writing import image_bytes, tiff_bytes
from perception.frame import Sample, shape_hint
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.views import Placement
from perception.sensors.kind import Grid, TensorSpec, size_of_picture

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec


def png_bytes(image: NDArray[Any]) -> bytes:
    """A picture as PNG; (H, W) or (H, W, 3) of 8 or 16 bit."""
    return image_bytes(image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3])


def picture_bytes(image: NDArray[Any], suffix: str) -> bytes:
    """A picture as the file that its suffix says: PNG, Deflate TIFF, or JPEG, which is not lossless.

    Raises:
        DataError: the suffix is another, or its format does not hold the picture.
    """
    if suffix.lower() in (".jpg", ".jpeg") and image.dtype == np.uint8:
        return image_bytes(image, suffix, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if suffix.lower() in (".tif", ".tiff"):
        return tiff_bytes(image)
    if suffix.lower() == ".png":
        return png_bytes(image)
    what = f"pictures of {image.dtype} are not written as {suffix}"
    raise DataError(what, hint=".png or .tiff; colors .jpg, too")


def one_image(channels: int, view: ViewSpec) -> dict[str, TensorSpec]:
    """The tensors of a kind that has one, of float32 (C, H, W)."""
    return {"image": TensorSpec((channels, view.height, view.width))}


def on_grid(sample: Sample, input: InputSpec, **resampled: Any) -> Grid:
    """A picture on the grid of its input; see `GridMap.to_grid` for `resampled`."""
    grid = GridMap.fit(size_of_picture(sample), input.view)
    return Grid({"image": grid.to_grid(sample.data, **resampled)}, sample.unit, grid)


def registered(sample: Sample, input: InputSpec, placement: Placement, **resampled: Any) -> Grid:
    """A picture on the grid of another sensor's; see `View.to_grid` for `resampled`."""
    image = placement.view.to_grid(sample.data, near=placement.near, **resampled)
    return Grid({"image": image}, sample.unit, placement.view.grid)


def keep_where(known: NDArray[np.bool_], values: NDArray[Any]) -> None:
    """Values (H, W) of an image become 0 where nothing is known, NaN and infinity too, in place.

    NumPy's own masked assignment takes a misprediction for every edge of the mask, as of a depth camera's
    holes; OpenCV's blends.
    """
    if known.all():
        return
    cleared = np.zeros(values.shape, values.dtype)
    cv2.copyTo(np.ascontiguousarray(values), known.view(np.uint8), cleared)
    values[...] = cleared


class Moves(Protocol):
    """How training moves what lies on a grid."""

    def warp(self, image: NDArray[Any], nearest: bool, fill: float) -> NDArray[Any]:
        """An array (H, W) or (H, W, C) of the grid where it is moved to, `fill` where there was nothing."""


def warped(grid: Grid, geometry: Moves, nearest: bool = True, fill: float = 0.0) -> Grid:
    """`SensorKind.warp` of a kind whose layers are all moved alike; by default pixels are taken as they
    are, and nothing is 0."""
    return Grid({n: _moved(a, geometry, nearest, fill) for n, a in grid.layers.items()}, grid.unit)


def _moved(layer: NDArray[Any], geometry: Moves, nearest: bool, fill: float) -> NDArray[Any]:
    if layer.dtype == np.bool_:
        return geometry.warp(layer.view(np.uint8), True, fill) > 0
    return geometry.warp(layer, nearest, fill)


def check_image(sample: Sample, dtype: type[np.generic], channels: int, integers: str = "") -> None:
    """Refuse what is no picture of this type, or not of its camera's size.

    Args:
        sample: its `data` is an array.
        dtype, channels: what it must have.
        integers: what to do about integers where floats are expected.

    Raises:
        InputError: the shape or dtype is another.
        CalibrationError: the camera is calibrated for another size.
    """
    data = sample.data
    shape_ok = data.ndim == (3 if channels > 1 else 2) and data.size > 0
    if not shape_ok or (channels > 1 and data.shape[2] != channels):
        want = f"(H, W, {channels})" if channels > 1 else "(H, W)"
        raise InputError(
            f"shape {data.shape}, expected {want}",
            where=sample.sensor,
            hint=shape_hint(data.shape, channels),
        )
    if data.dtype != dtype:
        raise InputError(
            f"dtype {data.dtype}, expected {np.dtype(dtype).name}",
            where=sample.sensor,
            hint=_dtype_hint(data.dtype, integers),
        )
    camera = sample.camera
    if camera is not None and (camera.height, camera.width) != data.shape[:2]:
        raise CalibrationError(
            f"camera is calibrated for {camera.width}x{camera.height} pixels, "
            f"image has {data.shape[1]}x{data.shape[0]}",
            where=sample.sensor,
        )


def _dtype_hint(dtype: np.dtype[np.generic], integers: str) -> str:
    if not dtype.isnative:
        return "not this machine's byte order: data.astype(data.dtype.newbyteorder('='))"
    if integers and np.issubdtype(dtype, np.integer):
        return integers
    return "decode the message with perception.adapters first"
