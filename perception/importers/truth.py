"""Masks in the files of data sets, whose ids are checked before they become places of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import load_labels
from perception.data.base import IGNORE_LABEL
from perception.errors import DataError
from perception.importers.source import to_places


def read_places(
    path: Path, count: int, table: Mapping[int, int] | None = None
) -> NDArray[np.int32]:
    """The ids of a gray or palette PNG as places of classes; 255 is never one.

    Args:
        path: the file.
        count: ids are below.
        table: places by id; ids that are not in it are not labeled.  None: each is its place.

    Raises:
        DataError: no such file, or it holds another id.
        EncodingError: it is no such PNG.
    """
    ids = load_labels(path)
    wrong = ids[(ids >= count) & (ids != IGNORE_LABEL)]
    if wrong.size:
        raise DataError(f"holds id {int(wrong[0])}, there are 0..{count - 1}", where=str(path))
    return to_places(ids, {i: i for i in range(count)} if table is None else table)
