"""Samples of any kind of sensor, from what there is: a bare array, a ROS message, or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from perception.adapters.files import naming
from perception.adapters.messages import check_type, stamp_of
from perception.errors import EncodingError, InputError
from perception.frame import LEAST_RANGE_M, Kind, Sample, as_kind, check_array
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of

if TYPE_CHECKING:
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform


def sample_of(
    kind: str,
    array: NDArray[Any],
    encoding: str = "",
    *,
    unit: str = "",
    stamp_ns: int | None = None,
    sensor: str = "",
    frame_id: str = "",
    camera: CameraModel | None = None,
    extrinsics: RigidTransform | None = None,
) -> Sample:
    """A sample of an array.

    Args:
        kind: `rgb`, `depth`, `thermal`, `lidar`, or a plug-in's.
        array: what `encoding` says:
            rgb: (H, W, 3) or (H, W, 4) uint8; (H, W) for `mono8` and the Bayer patterns; two bytes
            for a pixel (H, W, 2) for `yuv422` and the like.
            depth: (H, W) uint16 in millimetres (`16UC1`) or float32 in metres (`32FC1`).
            thermal: (H, W) uint8 (`mono8`), uint16 (`mono16`) or float32 (`32FC1`).
            lidar: (N, 3) or (N, 4) floats: x, y, z in metres, intensity.
        encoding: as in `sensor_msgs/image_encodings`.  Empty: `rgb8` for rgb (OpenCV's pictures are
            `bgr8`), what the dtype says for depth and thermal.
        unit: of thermal values: `counts8`, `counts16`, `centikelvin`, `kelvin`, or empty for what the
            dtype says.
        stamp_ns, sensor, frame_id, camera, extrinsics: see `Sample`.

    Raises:
        InputError: an unknown kind, encoding or unit, or an array that is not of them.
    """
    kind = as_kind(kind)
    own, name = kind_of(kind), sensor or kind
    check_array(array, name, points=not own.has_picture)
    try:
        if unit and not own.units:
            raise InputError(f"{kind} has no unit, got '{unit}'")
        if own.from_array is None:
            raise InputError(f"no {kind} is read from a bare array")
        sample = own.from_array(array, Hints(encoding=encoding, unit=unit))
    except InputError as error:
        if error.where == name:
            raise
        raise type(error)(error.message, where=name, hint=error.hint) from error
    return replace(
        sample,
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        camera=camera,
        extrinsics=extrinsics,
        sensor=name,
    )


def to_sample(
    kind: Kind,
    message: Any,
    unit: str = "auto",
    *,
    least_range_m: float = LEAST_RANGE_M,
    sensor: str = "",
    hints: Hints | None = None,
) -> Sample:
    """Decode a parsed message of a type that its kind takes (`SensorKind.ros_types`).

    Args:
        kind: what the topic is declared as.
        message: the message.
        unit: of its values, where the kind has several (`Hints.unit`).
        least_range_m: a range sensor's least range; what is nearer, (0, 0, 0) too, is no return.
        sensor: the sensor's name, if not its kind.
        hints: all that is known beside the message, instead of `unit` and `least_range_m`.

    Raises:
        EncodingError: another type of message, or an encoding or layout that is unknown.
        InputError: fields contradict each other.
    """
    own = kind_of(kind)
    try:
        if own.from_message is None:
            raise EncodingError("is not read from messages")
        check_type(message, own.ros_types, kind)
        hints = Hints(unit=unit, least_range_m=least_range_m) if hints is None else hints
        sample = own.from_message(message, hints)
    except InputError as error:
        raise type(error)(error.message, where=sensor or kind, hint=error.hint) from error
    about = {"stamp_ns": stamp_of(message), "frame_id": message.header.frame_id}
    return replace(sample, **about, sensor=sensor or kind)


def load_sample(kind: Kind, path: Path, hints: Hints = Hints()) -> Sample:  # noqa: B008 (frozen)
    """A file as a sample of a kind.

    Args:
        kind: of sensor.
        path: the file.
        hints: what it does not say itself; a kind takes those that mean something to it.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: it holds no such sample, is damaged, or contradicts `hints`.
    """
    read = kind_of(kind).from_file
    if read is None:
        raise EncodingError(f"no {kind} is read from a file", where=str(path))
    with naming(path):
        sample = read(Path(path), hints)
        if sample.kind != kind:  # a plug-in's reader
            raise EncodingError(f"the reader of {kind} files gave a sample of {sample.kind}")
        return sample


def file_remarks(path: Path, kind: Kind) -> list[str]:
    """What a user should know of a sample's file that can be read: turned, only a preview, dim, or damaged.

    Damage is known of a file that was loaded before.

    Raises:
        DataError, EncodingError: as the file's loader.
    """
    with naming(path):
        return kind_of(kind).remarks(Path(path))
