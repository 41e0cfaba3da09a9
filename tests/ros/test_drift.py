"""Sensors that were moved: what a node says of a LiDAR and a depth camera that sit elsewhere than told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import cloud, header, image
from bench import FRAMES, Bench
from diagnostic_msgs.msg import DiagnosticStatus
from processes import PATIENCE_S, NodeProcess, wait_until
from starting import quick

from perception.frame import Frame
from perception.geometry.rig import Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform

pytestmark = pytest.mark.slow

SENSORS = ("rgb", "depth", "lidar")
RATE_HZ = 8.0
VERDICTS_S = 18 / RATE_HZ
"""Three verdicts of six looks, of a sensor that is looked at with every message."""

OFF_DEG = 2.5
BASE = quick(SENSORS, inputs=list(SENSORS), **{"drift.period_s": 0.05})


def turned(pose: RigidTransform, pitch: float = 0.0, yaw: float = 0.0) -> RigidTransform:
    """A pose that is off by a small rotation about the camera's x or y axis, degrees."""
    x, y = np.radians([pitch, yaw]) / 2
    error = RigidTransform.from_quaternion_xyzw([x, y, 0, np.sqrt(1 - x * x - y * y)], np.zeros(3))
    return error @ pose


@dataclass
class Robot:
    """The node, the drivers around it, and what is true of them."""

    bench: Bench
    node: NodeProcess
    rig: Rig
    frames: list[Frame]

    @property
    def lidar(self) -> RigidTransform:
        """Where the LiDAR sits in truth."""
        return self.rig.between("lidar", "rgb")

    def _show(self) -> None:
        """Drivers of a robot that drives to and fro in a simulated street."""
        road = [*self.frames, *self.frames[-2:0:-1]]
        began = time.time_ns()

        def of(name: str) -> Any:
            def change(message: Any, stamp: int) -> Any:
                frame = road[round((stamp - began) / 1e9 * RATE_HZ) % len(road)]
                head, data = header(stamp, FRAMES[name]), frame[name].data
                if name == "lidar":
                    return cloud(np.ascontiguousarray(data[:, :4], np.float32), head)
                return image(data, head, "rgb8" if name == "rgb" else "")

            return change

        for name in SENSORS:
            self.bench.changes[name] = of(name)
        camera = self.frames[0]["rgb"].camera
        assert camera is not None
        self.bench.camera = replace(camera, frame_id=FRAMES["rgb"])
        self.bench.place_lidar(self.lidar)

    def drive(self) -> None:
        """Begin."""
        self._show()
        self.bench.drive()
        self.bench.wait_full(len(SENSORS))

    def told(self, sensor: str) -> DiagnosticStatus:
        """What /diagnostics say once the sensor does not fit."""
        return self.bench.wait_diagnostic(
            sensor, lambda d: d.level == DiagnosticStatus.WARN and "does not fit" in d.message, "it"
        )

    def well(self, sensor: str) -> PerceptionStatus:
        """Wait until it is said to fit."""
        self.bench.wait_diagnostic(sensor, lambda d: d.level == DiagnosticStatus.OK, "well")
        return self.bench.wait_status(lambda s: _health(s)[sensor] == "ok", f"{sensor} well")

    def stays_well(self, seconds: float) -> None:
        """Nothing is said against any sensor for so long."""
        first, reports = len(self.bench.statuses), len(self.bench.reports)
        time.sleep(seconds)
        statuses, said = self.bench.statuses[first:], self.bench.reports[reports:]
        assert len(statuses) > seconds * RATE_HZ / 3 and len(said) > seconds / 2
        assert not [s.warnings for s in statuses if any("does not fit" in w for w in s.warnings)]
        assert {h for s in statuses for h in _health(s).values()} == {"ok"}
        assert not [d for parts in said for d in parts.values() if "does not fit" in d.message]


def _health(status: PerceptionStatus) -> dict[str, str]:
    return {s.name: s.health for s in status.sensors}


def _estimate(line: str, quantity: str) -> tuple[float, float]:
    """What a line says of a quantity, and its sigma."""
    found = re.search(rf"{quantity} ([-+][\d.]+) degrees \(sigma ([\d.]+)\)", line)
    assert found is not None, line
    return float(found[1]), float(found[2])


