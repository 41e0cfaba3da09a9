"""Bags with any bytes flipped, cut out or put in: surveyed, read and played, they give one line at worst."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from rosbags.rosbag2 import CompressionFormat, CompressionMode

from perception.adapters.calibration import MessageCalibration
from perception.bags.files import read_bag, sensor_topics, topics_of
from perception.bags.messages import parse
from perception.bags.playback import Playback
from perception.bags.survey import survey
from perception.errors import AnySenseError
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

TOPICS: dict[str, str] = {"rgb": "/cam/rgb", "lidar": "/pts"}
MOST_OUTPUTS = 10_000
MOST_MEMORY = 3 * 2**30


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "cpu", threads=1)


@pytest.fixture
def bags(kit: Any, mcap: Any) -> dict[str, bytes]:
    """Files of every storage with calibrated pictures and clouds."""
    messages = []
    for index in range(3):
        t = kit.start + index * 100 * kit.ms
        pixels = np.random.default_rng(index).integers(0, 255, (12, 16, 3), np.uint8)
        messages += [
            ("/tf_static", kit.tf(t, ("camera_optical", "lidar", (0.5, -0.5, 0.5, 0.5))), t),
            ("/cam/camera_info", kit.info(t, 16, 12), t),
            ("/cam/rgb", kit.image(t, pixels), t),
            ("/pts", kit.cloud(t), t),
        ]
    found = {}
    for name, storage, how in (
        ("db3", "sqlite3", ()),
        ("mcap", "mcap", ()),
        ("zstd", "mcap", (CompressionMode.STORAGE, CompressionFormat.ZSTD)),
    ):
        folder = kit.write(messages, storage, how)
        (file,) = (p for p in folder.iterdir() if p.name != "metadata.yaml")
        found[name] = file.read_bytes()
    build = mcap()
    for index, (topic, message, at) in enumerate(messages):
        if index < 4:
            build.add(build.channel(index, topic, message.__msgtype__))
        build.add(build.message(index % 4, at, kit.serialized(message)))
    found["loose"] = build.end()
    return found


EXTREMES = [b"\xff" * 4, b"\xff" * 8, bytes(4), bytes(8), b"\xff" * 7 + b"\x7f", bytes(7) + b"\x80"]
PLACE = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.95, 1))
CHANGE = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACE, st.sampled_from([1, 2, 8, 100, 1000, 10**6])),
    st.tuples(st.just("put"), PLACE, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("set"), PLACE, st.sampled_from(EXTREMES)),
)


def _changed(whole: bytes, changes: list[tuple[str, float, Any]]) -> bytes:
    out = bytearray(whole)
    for what, share, value in changes:
        at = int(share * max(0, len(out) - 1))
        if what == "flip" and out:
            out[at] ^= value
        elif what == "cut":
            del out[at : at + value]
        elif what == "put":
            out[at:at] = value
        elif what == "set":
            out[at : at + len(value)] = value
    return bytes(out)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What is claimed is not taken, or there is no memory left."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _play(path: Path, pipeline: Pipeline) -> list[Result]:
    topics = sensor_topics(path, TOPICS)
    found = survey(path, topics)
    pipeline.reset()
    timing = found.timing(dict.fromkeys(topics, 0), 200_000_000)
    deadline = found.deadline_ns(80_000_000, 200_000_000)
    stream = StreamCore(pipeline, StreamSettings(timing, deadline))
    calibration = MessageCalibration(max_age_ns=found.transform_age_ns)
    return list(Playback(stream, topics, calibration, found).run(path))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ["db3", "mcap", "zstd", "loose"])
def test_any_damage_is_one_line_at_worst(
    kit: Any, bags: dict[str, bytes], pipeline: Pipeline, kind: str
) -> None:
    path = kit.path(f".{kind}")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(CHANGE, min_size=1, max_size=4))
    def check(changes: list[tuple[str, float, Any]]) -> None:
        path.write_bytes(_changed(bags[kind], changes))
        try:
            topics_of(path)
            for message in read_bag(path):
                try:
                    parse(message)
                except AnySenseError as error:
                    assert len(str(error).splitlines()) == 1
            assert len(_play(path, pipeline)) < MOST_OUTPUTS
        except AnySenseError as error:
            assert len(str(error).splitlines()) == 1

    path.write_bytes(bags[kind])
    outputs = _play(path, pipeline)
    assert [result.used for result in outputs] == [("rgb", "lidar")] * 3
    check()
