"""Samples and frames: what the sensors said, decoded to SI units.

A `Frame` maps sensors, by name, to samples.  A sensor that is not in the frame is missing; zeros are
never used to say so.  Axes and units follow REP 103 and REP 105, depth values REP 117 and REP 118.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, names_hint
from perception.sensors.names import OURS, is_kind, kinds

if TYPE_CHECKING:
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform

Kind = str
"""Name of a kind of sensor; `perception.sensors.names.kinds` lists them."""

KINDS: tuple[Kind, ...] = OURS
"""Our own kinds of sensors, in canonical order."""

# Their names before sensors had names of their own.
Modality = Kind
MODALITIES = KINDS

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
"""What a sensor, and the input of a bundle, may be called."""

RESERVED = frozenset(
    (
        "policy",
        "sync",
        "qos",
        "health",
        "output",
        "tf",
        "diagnostics",
        "presence",
        "fuser",
        "single",
        "obstacles",
    )
    + ("modular", "all", "modalities", "labels", "boxes", "boxes3d")
)
"""What no sensor may be called: parameters, graphs and folders of other things have these names."""

_ALL_SUBSETS = 4


def as_kind(name: str) -> Kind:
    """Return `name` as a `Kind`, or raise `InputError` for an unknown one."""
    if not is_kind(name):
        raise InputError(f"unknown kind of sensor '{name}'", hint=names_hint(name, kinds()))
    return name


def check_name(name: str, where: str = "sensor") -> str:
    """The name of a sensor.

    Raises:
        InputError: no sensor can be called so.
    """
    if not isinstance(name, str) or not re.match(NAME_PATTERN, name) or name.endswith("\n"):
        raise InputError(
            f"'{str(name)[:80]}' is no name of a sensor",
            where=where,
            hint="a lower case letter, then letters, digits and '_', at most 63",
        )
    if name in RESERVED:
        raise InputError(f"no sensor can be called '{name}'", where=where)
    return name


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sensors, each once: those that are called as their kind in canonical order, then the others."""
    given = dict.fromkeys(names)
    return (*(k for k in KINDS if k in given), *(n for n in given if n not in KINDS))


def subset_name(names: Iterable[str]) -> str:
    """Name of a set of sensors: joined by '+', see `in_order`, e.g. `rgb+depth`."""
    return "+".join(in_order(names))


