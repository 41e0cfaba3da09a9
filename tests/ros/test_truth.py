"""What the node says is so: stamps, /diagnostics, the log, health, and what it offers to watchers."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from anysense_ros.conversions import to_ns
from bench import Bench, Frozen, SimulatedTime, black, drop
from diagnostic_msgs.msg import DiagnosticStatus
from processes import NodeProcess, wait_until
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import LivelinessPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from starting import Start, Starter

from perception.frame import KINDS

pytestmark = pytest.mark.slow

BREAKING = str(Path(__file__).parent / "breaking_node.py")
CONFIG = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config"
BASE = {
    "device": "cpu",
    "threads": 1,
    "autostart": True,
    "diagnostics.period_s": 0.3,
    **{f"{m}.timeout_ms": 1500.0 for m in KINDS},
}


@pytest.fixture
def start(starter: Starter, bundle: Path) -> Start:
    """Starts a node with a bench around its inputs; both end with the test."""

    def make(
        inputs: list[str],
        *arguments: str,
        executable: str = "perception_node",
        rate_hz: float = 10.0,
        base: dict[str, Any] = BASE,
        **changes: Any,
    ) -> tuple[NodeProcess, Bench]:
        parameters = {**base, "inputs": inputs, "bundle": str(bundle), **changes}
        return starter(
            parameters, *arguments, executable=executable, rate_hz=rate_hz, sensors=inputs
        )

    return make


def _stamps(messages: list[Any]) -> list[int]:
    return [to_ns(m.header.stamp) for m in messages]


def _rising(stamps: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(stamps))


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {v.key: v.value for v in status.values}


@pytest.mark.parametrize(
    ("rates", "phase_s"),
    [((10, 10), 0.05), ((10, 10), 0.025), ((30, 10), 0.047), ((5, 20), 0.03), ((10, 5), 0.047)],
)
def test_sensors_out_of_step(start: Start, rates: tuple[int, int], phase_s: float) -> None:
    """One output for each picture, each cloud once, stamps that rise and are the drivers'."""
    _, bench = start(["rgb", "lidar"], **{f"{m}.window_ms": 17.0 for m in ("rgb", "lidar")})
    masks, clouds = bench.listen(Image, "segmentation/mask"), bench.listen(PointCloud2, "points")
    bench.pace("rgb", rates[0], jitter_s=0.004)
    bench.pace("lidar", rates[1], phase_s, jitter_s=0.004)
    bench.drive()
    bench.wait_status(lambda s: len(s.used) == 2, "an output of both")
    wait_until(lambda: len(masks) > 40 and len(clouds) > 20, "outputs")
    time.sleep(0.2)
    assert _rising(_stamps(masks))
    assert _rising(_stamps(clouds))
    assert set(_stamps(clouds)) <= set(bench.stamps["lidar"])
    assert set(_stamps(masks)) <= set(bench.stamps["rgb"]) | set(bench.stamps["lidar"])
    used = [s for s in bench.statuses if s.used]
    assert _rising(_stamps(used))
    assert len(set(_stamps(bench.statuses))) == len(bench.statuses)


def test_outputs_keep_the_stamps_of_their_sources(start: Start) -> None:
    _, bench = start(["rgb", "lidar"], **{"lidar.offset_ms": -50.0, "lidar.window_ms": 17.0})
    masks, clouds = bench.listen(Image, "segmentation/mask"), bench.listen(PointCloud2, "points")
    bench.pace("rgb", 10)
    bench.pace("lidar", 10, 0.05)
    bench.drive()
    bench.wait_full(2)
    wait_until(lambda: len(masks) > 10 and len(clouds) > 10, "outputs")
    time.sleep(0.2)
    assert set(_stamps(clouds)) <= set(bench.stamps["lidar"])
    assert set(_stamps(masks)) <= set(bench.stamps["rgb"]) | set(bench.stamps["lidar"])


