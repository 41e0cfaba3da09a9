"""Point clouds: any field layout of `sensor_msgs/PointCloud2`, and plain arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.image import byte_view
from perception.adapters.point_times import NAMES as TIME_NAMES
from perception.adapters.point_times import seconds_from
from perception.errors import EncodingError, InputError
from perception.files.limits import check_bytes, check_points
from perception.frame import LEAST_RANGE_M, check_least_range, intensity_unit, is_square_of_return
from perception.geometry.scratch import POINTS, Scratch, as_columns, block_size

DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""numpy types by PointField datatype code."""

_FLOATS = (7, 8)

INTENSITY_NAMES = (
    "intensity",
    "intensities",
    "i",
    "reflectivity",
    "reflectance",
    "signal",
    "remission",
    "rssi",
)


@dataclass(frozen=True)
class PointField:
    """The fields of a `sensor_msgs/PointField`; offset in bytes."""

    name: str
    offset: int
    datatype: int
    count: int = 1


def decode_pointcloud2(
    fields: Sequence[PointField],
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    *,
    width: int,
    height: int,
    point_step: int,
    row_step: int = 0,
    is_bigendian: bool = False,
    least_range_m: float = LEAST_RANGE_M,
) -> NDArray[np.float32]:
    """Decode a cloud to (N, 4) float32: x, y, z in metres, intensity in 0..1 (0 when unknown).

    Points that are no return are dropped: a coordinate that is not finite, (0, 0, 0), or nearer than
    `least_range_m`.  Intensities are scaled as `scale_intensity` says.  A `row_step` that the data do
    not have is passed over when they are exactly the points: some drivers give the size of the whole
    cloud there.

    Raises:
        EncodingError: x, y or z is missing, given twice, several values or an integer, or a field lies
            outside the point or has no known type.
        InputError: size and bytes contradict each other.
    """
    layout = _Layout(fields, data, width, height, point_step, row_step, is_bigendian)
    return _points(layout.columns(layout.coordinates), least_range_m)


