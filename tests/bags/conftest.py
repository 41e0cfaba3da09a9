"""Bags for the tests: messages as drivers send them, and MCAP files byte by byte."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from perception.bags.messages import typestore
from perception.cli.main import main

MS = 10**6
START = 10**18

Message = tuple[str, Any, int]
"""Topic, message, and when it was recorded."""


class Kit:
    """Builds messages and bags."""

    start, ms = START, MS

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._random = np.random.default_rng(0)

    def make(self, kind: str, **fields: Any) -> Any:
        """A message of any standard type."""
        return typestore().types[kind](**fields)

    def header(self, stamp_ns: int, frame: str = "camera_optical") -> Any:
        """A header."""
        sec, nanosec = divmod(stamp_ns, 10**9)
        stamp = self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)

    def image(
        self, stamp_ns: int, pixels: np.ndarray | None = None, encoding: str = "rgb8", **fields: Any
    ) -> Any:
        """An image, by default colors of 64 x 48."""
        if pixels is None:
            pixels = self._random.integers(0, 255, (48, 64, 3), np.uint8)
        values = {
            "header": self.header(stamp_ns),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "encoding": encoding,
            "is_bigendian": 0,
            "step": pixels.nbytes // pixels.shape[0],
            "data": np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
        }
        return self.make("sensor_msgs/msg/Image", **{**values, **fields})

    def depth(self, stamp_ns: int) -> Any:
        """A depth image of 64 x 48 millimetres."""
        pixels = self._random.integers(800, 4000, (48, 64), np.uint16)
        return self.image(stamp_ns, pixels, "16UC1")

    def compressed(self, stamp_ns: int, format: str, data: bytes) -> Any:
        """A compressed image."""
        return self.make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(stamp_ns),
            format=format,
            data=np.frombuffer(data, np.uint8),
        )

    def cloud(self, stamp_ns: int, frame: str = "lidar") -> Any:
        """A cloud before the vehicle."""
        points = self._random.uniform([4, -6, -2, 0], [20, 6, 2, 1], (500, 4)).astype(np.float32)
        fields = [
            self.make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1)
            for i, n in enumerate(("x", "y", "z", "intensity"))
        ]
        return self.make(
            "sensor_msgs/msg/PointCloud2",
            header=self.header(stamp_ns, frame),
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            point_step=16,
            row_step=16 * len(points),
            data=points.reshape(-1).view(np.uint8),
            is_dense=True,
        )

    def info(self, stamp_ns: int, width: int = 64, height: int = 48, **fields: Any) -> Any:
        """A camera_info that fits the images."""
        x, y, w, h = fields.pop("roi", (0, 0, 0, 0))
        roi = self.make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=x,
            y_offset=y,
            width=w,
            height=h,
            do_rectify=False,
        )
        k = [50, 0, width / 2 - 0.5, 0, 50, height / 2 - 0.5, 0, 0, 1]
        values = {
            "header": self.header(stamp_ns),
            "height": height,
            "width": width,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": np.array(k, float),
            "r": np.eye(3).reshape(-1),
            "p": np.array([k[0], 0, k[2], 0, 0, k[4], k[5], 0, 0, 0, 1, 0], float),
            "binning_x": 0,
            "binning_y": 0,
            "roi": roi,
        }
        return self.make("sensor_msgs/msg/CameraInfo", **{**values, **fields})

    def tf(self, stamp_ns: int, *transforms: tuple[str, str, tuple[float, ...]]) -> Any:
        """Transforms: parent, child and quaternion (x, y, z, w), without translation."""
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        made = []
        for parent, child, (x, y, z, w) in transforms:
            rotation = self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
            made.append(
                self.make(
                    "geometry_msgs/msg/TransformStamped",
                    header=self.header(stamp_ns, parent),
                    child_frame_id=child,
                    transform=self.make(
                        "geometry_msgs/msg/Transform", translation=zero, rotation=rotation
                    ),
                )
            )
        return self.make("tf2_msgs/msg/TFMessage", transforms=made)

    def pairs(
        self,
        count: int = 4,
        period_ns: int = 100 * MS,
        rgb: Callable[[int], int] = lambda t: t,
        depth: Callable[[int], int] = lambda t: t,
    ) -> list[Message]:
        """Color and depth images at a rate, with stamps from when they were taken."""
        out = []
        for t in range(START, START + count * period_ns, period_ns):
            out.append(("/cam/rgb", self.image(rgb(t)), t))
            out.append(("/cam/depth", self.depth(depth(t)), t + 5 * MS))
        return out

    def serialized(self, message: Any) -> bytes:
        """A message in CDR."""
        return bytes(typestore().serialize_cdr(message, message.__msgtype__))

    def path(self, suffix: str = "") -> Path:
        """A path that nothing lies at."""
        self._count += 1
        return self._folder / f"bag{self._count}{suffix}"

    def write(
        self, messages: Iterable[Message], storage: str = "mcap", compress: tuple[Any, ...] = ()
    ) -> Path:
        """A rosbag2 folder by rosbags."""
        path = self.path()
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        writer = Writer(path, version=9, storage_plugin=plugin)
        if compress:
            writer.set_compression(*compress)
        with writer:
            topics: dict[str, Any] = {}
            for topic, message, recorded in messages:
                if topic not in topics:
                    kind = message.__msgtype__
                    topics[topic] = writer.add_connection(topic, kind, typestore=typestore())
                writer.write(topics[topic], recorded, self.serialized(message))
        return path


@dataclass
class McapBuilder:
    """Writes MCAP records one by one, right or wrong."""

    profile: str = "ros2"
    content: bytes = b"\x89MCAP0\r\n"

    @staticmethod
    def text(value: str) -> bytes:
        """A string with its length."""
        return struct.pack("<I", len(value.encode())) + value.encode()

    @staticmethod
    def record(kind: int, content: bytes) -> bytes:
        """A record."""
        return struct.pack("<BQ", kind, len(content)) + content

    def header(self) -> McapBuilder:
        """Begin."""
        return self.add(self.record(1, self.text(self.profile) + self.text("test")))

    def add(self, content: bytes) -> McapBuilder:
        """Append bytes."""
        self.content += content
        return self

    def channel(self, number: int, topic: str, kind: str, encoding: str = "cdr") -> bytes:
        """A schema and a channel of it."""
        schema = struct.pack("<H", number) + self.text(kind) + self.text("ros2msg") + self.text("")
        channel = struct.pack("<HH", number, number) + self.text(topic) + self.text(encoding)
        return self.record(3, schema) + self.record(4, channel + struct.pack("<I", 0))

    def message(self, channel: int, recorded: int, data: bytes) -> bytes:
        """A message."""
        return self.record(5, struct.pack("<HIQQ", channel, 0, recorded, recorded) + data)

    def chunk(
        self,
        records: bytes,
        begin: int,
        end: int,
        coding: str = "",
        size: int | None = None,
        crc: int | None = None,
    ) -> bytes:
        """A chunk, with what it claims about itself."""
        packed = _PACKERS[coding](records) if coding in _PACKERS else records
        head = struct.pack("<QQQ", begin, end, len(records) if size is None else size)
        head += struct.pack("<I", zlib.crc32(records) if crc is None else crc)
        return self.record(6, head + self.text(coding) + struct.pack("<Q", len(packed)) + packed)

    def index(self, channel: int) -> bytes:
        """Says that the chunk before has messages of a channel."""
        return self.record(7, struct.pack("<HI", channel, 0))

    def end(self) -> bytes:
        """The whole file."""
        footer = self.record(2, struct.pack("<QQI", 0, 0, 0))
        return self.content + self.record(15, bytes(4)) + footer + b"\x89MCAP0\r\n"


def _zstd(data: bytes) -> bytes:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(data)


def _lz4(data: bytes) -> bytes:
    import lz4.frame

    return lz4.frame.compress(data)


_PACKERS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "lz4": _lz4}


@dataclass
class Replayed:
    """What a run of `anysense replay` left behind."""

    status: int
    out: str
    error: str
    rows: list[dict[str, Any]]
    folder: Path

    def states(self) -> list[tuple[str, str]]:
        """State and sensors of each output."""
        return [(row["state"], "+".join(row["used"])) for row in self.rows]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a small bag in each way of storing it."""
    kit = Kit(tmp_path_factory.mktemp("samples"))
    t = START
    messages: list[Message] = [
        ("/tf", kit.tf(t, ("a", "b", (0, 0, 0, 1))), t),
        ("/info", kit.info(t), t),
        ("/rgb", kit.image(t, np.zeros((4, 4, 3), np.uint8)), t),
        ("/pts", kit.cloud(t), t),
    ]
    found = {"sqlite3": kit.write(messages, "sqlite3")}
    for mode, storage in (("MESSAGE", "sqlite3"), ("FILE", "mcap")):
        compress = (CompressionMode[mode], CompressionFormat.ZSTD)
        found[mode] = kit.write(messages, storage, compress)
    for coding in ("plain", "zstd", "lz4"):
        build = McapBuilder().header()
        records = b"".join(
            build.channel(i, topic, m.__msgtype__) + build.message(i, at, kit.serialized(m))
            for i, (topic, m, at) in enumerate(messages)
        )
        content = records if coding == "plain" else build.chunk(records, t, t, coding)
        found[coding] = kit.path()
        found[coding].mkdir()
        (found[coding] / "one.mcap").write_bytes(build.add(content).end())
    return found


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """Builds messages and bags."""
    return Kit(tmp_path)


@pytest.fixture
def mcap() -> Callable[..., McapBuilder]:
    """Builds MCAP files."""
    return lambda profile="ros2": McapBuilder(profile).header()


@pytest.fixture
def replay(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Replayed]:
    """Runs `anysense replay` on a bag."""
    count = 0

    def run(bag: Path, *arguments: str) -> Replayed:
        nonlocal count
        count += 1
        out = tmp_path / f"out{count}"
        base = ["replay", str(bag), "--bundle", str(tiny_bundle), "--device", "cpu"]
        capsys.readouterr()
        status = main([*base, "--threads", "1", "--out", str(out), *arguments])
        text = capsys.readouterr()
        path = out / "status.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return Replayed(status, text.out, text.err, rows, out)

    return run
