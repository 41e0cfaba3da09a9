"""The ladder as a state machine, and in a stream's core with a clock of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_bundles import GRID, SmallBundles

from perception.errors import ConfigError
from perception.frame import Sample, subsets_of
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.lateness import Ladder, LatePolicy, shedding_order
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Lateness, Result

MS = 1_000_000

policies = st.builds(
    LatePolicy,
    st.just(0.1),
    after=st.integers(1, 6),
    recover_after=st.integers(1, 40),
    margin=st.floats(0.1, 0.9),
)
latencies = st.lists(st.floats(0.0, 0.5), max_size=300)


@given(policies, st.integers(0, 6), latencies)
def test_steps_follow_from_what_was_seen(policy: LatePolicy, top: int, seen: list[float]) -> None:
    ladder, early = Ladder(policy, top), 0
    for latency in seen:
        before = ladder.level
        step = ladder.note(latency)
        early = early + 1 if latency <= policy.margin * policy.deadline_s else 0
        assert 0 <= ladder.level <= top
        if step == "down":
            assert latency > policy.deadline_s
            assert 1 <= ladder.level - before <= max(1, np.log2(latency / policy.deadline_s))
        else:
            assert ladder.level - before == {None: 0, "up": -1}[step]
        if step == "up":
            assert early >= policy.recover_after
            early = 0


@given(policies, st.integers(0, 6), latencies)
def test_late_results_lead_to_the_top_and_early_ones_back(
    policy: LatePolicy, top: int, seen: list[float]
) -> None:
    ladder = Ladder(policy, top)
    for latency in seen:
        ladder.note(latency)
    for _ in range(policy.after * top):
        ladder.note(0.15)
    assert ladder.level == top
    for _ in range(16 * policy.recover_after * top):
        ladder.note(0.0)
    assert ladder.level == 0


@given(policies, st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_late_one_now_and_then_changes_nothing(policy: LatePolicy, seen: list[bool]) -> None:
    """One in seven at most, none beyond twice the deadline, more than one of which is borne."""
    if policy.after < 2:
        return
    ladder, since = Ladder(policy, 3), 6
    for late in seen:
        since = 0 if late and since >= 6 else since + 1
        assert ladder.note(0.15 if since == 0 else 0.09) is None


@given(policies, st.integers(1, 5), st.integers(1, 5))
def test_what_helps_is_held_ever_longer(policy: LatePolicy, top: int, enough: int) -> None:
    """Where `enough` steps make results early and fewer leave them late, it does not go on for ever."""
    enough = min(enough, top)
    ladder, steps, turns = Ladder(policy, top), 0, 40
    for _ in range(16 * policy.recover_after * turns):
        steps += ladder.note(0.0 if ladder.level >= enough else 0.15) is not None
    assert steps <= enough + 2 * (5 + turns)


def test_what_is_very_late_is_worth_several_steps() -> None:
    for latency, level in ((0.25, 1), (0.45, 2), (0.85, 3), (1e9, 4)):
        ladder = Ladder(LatePolicy(0.1), 4)
        assert ladder.note(latency) == "down" and ladder.level == level


def test_a_step_that_saves_much_is_held_until_there_is_time_for_it() -> None:
    ladder = Ladder(LatePolicy(0.1, recover_after=3), 1)
    ladder.note(0.3)
    assert [ladder.note(0.04, saves=0.7) for _ in range(20)] == [None] * 20
    assert [ladder.note(0.02, saves=0.7) for _ in range(3)] == [None, None, "up"]


def test_a_result_beyond_twice_the_deadline_counts_for_all() -> None:
    assert Ladder(LatePolicy(0.1, after=5), 1).note(0.21) == "down"
    assert Ladder(LatePolicy(0.1, after=5), 0).note(0.21) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_s": 0},
        {"deadline_s": float("nan")},
        {"deadline_s": float("inf")},
        {"after": 0},
        {"recover_after": 0},
        {"margin": 1.0},
        {"margin": float("nan")},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LatePolicy(**{"deadline_s": 0.1, **wrong})  # type: ignore[arg-type]


# -- which sensors ---------------------------------------------------------------------------

NAMES = ("rgb", "depth", "thermal", "lidar")


@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100)),
    st.sets(st.sampled_from(NAMES)),
    st.integers(1, 4),
)
def test_each_subset_does_and_is_cheaper(
    there: set[str], costs: dict[str, float], keep: set[str], minimum: int
) -> None:
    sensors = [n for n in NAMES if n in there]
    policy = Policy(minimum=minimum)
    order = shedding_order(sensors, policy, keep, costs, sensors[0])
    assert len(set(order)) == len(order) and not set(order) & keep
    left = list(sensors)
    for sensor in order:
        before = sum(costs.get(s, 0) for s in left)
        left.remove(sensor)
        assert left and policy.enough(left)
        assert sum(costs.get(s, 0) for s in left) <= before


def test_records_choose_where_there_are_any() -> None:
    costs = {"rgb": 10.0, "depth": 5.0, "thermal": 8.0}
    scores = {frozenset(s): 0.5 for s in subsets_of(tuple(costs))}
    scores[frozenset(("rgb", "thermal"))] = 0.8
    scores[frozenset(("thermal",))] = 0.7
    sensors = tuple(costs)
    assert shedding_order(sensors, Policy(), (), costs, "rgb", scores) == ("depth", "rgb")
    assert shedding_order(sensors, Policy(), (), costs, "rgb") == ("thermal", "depth")
    assert shedding_order(sensors, Policy(required=("depth",)), ("rgb",), costs) == ("thermal",)


# -- in a stream's core ----------------------------------------------------------------------


class Drive:
    """A stream of a bundle whose results come as late as the test says."""

    def __init__(self, bundle: Path, late: LatePolicy | None, **options: object) -> None:
        self.pipeline = Pipeline.load(bundle, "cpu", **options)  # type: ignore[arg-type]
        timing = {s: SensorTiming() for s in self.pipeline.sensors}
        self.now, self.latency = 0, 0
        settings = StreamSettings(timing, late=late)
        self.core = StreamCore(self.pipeline, settings, clock=lambda: self.now + self.latency)
        self.shed: list[str] = []
        self.results: list[Result] = []

    def tick(self, latency_ms: float, *sensors: str) -> Result | None:
        self.now += 33 * MS
        self.latency = round(latency_ms * MS)
        self.shed = []
        for sensor in sensors or self.pipeline.sensors:
            if self.core.push(sample(sensor, self.now), self.now) == "shed":
                self.shed.append(sensor)
        found = self.core.poll(self.now)
        self.check()
        self.results += found
        return found[-1] if found else None

    def check(self) -> None:
        for name, report in self.core.report(self.now).items():
            told = report.used + report.superseded + report.rejected + report.waiting
            assert report.received == told, name


def sample(sensor: str, stamp: int) -> Sample:
    rng = np.random.default_rng(stamp)
    if sensor == "rgb":
        return Sample("rgb", rng.integers(20, 220, (*GRID, 3), np.uint8), stamp_ns=stamp)
    if sensor == "depth":
        return Sample("depth", rng.uniform(1, 9, GRID).astype(np.float32), stamp_ns=stamp)
    image = rng.uniform(280, 310, GRID).astype(np.float32)
    return Sample("thermal", image, stamp_ns=stamp, unit="kelvin")


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    return small(("rgb", "depth", "thermal"))


def test_without_a_deadline_nothing_is_said_or_left_out(bundle: Path) -> None:
    drive = Drive(bundle, None)
    for _ in range(5):
        result = drive.tick(10_000)
        assert result is not None and result.lateness is None and not result.late
        assert result.used == ("rgb", "depth", "thermal")


def test_sensors_go_then_outputs_then_come_back(bundle: Path) -> None:
    policy = LatePolicy(0.1, recover_after=3, optional=("confidence",))
    drive = Drive(bundle, policy)
    drive.tick(10)
    used = []
    for _ in range(5):
        result = drive.tick(250)
        assert result is not None and result.late and result.lateness is not None
        used.append(len(result.used))
    assert used[0] == 3 and used[2] == 1  # a sensor less with each
    assert result.confidence is None and result.labels is not None  # all steps are taken
    assert result.lateness.level == drive.core.shedder._ladder.top == 4  # type: ignore[union-attr]
    assert set(result.lateness.sensors) | set(result.used) == {"rgb", "depth", "thermal"}
    assert result.lateness.parts == ("confidence",)
    assert result.state == "degraded" and result.health[drive.shed[0]] == "ok"
    for name in result.lateness.sensors:
        assert name in result.lateness.line
    for _ in range(3 * 16 * 4):
        result = drive.tick(10)
    assert result is not None and result.state == "full" and result.confidence is not None
    assert result.lateness is not None and result.lateness.line == ""
    counters = drive.pipeline.counters
    assert counters["late_steps_down"] == counters["late_steps_up"] == 4
    assert counters["late_results"] == 5 and counters["late_level"] == 0


def test_required_sensors_stay(bundle: Path) -> None:
    drive = Drive(bundle, LatePolicy(0.1, keep=("thermal",)), policy=Policy(required=("depth",)))
    for _ in range(20):
        result = drive.tick(300)
    assert result is not None and set(result.used) == {"depth", "thermal"}


def test_one_that_was_left_out_takes_over_when_the_others_fall_silent(bundle: Path) -> None:
    drive = Drive(bundle, LatePolicy(0.1))
    for _ in range(20):
        result = drive.tick(300)
    assert result is not None
    (alone,) = result.used
    others = [s for s in drive.pipeline.sensors if s != alone]
    for _ in range(60):
        result = drive.tick(300, *others)
    assert result is not None and set(result.used) & set(others)
    while drive.tick(10) is None or drive.core.shedder.sensors:
        assert drive.now < 10**12


def test_when_all_fall_silent_the_next_frame_is_as_cheap_as_the_last(bundle: Path) -> None:
    """As when the drivers have no CPU either: nobody is gone for good, and there is no time for all."""
    drive = Drive(bundle, LatePolicy(0.1))
    for _ in range(20):
        result = drive.tick(300)
    assert result is not None and len(result.used) == 1
    cheapest = result.used
    for _ in range(10):
        drive.now += 500 * MS
        drive.core.poll(drive.now)
    results = [drive.tick(300) for _ in range(3)]
    assert {r.used for r in results if r is not None} == {cheapest}


def test_what_a_sensor_costs_is_not_what_it_waited(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first frame rgb alone had to wait for the CPU: without the others nothing seemed saved."""
    drive = Drive(bundle, LatePolicy(0.1, keep=("rgb",)))
    encode, waits = drive.pipeline.encode, [1000.0]

    def encoded(sample: Sample, **options: object) -> object:
        found = encode(sample, **options)  # type: ignore[arg-type]
        spent = 10.0 + (waits[0] if sample.sensor == "rgb" else 0.0)
        assert isinstance(found, Encoded)
        return replace(found, timings={f"encode_{sample.sensor}": spent})

    monkeypatch.setattr(drive.pipeline, "encode", encoded)
    drive.tick(300)
    waits[0] = 0.0
    for _ in range(20):
        result = drive.tick(300)
    assert result is not None and result.used == ("rgb",)


