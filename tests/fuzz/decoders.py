"""Harnesses of what sensors send: messages of pictures and clouds, and single files of them.

The first line of an input holds the small fields of a message, as words; what follows is its data.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from perception.adapters.files import CLOUD_SUFFIXES, PICTURE_SUFFIXES
from perception.adapters.pcd import parse_pcd
from perception.frame import Sample
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of
from perception.sensors.samples import load_sample, to_sample

_PICTURES = ("rgb", "depth", "thermal")
_SMALL = 100_000  # pixels or points that are encoded again


def _number(word: str, least: int = 0, below: int = 2**32) -> int:
    """A whole number as a field of a message can hold it."""
    try:
        value = int(word[:20])
    except ValueError:
        value = sum(word.encode())
    return (value - least) % (below - least) + least


def _header(data: bytes, words: int) -> tuple[list[str], np.ndarray]:
    first, _, rest = data.partition(b"\n")
    given = first.decode("utf-8", "replace").split(" ", words - 1)
    return [*given, *[""] * (words - len(given))], np.frombuffer(rest, np.uint8)


class Messages:
    """Makes messages without any distribution of ROS: whatever has the fields will do."""

    @staticmethod
    def make(type_name: str, **fields: Any) -> Any:
        return SimpleNamespace(__msgtype__=type_name, **fields)

    def header(self) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=1, nanosec=2)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id="frame")


MAKE = Messages()


def sound(sample: Sample, kind: str) -> None:
    """What holds of every sample that a decoder gives."""
    assert sample.kind == kind
    data = sample.data
    if kind == "rgb":
        assert data.dtype == np.uint8 and data.ndim == 3 and data.shape[2] == 3, data.shape
    elif kind == "lidar":
        assert data.dtype == np.float32 and data.ndim == 2 and data.shape[1] >= 3, data.shape
        times = sample.times
        assert times is None or (times.shape == data.shape[:1] and np.isfinite(times).all())
    else:
        assert data.dtype == np.float32 and data.ndim == 2, (data.dtype, data.shape)


def _encoded_again(sample: Sample) -> None:
    """Decoding what was encoded gives the same: bytes of colours and clouds, values of the others."""
    own = kind_of(sample.kind)
    if not sample.data.size or len(sample.data) > _SMALL or sample.data.size > 3 * _SMALL:
        return
    assert own.to_message is not None
    again = to_sample(sample.kind, own.to_message(sample, MAKE), sample.unit or "auto")
    assert again.stamp_ns == sample.stamp_ns and again.unit == sample.unit
    assert again.data.shape == sample.data.shape, (again.data.shape, sample.data.shape)
    assert again.data.tobytes() == sample.data.tobytes() or np.array_equal(
        again.data, sample.data, equal_nan=True
    ), f"a {sample.kind} message does not give back what it was made of"


def image(data: bytes, place: Path) -> str:
    """`KIND UNIT HEIGHT WIDTH STEP BIGENDIAN ENCODING`, then pixels."""
    words, pixels = _header(data, 7)
    kind = _PICTURES[_number(words[0], below=3)]
    message = MAKE.make(
        "sensor_msgs/msg/Image",
        header=MAKE.header(),
        height=_number(words[2]),
        width=_number(words[3]),
        step=_number(words[4]),
        is_bigendian=_number(words[5], below=256),
        encoding=words[6],
        data=pixels,
    )
    sample = to_sample(kind, message, words[1] or "auto")
    sound(sample, kind)
    _encoded_again(sample)
    return kind


def compressed(data: bytes, place: Path) -> str:
    """`KIND UNIT FORMAT`, then a JPEG, a PNG, or what a transport of depth sends."""
    words, content = _header(data, 3)
    kind = _PICTURES[_number(words[0], below=3)]
    message = MAKE.make(
        "sensor_msgs/msg/CompressedImage", header=MAKE.header(), format=words[2], data=content
    )
    sample = to_sample(kind, message, words[1] or "auto")
    sound(sample, kind)
    _encoded_again(sample)
    return kind


def cloud(data: bytes, place: Path) -> str:
    """`WIDTH HEIGHT POINT_STEP ROW_STEP BIGENDIAN NAME:OFFSET:TYPE:COUNT,...`, then points."""
    words, content = _header(data, 6)
    fields = []
    for text in words[5].split(",")[:64]:
        name, offset, datatype, count = [*text.split(":"), "", "", ""][:4]
        fields.append(
            MAKE.make(
                "sensor_msgs/msg/PointField",
                name=name,
                offset=_number(offset),
                datatype=_number(datatype, below=256),
                count=_number(count),
            )
        )
    message = MAKE.make(
        "sensor_msgs/msg/PointCloud2",
        header=MAKE.header(),
        width=_number(words[0]),
        height=_number(words[1]),
        point_step=_number(words[2]),
        row_step=_number(words[3]),
        is_bigendian=bool(_number(words[4], below=2)),
        fields=fields,
        is_dense=True,
        data=content,
    )
    sample = to_sample("lidar", message)
    sound(sample, "lidar")
    _encoded_again(sample)
    return "lidar"


def pcd(data: bytes, place: Path) -> str:
    """A PCD file."""
    points = parse_pcd(data)
    assert points.dtype == np.float32 and points.ndim == 2 and points.shape[1] >= 3
    return "points"


def file(data: bytes, place: Path) -> str:
    """`KIND UNIT SUFFIX`, then a file: PNG, JPEG, TIFF, .npy, .npz, .bin, .pcd.

    A picture that was read and is written again is the same picture.
    """
    words, content = _header(data, 3)
    kind = (*_PICTURES, "lidar")[_number(words[0], below=4)]
    own = kind_of(kind)
    known = CLOUD_SUFFIXES if kind == "lidar" else (*PICTURE_SUFFIXES, ".npy")
    suffix = words[2] if words[2] in known else own.suffixes[0]
    path = place / f"sample{suffix}"
    path.write_bytes(content.tobytes())
    hints = Hints(unit=words[1]) if words[1] else Hints()
    sample = load_sample(kind, path, hints)
    sound(sample, kind)
    if kind == "rgb" and 0 < sample.data.size < 3 * _SMALL:
        assert own.to_file is not None
        own.to_file(sample, place / "again.png", Hints())
        assert load_sample(kind, place / "again.png").data.tobytes() == sample.data.tobytes()
    return f"{kind}{suffix}"
