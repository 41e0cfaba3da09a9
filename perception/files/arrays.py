"""NumPy's files of any origin: what the header claims is compared with the limits and the file first."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError, DataError
from perception.files.archives import open_zip
from perception.files.limits import MAX_ARRAY_BYTES, check_bytes
from perception.files.text import read_bytes

NPY_MAGIC: Final = b"\x93NUMPY"

_KINDS = "biuf"  # bool, integers and floats; objects would be unpickled, the rest are no samples
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def parse_npy(
    content: bytes, *, where: str = "", error: type[AnySenseError] = DataError
) -> NDArray[Any]:
    """The array in the bytes of a .npy file, in native byte order; nothing is unpickled.

    Args:
        content: the file's bytes; what follows the array is ignored.
        where: names it in errors.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: it is no .npy, holds no numbers, claims more than
            `MAX_ARRAY_BYTES`, or ends early.
    """
    if not content.startswith(NPY_MAGIC):
        raise error("is no numpy array", where=where)
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = _HEADERS.get(version)
        shape, fortran_order, dtype = read(file) if read else ((), False, np.dtype("O"))
    # ValueError is documented; the header is parsed as Python, so the others come as well
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError) as problem:
        raise error("header of the numpy array is damaged", where=where) from problem
    except (KeyError, OverflowError, RecursionError, AttributeError) as problem:
        raise error("header of the numpy array is damaged", where=where) from problem
    if read is None:  # version 3 came for the names of structured arrays' fields
        raise error(f".npy of version {version[0]}, expected 1 or 2", where=where)
    if dtype.kind not in _KINDS or dtype.shape:
        raise error(f"numpy array of {str(dtype)[:60]}, expected numbers", where=where)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
        raise error("header of the numpy array is damaged", where=where)
    count = math.prod(shape)
    size = count * dtype.itemsize
    check_bytes(size, MAX_ARRAY_BYTES, where=where, error=error)
    start = file.tell()
    if len(content) - start < size:
        raise error(f"ends early: {len(content) - start} of {size} bytes of the array", where=where)
    flat = np.frombuffer(content, dtype, count, start)
    array = flat.astype(dtype.newbyteorder("="), copy=True)
    try:
        return array.reshape(shape, order="F" if fortran_order else "C")
    except ValueError as problem:  # more axes than numpy has
        raise error("header of the numpy array is damaged", where=where) from problem


def read_npy(path: str | Path, *, error: type[AnySenseError] = DataError) -> NDArray[Any]:
    """The array of a .npy file.

    Raises:
        AnySenseError: of the class `error`, see `parse_npy` and `read_bytes`.
    """
    return parse_npy(read_bytes(path, error=error), where=str(path), error=error)


def parse_npz(
    content: bytes,
    names: Sequence[str],
    *,
    where: str = "",
    error: type[AnySenseError] = DataError,
) -> dict[str, NDArray[Any]]:
    """Those of the arrays `names` that the bytes of a .npz archive hold.

    Args:
        content: the archive's bytes; all its arrays together are at most `MAX_ARRAY_BYTES`.
        names: which arrays to unpack; others are not touched.
        where: names it in errors.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`, see `open_zip` and `parse_npy`.
    """
    found: dict[str, NDArray[Any]] = {}
    file = io.BytesIO(content)
    with open_zip(file, limit=MAX_ARRAY_BYTES, where=where, error=error) as archive:
        members = set(archive.namelist())
        for name in names:
            if f"{name}.npy" in members:
                array = archive.read(f"{name}.npy")
                found[name] = parse_npy(array, where=f"{where}: {name}", error=error)
    return found
