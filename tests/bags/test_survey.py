"""What is read from a recording about its timing, and which stamps it leads to."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.bags.files import read_bag
from perception.bags.messages import BagMessage
from perception.bags.stamps import StampMender
from perception.bags.survey import SensorSurvey, Survey, header_stamp, survey
from perception.errors import DataError

MS, S = 10**6, 10**9
TOPICS = {"rgb": "/cam/rgb", "depth": "/cam/depth"}


def _sensor(period: int, lag: int = 0, count: int = 20) -> SensorSurvey:
    stamps = [100 * S + i * period for i in range(count)]
    return SensorSurvey([t + lag for t in stamps], stamps)


def test_a_survey_of_a_bag(kit: Any) -> None:
    found = survey(kit.write(kit.pairs(10, 50 * MS)), TOPICS)  # type: ignore[arg-type]
    assert {m: s.period_ns for m, s in found.sensors.items()} == {"rgb": 50 * MS, "depth": 50 * MS}
    assert found.sensors["depth"].lags_ns == [5 * MS] * 10
    timing = found.timing({"rgb": 7}, 200 * MS)
    assert (timing["rgb"].offset_ns, timing["rgb"].timeout_ns) == (7, 500 * MS)
    assert timing["rgb"].window_ns == 25 * MS
    assert found.transform_age_ns == 2 * S, "as on the node"
    assert found.deadline_ns(80 * MS, 200 * MS) == 80 * MS


@pytest.mark.parametrize("both", [True, False])
def test_what_follows_the_first_messages_is_not_read(kit: Any, mcap: Any, both: bool) -> None:
    """However many the others have sent, a damaged end is for those who play it."""
    build = mcap()
    for number, topic in enumerate(TOPICS.values()):
        build.add(build.channel(number, topic, "sensor_msgs/msg/Image"))
    records = b"".join(
        build.message(number, t, bytes([0, 1, 0, 0]) + struct.pack("<iI", 1, t % S))
        for t in range(0, 6000 * MS, MS)
        for number in ((0, 1) if both else (0,))
    )
    build.add(build.chunk(records, 0, 6 * S) + build.chunk(b"damaged", 6 * S, 6 * S, crc=1))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    found = survey(path, TOPICS)  # type: ignore[arg-type]
    assert found.sensors["rgb"].period_ns == MS
    assert found.sensors["depth"].period_ns == (MS if both else 0)
    with pytest.raises(DataError, match="not what was written"):
        list(read_bag(path, TOPICS.values()))


def test_lost_messages_and_bursts_do_not_hide_the_rate() -> None:
    gaps = SensorSurvey([0, 100, 200, 900, 1000, 1100, 1200], [1, 101, 201, 901, 1001, 1101, 1201])
    assert gaps.period_ns == 100
    bursts = SensorSurvey([500] * 5 + [1000] * 5, list(range(100, 1100, 100)))
    assert bursts.period_ns == 100
    unstamped = SensorSurvey(list(range(0, 1000, 100)), [0] * 10)
    assert unstamped.period_ns == 100 and unstamped.lags_ns == []
    assert SensorSurvey().period_ns == SensorSurvey([5], [5]).period_ns == 0


@given(
    st.lists(st.integers(1, 2**62), min_size=1, max_size=3),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3),
)
def test_times_derived_from_any_recording_are_bounded(periods: list[int], lags: list[int]) -> None:
    names = ("rgb", "depth", "lidar")
    sensors = {m: _sensor(p, lag, 5) for m, p, lag in zip(names, periods, lags, strict=False)}
    found = Survey(sensors)  # type: ignore[arg-type]
    for timing in found.timing({}, 200 * MS).values():
        assert 500 * MS <= timing.timeout_ns <= 3600 * S
        assert 25 * MS <= timing.window_ns <= 200 * MS
    assert 80 * MS <= found.deadline_ns(80 * MS, 200 * MS) <= 5 * S
    assert 2 * S <= found.transform_age_ns <= 3600 * S


def test_a_recording_without_times_goes_by_its_stamps(kit: Any) -> None:
    messages = [(topic, message, kit.start) for topic, message, _ in kit.pairs(4, 50 * MS)]
    found = survey(kit.write(messages), TOPICS)  # type: ignore[arg-type]
    assert found.by_stamps and found.sensors["rgb"].period_ns == 50 * MS
    assert found.deadline_ns(80 * MS, 200 * MS) == 80 * MS
    assert found.stamps().mend("rgb", 5 * S, 0) == 5 * S
    one = survey(kit.write(messages[:2]), TOPICS)  # type: ignore[arg-type]
    assert not one.by_stamps, "of one message each, nothing can be said"
    assert survey(kit.write(messages[:4]), TOPICS).by_stamps  # type: ignore[arg-type]
    assert not survey(kit.write(kit.pairs(4)), TOPICS).by_stamps  # type: ignore[arg-type]
    same = [(topic, kit.image(7) if "rgb" in topic else kit.depth(7), 9) for topic, *_ in messages]
    with pytest.raises(DataError, match="neither its messages nor the recording have times"):
        survey(kit.write(same), TOPICS)  # type: ignore[arg-type]


@given(st.integers(1, 10**13))
def test_three_periods_of_silence_are_a_loss(period: int) -> None:
    found = Survey({"rgb": _sensor(period), "depth": _sensor(50 * MS)})
    timeout = found.timing({}, 200 * MS)["rgb"].timeout_ns
    assert timeout == min(max(500 * MS, 3 * period), 3600 * S)
    assert found.transform_age_ns == min(max(2 * S, 3 * period), 3600 * S)
    alone = Survey({"rgb": _sensor(period)}).timing({}, 200 * MS)["rgb"]
    assert alone.window_ns == min(max(25 * MS, period // 4), 200 * MS), "a quarter of a period"


def test_delays_count_by_their_median() -> None:
    """Half of the messages of one come at once, half after 0.6 s; the other is always 0.5 s late."""
    stamps = [100 * S + i * 50 * MS for i in range(20)]
    bursts = SensorSurvey([t + (0 if i < 9 else 600 * MS) for i, t in enumerate(stamps)], stamps)
    found = Survey({"rgb": bursts, "depth": _sensor(50 * MS, 500 * MS)})
    assert found.deadline_ns(80 * MS, 200 * MS) == 900 * MS
    once = [t + (1900 * MS if i == 7 else 600 * MS if i > 8 else 0) for i, t in enumerate(stamps)]
    outlier = Survey({"rgb": SensorSurvey(once, stamps), "depth": found.sensors["depth"]})
    assert outlier.deadline_ns(80 * MS, 200 * MS) == 900 * MS
    often = SensorSurvey([t + (600 * MS if i < 3 else 0) for i, t in enumerate(stamps)], stamps)
    waited = Survey({"rgb": often, "depth": _sensor(50 * MS)})
    assert waited.deadline_ns(80 * MS, 200 * MS) == 900 * MS, "three of twenty are no outliers"
    both = Survey({"rgb": _sensor(50 * MS, 500 * MS), "depth": _sensor(50 * MS, 1100 * MS)})
    assert both.deadline_ns(80 * MS, 200 * MS) == 900 * MS, "what all are late by is no wait"
    long = SensorSurvey([t + (0 if i < 9 else 2 * S) for i, t in enumerate(stamps)], stamps)
    most = Survey({"rgb": long, "depth": _sensor(50 * MS, 1900 * MS)})
    assert most.deadline_ns(80 * MS, 200 * MS) == 2 * S
    # A sensor of another clock says nothing about delivery, whichever it is and however far off.
    for lag in (3 * S, -3 * S, 10**18):
        other = Survey({**found.sensors, "lidar": _sensor(50 * MS, lag)})
        assert other.deadline_ns(80 * MS, 200 * MS) == 900 * MS


def test_the_header_is_read_in_either_byte_order() -> None:
    little = bytes([0, 1, 0, 0]) + (7).to_bytes(4, "little") + (5).to_bytes(4, "little")
    big = bytes([0, 0, 0, 0]) + (7).to_bytes(4, "big") + (5).to_bytes(4, "big")
    for data in (little, big, little + b"more"):
        assert header_stamp(BagMessage("/a", "b", 0, data)) == 7 * S + 5
    assert header_stamp(BagMessage("/a", "b", 0, little[:11])) is None


def test_good_stamps_are_left_alone() -> None:
    mender = StampMender({"rgb": 30 * MS, "depth": 900 * MS, "lidar": -20 * MS})
    for modality in ("rgb", "depth", "lidar"):
        assert mender.mend(modality, 5 * S, 10**18) == 5 * S  # type: ignore[arg-type]
    assert not mender.notes and not mender.counters


def test_a_sensor_without_stamps_is_as_long_under_way_as_the_best_of_the_others() -> None:
    mender = StampMender({"rgb": 30 * MS, "depth": 50 * S})
    assert mender.mend("lidar", 0, 100 * S) == 100 * S - 30 * MS
    assert mender.mend("depth", 50 * S, 100 * S) == 100 * S - 30 * MS
    assert mender.mend("depth", 0, 50 * S) == 0  # its own start
    assert "no stamp" in mender.notes["lidar"]
    assert mender.counters == {"unstamped_lidar": 1, "other_clock_depth": 1}
    assert StampMender({}).mend("rgb", 0, 9) == 9


@given(st.integers(0, 2**62), st.integers(-S, S), st.integers(1, 2**40), st.booleans())
def test_clocks_a_second_apart_are_one(arrived: int, apart: int, more: int, late: bool) -> None:
    near = StampMender({"rgb": 0, "depth": apart})
    assert near.mend("depth", arrived - apart + 1, arrived + 1) == arrived - apart + 1
    assert not near.notes and not near.counters
    beyond = (S + more) * (1 if late else -1)
    far = StampMender({"rgb": 0, "depth": beyond})
    stamp = arrived - beyond
    if stamp:
        assert far.mend("depth", stamp, arrived) == arrived == far.date(arrived)
        assert far.counters == {"other_clock_depth": 1}
        assert "those of rgb are not" in far.notes["depth"]
    assert far.mend("rgb", arrived, arrived) == arrived and "rgb" not in far.notes


def test_what_is_said_of_another_clock() -> None:
    now = 10**18  # 2001
    mender = StampMender({"rgb": 5 * MS, "depth": now - 90 * S, "lidar": -37 * S})
    for stamp, modality, words in (
        (90 * S, "depth", "of time since boot"),
        (now + 37 * S, "lidar", "37 s off"),
    ):
        assert mender.mend(modality, stamp, now) == now - 5 * MS  # type: ignore[arg-type]
        assert words in mender.notes[modality]  # type: ignore[index]
    simulated = StampMender({"rgb": 0, "depth": 50 * S})  # nothing here is of wall time
    assert simulated.mend("depth", 10 * S, 60 * S) == 60 * S
    assert "50 s off" in simulated.notes["depth"]
    slow = StampMender({"rgb": 2 * S, "depth": 39 * S})  # against rgb, not against the recorder
    assert slow.mend("depth", now - 39 * S, now) == now - 2 * S
    assert "37 s off" in slow.notes["depth"]
    year = 365 * 86_400 * S
    for stamp, words in ((year, "since boot"), (20 * year, f"{(now - 20 * year) // S} s off")):
        old = StampMender({"rgb": 0, "depth": now - stamp})
        old.mend("depth", stamp, now)
        assert words in old.notes["depth"], "nothing runs for twenty years"
    # Clocks that were never set begin in 1980, those of computers on its first day, those of GPS on
    # its sixth.  And one may be set to a time to come.
    for stamp in (315_532_800 * S, 315_964_800 * S, now + 2_000_000_000 * S):
        unset = StampMender({"rgb": 0, "depth": now - stamp})
        unset.mend("depth", stamp, now)
        assert f" {abs(now - stamp) // S} s off" in unset.notes["depth"]


@given(st.integers(-S, S), st.integers(-S, S))
def test_a_stamp_of_0_that_fits_the_others_is_a_time(lag: int, jitter: int) -> None:
    mender = StampMender({"rgb": lag})
    assert mender.mend("rgb", 0, lag + jitter) == 0 and not mender.notes
    assert mender.mend("rgb", 0, lag) == 0
    late = lag + 2 * S
    assert mender.mend("rgb", 0, late) == late - lag
    assert mender.counters == {"unstamped_rgb": 1} and "no stamp" in mender.notes["rgb"]
    mender.mend("rgb", 7, lag + 7)
    assert not mender.notes, "good again"