@pytest.fixture(scope="module")
def robot(domain: int, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    pytest.importorskip("mujoco", reason="needs the simulator: pip install 'anysense[sim]'")
    from perception.data.registry import open_recording
    from perception.sim.generate import make_recording

    folder = tmp_path_factory.mktemp("drift")
    make_recording(
        folder / "drive", "drive", 12, 3, size=(240, 320), lidar="os1-64", progress=False
    )
    recording = open_recording("folder", folder / "drive")
    frames = [recording.frame(index) for index in range(len(recording))]
    node = NodeProcess("perception_node", folder, domain, {**BASE, "bundle": str(bundle)})
    bench = Bench(domain, rate_hz=RATE_HZ, sensors=SENSORS)
    try:
        bench.alive = lambda: node.process.poll() is None
        made = Robot(bench, node, recording.rig, frames)
        made.drive()
        yield made
        assert bench.alive()
        assert "Traceback" not in node.log and "no longer watched" not in node.log, node.log
    finally:
        bench.close()
        assert node.stop() == 0, node.log


def test_a_turned_lidar_is_told_with_the_angle_and_the_true_one_is_not(robot: Robot) -> None:
    bench = robot.bench
    robot.stays_well(VERDICTS_S)
    bench.place_lidar(turned(robot.lidar, yaw=OFF_DEG))
    began = time.monotonic()
    said = robot.told("lidar")
    took = time.monotonic() - began
    assert said.message.startswith("lidar: does not fit rgb as the rig says: turned by ")
    angle, sigma = _estimate(said.message, "yaw")
    assert abs(angle - OFF_DEG) < max(4 * sigma, 0.4) and sigma < 0.6, said.message
    values = {v.key: v.value for v in said.values}
    assert values["health"] == "misaligned"
    status = bench.wait_status(lambda s: _health(s)["lidar"] == "misaligned", "its health")
    assert _health(status) == {"rgb": "ok", "depth": "ok", "lidar": "misaligned"}
    own = next(s for s in status.sensors if s.name == "lidar")
    assert any(w.startswith("lidar: does not fit rgb") and "yaw +" in w for w in status.warnings)
    assert "does not fit rgb" in own.line
    # It is told, and used all the same.
    bench.wait_status(
        lambda s: set(s.used) == set(SENSORS) and s.state == PerceptionStatus.FULL, "its use"
    )
    wait_until(lambda: any("lidar: does not fit rgb" in line for line in bench.log), "the log")
    bench.place_lidar(robot.lidar)
    robot.well("lidar")
    robot.stays_well(1.3 * took)


def test_it_is_left_out_where_that_is_wanted(robot: Robot) -> None:
    bench = robot.bench
    bench.place_lidar(turned(robot.lidar, pitch=-OFF_DEG))
    angle, sigma = _estimate(robot.told("lidar").message, "pitch")
    assert abs(angle + OFF_DEG) < max(4 * sigma, 0.4)
    assert bench.set_parameter("drift.leave_out", True).successful
    status = bench.wait_status(lambda s: set(s.used) == {"rgb", "depth"}, "an output without it")
    assert status.state == PerceptionStatus.DEGRADED and _health(status)["lidar"] == "misaligned"
    assert bench.set_parameter("drift.leave_out", False).successful
    bench.wait_status(lambda s: set(s.used) == set(SENSORS), "its use")
    assert bench.set_parameter("drift.leave_out", True).successful
    bench.wait_status(lambda s: "lidar" not in s.used, "an output without it")
    bench.place_lidar(robot.lidar)  # another place is another rig
    bench.wait_status(lambda s: set(s.used) == set(SENSORS), "that it takes part again")
    robot.well("lidar")
    assert bench.set_parameter("drift.leave_out", False).successful


def test_a_rig_file_says_wrongly_where_the_depth_camera_looks(robot: Robot, tmp_path: Path) -> None:
    bench, sensors = robot.bench, robot.rig.sensors
    true, wrong = tmp_path / "true.yaml", tmp_path / "wrong.yaml"
    save_rig(robot.rig, true)
    pose = turned(robot.rig.between("depth", "rgb"), yaw=-OFF_DEG)
    moved = SensorCalibration(sensors["depth"].camera, pose, FRAMES["depth"])
    save_rig(Rig({"rgb": sensors["rgb"], "depth": moved, "lidar": sensors["lidar"]}), wrong)
    assert bench.set_parameter("calibration_file", str(wrong)).successful
    said = robot.told("depth").message
    angle, sigma = _estimate(said, "yaw")
    assert abs(angle + OFF_DEG) < max(4 * sigma, 0.4), said
    status = bench.wait_status(lambda s: _health(s)["depth"] == "misaligned", "its health")
    assert _health(status)["lidar"] == "ok"
    assert bench.set_parameter("calibration_file", str(true)).successful
    robot.well("depth")
    robot.stays_well(VERDICTS_S)
    assert bench.set_parameter("calibration_file", "").successful


def test_limits_hold_and_watching_ends_while_it_runs(robot: Robot) -> None:
    bench = robot.bench
    assert bench.set_parameter("drift.most_deg", 4.0).successful
    bench.place_lidar(turned(robot.lidar, yaw=OFF_DEG))
    robot.stays_well(1.5 * VERDICTS_S)  # within what is allowed
    assert bench.set_parameter("drift.most_deg", 0.6).successful
    robot.told("lidar")
    assert bench.set_parameter("drift.period_s", 0.0).successful
    robot.well("lidar")  # what is not watched is not told
    for name, value, word in (
        ("drift.period_s", -1.0, "drift.period_s"),
        ("drift.most_deg", 0.0, "drift.most_deg"),
        ("drift.most_deg", 9.0, "drift.most_deg"),
        ("drift.most_ms", 1000.0, "drift.most_ms"),
        ("drift.most_ms", float("nan"), "drift.most_ms"),
        ("drift.leave_out", "yes", "parameter type"),  # refused by rclpy itself
    ):
        refused = bench.set_parameter(name, value)
        assert not refused.successful and word in refused.reason, (name, value, refused)
        assert "\n" not in refused.reason


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("drift.period_s", -1.0, "drift.period_s"),
        ("drift.most_deg", 5.0, "drift.most_deg"),
        ("drift.leave_out", "yes", "drift.leave_out"),
        ("drift.period", 3.0, "did you mean 'drift.period_s'?"),
    ],
)
def test_a_wrong_parameter_is_one_line(
    own_domain: int, bundle: Path, tmp_path: Path, name: str, value: Any, line: str
) -> None:
    given = {**BASE, "bundle": str(bundle), name: value}
    node = NodeProcess("perception_node", tmp_path, own_domain, given)
    assert node.process.wait(PATIENCE_S) == 2
    assert line in node.log and "Traceback" not in node.log, node.log
    assert len([one for one in node.log.splitlines() if one.startswith("error: ")]) == 1
