"""Depth images to metres (REP 117, REP 118)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.image import RawImage
from perception.errors import EncodingError, InputError
from perception.frame import shape_hint

DTYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Of each encoding: integers are millimetres, floats are metres."""


def decode_depth(raw: RawImage) -> NDArray[np.float32]:
    """Decode a depth image to (H, W) float32 metres.

    Args:
        raw: `16UC1` or `mono16` in millimetres, 0 = no return; or `32FC1` in metres, where NaN is
            no return, -Inf too close and +Inf beyond range (REP 117), kept as they are.

    Raises:
        EncodingError: another encoding.
        InputError: size and bytes contradict each other.
    """
    if raw.encoding not in DTYPES:
        raise EncodingError(
            f"unknown depth encoding '{raw.encoding}'", where="depth", hint=", ".join(DTYPES)
        )
    return depth_from_array(raw.rows(DTYPES[raw.encoding], 1))


def depth_from_array(array: NDArray[Any], scale: float | None = None) -> NDArray[np.float32]:
    """Metres from an (H, W) array; its dtype says what its values are.

    Args:
        array: floating: metres, whatever `scale` is; integers: steps of `scale`, 0 (or less) = no
            return.  Either byte order.
        scale: metres per step; without it uint16 are millimetres (REP 118), and other integers refused.

    Raises:
        InputError: wrong shape, or a dtype whose scale is not known.
    """
    if array.ndim != 2 or array.size == 0:
        hint = shape_hint(array.shape)
        raise InputError(f"shape {array.shape}, expected (H, W)", where="depth", hint=hint)
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale {scale} is not a positive number", where="depth")
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore", invalid="ignore"):
            meters = array.astype(np.float32)
            absent = meters <= 0
            if absent.any():
                _blank(meters, ~(absent & (meters > -np.inf)))
        return meters
    millimeters = array.dtype.kind == "u" and array.dtype.itemsize == 2
    if millimeters or (array.dtype.kind in "ui" and scale is not None):
        meters = array.astype(np.float32) * np.float32(1e-3 if scale is None else scale)
        _blank(meters, array > 0)
        return meters
    raise InputError(
        f"dtype {array.dtype}: the scale is not known",
        where="depth",
        hint="uint16 millimetres, float metres, or give metres per step",
    )


def _blank(meters: NDArray[np.float32], keep: NDArray[np.bool_]) -> None:
    """Make NaN what is not to be kept; ten times as fast as masked assignment."""
    with np.errstate(invalid="ignore"):
        meters *= keep
        meters /= keep  # 0 / 0