def test_of_frames_that_wait_the_oldest_are_let_go(bundle: Path) -> None:
    drive = Drive(bundle, LatePolicy(0.1, keep=("rgb", "depth", "thermal")))
    drive.tick(10)
    drive.tick(300)
    assert drive.core.shedder.frames
    before = len(drive.results)
    for _ in range(3):
        drive.now += 33 * MS
        for sensor in drive.pipeline.sensors:
            drive.core.push(sample(sensor, drive.now), drive.now)
    drive.latency = 20 * MS
    (result,) = drive.core.poll(drive.now)
    drive.check()
    assert result.stamp_ns == drive.now and before == 2
    assert result.lateness is not None and result.lateness.dropped == 2
    assert drive.pipeline.counters["late_frames_dropped"] == 2
    assert drive.core.counts["rgb"]["shed"] == 2


def test_a_stale_frame_gives_way_to_a_newer_one_but_not_for_ever(bundle: Path) -> None:
    drive = Drive(bundle, LatePolicy(0.1, keep=("rgb", "depth", "thermal")))
    for _ in range(20):
        drive.tick(10)
    drive.tick(300)
    given = []
    for _ in range(8):
        drive.core.hear("rgb", drive.now + 40 * MS)  # the next one is there already
        given.append(drive.tick(150) is not None)
    assert given == [False, False, False, True] * 2


