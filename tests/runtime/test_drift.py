"""Drift: what a stream says of sensors that no longer sit or tick as the rig says."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_bundles import SmallBundles

from perception.errors import ConfigError
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.edges import edges_of_depth
from perception.geometry.transforms import RigidTransform
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.drift import DriftMonitor, DriftPolicy, DriftVerdict, _Held
from perception.runtime.drift_look import Look, look, pair_of, skew
from perception.runtime.pipeline import Pipeline

S = 10**9
QUICK = DriftPolicy(period_s=0.0, held=2)


def turned(sample: Sample, pitch: float = 0.0, yaw: float = 0.0) -> Sample:
    """A sample whose extrinsics are off by small rotations about the camera's x and y axes, degrees."""
    x, y = np.radians([pitch, yaw]) / 2
    error = RigidTransform.from_quaternion_xyzw([x, y, 0, np.sqrt(1 - x * x - y * y)], np.zeros(3))
    return replace(sample, extrinsics=error @ (sample.extrinsics or RigidTransform.identity()))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """A simulated drive."""
    pytest.importorskip("mujoco", reason="needs the simulator: pip install 'anysense[sim]'")
    from perception.data.registry import open_recording
    from perception.sim.generate import make_recording

    out = tmp_path_factory.mktemp("drift") / "drive"
    make_recording(out, "drive", 12, 3, size=(240, 320), lidar="os1-64", progress=False)
    recording = open_recording("folder", out)
    return [recording.frame(i) for i in range(len(recording))]


def _watch(
    frames: list[Frame],
    sensor: str,
    change: Callable[[Sample], Sample],
    policy: DriftPolicy = QUICK,
) -> tuple[DriftMonitor, list[DriftVerdict]]:
    found: list[DriftVerdict] = []
    monitor = DriftMonitor(policy, on_verdict=found.append)
    for index, frame in enumerate(frames):
        monitor.note(frame["rgb"])
        monitor.note(change(frame[sensor]))
        monitor.poll(index)
    return monitor, found


@pytest.mark.parametrize("sensor", ["lidar", "depth"])
def test_sensors_that_fit_are_ok(street: list[Frame], sensor: str) -> None:
    monitor, found = _watch(street, sensor, lambda sample: sample)
    angles = [one for one in found if one.quantity != "time"]
    assert len(angles) == 4 and all(one.known for one in angles)
    assert all(abs(one.estimate) < max(3 * one.sigma, QUICK.most_deg) for one in angles), angles
    assert monitor.warning(sensor) is None and monitor.left_out == frozenset()
    # Straight on, nothing tells of time.
    assert not any(one.known for one in found if one.quantity == "time")


@pytest.mark.parametrize("sensor", ["lidar", "depth"])
@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 1.5), (-2.0, 0.0), (0.0, -3.0)])
def test_turned_sensors_are_told_with_the_angle(
    street: list[Frame], sensor: str, pitch: float, yaw: float
) -> None:
    monitor, found = _watch(street, sensor, lambda sample: turned(sample, pitch, yaw))
    truth = {"pitch": pitch, "yaw": yaw}
    for one in found:
        if one.quantity != "time":
            assert abs(one.estimate - truth[one.quantity]) < max(4 * one.sigma, 0.4), one
    warning = monitor.warning(sensor)
    assert warning is not None and warning.state == "misaligned"
    axis = "pitch" if pitch else "yaw"
    assert warning.text.startswith(f"{sensor}: does not fit rgb") and f"{axis} " in warning.text
    assert monitor.left_out == frozenset()
    monitor.policy = replace(QUICK, leave_out=True)
    assert monitor.left_out == {sensor}
    monitor.policy = None
    assert monitor.warning(sensor) is None and monitor.left_out == frozenset()


def test_a_rig_that_is_mended_ends_the_alarm(street: list[Frame]) -> None:
    monitor, _ = _watch(street, "lidar", lambda sample: turned(sample, yaw=2.0))
    assert monitor.warning("lidar") is not None
    # Another calibration is another rig: what was found before says nothing of it.
    for index, frame in enumerate(street[:2]):
        monitor.note(frame["rgb"])
        monitor.note(frame["lidar"])
        monitor.poll(100 + index)
    assert monitor.warning("lidar") is None