def test_stamps_of_a_status_without_output(start: Start) -> None:
    """The present time on the sensors' clock, which is an hour ahead here, in hold as in stop."""
    _, bench = start(["rgb", "depth"], **{"policy.hold_ms": 3000.0})
    bench.stamp_shift_ns = 3600 * 10**9
    masks = bench.listen(Image, "segmentation/mask")
    bench.drive()
    bench.wait_full(2)
    wait_until(lambda: masks, "a mask")
    first = len(bench.statuses)
    bench.drive(False)
    bench.wait_status(lambda s: s.state == s.HOLD, "hold")
    bench.wait_status(lambda s: s.state == s.STOP, "stop")
    time.sleep(1.0)
    silent = bench.statuses[first:]
    assert {s.state for s in silent} >= {silent[0].HOLD, silent[0].STOP}
    assert _rising(_stamps(silent))
    gaps = [b - a for a, b in itertools.pairwise(_stamps(silent))]
    assert max(gaps) < 10 * 10**9
    assert abs(_stamps(silent)[-1] - bench.stamp_shift_ns - time.time_ns()) < 10 * 10**9
    bench.drive()
    bench.wait_full(2)
    assert len(set(_stamps(bench.statuses))) == len(bench.statuses)
    assert _rising(_stamps(masks))  # nothing was sent again


def _true(report: dict[str, DiagnosticStatus], bench: Bench) -> bool:
    """Whether what /diagnostics says of the output is what the status of that number said."""
    values = _values(report["output"])
    states = ("full", "degraded", "hold", "stop")
    found = [s for s in bench.statuses if str(s.sequence) == values["sequence"]]
    return bool(found) and (values["state"], values["sensors"]) == (
        states[found[0].state],
        ", ".join(found[0].used),
    )


def test_diagnostics_are_what_the_last_output_was(start: Start) -> None:
    _, bench = start(["rgb", "depth"])
    bench.drive()
    bench.wait_full(2)
    bench.wait_diagnostic("output", lambda d: d.level == DiagnosticStatus.OK, "an output")
    changes = itertools.cycle([{}, {"depth": drop}, {"rgb": black}, {}])
    del bench.reports[:]
    for _ in range(8):
        bench.changes = dict(next(changes))
        time.sleep(0.7)

    def numbers() -> list[int]:
        return [int(_values(r["output"])["sequence"]) for r in list(bench.reports)]

    def received() -> list[int]:
        return [int(_values(r["rgb"])["received"]) for r in list(bench.reports)]

    # Refreshed with every one, however seldom a busy node gets to it.
    wait_until(lambda: len(bench.reports) >= 12 and len(set(numbers())) >= 10, "reports")
    wait_until(lambda: received()[-1] > received()[0] + 20, "counts that rise")
    reports = list(bench.reports)
    wait_until(lambda: all(_true(r, bench) for r in reports), "a status that says the same")
    assert numbers() == sorted(numbers()) and received() == sorted(received())


def test_what_is_not_active_is_not_ok(start: Start) -> None:
    _, bench = start(["rgb", "depth"])
    bench.wait_diagnostic("output", lambda d: d.level != DiagnosticStatus.OK, "no output yet")
    bench.drive()
    bench.wait_full(2)
    bench.wait_diagnostic("output", lambda d: d.level == DiagnosticStatus.OK, "an output")
    assert bench.transition("deactivate")
    for part in ("output", "rgb", "depth"):
        bench.wait_diagnostic(part, lambda d: "inactive" in d.message, f"{part} inactive")
    del bench.reports[:]
    wait_until(lambda: len(bench.reports) > 3, "reports")
    for report in bench.reports:
        levels = {p: report[p].level for p in ("output", "rgb", "depth")}
        assert DiagnosticStatus.OK not in levels.values(), levels
    assert bench.transition("activate")
    bench.wait_full(2)
    for part in ("output", "rgb", "depth"):
        bench.wait_diagnostic(part, lambda d: d.level == DiagnosticStatus.OK, f"{part} ok")
    assert bench.transition("deactivate")
    assert bench.transition("cleanup")
    for part in ("output", "rgb", "depth", "engine"):
        bench.wait_diagnostic(part, lambda d: "not configured" in d.message, f"{part} is gone")