def test_where_all_frames_wait_long_none_gives_way(bundle: Path) -> None:
    """The next one would have to wait as long: only one that waited much longer is let go for it."""
    drive = Drive(bundle, LatePolicy(0.1, keep=("rgb", "depth", "thermal")))
    for _ in range(25):
        drive.tick(150)
    given = []
    for latency in (150, 180, 140, 320, 150, 200, 400):
        drive.core.hear("rgb", drive.now + 40 * MS)
        given.append(drive.tick(latency) is not None)
    assert given == [True, True, True, False, True, True, False]


@pytest.mark.parametrize("wrong", [{"keep": ("lidar",)}, {"optional": ("boxes9d",)}])
def test_names_of_nothing_are_refused(bundle: Path, wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="late"):
        Drive(bundle, LatePolicy(0.1, **wrong))  # type: ignore[arg-type]


def test_no_sample_waits_for_others_longer_than_half_the_deadline() -> None:
    timing = {"rgb": SensorTiming()}
    assert StreamSettings(timing, late=LatePolicy(0.1)).wait_ns == 50 * MS
    assert StreamSettings(timing, late=LatePolicy(1.0)).wait_ns == 80 * MS
    assert StreamSettings(timing).wait_ns == 80 * MS


def test_another_policy_begins_anew(bundle: Path) -> None:
    drive = Drive(bundle, LatePolicy(0.1))
    for _ in range(4):
        drive.tick(300)
    assert drive.core.shedder.sensors
    timing = {s: SensorTiming() for s in drive.pipeline.sensors}
    drive.core.configure(StreamSettings(timing))
    result = drive.tick(300)
    assert result is not None and result.used == ("rgb", "depth", "thermal")
    assert result.lateness is None and not drive.pipeline.spared


def test_lines_say_what_there_is_to_say() -> None:
    assert Lateness(90, 100).line == ""
    assert Lateness(150, 100).line == "late: 150 ms, deadline 100 ms"
    line = Lateness(80, 100, 3, ("rgb",), ("energy",), 1).line
    assert line == "80 ms, deadline 100 ms; left out: rgb, energy, 1 frame"


@given(st.lists(st.tuples(st.integers(0, 400), st.sets(st.integers(0, 2))), max_size=40))
def test_whatever_comes_every_sample_is_accounted_for(
    shared: Drive, ticks: list[tuple[int, set[int]]]
) -> None:
    names = shared.pipeline.sensors
    for latency, sensors in ticks:
        result = shared.tick(latency, *(names[i] for i in sorted(sensors)))
        assert result is None or result.used or result.state in ("hold", "stop")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    made = SmallBundles(tmp_path_factory.mktemp("late"))(("rgb", "depth", "thermal"))
    yield Drive(made, LatePolicy(0.1, after=2, recover_after=3, optional=("confidence",)))
