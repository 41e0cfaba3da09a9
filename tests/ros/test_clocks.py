"""Sensors whose stamps cannot be believed, among others that can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import to_ns, to_stamp
from bench import Bench, SimulatedTime, shifted, unstamped
from diagnostic_msgs.msg import DiagnosticStatus
from processes import NodeProcess, wait_until
from sensor_msgs.msg import Image
from starting import running

pytestmark = pytest.mark.slow

PARAMETERS = {
    "inputs": ["rgb", "depth"],
    "device": "cpu",
    "threads": 1,
    "autostart": True,
    "sync.deadline_ms": 200.0,
    "diagnostics.period_s": 0.3,
    # No sensor dies here, and on a shared machine one may be silent for a while.
    "rgb.timeout_ms": 5000.0,
    "depth.timeout_ms": 5000.0,
}


@pytest.fixture(scope="module")
def bench(domain: int, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder, given = tmp_path_factory.mktemp("clocks"), {**PARAMETERS, "bundle": str(bundle)}
    with running(folder, domain, given, rate_hz=10.0, sensors=("rgb", "depth")) as bench:
        bench.drive()
        bench.wait_full(2)
        yield bench


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "bench" in request.fixturenames:
        bench: Bench = request.getfixturevalue("bench")
        bench.mend()
        bench.drive()
        bench.wait_full(2)


def _sensor(status: PerceptionStatus, name: str) -> Any:
    return next(s for s in status.sensors if s.name == name)


def _offset_ms(status: DiagnosticStatus) -> float:
    said = next((v.value for v in status.values if v.key == "clock_offset_ms"), "")
    return float(said or "nan")


def _goes_on_with(bench: Bench, name: str, count: int = 20) -> None:
    """The next outputs must come from the sensor alone, and from what is taken of it."""
    start = len(bench.statuses)
    wait_until(lambda: len(bench.statuses) >= start + count, "outputs that go on")
    found = bench.statuses[start : start + count]
    assert {tuple(s.used) for s in found} == {(name,)}, [s.reason for s in found]
    # What a busy node leaves for newer ones does not count; what it takes and makes nothing of does.
    taken = _sensor(found[-1], name).taken - _sensor(found[0], name).taken
    assert taken < 3 * count, "outputs of one picture in three are lost"


@pytest.mark.parametrize(("wrong", "right"), [("depth", "rgb"), ("rgb", "depth")])
@pytest.mark.parametrize("ahead_s", [0.3, 0.9, 3600.0])
def test_a_clock_that_is_ahead(bench: Bench, wrong: str, right: str, ahead_s: float) -> None:
    bench.changes[wrong] = shifted(ahead_s)
    status = bench.wait_status(
        lambda s: (
            s.used == [right]
            and {x.name: x.health for x in s.sensors} == {wrong: "skewed", right: "ok"}
        ),
        "the other alone",
    )
    (line,) = status.warnings
    assert line.startswith(f"{wrong}: stamps are ") and "ahead of this computer's clock" in line
    found = bench.wait_diagnostic(
        wrong,
        # The message that was least on its way says it best, and that one may yet have to come.
        lambda d: "ahead" in d.message and abs(_offset_ms(d) - ahead_s * 1e3) <= 250,
        "whose clock is wrong, and by how much",
    )
    assert found.level == DiagnosticStatus.WARN
    bench.wait_diagnostic(right, lambda d: d.level == DiagnosticStatus.OK, "that the other is well")
    _goes_on_with(bench, right)


@pytest.mark.parametrize("seconds", [1000.0, 90.0])
def test_a_clock_that_counts_from_the_sensors_start(bench: Bench, seconds: float) -> None:
    bench.changes["depth"] = shifted(seconds - time.time())
    bench.wait_status(
        lambda s: s.used == ["rgb"] and _sensor(s, "depth").health == "skewed", "rgb alone"
    )
    bench.wait_diagnostic("depth", lambda d: "count from a start" in d.message, "what it counts")
    _goes_on_with(bench, "rgb")


def test_a_clock_far_behind(bench: Bench) -> None:
    bench.changes["depth"] = shifted(-7.0)
    bench.wait_status(
        lambda s: s.used == ["rgb"] and _sensor(s, "depth").health == "skewed", "rgb alone"
    )
    bench.wait_diagnostic("depth", lambda d: "behind" in d.message, "by how much")
    _goes_on_with(bench, "rgb")


def test_all_clocks_ahead_alike_go_on_with_a_warning(bench: Bench) -> None:
    for sensor in ("rgb", "depth"):
        bench.changes[sensor] = shifted(3600.0)
    status = bench.wait_status(
        lambda s: (
            len(s.used) == 2 and len(s.warnings) == 2 and {x.health for x in s.sensors} == {"ok"}
        ),
        "both, with warnings",
    )
    assert status.header.stamp.sec > time.time() + 3000


@pytest.mark.parametrize("sensors", [("depth",), ("rgb",), ("rgb", "depth")])
def test_messages_without_stamps(bench: Bench, sensors: tuple[str, ...]) -> None:
    masks = bench.listen(Image, "segmentation/mask")
    for sensor in sensors:
        bench.changes[sensor] = unstamped
    bench.wait_status(
        lambda s: (
            len(s.used) == 2
            and [w.split(":")[0] for w in s.warnings] == list(sensors)
            and {x.health for x in s.sensors} == {"ok"}
        ),
        "both, with a warning by name",
    )
    for sensor in sensors:
        found = bench.wait_diagnostic(sensor, lambda d: "no stamps" in d.message, "what is missing")
        assert found.level == DiagnosticStatus.WARN
    del masks[:]
    wait_until(lambda: len(masks) >= 10, "masks")
    stamps = [to_ns(m.header.stamp) for m in masks]
    assert stamps == sorted(set(stamps))
    assert abs(time.time_ns() - stamps[-1]) < 30 * 10**9


def test_a_stamp_that_stands(bench: Bench) -> None:
    stands = time.time()

    def change(message: Any, stamp: int) -> Any:
        message.header.stamp = to_stamp(round(stands * 1e9))
        return message

    bench.changes["depth"] = change
    bench.wait_status(
        lambda s: s.used == ["rgb"] and _sensor(s, "depth").health in ("frozen", "skewed"),
        "rgb alone",
    )
    _goes_on_with(bench, "rgb")


def test_one_wrong_stamp_now_and_then_is_no_fault(bench: Bench) -> None:
    count = iter(range(10**6))

    def change(message: Any, stamp: int) -> Any:
        # One of ten and never two in a row, in no rhythm that a busy node could drop messages by.
        wrong = next(count) * 0.6180339887498949 % 1 < 0.1
        return shifted(3600.0)(message, stamp) if wrong else message

    start, before = len(bench.statuses), _sensor(bench.statuses[-1], "rgb").rejected
    bench.changes["rgb"] = change
    wait_until(
        lambda: (
            len(bench.statuses) >= start + 40
            and _sensor(bench.statuses[-1], "rgb").rejected >= before + 3
        ),
        "outputs that go on, and wrong ones that are not used",
    )
    assert {_sensor(s, "rgb").health for s in bench.statuses[start:]} == {"ok"}
    assert all(abs(s.header.stamp.sec - time.time()) < 60 for s in bench.statuses[start:])


def test_the_limit_of_the_skew(bench: Bench) -> None:
    assert bench.set_parameter("sync.max_skew_ms", 800.0).successful
    try:
        bench.wait_full(2)
        for sensor in ("rgb", "depth"):
            bench.changes[sensor] = shifted(-950.0)
        bench.wait_status(
            lambda s: (
                s.state == s.STOP
                and {x.health for x in s.sensors} == {"skewed"}
                and len(s.warnings) == 2
            ),
            "none used",
        )
        bench.mend()
        bench.wait_full(2)
    finally:
        assert bench.set_parameter("sync.max_skew_ms", 0.0).successful


@pytest.mark.parametrize("step_s", [0.02, 0.25])
def test_in_simulated_time(own_domain: int, bundle: Path, tmp_path: Path, step_s: float) -> None:
    """Stamps are compared with /clock, however coarse it is."""
    parameters = {
        **PARAMETERS,
        "bundle": str(bundle),
        "use_sim_time": True,
        "sync.max_skew_ms": 900.0,
    }
    node = NodeProcess("perception_node", tmp_path, own_domain, parameters)
    bench = Bench(own_domain, rate_hz=10.0, sensors=("rgb", "depth"))
    clock = SimulatedTime(bench, step_s)
    try:
        bench.alive = lambda: node.process.poll() is None
        bench.drive()
        bench.wait_full(2)
        bench.changes["depth"] = shifted(2.0)
        status = bench.wait_status(
            lambda s: s.used == ["rgb"] and _sensor(s, "depth").health == "skewed", "rgb alone"
        )
        assert status.header.stamp.sec < 10_000
        bench.mend()
        bench.wait_full(2)
        bench.changes["depth"] = unstamped
        bench.wait_status(lambda s: len(s.used) == 2 and len(s.warnings) == 1, "both")
    finally:
        clock.close()
        bench.close()
        assert node.stop() == 0, node.log
