"""From the library's results to ROS messages; `perception.adapters.messages` goes the other way."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs.msg import PointField as PointFieldMsg
from std_msgs.msg import Header

from perception.adapters.messages import to_camera, to_ns, to_transform
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.sensors.samples import to_sample

__all__ = [
    "CLOUD_FIELDS",
    "CLOUD_STEP",
    "byte_array",
    "cloud",
    "from_camera",
    "from_transform",
    "header",
    "image",
    "labeled_cloud",
    "to_camera",
    "to_ns",
    "to_sample",
    "to_stamp",
    "to_transform",
]

CLOUD_FIELDS = (
    ("x", 0, PointFieldMsg.FLOAT32),
    ("y", 4, PointFieldMsg.FLOAT32),
    ("z", 8, PointFieldMsg.FLOAT32),
    ("class_id", 12, PointFieldMsg.UINT8),
    ("probability", 16, PointFieldMsg.FLOAT32),
)
CLOUD_STEP = 20
_ENCODINGS = {"uint8": "mono8", "uint16": "16UC1", "float32": "32FC1"}


def to_stamp(stamp_ns: int) -> Time:
    """The stamp of nanoseconds; what a stamp cannot hold is cut off."""
    limit = (1 << 31) - 1
    sec, nanosec = divmod(int(stamp_ns), 1_000_000_000)
    return Time(sec=max(-limit, min(limit, sec)), nanosec=nanosec)


def header(stamp_ns: int, frame_id: str) -> Header:
    """A message header."""
    return Header(stamp=to_stamp(stamp_ns), frame_id=frame_id)


def byte_array(values: NDArray[Any]) -> array:  # type: ignore[type-arg]
    """The bytes of an array in the one form that rclpy takes without looking at each."""
    out = array("B")
    if values.size:  # an empty view cannot be cast
        out.frombytes(memoryview(np.ascontiguousarray(values)).cast("B"))
    return out


def from_camera(camera: CameraModel, stamp_ns: int, frame_id: str) -> CameraInfo:
    """A `CameraInfo` with these intrinsics."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    out = CameraInfo(header=header(stamp_ns, frame_id), width=camera.width, height=camera.height)
    none = camera.distortion_model == "none"
    out.distortion_model = "plumb_bob" if none else camera.distortion_model
    out.d = [0.0] * 5 if none else list(camera.distortion)
    out.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    out.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    out.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return out


def from_transform(
    transform: RigidTransform, parent: str, child: str, stamp_ns: int
) -> TransformStamped:
    """A /tf message."""
    out = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    t, q = out.transform.translation, out.transform.rotation
    t.x, t.y, t.z = transform.translation.tolist()
    q.x, q.y, q.z, q.w = transform.quaternion_xyzw
    return out


def image(values: NDArray[Any], head: Header, encoding: str = "") -> Image:
    """An image message; the encoding follows from the dtype of one channel, and must be said for three."""
    height, width = values.shape[:2]
    return Image(
        header=head,
        height=height,
        width=width,
        encoding=encoding or _ENCODINGS[str(values.dtype)],
        step=width * values.itemsize * (values.shape[2] if values.ndim == 3 else 1),
        data=byte_array(values),
    )


def cloud(points: NDArray[np.float32], head: Header) -> PointCloud2:
    """A cloud (N, 4) of x, y, z, intensity."""
    names = ("x", "y", "z", "intensity")[: points.shape[1]]
    fields = [(n, 4 * i, PointFieldMsg.FLOAT32) for i, n in enumerate(names)]
    return _cloud_message(points.astype(np.float32, copy=False), head, fields)


def labeled_cloud(
    points: NDArray[np.float32],
    class_ids: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    head: Header,
) -> PointCloud2:
    """A cloud of x, y, z, class_id, probability."""
    return _cloud_message(_labeled_table(points, class_ids, probabilities), head, CLOUD_FIELDS)


def organized_cloud(
    points: NDArray[np.float32],
    class_ids: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    row: NDArray[np.int32],
    column: NDArray[np.int32],
    size: tuple[int, int],
    head: Header,
) -> PointCloud2:
    """The same with a row and a column for each pixel of a picture of `size`: the nearest of the points
    in a pixel; x, y, z are NaN, class_id 255 and probability 0 where there is none.
    """
    empty = np.full((1, 3), np.nan, np.float32), np.full(1, 255, np.uint8), np.zeros(1, np.float32)
    table = np.empty((*size, CLOUD_STEP), np.uint8)
    table[:] = _labeled_table(*empty)
    # Of several in a pixel the last one written stays.
    far_first = np.argsort(-np.square(points).sum(axis=1), kind="stable")
    rows = _labeled_table(points, class_ids, probabilities)
    table[row[far_first], column[far_first]] = rows[far_first]
    return _cloud_message(table, head, CLOUD_FIELDS)


def _labeled_table(
    points: NDArray[np.float32], class_ids: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> NDArray[np.uint8]:
    table = np.zeros((len(points), CLOUD_STEP), np.uint8)
    table[:, :12] = np.ascontiguousarray(points, np.float32).view(np.uint8)
    table[:, 12] = class_ids
    table[:, 16:] = np.ascontiguousarray(probabilities, np.float32)[:, None].view(np.uint8)
    return table


def _cloud_message(table: NDArray[Any], head: Header, fields: Any) -> PointCloud2:
    """Of rows of bytes: (N, step), or (H, W, step), where some may be without a point."""
    *size, row = table.shape
    height, width = size if len(size) == 2 else (1, *size)
    step = row * table.itemsize
    return PointCloud2(
        header=head,
        height=height,
        width=width,
        fields=[PointFieldMsg(name=n, offset=o, datatype=t, count=1) for n, o, t in fields],
        is_bigendian=False,
        point_step=step,
        row_step=step * width,
        data=byte_array(table),
        is_dense=len(size) == 1,
    )