def decode_timed_pointcloud2(
    fields: Sequence[PointField],
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    *,
    width: int,
    height: int,
    point_step: int,
    row_step: int = 0,
    is_bigendian: bool = False,
    least_range_m: float = LEAST_RANGE_M,
    stamp_ns: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """`decode_pointcloud2`, and when each of its points was measured.

    Returns:
        The points (N, 4), and (N,) float32 seconds from `stamp_ns`; None where no field tells them, see
        `point_times`.

    Raises:
        EncodingError, InputError: see `decode_pointcloud2`; never of a field of times.
    """
    layout = _Layout(fields, data, width, height, point_step, row_step, is_bigendian)
    names = layout.coordinates
    if not (time := layout.time) or not width * height:
        return _points(layout.columns(names), least_range_m), None
    *table, times = layout.columns([*names, time])
    kept = np.empty(len(times), bool)
    points = _points(table, least_range_m, kept)
    return points, seconds_from(times[kept], stamp_ns)


@dataclass(frozen=True)
class _Layout:
    """A cloud, as `columns_of` takes it."""

    fields: Sequence[PointField]
    data: bytes | bytearray | memoryview | NDArray[np.uint8]
    width: int
    height: int
    point_step: int
    row_step: int
    is_bigendian: bool

    @property
    def coordinates(self) -> list[str]:
        """x, y, z and where it is known intensity.

        Raises:
            EncodingError: coordinates are missing, or integers.
        """
        for field in [_field(self.fields, n) for n in "xyz"] if self.width * self.height else []:
            if field.datatype in DATATYPES and field.datatype not in _FLOATS:
                raise EncodingError(
                    f"field {field.name} is an integer, its scale is not known",
                    hint="x, y, z must be float32 or float64 in metres",
                )
        known = {f.name.lower() for f in self.fields}
        return [*"xyz", *[n for n in INTENSITY_NAMES if n in known][:1]]

    @property
    def time(self) -> str:
        """The field that says when a point was measured; empty where none does so in one value."""
        for name in TIME_NAMES:
            found = [f for f in self.fields if f.name.lower() == name]
            if len(found) == 1 and found[0].count <= 1 and self._within(found[0]):
                return name
        return ""

    def _within(self, field: PointField) -> bool:
        code = DATATYPES.get(field.datatype)
        return code is not None and 0 <= field.offset <= self.point_step - np.dtype(code).itemsize

    def columns(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """See `columns_of`."""
        return columns_of(
            self.fields,
            self.data,
            names,
            width=self.width,
            height=self.height,
            point_step=self.point_step,
            row_step=self.row_step,
            is_bigendian=self.is_bigendian,
        )


def columns_of(
    fields: Sequence[PointField],
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    names: Sequence[str],
    *,
    width: int,
    height: int,
    point_step: int,
    row_step: int = 0,
    is_bigendian: bool = False,
) -> list[NDArray[Any]]:
    """Fields of a cloud by name, (N,) each, of whatever type they have; for `row_step` see above.

    Raises:
        EncodingError: a field is missing, given twice, several values, lies outside the point, or has no
            known type.
        InputError: size and bytes contradict each other.
    """
    count = width * height
    row_step = row_step or width * point_step
    flat = byte_view(data, "cloud")
    if min(width, height, point_step) < 0 or row_step < width * point_step:
        raise InputError(f"cloud of {width}x{height} points with step {point_step}")
    check_points(count)
    check_bytes(count * point_step)
    if flat.size == count * point_step:
        row_step = width * point_step
    if count == 0:
        return [np.zeros(0, np.float32) for _ in names]
    if point_step == 0 or flat.size < row_step * (height - 1) + width * point_step:
        raise InputError(
            f"cloud of {width}x{height} points of {point_step} bytes has {flat.size} bytes",
        )
    wanted = [_field(fields, name.lower()) for name in names]
    kind = np.dtype(
        {
            "names": [f"f{i}" for i in range(len(wanted))],
            "formats": [_format(f, point_step, is_bigendian) for f in wanted],
            "offsets": [f.offset for f in wanted],
            "itemsize": point_step,
        }
    )
    rows = np.lib.stride_tricks.as_strided(
        flat, (height, width * point_step), (row_step, 1), writeable=False
    )
    table = np.ascontiguousarray(rows).reshape(-1).view(kind)
    return [table[f"f{i}"] for i in range(len(wanted))]


def _field(fields: Sequence[PointField], name: str) -> PointField:
    """The one field of a name, in any case of letters."""
    found = {(f.offset, f.datatype): f for f in fields if f.name.lower() == name}
    if not found:
        raise EncodingError(f"cloud has no field {name}")
    field = next(iter(found.values()))
    if len(found) > 1:
        raise EncodingError(f"cloud has several fields {name}")
    if field.count > 1:
        raise EncodingError(f"field {field.name} has {field.count} values a point")
    return field


def _points(
    table: Sequence[NDArray[Any]], least_range_m: float, returns: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Those points (N, 4) that are returns, of columns x, y, z and where it is known intensity.

    `returns`, one for each point, is filled with which those are.
    """
    check_least_range(least_range_m)
    count, kept = len(table[0]), 0
    out = np.empty((count, 4), np.float32)
    least, most = 0.0, 0.0
    size = block_size(count)
    with POINTS.lend() as scratch, np.errstate(over="ignore", invalid="ignore"):
        square, part = scratch.array("square", (2, size), np.float32)
        for start in range(0, count, size):
            columns = _block([c[start : start + size] for c in table], scratch)
            for axis, to in zip(columns[:3], (square, part, part), strict=True):
                product = np.multiply(axis, axis, out=to[: len(axis)])
                if to is part:
                    square[: len(axis)] += product
            intensity = columns[3]
            low, high = float(intensity.min()), float(intensity.max())
            if not math.isfinite(high - low):
                intensity[~np.isfinite(intensity)] = 0
                low, high = float(intensity.min()), float(intensity.max())
            least, most = min(least, low), max(most, high)
            seen = is_square_of_return(square[: columns.shape[1]], least_range_m)
            if returns is not None:
                returns[start : start + size] = seen
            if not seen.all():
                columns = columns.take(np.flatnonzero(seen), axis=1)
            if columns.shape[1]:
                end = kept + columns.shape[1]
                cv2.transpose(columns, out[kept:end])
                kept = end
    out = out[:kept]
    unit = intensity_unit(table[3].dtype, most) if len(table) > 3 else 1
    if unit != 1:
        out[:, 3] /= unit
    if least < 0 or most > unit:
        out[:, 3].clip(0, 1, out=out[:, 3])
    return out


def _block(table: Sequence[NDArray[Any]], scratch: Scratch) -> NDArray[np.float32]:
    """Columns of a table, whatever their types, as (4, n), 0 where there is no fourth."""
    first = table[0]
    places = [c.__array_interface__["data"][0] for c in table]
    beside = [first.__array_interface__["data"][0] + 4 * i for i in range(len(table))]
    if len(table) > 3 and places == beside and all(c.dtype == np.float32 for c in table):
        rows = np.lib.stride_tricks.as_strided(first, (len(first), 4), (first.strides[0], 4))
        return as_columns(rows, scratch)
    columns = scratch.array("columns", (4, len(first)), np.float32)
    for column, values in zip(columns, table, strict=False):
        np.copyto(column, values, casting="unsafe")
    columns[len(table) :] = 0
    return columns


def _format(field: PointField, point_step: int, is_bigendian: bool) -> str:
    code = DATATYPES.get(field.datatype)
    if code is None:
        raise EncodingError(f"field {field.name} has unknown datatype {field.datatype}")
    if field.offset < 0 or field.offset + np.dtype(code).itemsize > point_step:
        raise EncodingError(f"field {field.name} lies outside the point")
    return (">" if is_bigendian else "<") + code


def points_from_array(
    array: NDArray[Any], *, least_range_m: float = LEAST_RANGE_M
) -> NDArray[np.float32]:
    """An (N, 3..5) array as (N, 4) float32 x, y, z, intensity; a fifth column (ring) is dropped.

    Points that are no return are dropped, as in `decode_pointcloud2`.

    Raises:
        InputError: another shape or dtype.
    """
    return _points(_columns(array), least_range_m)


def timed_points_from_array(
    array: NDArray[Any], times: NDArray[Any], *, least_range_m: float = LEAST_RANGE_M
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`points_from_array`, with the times (N,) of those points that are returns, as float32 seconds.

    Raises:
        InputError: another shape or dtype of either, or a return's time is not finite.
    """
    table = _columns(array)
    if times.shape != array.shape[:1] or times.dtype.kind not in "iuf":
        what = f"times are {times.dtype} {times.shape}, expected a number for each of"
        raise InputError(f"{what} {len(array)} points")
    kept = np.empty(len(times), bool)
    points = _points(table, least_range_m, kept)
    with np.errstate(over="ignore"):
        seconds = times[kept].astype(np.float32)
    if not np.isfinite(seconds).all():
        raise InputError("a time of a point is not finite")
    return points, seconds


def _columns(array: NDArray[Any]) -> list[NDArray[Any]]:
    """x, y, z and where it is there intensity."""
    if array.ndim != 2 or not 3 <= array.shape[1] <= 5:
        raise InputError(f"shape {array.shape}, expected (N, 3), (N, 4) or (N, 5)")
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise InputError(f"dtype {array.dtype}, expected numbers")
    plain = np.asarray(array)
    return [plain[:, i] for i in range(min(4, plain.shape[1]))]