def test_a_slow_node_loses_no_sensor(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every inference takes longer than the sensors' timeout; their messages wait."""
    monkeypatch.setenv("ANYSENSE_TEST_BREAK", "slow:1.2")
    timeouts = {f"{m}.timeout_ms": 1000.0 for m in ("rgb", "depth")}
    _, bench = start(["rgb", "depth"], executable=BREAKING, **timeouts)
    bench.drive()
    bench.wait_status(lambda s: len(s.used) == 2, "an output")
    begin = len(bench.statuses)
    wait_until(lambda: len(bench.statuses) > begin + 8, "outputs")
    for status in bench.statuses[begin:]:
        for sensor in status.sensors:
            assert sensor.health == "ok", status
            fates = (sensor.taken, sensor.superseded, sensor.rejected, sensor.waiting)
            assert sensor.received == sum(fates), sensor
    assert any(s.used == ["rgb", "depth"] for s in bench.statuses[begin:])


def test_a_slow_sensor_is_no_fault(start: Start) -> None:
    """rgb at 30 Hz, LiDAR at 5 Hz, with the parameters of the rig."""
    own = {"device": "cpu", "threads": 1, "autostart": True}
    file = ("--params-file", str(CONFIG / "rig_rgb_lidar.yaml"))
    # On a shared machine, a gap of the timeouts of the rig may be the machine's.
    patient = {"rgb.timeout_ms": 3000.0, "lidar.timeout_ms": 3000.0}
    _, bench = start(["rgb", "lidar"], *file, "-p", "rgb.timeout_ms:=3000.0", base=own, **patient)
    bench.pace("rgb", 30)
    bench.pace("lidar", 5, 0.05)
    bench.drive()
    bench.wait_status(lambda s: len(s.used) == 2, "an output of both")
    time.sleep(4.0)
    del bench.log[:], bench.reports[:]
    begin = len(bench.statuses)
    time.sleep(10.0)
    assert {s.state for s in bench.statuses[begin:]} == {0, 1}, "it does go back and forth"
    assert len(bench.log) <= 1, bench.log
    assert len(bench.reports) <= 20
    assert {r["output"].level for r in bench.reports} == {DiagnosticStatus.OK}


def test_what_goes_back_and_forth_floods_nobody(start: Start) -> None:
    _, bench = start(["rgb", "depth"], **{"health.recover_after": 1, "diagnostics.period_s": 1.0})
    bench.drive()
    bench.wait_full(2)
    count = iter(range(10**6))

    def flap(message: Any, stamp: int) -> Any:
        # In no rhythm: of every other one, a busy node that drops half of them would see one kind alone.
        return black(message, stamp) if next(count) * 0.6180339887498949 % 1 < 0.5 else message

    bench.changes["depth"] = flap
    time.sleep(5.0)
    del bench.log[:], bench.reports[:]
    begin, since = len(bench.statuses), time.monotonic()

    def flips() -> int:
        states = [s.state for s in bench.statuses[begin:]]
        return sum(a != b for a, b in itertools.pairwise(states))

    wait_until(lambda: flips() > 20 and time.monotonic() > since + 10, "states that change")
    said, told, took = list(bench.log), len(bench.reports), time.monotonic() - since
    assert len(said) <= 4 * took / 10, said
    assert told <= 3 * took
    bench.mend()
    bench.wait_diagnostic("depth", lambda d: d.level == DiagnosticStatus.OK, "depth is well")


def test_the_log_counts_what_it_did_not_say() -> None:
    from anysense_ros.changes import ChangeLog

    now, said = [0.0], []
    log = ChangeLog(lambda level, line: said.append((now[0], level, line)), lambda: now[0])
    for step in range(6000):  # ten minutes
        now[0] = step / 10
        log.note("depth", str(step % 2), "warn", f"depth: state {step % 2}")
        log.note("output", str(step % 2), "warn", f"output: state {step % 2}")
        log.tick()
    settled = [s for s in said if s[0] > 120]
    assert len(settled) <= 2 * 8 + 1
    assert all("times in 6" in line for _, _, line in settled)
    log.note("depth", "lost", "warn", "depth: lost")
    for _ in range(70):
        now[0] += 1
        log.tick()
    assert any("depth: lost" in line for _, _, line in said[-3:])
    for step in range(6000):
        now[0] += 0.1
        for subject in range(40):
            log.repeat(str(subject), "error", f"line {step}")
    minutes = [now[0] - 60 <= at for at, _, _ in said]
    assert sum(minutes) <= 5


def test_equal_pictures_are_no_fault_where_that_is_said(start: Start) -> None:
    _, bench = start(["rgb", "depth"])
    bench.drive()
    bench.wait_full(2)
    bench.changes.update(rgb=Frozen())
    bench.wait_status(lambda s: s.sensors[0].health == "frozen", "frozen")
    assert bench.set_parameter("health.frozen_after", 0).successful
    bench.wait_full(2)
    bench.changes.update(depth=Frozen())
    time.sleep(2.0)
    begin = len(bench.statuses)
    wait_until(lambda: len(bench.statuses) > begin + 20, "outputs")
    assert "frozen" not in {x.health for s in bench.statuses[begin:] for x in s.sensors}
    bench.wait_full(2)


def test_a_simulator_in_which_nothing_moves(start: Start) -> None:
    own = {"device": "cpu", "threads": 1, "autostart": True}
    file = ("--params-file", str(CONFIG / "rig_simulator.yaml"))
    _, bench = start(["rgb", "depth"], *file, base=own)
    clock = SimulatedTime(bench, 0.02)
    try:
        bench.changes.update(rgb=Frozen(), depth=Frozen())
        bench.drive()
        bench.wait_full(2)
        begin = len(bench.statuses)
        wait_until(lambda: len(bench.statuses) > begin + 40, "outputs")
        healths = {x.health for s in bench.statuses[begin:] for x in s.sensors}
        assert "frozen" not in healths and bench.wait_full(2).state == 0
    finally:
        clock.close()


def test_frozen_takes_its_time(start: Start) -> None:
    _, bench = start(["rgb"], rate_hz=20.0, **{"health.frozen_ms": 2000.0})
    bench.drive()
    bench.wait_full(1)
    held: list[Any] = []
    since = [0]

    def stutter(message: Any, stamp: int) -> Any:
        if stamp - since[0] > 450_000_000:  # by the stamps: a busy machine sends fewer in that time
            held[:], since[0] = [message], stamp
        held[0].header = message.header
        return held[0]

    bench.changes["rgb"] = stutter
    begin = len(bench.statuses)
    wait_until(lambda: len(bench.statuses) > begin + 60, "outputs")
    assert "frozen" not in {x.health for s in bench.statuses[begin:] for x in s.sensors}
    bench.changes["rgb"] = Frozen()
    bench.wait_status(lambda s: s.sensors[0].health == "frozen", "frozen")


def test_watchers_notice_that_outputs_stop_and_that_the_node_hangs(start: Start) -> None:
    node, bench = start(["rgb"], **{"qos.deadline_ms": 2000.0, "qos.lease_ms": 2000.0})
    events: list[str] = []
    alive: list[int] = []

    def watch(kind: Any, topic: str) -> None:
        def missed(event: Any) -> None:
            events.append(topic)

        def changed(event: Any) -> None:
            alive.append(event.alive_count)

        qos = QoSProfile(
            depth=1,
            deadline=Duration(seconds=4),
            liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
            liveliness_lease_duration=Duration(seconds=4),
        )
        callbacks = SubscriptionEventCallbacks(
            deadline=missed, liveliness=changed if topic == "segmentation/mask" else None
        )
        bench.node.create_subscription(
            kind, f"/perception_node/{topic}", lambda m: None, qos, event_callbacks=callbacks
        )

    from anysense_msgs.msg import PerceptionStatus

    watch(Image, "segmentation/mask")
    watch(PerceptionStatus, "status")
    bench.drive()
    bench.wait_full(1)
    wait_until(lambda: alive and alive[-1] == 1, "that the node is at work")
    bench.drive(False)  # no sensor: no masks, but the node is at work
    del events[:]
    wait_until(lambda: "segmentation/mask" in events, "that there are no masks")
    assert "status" not in events
    time.sleep(5.0)
    assert alive[-1] == 1
    node.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: alive[-1] == 0, "that the node hangs")
        wait_until(lambda: "status" in events, "that there is no status")
    finally:
        node.process.send_signal(signal.SIGCONT)
    wait_until(lambda: alive[-1] == 1, "that the node is at work again")
    bench.drive()
    bench.wait_full(1)
