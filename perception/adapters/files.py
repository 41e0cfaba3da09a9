"""Single sensor files as samples: pictures, depth maps, clouds, and label masks.

The one reader of such files: the folder format, the data sets and `anysense run` all come here.  What a
file is, is told by its first bytes (JPEG, PNG, TIFF, .npy) and only where there are none to tell, as in
.bin, by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perception.adapters.headerless import COLUMNS_BY_SUFFIX
from perception.adapters.pictures import (
    Picture,
    decode_labels,
    decode_picture,
    dim_remark,
    remarks,
)
from perception.errors import EncodingError, InputError
from perception.files.arrays import NPY_MAGIC, parse_npy
from perception.files.limits import MAX_ARCHIVE_FILES
from perception.files.text import read_bytes

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
CLOUD_SUFFIXES = (".npy", ".npz", *COLUMNS_BY_SUFFIX, ".pcd")

_DAMAGED: dict[Path, str] = {}  # of the files that were read last

_ENCODINGS = {"uint8": "8UC1", "uint16": "16UC1", "float32": "32FC1", "float64": "64FC1"}


def picture_remarks(path: Path, *, turned: bool = True, dim: bool = False) -> list[str]:
    """`file_remarks` of a picture.

    Args:
        path: the file.
        turned: its reader heeds the orientation that it says.
        dim: say so where its values are few.
    """
    content = read_bytes(path)
    if array_of(content, path) is not None:
        return []
    damage = _DAMAGED.get(Path(path))
    found = [*remarks(content, turned=turned), *([damage] if damage else [])]
    return [*found, *dim_remark(content)] if dim else found


def load_labels(path: Path) -> NDArray[Any]:
    """The class ids of a gray or palette PNG, (H, W) uint8 or uint16: the stored sample is the id.

    See `decode_labels`.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no such PNG, or damaged.
    """
    with naming(path):
        return decode_labels(read_bytes(path))


def picture_of(content: bytes, path: Path) -> Picture:
    """A picture; damage is warned of, and remembered for `file_remarks`."""
    picture = decode_picture(content)
    _DAMAGED.pop(Path(path), None)
    if picture.damage:
        if len(_DAMAGED) < MAX_ARCHIVE_FILES:
            _DAMAGED[Path(path)] = picture.damage
        warnings.warn(f"{path} {picture.damage}", stacklevel=4)
    return picture


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file an error is about."""
    try:
        yield
    except InputError as error:
        raise EncodingError(error.message, where=str(path), hint=error.hint) from error


def array_of(content: bytes, path: Path) -> NDArray[Any] | None:
    """The array of a .npy file; None of a picture."""
    if content.startswith(NPY_MAGIC) or Path(path).suffix.lower() == ".npy":
        return parse_npy(content, error=EncodingError)
    return None


def encoding_of(array: NDArray[Any]) -> str:
    """The name of its dtype, as of an image of one channel."""
    return _ENCODINGS.get(str(array.dtype), str(array.dtype))
