"""Engines that fail while the node runs: the next backend takes over, and the node never dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import Bench
from diagnostic_msgs.msg import DiagnosticStatus
from processes import NodeProcess, wait_until
from starting import quick

from perception.frame import KINDS

pytestmark = pytest.mark.slow

PARAMETERS = quick(KINDS, inputs=list(KINDS))
BREAKING = Path(__file__).parent / "breaking_node.py"

Start = Callable[[str, str], tuple[NodeProcess, Bench]]


@pytest.fixture
def start(
    own_domain: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Starts a node on a device whose engines break in a way; it must end cleanly."""
    made: list[tuple[NodeProcess, Bench]] = []

    def make(device: str, how: str) -> tuple[NodeProcess, Bench]:
        monkeypatch.setenv("ANYSENSE_TEST_BREAK", how)
        parameters = {**PARAMETERS, "bundle": str(bundle), "device": device}
        node = NodeProcess(str(BREAKING), tmp_path, own_domain, parameters, name="perception_node")
        bench = Bench(own_domain)
        bench.alive = lambda: node.process.poll() is None
        made.append((node, bench))
        bench.drive()
        return node, bench

    yield make
    for node, bench in made:
        bench.close()
        assert node.stop() == 0, node.log
        assert "Traceback" not in node.log, node.log


def _value(status: DiagnosticStatus, key: str) -> int:
    return int(next((v.value for v in status.values if v.key == key), 0))


def test_a_backend_that_cannot_load_a_graph_gives_way(start: Start) -> None:
    node, bench = start("cuda", "load")
    assert bench.wait_full().backend == "onnxruntime-cpu"
    found = bench.wait_diagnostic("engine", lambda d: "ready on" in d.message, "the engine's state")
    assert found.level == DiagnosticStatus.WARN
    assert _value(found, "fallbacks") >= 1
    assert "cannot be loaded" in node.log


def test_a_backend_that_fails_while_running_gives_way(start: Start) -> None:
    node, bench = start("cuda", "run")
    # It runs twenty times only: on a busy machine not all sensors may be there in time.
    bench.wait_status(lambda s: s.backend == "onnxruntime-cuda" and s.used, "the first one")
    bench.wait_status(lambda s: s.backend == "onnxruntime-cpu" and len(s.used) == 4, "the next one")
    found = bench.wait_diagnostic("engine", lambda d: "device lost" in d.message, "what failed")
    assert found.level == DiagnosticStatus.WARN
    # Each graph notices for itself; what was heard last may have been sent before the last did.
    bench.wait_diagnostic("engine", lambda d: _value(d, "fallbacks") >= len(KINDS), "all of them")
    wait_until(lambda: "going on with onnxruntime-cpu" in node.log, "the line in the log")
    # The inputs that met the failure were run again: no message was lost to it.
    assert all(s.state != s.STOP for s in bench.statuses if s.backend == "onnxruntime-cpu")


def test_with_no_backend_left_the_node_waits_and_tries_again(start: Start, tmp_path: Path) -> None:
    switch = tmp_path / "broken"
    node, bench = start("cpu", f"switch:{switch}")
    bench.wait_full()
    switch.touch()
    bench.wait_status(
        lambda s: s.state == s.STOP and "next attempt" in " ".join(s.warnings), "stop, and why"
    )
    found = bench.wait_diagnostic("engine", lambda d: "next attempt" in d.message, "the failure")
    assert found.level == DiagnosticStatus.ERROR
    assert _value(found, "engine_failures") >= 1
    switch.unlink()
    after = bench.wait_full()
    bench.wait_diagnostic("engine", lambda d: "ready on" in d.message, "recovery")
    for sensor in after.sensors:
        fates = (sensor.taken, sensor.superseded, sensor.rejected, sensor.waiting)
        assert sensor.received == sum(fates), sensor
    assert "loaded anew" in node.log


def test_an_encoder_that_does_not_answer_stops_no_other_sensor(
    start: Start, tmp_path: Path
) -> None:
    switch = tmp_path / "hangs"
    _, bench = start("cpu", f"hang:{switch}")
    bench.wait_full()
    switch.touch()
    try:
        rest = list(KINDS[1:])
        status = bench.wait_status(
            lambda s: (
                list(s.used) == rest
                and [x.health for x in s.sensors] == ["stalled", *["ok"] * len(rest)]
            ),
            "output of others",
        )
        assert "encoder has not answered" in status.sensors[0].line
        bench.wait_diagnostic("rgb", lambda d: "not answered" in d.message, "who hangs")
        start_of = len(bench.statuses)

        def going_on() -> bool:
            return sum(list(s.used) == rest for s in bench.statuses[start_of:]) > 10

        wait_until(going_on, "outputs that go on")
        assert not any("rgb" in s.used for s in bench.statuses[start_of:])
    finally:
        switch.unlink()
    after = bench.wait_full()
    for sensor in after.sensors:
        fates = (sensor.taken, sensor.superseded, sensor.rejected, sensor.waiting)
        assert sensor.received == sum(fates), sensor
