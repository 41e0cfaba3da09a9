"""A hung backend ends the process where that is wanted; outputs that come too late leave sensors out."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import Bench
from diagnostic_msgs.msg import DiagnosticStatus
from processes import PATIENCE_S, NodeProcess
from starting import quick

from perception.frame import KINDS

pytestmark = pytest.mark.slow

PARAMETERS = quick(KINDS, inputs=list(KINDS), **{f"{m}.timeout_ms": 3000.0 for m in KINDS})
BREAKING = Path(__file__).parent / "breaking_node.py"
STUCK = 75


def _started(
    bundle: Path, folder: Path, domain: int, **parameters: object
) -> tuple[NodeProcess, Bench]:
    given = {**PARAMETERS, "bundle": str(bundle), **parameters}
    node = NodeProcess(str(BREAKING), folder, domain, given, name="perception_node")
    bench = Bench(domain)
    bench.alive = lambda: node.process.poll() is None
    bench.drive()
    return node, bench


def test_a_node_whose_backend_hangs_ends_and_works_when_it_is_started_again(
    own_domain: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "hangs"
    monkeypatch.setenv("ANYSENSE_TEST_BREAK", f"hang:{switch}")
    limits = {"engine.timeout_ms": 2000.0, "engine.stuck": "exit"}
    node, bench = _started(bundle, tmp_path / "first", own_domain, **limits)
    try:
        bench.wait_full()
        switch.touch()
        assert node.process.wait(PATIENCE_S) == STUCK, node.log
        assert "encoder_rgb.onnx" in node.log and "cannot be ended" in node.log
        assert "Traceback" not in node.log
    finally:
        bench.close()
        node.process.kill()
    switch.unlink()
    node, bench = _started(bundle, tmp_path / "second", own_domain, **limits)
    try:
        bench.wait_full()
    finally:
        bench.close()
        assert node.stop() == 0, node.log


def test_without_that_it_goes_on_by_itself(
    own_domain: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "hangs"
    monkeypatch.setenv("ANYSENSE_TEST_BREAK", f"hang:{switch}")
    node, bench = _started(bundle, tmp_path, own_domain, **{"engine.timeout_ms": 2000.0})
    try:
        bench.wait_full()
        switch.touch()
        bench.wait_diagnostic("engine", lambda d: "cannot be ended" in d.message, "who hangs")
        switch.unlink()
        bench.wait_full()
    finally:
        bench.close()
        assert node.stop() == 0, node.log


def test_late_outputs_leave_sensors_out_and_say_so(
    own_domain: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYSENSE_TEST_BREAK", "slow:0.1")  # each inference: an output takes 0.2 s
    late = {"late.deadline_ms": 120.0, "late.keep": ["depth"]}
    node, bench = _started(bundle, tmp_path, own_domain, **late)
    try:
        bench.wait_status(lambda s: list(s.used) == ["depth"], "the cheapest subset")
        status = bench.wait_status(
            lambda s: any("late: " in line and "left out: " in line for line in s.warnings),
            "that it is late",
        )
        assert status.state == status.DEGRADED
        for sensor in status.sensors:
            fates = (sensor.taken, sensor.superseded, sensor.rejected, sensor.waiting)
            assert sensor.received == sum(fates), sensor

        def told(found: DiagnosticStatus) -> bool:
            left = {v.key: v.value for v in found.values}.get("left_out", "")
            return "deadline 120 ms" in found.message and "rgb" in left

        found = bench.wait_diagnostic(
            "output", told, "that, and that the reference is left out, too"
        )
        assert found.level == DiagnosticStatus.WARN
        values = {v.key: v.value for v in found.values}
        assert int(values["late_results"]) > 0 and int(values["late_level"]) > 0
        assert "late: " in node.log
    finally:
        bench.close()
        assert node.stop() == 0, node.log
