"""Parts of a bag give, joined, exactly what the whole bag gives, whatever happens at their borders."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundles import SmallBundles

from perception.adapters.calibration import MessageCalibration
from perception.bags import parts as bag_parts
from perception.bags.parts import Span, memory_ns, parts_of_bag, play_part
from perception.bags.playback import Playback
from perception.bags.storage import open_bag
from perception.bags.survey import Survey, survey
from perception.errors import DataError
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

Kit = Any
"""What the fixture `kit` is."""

MS, START = 10**6, 10**18
TOPICS = {"rgb": "/cam/rgb", "depth": "/cam/depth"}
SECOND = 1000 * MS
TRANSFORM_AGE = 3 * SECOND
FAULTS = ("dead", "frozen", "dark", "late", "jitter", "malformed", "silence", "slow")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    small = SmallBundles(tmp_path_factory.mktemp("bundle"))
    return Pipeline.load(small(("rgb", "depth"), 3, 2), "cpu", threads=1)


def playback(
    pipeline: Pipeline,
    known: Survey,
    ahead: bool = False,
    topics: Mapping[str, str] = MappingProxyType(TOPICS),
) -> Playback:
    pipeline.reset()
    calibration = MessageCalibration(kinds={k: k for k in topics}, max_age_ns=TRANSFORM_AGE)
    timing = known.timing({}, 200 * MS)
    core = StreamCore(pipeline, StreamSettings(timing, known.deadline_ns(80 * MS, 200 * MS)))
    return Playback(core, topics, calibration, known, ahead=ahead)


def row(result: Result) -> tuple[Any, ...]:
    """All of a result but how long it took."""
    labels, confidence = result.labels, result.confidence
    assert labels is not None and confidence is not None
    return (
        result.output_ns,
        result.stamp_ns,
        result.state,
        result.used,
        result.present,
        tuple(result.health.items()),
        tuple(result.ages_ns.items()),
        result.reason,
        tuple(result.fresh),
        zlib.crc32(labels.tobytes()),
        zlib.crc32(confidence.tobytes()),
    )


def whole_and_parts(
    pipeline: Pipeline,
    bag: Path,
    length_ns: int,
    topics: Mapping[str, str] = MappingProxyType(TOPICS),
) -> tuple[list[Any], list[Any]]:
    known = survey(bag, topics)
    played = playback(pipeline, known, False, topics).run(bag)
    whole = [(r.arrived_ns, row(r)) for r in played if r.samples]
    spans = parts_of_bag(bag, length_ns)
    assert spans is not None
    found: list[Any] = []
    for part in spans:
        # As fleets do; the whole is read by one thread.
        one = playback(pipeline, known, True, topics)
        before = memory_ns(one)
        looked = before // 4
        both = [(row(r), own) for r, own in play_part(one, bag, part, before, looked) if r.samples]
        first = part.start_ns - looked
        assert [r for r, _ in both] == [r for at, r in whole if first <= at < part.end_ns]
        found += [r for r, own in both if own]
    return [r for _, r in whole], found


def messages(
    kit: Kit, seconds: float, fault: str, since: float, until: float, seed: int
) -> Iterator[tuple[str, Any, int]]:
    """Color at 20 Hz and depth at 10 Hz, with a fault of color for a time."""
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 255, (48, 64, 3), np.uint8)
    yield "/sensors/rgb/camera_info", kit.info(START), START
    for step in range(round(seconds * 20)):
        stamp = START + step * 50 * MS
        faulty = since <= step / 20 < until
        if not (faulty and fault == "silence") and step % 2 == 0:
            yield "/cam/depth", kit.depth(stamp), stamp + 5 * MS
        recorded = stamp + 8 * MS
        if faulty and (fault in ("dead", "silence") or (fault == "slow" and step % 16)):
            continue
        image = kit.image(stamp)
        if faulty and fault == "frozen":
            image = kit.image(stamp, still)
        elif faulty and fault == "dark":
            image = kit.image(stamp, np.zeros((48, 64, 3), np.uint8))
        elif faulty and fault == "malformed":
            image = kit.image(stamp, encoding="nonsense")
        elif faulty and fault == "late":
            recorded += 150 * MS
        elif faulty and fault == "jitter":
            recorded += int(rng.integers(0, 45)) * MS
        yield "/cam/rgb", image, recorded


@pytest.mark.parametrize("fault", FAULTS)
def test_borders_change_nothing(kit: Kit, pipeline: Pipeline, fault: str) -> None:
    """The fault lasts from before a border to behind it, and is longer than playing begins before."""
    sent = sorted(messages(kit, 14, fault, 2.6, 10.3, seed=1), key=lambda message: message[2])
    bag = kit.write(sent)
    whole, parts = whole_and_parts(pipeline, bag, 3 * SECOND)
    assert parts == whole
    assert len(whole) > 50
    if fault in ("dead", "frozen", "dark", "malformed"):
        assert {"full", "degraded"} <= {found[2] for found in whole}


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(
    fault=st.sampled_from(FAULTS),
    since=st.floats(0, 5),
    lasting=st.floats(0, 5),
    length=st.integers(400, 5000),
    storage=st.sampled_from(["mcap", "sqlite3"]),
    seed=st.integers(0, 99),
)
def test_borders_anywhere_change_nothing(
    kit: Kit,
    pipeline: Pipeline,
    fault: str,
    since: float,
    lasting: float,
    length: int,
    storage: str,
    seed: int,
) -> None:
    sent = messages(kit, 6, fault, since, since + lasting, seed)
    bag = kit.write(sorted(sent, key=lambda message: message[2]), storage)
    whole, parts = whole_and_parts(pipeline, bag, length * MS)
    assert parts == whole


def test_transforms_that_are_older_than_what_is_played_hold(
    kit: Kit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Placement of the LiDAR is told now and then, differently each time, and for a time not at all."""
    small = SmallBundles(tmp_path_factory.mktemp("lidar"))
    pipeline = Pipeline.load(small(("rgb", "lidar"), 3, 2), "cpu", threads=1)
    sent = [("/cam/camera_info", kit.info(START), START)]
    for step in range(140):
        stamp = START + step * 100 * MS
        sent.append(("/cam/rgb", kit.image(stamp), stamp + MS))
        sent.append(("/points", kit.cloud(stamp), stamp + 2 * MS))
        if step % 28 == 0 and step != 84:
            turn = np.array([0.5, -0.5, 0.5, 0.5 + step / 1000])
            turn /= np.linalg.norm(turn)
            there = ("camera_optical", "lidar", tuple(turn.tolist()))
            sent.append(("/tf", kit.tf(stamp, there), stamp))
    bag = kit.write(sorted(sent, key=lambda message: message[2]))
    topics = {"rgb": "/cam/rgb", "lidar": "/points"}
    whole, parts = whole_and_parts(pipeline, bag, 1300 * MS, topics)
    assert parts == whole
    placed = ["lidar" in found[3] for found in whole]
    assert 60 < sum(placed) < len(placed) - 10
    assert memory_ns(playback(pipeline, survey(bag, topics), False, topics)) < TRANSFORM_AGE


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Of a color and a depth camera, for which the other takes over."""
    small = SmallBundles(tmp_path_factory.mktemp("apart"))
    return Pipeline.load(small(("rgb", "depth"), 3, 2), "cpu", threads=1)


@pytest.mark.parametrize("length", [900, 1300, 3000])
def test_cameras_apart_of_which_one_dies_change_nothing(
    kit: Kit, apart: Pipeline, length: int
) -> None:
    """Depth is warped onto color by its own distances; while color is dead, results are in its own pixels."""
    topics = {"rgb": "/cam/rgb", "depth": "/deep/depth"}
    sent: list[tuple[str, Any, int]] = []
    turn = np.array([0.0, 0.05, 0.0, 1.0])
    turn /= np.linalg.norm(turn)
    there = ("camera_optical", "depth_optical", tuple(turn.tolist()))
    for topic in ("/cam/camera_info", "/deep/camera_info"):
        sent.append((topic, kit.info(START), START))
    for step in range(160):
        stamp = START + step * 50 * MS
        if step % 10 == 0:
            sent.append(("/tf", kit.tf(stamp, there), stamp))
        if step % 4 == 0:  # slow: its last features take part in the frames between
            pixels = kit.depth(stamp)
            pixels.header.frame_id = "depth_optical"
            sent.append(("/deep/depth", pixels, stamp + 5 * MS))
        if not 50 <= step < 95:
            sent.append(("/cam/rgb", kit.image(stamp), stamp + 8 * MS))
    bag = kit.write(sorted(sent, key=lambda message: message[2]))
    known, ways = survey(bag, topics), set()
    for result in playback(apart, known, False, topics).run(bag):
        ways.add((result.reference, *result.placed))
    assert {("rgb", "depth"), ("depth",)} <= ways
    whole, parts = whole_and_parts(apart, bag, length * MS, topics)
    assert parts == whole


def test_before_a_part_networks_run_only_for_what_is_looked_at(
    kit: Kit, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = kit.write(sorted(messages(kit, 10, "none", 0, 0, seed=0), key=lambda m: m[2]))
    runs: Counter[str] = Counter()

    def counted(name: str, run: Any, *given: Any) -> Any:
        runs[name] += 1
        return run(*given)

    for name, engine in pipeline.engines.items():
        way = "run" if name == "fuser" else "run_linked"
        monkeypatch.setattr(engine, way, partial(counted, name, getattr(engine, way)))
    one = playback(pipeline, survey(bag, TOPICS))
    before = memory_ns(one)
    part = Span(START + 5 * SECOND, START + 6 * SECOND)
    looked = 500 * MS
    assert before >= 2 * SECOND
    found = [r for r, _ in play_part(one, bag, part, before, looked)]
    encoded = {s: c for s, c in runs.items() if s in TOPICS}
    # Of each sensor at most one sample from before, which is reused.
    assert len(found) == 30 and runs["fuser"] == 30
    assert encoded["rgb"] in (30, 31) and encoded["depth"] in (15, 16)


def test_without_what_was_before_borders_would_be_seen(
    kit: Kit, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bag_parts, "LEAST_MESSAGES", 0)
    sent = sorted(messages(kit, 8, "frozen", 2.6, 7.3, seed=1), key=lambda message: message[2])
    bag = kit.write(sent)
    known, found = survey(bag, TOPICS), []
    spans = parts_of_bag(bag, 3 * SECOND)
    assert spans is not None
    for part in spans:
        one = playback(pipeline, known)
        found += [row(r) for r, own in play_part(one, bag, part, 0) if own and r.samples]
    assert found != [row(r) for r in playback(pipeline, known).run(bag) if r.samples]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_parts_cover_the_whole_once(kit: Kit, storage: str) -> None:
    times = [START + ms * MS for ms in (5, 9, 15, 24, 25)]
    bag = kit.write([("/cam/rgb", kit.image(t), t) for t in times], storage)
    ends = [times[0], times[2], times[4], times[4] + 1]
    assert parts_of_bag(bag, 10 * MS) == [Span(*both) for both in pairwise(ends)]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("years", [1, 31])
def test_a_clock_that_is_set_while_recording_makes_no_parts_of_nothing(
    kit: Kit, pipeline: Pipeline, storage: str, years: int
) -> None:
    """A robot without a clock is in 1970 until it hears of the time; all in one chunk of the file."""
    ahead = years * 365 * 86_400 * SECOND
    sent = [
        (topic, make(start + step * 100 * MS), start + step * 100 * MS)
        for start in (START - ahead, START)
        for step in range(40)
        for topic, make in (("/cam/rgb", kit.image), ("/cam/depth", kit.depth))
    ]
    bag = kit.write(sent, storage)
    spans = parts_of_bag(bag, SECOND)
    assert spans is not None and len(spans) in (8, 9)
    whole, parts = whole_and_parts(pipeline, bag, SECOND)
    assert parts == whole
    assert len(whole) > 70


def test_a_chunk_that_lies_about_its_time_is_named(kit: Kit, mcap: Any, tmp_path: Path) -> None:
    """A reader that leaves out chunks by what they claim must not lose messages to a lie."""
    build = mcap()
    data = kit.serialized(kit.image(START))
    channel = build.channel(1, "/cam/rgb", "sensor_msgs/msg/Image")
    true = channel + build.message(1, START, data)
    lie = build.message(1, START + 60 * SECOND, data)
    build.add(build.chunk(true, START, START))
    build.add(build.chunk(lie, START + SECOND, START + 2 * SECOND))
    path = tmp_path / "lies.mcap"
    path.write_bytes(build.end())
    with open_bag(path) as bag:
        assert bag.span() == (START, START + 2 * SECOND)
        assert len(list(bag.messages())) == 2
        with pytest.raises(DataError, match=r"has a message of \d+ ns in a chunk of"):
            list(bag.messages(within=(START, START + 3 * SECOND)))


def test_messages_of_a_time_and_before_it(kit: Kit) -> None:
    sent = list(messages(kit, 3, "none", 0, 0, seed=0))
    for storage in ("mcap", "sqlite3"):
        with open_bag(kit.write(sorted(sent, key=lambda m: m[2]), storage)) as bag:
            begin, end = START + SECOND, START + 2 * SECOND
            times = [stamp for _, stamp, _ in bag.messages({"/cam/rgb"}, within=(begin, end))]
            assert times == sorted(m[2] for m in sent if m[0] == "/cam/rgb" and begin <= m[2] < end)
            last = [stamp for _, stamp, _ in bag.last_before("/cam/depth", begin, 3)]
            assert last == sorted(m[2] for m in sent if m[0] == "/cam/depth" and m[2] < begin)[-3:]
            assert bag.last_before("/nothing", begin, 3) == []
            assert bag.span() == (START, max(m[2] for m in sent))


def test_a_bag_in_no_order_of_time_is_played_as_a_whole(kit: Kit, mcap: Any) -> None:
    build = mcap()
    data = kit.serialized(kit.image(START))
    build.add(build.channel(1, "/cam/rgb", "sensor_msgs/msg/Image"))
    build.add(build.message(1, START, data)).add(build.message(1, START - SECOND, data))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    assert parts_of_bag(path, SECOND) is None