def test_looks_are_taken_each_period_and_on_another_thread(street: list[Frame]) -> None:
    import time

    monitor = DriftMonitor(replace(QUICK, period_s=1.0), background=True)
    looked = 0
    for now in range(0, 10 * S, S // 10):
        frame = street[now // S]
        monitor.note(frame["rgb"])
        monitor.note(frame["lidar"])
        monitor.poll(now)
        looked += monitor.busy
        end = time.monotonic() + 20
        while monitor.busy and time.monotonic() < end:
            time.sleep(0.001)
    assert 6 <= looked <= 10 and set(monitor.verdicts) >= {("lidar", "yaw"), ("lidar", "pitch")}
    monitor.close()


ENDS = """
import threading
import time
import cv2
import numpy as np
from perception.runtime import drift


def look(*given):
    picture, end = np.zeros((1500, 1500), np.float32), time.monotonic() + 2
    while time.monotonic() < end:
        cv2.GaussianBlur(picture, (0, 0), 9)
    print("looked", flush=True)


drift.look = look
monitor = drift.DriftMonitor(drift.DriftPolicy(), background=True)
monitor._next = lambda: (None, None, None, None)
stream = threading.Thread(target=monitor.poll, args=(0,), daemon=True)
stream.start()
stream.join()
assert monitor.busy
monitor.close()
print("ends", flush=True)
"""


def test_a_process_that_ends_while_a_look_is_taken_ends_well() -> None:
    """OpenCV that comes back from its work to a Python that is gone makes C++ abort the process."""
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ends\nlooked\n"), done.stderr


def _verdict(estimate: float, sigma: float = 0.1) -> DriftVerdict:
    return DriftVerdict("lidar", "rgb", "yaw", estimate, sigma, 0)


def test_only_what_holds_is_an_alarm() -> None:
    policy, held = DriftPolicy(held=3), _Held()

    def after(*estimates: float, sigma: float = 0.1) -> bool:
        for one in estimates:
            held.follow(_verdict(one, sigma), policy)
        return held.alarm is not None

    assert not after(1.0, 1.0, 0.1, 1.0, 1.0)  # interrupted
    assert not after(-1.0, 1.0, -1.0, 1.0)  # to and fro
    assert not after(*[1.0] * 5, sigma=0.5) and not after(*[1.0] * 5, sigma=np.inf)
    held = _Held()
    assert after(1.0, 1.0, 1.0)
    assert after(5.0, sigma=np.inf) and after(0.1, 0.1)  # nothing known, and not yet long enough
    assert not after(0.1)
    assert after(-0.7, -0.7, -0.7) and not after(0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    "wrong", [{"period_s": -1.0}, {"looks": 1}, {"held": 0}, {"most_deg": 0.0}, {"most_ms": np.nan}]
)
def test_policies_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="drift"):
        DriftPolicy(**wrong)  # type: ignore[arg-type]


def test_a_look_that_fails_costs_nothing_but_itself(
    street: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(street[0]["lidar"], data=np.zeros((9, 2), np.float32))
    with caplog.at_level(logging.WARNING, "anysense.drift"):
        monitor, found = _watch(
            street, "lidar", lambda sample: replace(broken, stamp_ns=sample.stamp_ns)
        )
    assert not found and monitor.warning("lidar") is None
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "no longer watched" in caplog.records[0].message


def test_what_cannot_be_compared_is_not(street: list[Frame]) -> None:
    rgb, lidar = street[0]["rgb"], street[0]["lidar"]
    assert pair_of(lidar, [rgb]) is not None
    assert pair_of(replace(lidar, extrinsics=None), [rgb]) is None
    assert pair_of(lidar, [replace(rgb, data=rgb.data[:100])]) is None
    other = CameraModel(320, 240, 100.0, 100.0, 160.0, 120.0)
    assert pair_of(lidar, [replace(rgb, camera=other)]) is None
    # Two cameras alike in two places: nobody knows which one is meant.
    away = replace(rgb, sensor="left", extrinsics=RigidTransform(np.eye(3), np.array([0.5, 0, 0])))
    assert pair_of(lidar, [rgb, away]) is None
    thermal = street[0]["thermal"]
    best = pair_of(lidar, [thermal, rgb])
    assert best is not None and best[0] is rgb
    monitor, found = _watch(street, "lidar", lambda s: replace(s, stamp_ns=s.time_ns + S))
    assert not found and monitor.warning("lidar") is None
    camera = rgb.camera
    assert camera is not None
    behind = replace(lidar, data=lidar.data * np.float32([-1, 1, 1, 1][: lidar.data.shape[1]]))
    one = look(replace(behind, data=behind.data[behind.data[:, 0] < -5]), rgb, camera)
    assert one is None or one.edges < 300


def test_pictures_without_edges_tell_nothing(street: list[Frame]) -> None:
    blank = [
        Frame({**f, "rgb": replace(f["rgb"], data=np.full_like(f["rgb"].data, 80))}) for f in street
    ]
    _, found = _watch(blank, "lidar", lambda sample: sample)
    assert found and not any(one.known for one in found)


def test_edges_of_depth_lie_between_near_and_far() -> None:
    camera = CameraModel(60, 40, 50.0, 50.0, 29.5, 19.5)
    depth = np.full((40, 60), 20.0, np.float32)
    depth[15:40, 20:30] = 4.0
    depth[0:3, 0:3] = np.nan
    edges = edges_of_depth(depth, camera)
    pixels, _ = camera.project(edges.points)
    assert np.allclose(edges.points[:, 2], 4.0)
    sides, tops = pixels[~edges.tops], pixels[edges.tops]
    assert set(np.round(sides[:, 0], 3)) == {19.5, 29.5} and len(sides) == 50
    assert np.allclose(tops[:, 1], 14.5) and len(tops) == 10
    coarse = edges_of_depth(depth, camera, stride=2)
    assert 0 < len(coarse.points) < len(edges.points)
    assert len(edges_of_depth(np.full((40, 60), np.nan, np.float32), camera).points) == 0


def test_stamps_that_are_off_are_told_in_turns() -> None:
    """Points of later moments than their stamps say have turned further."""
    pytest.importorskip("mujoco", reason="needs the simulator: pip install 'anysense[sim]'")
    from perception.sim.render import render
    from perception.sim.sensors import BEAM_PATTERNS, make_rig, mount_sensors
    from perception.sim.street import make_street, random_weather

    rng = np.random.default_rng(4)
    street = make_street(11, 60.0, random_weather(rng, night=False))
    camera = mount_sensors((180, 240), {"rgb": "rgb"})
    tiny = mount_sensors((32, 32), {"rgb": "rgb", "lidar": "lidar"})
    rig = make_rig(mount_sensors((180, 240), {"rgb": "rgb", "lidar": "lidar"}), "rgb")
    late, looks = 0.06, list[Look]()

    def at(seconds: float, yaw: float):
        return replace(street, ego_position=(seconds, -1.9, 0.0), ego_yaw=yaw)

    for number, rate in enumerate(np.radians(rng.uniform(-30, 30, 14))):
        place = 2.0 * number
        pictures = [
            rig.attach(
                Sample(
                    "rgb",
                    render(at(place, rate * away), camera, BEAM_PATTERNS["vlp16"]).samples["rgb"],
                    10 * S + round(away * 1e9),
                )
            )
            for away in (-0.05, 0.0)
        ]
        cloud = render(at(place, rate * late), tiny, BEAM_PATTERNS["os1-64"]).samples["lidar"]
        points = rig.attach(Sample("lidar", cloud[:, :4], 10 * S))
        pair = pair_of(points, pictures[1:])
        assert pair is not None
        one = look(points, *pair, pictures[0])
        assert one is not None
        looks.append(one)
        # To the left, things move to the right.
        assert abs(one.rate - np.degrees(rate)) < 0.2 * abs(np.degrees(rate)) + 2
    found = skew(looks)
    assert abs(found.value - 1e3 * late) < 3 * found.sigma < 60
    stamped = [replace(one, later_s=late) for one in looks]  # stamps that say so
    assert abs(skew(stamped).value) < 3 * skew(stamped).sigma


@pytest.mark.parametrize("leave_out", [False, True])
def test_a_stream_warns_or_leaves_the_sensor_out(
    street: list[Frame], tmp_path: Path, leave_out: bool
) -> None:
    bundle = SmallBundles(tmp_path).named({"rgb": ("rgb", "color"), "depth": ("depth", "near")})
    pipeline = Pipeline.load(bundle, "onnxruntime-cpu", threads=1)
    timing = {name: SensorTiming(timeout_ns=10 * S) for name in ("rgb", "depth")}
    policy = replace(QUICK, leave_out=leave_out)
    core = StreamCore(pipeline, StreamSettings(timing, drift=policy))
    last = None
    for number in range(24):
        now = 100 * S + number * S // 10
        frame = street[number % len(street)]
        for name in ("rgb", "depth"):
            sample = replace(frame[name], stamp_ns=now)
            core.push(turned(sample, yaw=2.0) if name == "depth" else sample, now, now)
        last = (core.poll(now + 1000) or [last])[-1]
    # Without anything left out a group leaves when it is complete; else at its deadline.
    last = (core.poll(now + S // 5) or [last])[-1]
    assert last is not None and last.health == {"rgb": "ok", "depth": "misaligned"}
    assert any("yaw" in line and line.startswith("depth: does not fit rgb") for line in last.lines)
    assert ("depth" in last.used) is not leave_out
    assert last.state == ("degraded" if leave_out else "full")
    report = core.report(now)["depth"]
    assert report.health == "misaligned" and "yaw" in report.line
    assert report.received == report.used + report.superseded + report.rejected + report.waiting
    core.configure(StreamSettings(timing))  # no longer watched
    assert core.report(now)["depth"].health == "ok"
    core.close()


@pytest.mark.realdata
def test_a_real_drive_is_ok_and_turned_by_a_degree_it_is_not(real_data: Path) -> None:
    from perception.data.kitti import KITTI

    recording = KITTI(real_data / "kitti_0005")
    frames = [recording.frame(index) for index in range(0, 50, 2)]
    policy = replace(QUICK, held=3)
    assert _watch(frames, "lidar", lambda sample: sample, policy)[0].warning("lidar") is None
    for pitch, yaw in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (2.0, 0.0), (0.0, 3.0)):
        monitor, _ = _watch(frames, "lidar", lambda s, p=pitch, y=yaw: turned(s, p, y), policy)  # type: ignore[misc]
        assert monitor.warning("lidar") is not None, (pitch, yaw)
