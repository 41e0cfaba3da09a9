"""Samples of bare arrays, as camera and LiDAR drivers hand them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EncodingError, InputError, names_hint
from perception.frame import shape_hint

if TYPE_CHECKING:
    pass


def check_encoding(array: NDArray[Any], encoding: str, known: Mapping[str, str]) -> None:
    """Refuse what is not (H, W), or not of the dtype of its encoding, if that is given.

    Args:
        array: any.
        encoding: as in `sensor_msgs/image_encodings`.
        known: by encoding, its dtype.

    Raises:
        EncodingError: the encoding is not known.
        InputError: the array is not of it.
    """
    if array.ndim != 2:
        raise InputError(f"shape {array.shape}, expected (H, W)", hint=shape_hint(array.shape))
    if not encoding:
        return
    if encoding not in known:
        raise EncodingError(f"unknown encoding '{encoding}'", hint=names_hint(encoding, known))
    if array.dtype.newbyteorder("=") != known[encoding]:
        wanted = np.dtype(known[encoding]).name
        raise InputError(f"{encoding} is {wanted}, the array is {array.dtype}")