def subsets_of(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The subsets that are judged, larger ones first.

    Up to four sensors these are all that are not empty; of more, whose subsets are too many, all
    sensors, all but one, and each alone.
    """
    base = in_order(names)
    sizes: Iterable[int] = range(len(base), 0, -1)
    if len(base) > _ALL_SUBSETS:
        sizes = (len(base), len(base) - 1, 1)
    return [subset for size in sizes for subset in combinations(base, size)]


LEAST_RANGE_M = 0.01
"""Nearer than this is no return: it would lie within the LiDAR's own housing."""


def check_least_range(least_range_m: float) -> None:
    """Refuse a least range that is no length.

    Raises:
        InputError: it is negative or not finite.
    """
    if not 0 <= least_range_m < np.inf:
        raise InputError(f"least range of {least_range_m} m")


def is_return(points: NDArray[Any], least_range_m: float = LEAST_RANGE_M) -> NDArray[np.bool_]:
    """Which points of a cloud are returns, (N,) bool.

    Drivers of Ouster, SICK, Livox and Velodyne sensors send a beam without a return as (0, 0, 0), others
    as NaN.  Both are left out, and so is what is nearer than the sensor can measure.

    Args:
        points: (N, C>=3), x, y, z in metres in the sensor's own frame.
        least_range_m: the sensor's least range; a return at exactly this range counts.

    Raises:
        InputError: the least range is no length.
    """
    check_least_range(least_range_m)
    x, y, z = (points[:, i].astype(np.float32, copy=False) for i in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        square = x * x
        square += y * y
        square += z * z
        return is_square_of_return(square, least_range_m)


def is_square_of_return(
    square: NDArray[np.float32], least_range_m: float = LEAST_RANGE_M
) -> NDArray[np.bool_]:
    """`is_return` by squared ranges, (N,) float32."""
    least = max(np.float32(least_range_m) ** 2, np.finfo(np.float32).tiny)
    return (square >= least) & (square < np.inf)  # False for NaN


def scale_intensity(values: NDArray[Any]) -> NDArray[np.float32]:
    """Intensities (N,) of any type to 0..1.

    8 and 16 bit integers are divided by their largest value; floats and wider integers, which drivers
    fill with 0..1, with 8 or with 16 bit counts, by 255 when any exceeds 1, and by 65535 when any exceeds
    255 (Ouster).  What is not finite becomes 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        out = values.astype(np.float32)
    if not (finite := np.isfinite(out)).all():
        out[~finite] = 0
    out /= intensity_unit(values.dtype, float(out.max(initial=0.0)))
    return out.clip(0, 1, out=out)


def intensity_unit(dtype: np.dtype[Any], most: float) -> np.float32:
    """What intensities of this type, of which the largest is `most`, are divided by; see above."""
    if np.issubdtype(dtype, np.integer) and dtype.itemsize <= 2:
        return np.float32(np.iinfo(dtype).max)
    return np.float32(1 if most <= 1 else 255 if most <= 255 else 65535)


def shape_hint(shape: tuple[int, ...], channels: int = 1) -> str:
    """What to do about an array of `shape` where (H, W), or (H, W, 3), is expected; empty if unknown."""
    if 0 in shape:
        return "it is empty"
    inner = len(shape) - (3 if channels > 1 else 2)
    if inner > 0 and shape[0] == 1:
        return "one image, not a batch: data[0]"
    if channels == 1 and len(shape) == 3:
        if shape[2] == 1:
            return "without the channel axis: data[..., 0]"
        return "one value per pixel, this looks like a colour picture" if shape[2] in (3, 4) else ""
    if channels > 1 and len(shape) == 2:
        return "a gray picture: repeat it in three channels"
    if channels > 1 and len(shape) == 3:
        if shape[0] == 3:
            return "channels come last: data.transpose(1, 2, 0)"
        return {4: "without alpha: data[..., :3]", 1: "a gray picture"}.get(shape[2], "")
    return ""


def check_array(data: Any, where: str, points: bool = False) -> None:
    """Refuse what is no array, or one whose mask would be lost.

    Raises:
        InputError: it is one.
    """
    if not isinstance(data, np.ndarray):
        raise InputError(f"data is a {type(data).__name__}, expected a numpy array", where=where)
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        cloud = "data[~data.mask.any(axis=1)].data"
        hint = cloud if points else "data.filled(numpy.nan)"
        raise InputError("data is a masked array, whose mask would be lost", where=where, hint=hint)


def whole_stamp(stamp: Any, where: str) -> int:
    """A stamp as a Python integer: numpy's own overflow, and floats of seconds never grow old.

    Raises:
        InputError: it is no whole number.
    """
    if isinstance(stamp, int | np.integer) and not isinstance(stamp, bool | np.timedelta64):
        return int(stamp)
    raise InputError(
        f"stamp_ns is {str(stamp)[:40]} of type {type(stamp).__name__}, expected whole nanoseconds",
        where=where,
        hint="of seconds: round(seconds * 1e9)" if isinstance(stamp, float | np.floating) else "",
    )


@dataclass(frozen=True)
class Sample:
    """One decoded measurement of one sensor.

    Attributes:
        kind: which kind of sensor.
        data: rgb (H, W, 3) uint8 in R, G, B order; depth (H, W) float32 metres along the optical
            axis, NaN = no return, -Inf = too close, +Inf = beyond range (REP 117); thermal (H, W)
            float32 in `unit`; lidar (N, C>=3) float32, columns x, y, z in metres in the sensor
            frame (REP 103: x forward, y left, z up), then intensity when known, in 0..1 (or counts,
            see `scale_intensity`); (0, 0, 0) is no return.
        stamp_ns: acquisition time in nanoseconds; None when it is not known, and then taken to be when
            the sample is handed in.  0 is a time like any other, as at the start of a simulation.
        frame_id: name of the sensor's coordinate frame.
        encoding: the encoding the data was decoded from (`rgb8`, `16UC1`, `mono16`, `xyzi`, ...).
        unit: for thermal, `counts8` (0..255), `counts16` or `kelvin`; empty for the others.
        camera: intrinsics of the image, or for lidar those of the reference camera it is projected
            into; None when unknown.
        extrinsics: transform that takes points of this sensor's frame into the optical frame of
            the reference camera (z forward, x right, y down); None means aligned with it (for
            lidar: unknown).
        sensor: the sensor's name; that of its kind unless there are several of a kind.
        pose: transform that takes points of this sensor's frame (of a camera: its optical frame) into the
            vehicle's base frame (REP 105 `base_link`); None when unknown.
        times: of points, (N,) float32 seconds from the stamp to when each was measured; None: all at once.

    Raises:
        InputError: the stamp is no whole number of nanoseconds.
    """

    kind: Kind
    data: NDArray[Any]
    stamp_ns: int | None = None
    frame_id: str = ""
    encoding: str = ""
    unit: str = ""
    camera: CameraModel | None = None
    extrinsics: RigidTransform | None = None
    sensor: str = ""
    pose: RigidTransform | None = None
    times: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.sensor:
            object.__setattr__(self, "sensor", self.kind)
        if type(self.stamp_ns) is not int and self.stamp_ns is not None:
            object.__setattr__(self, "stamp_ns", whole_stamp(self.stamp_ns, self.sensor))

    @property
    def modality(self) -> Kind:
        """The sensor's kind, by its earlier name."""
        return self.kind

    def named(self, sensor: str) -> Sample:
        """This sample, as one of the sensor of that name."""
        return self if self.sensor == sensor else replace(self, sensor=sensor)

    @property
    def time_ns(self) -> int:
        """The stamp.

        Raises:
            InputError: the sample has none.
        """
        if self.stamp_ns is None:
            raise InputError("the sample has no stamp", where=self.sensor)
        return self.stamp_ns

    def stamped(self, stamp_ns: int) -> Sample:
        """This sample, with `stamp_ns` if it has no stamp of its own."""
        return self if self.stamp_ns is not None else replace(self, stamp_ns=stamp_ns)


@dataclass(frozen=True)
class Frame(Mapping[str, Sample]):
    """The samples taken at about one time, by sensor.

    Attributes:
        samples: by sensor; one that bears but its kind's name gets that which it is filed under.
        stamp_ns: its time; if not given, the newest of its samples' stamps, None when none has one.

    Raises:
        InputError: a sample is filed under the name of another sensor or kind, or a stamp is no whole
            number.
    """

    samples: Mapping[str, Sample]
    stamp_ns: int | None = None

    def __post_init__(self) -> None:
        for key, sample in self.samples.items():
            if not isinstance(sample, Sample):
                raise InputError(
                    f"a bare {type(sample).__name__} is filed under '{key}'",
                    where="frame",
                    hint="perception.sample_of(kind, array, encoding) makes a sample of an array",
                )
            if sample.sensor != key and (sample.sensor != sample.kind or is_kind(key)):
                raise InputError(f"a {sample.sensor} sample is filed under '{key}'", where="frame")
        named = {check_name(key, "frame"): s.named(key) for key, s in self.samples.items()}
        object.__setattr__(self, "samples", named)
        if self.stamp_ns is None:
            stamps = [s.stamp_ns for s in self.samples.values() if s.stamp_ns is not None]
            object.__setattr__(self, "stamp_ns", max(stamps, default=None))
        elif type(self.stamp_ns) is not int:
            object.__setattr__(self, "stamp_ns", whole_stamp(self.stamp_ns, "frame"))

    def __getitem__(self, key: str) -> Sample:
        return self.samples[key]

    def __iter__(self) -> Iterator[str]:
        return iter(in_order(self.samples))

    def __len__(self) -> int:
        return len(self.samples)

    def without(self, *sensors: str) -> Frame:
        """A copy of this frame in which the named sensors are missing."""
        kept = {m: s for m, s in self.samples.items() if m not in sensors}
        return Frame(kept, self.stamp_ns)
