"""A node with a bundle that sees the ground from above: boxes in the base frame while sensors die."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import cloud, from_transform, header, to_ns, to_stamp
from bench import HEIGHT, TO_OPTICAL, WIDTH, Bench, Change, drop
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from processes import wait_until
from sensor_msgs.msg import Image
from starting import quick, running
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from perception.geometry.rig import Pose, Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GROUND = ROOT / "ros2_ws/.colcon/tiny/ground"
KINDS = {"front": "rgb", "left": "rgb", "back": "rgb", "right": "rgb", "roof": "lidar"}
YAWS = {"front": 0.0, "left": math.pi / 2, "back": math.pi, "right": -math.pi / 2}
AHEAD = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])
"""Of an optical frame that looks along x of the base frame."""

CAR = (5.0, 3.0)


def _placed(yaw: float) -> RigidTransform:
    c, s = math.cos(yaw), math.sin(yaw)
    return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AHEAD, [0, 0, 1.4])


def _with_a_car(message: Any, stamp: int) -> Any:
    """Points of the ground and of one car, in the LiDAR's frame, which is that of the base but higher."""
    rng = np.random.default_rng(stamp % 2**31)
    ground = rng.uniform((-12, -12, -1.3, 0), (12, 12, -1.2, 1), (300, 4))
    x, y = CAR
    car = rng.uniform((x - 0.3, y - 0.3, -1, 0), (x + 0.3, y + 0.3, 0, 1), (120, 4))
    return cloud(np.concatenate([ground, car]).astype(np.float32), message.header)


def _without(message: Any, stamp: int) -> Any:
    rng = np.random.default_rng(stamp % 2**31)
    ground = rng.uniform((-12, -12, -1.3, 0), (12, 12, -1.2, 1), (300, 4))
    return cloud(ground.astype(np.float32), header(to_ns(message.header.stamp), "lidar"))


@pytest.fixture(scope="module")
def bench(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert GROUND.is_dir(), "'make test-ros' makes it"
    folder = tmp_path_factory.mktemp("ground")
    # Intrinsics come over camera_info, the cameras' places from the file, the LiDAR's over TF.
    sensors = {
        name: SensorCalibration(kind="rgb", pose=Pose(_placed(yaw))) for name, yaw in YAWS.items()
    }
    save_rig(Rig(sensors, base="base_link", reference="front"), folder / "rig.yaml")
    parameters = quick(
        KINDS,
        bundle=str(GROUND),
        sensors=list(KINDS),
        calibration_file=str(folder / "rig.yaml"),
        odometry=True,
    )
    own = {"sensors": tuple(KINDS), "kinds": KINDS, "placed": False}
    with running(folder, domain, parameters, **own) as bench:
        bench.changes["roof"] = _with_a_car
        bench.drive()
        yield bench


def _place(bench: Bench) -> None:
    """Say where the LiDAR sits: 0.1 m above the front camera."""
    chain = (
        from_transform(_placed(0.0), "base_link", "camera_optical", 0),
        from_transform(TO_OPTICAL, "camera_optical", "lidar", 0),
    )
    bench._tf.publish(TFMessage(transforms=list(chain)))


@pytest.fixture
def placed(bench: Bench) -> Iterator[Bench]:
    _place(bench)
    bench.mend()
    bench.changes["roof"] = _with_a_car
    bench.wait_full(5)
    yield bench


def _near(message: Detection3DArray) -> list[Any]:
    found = []
    for one in message.detections:
        at = one.bbox.center.position
        if abs(at.x - CAR[0]) < 1 and abs(at.y - CAR[1]) < 1:
            found.append(one)
    return found


def test_a_lidar_whose_place_nobody_says_is_named(bench: Bench) -> None:
    status = bench.wait_status(
        lambda s: len(s.used) == 4 and any(w.startswith("roof: ") for w in s.warnings),
        "the cameras alone",
    )
    line = next(w for w in status.warnings if w.startswith("roof: "))
    assert "its place on the vehicle is not known: no transform from 'lidar' to 'base_link'" in line
    _place(bench)
    full = bench.wait_full(5)
    assert not full.warnings
    bench.wait_diagnostic(
        "calibration",
        lambda d: d.level == DiagnosticStatus.OK and "roof pose tf" in d.message,
        "the calibration is told",
    )


def test_boxes_are_in_the_base_frame(placed: Bench) -> None:
    boxes = placed.listen(Detection3DArray, "detections_3d")
    message = wait_until(lambda: next((m for m in list(boxes) if _near(m)), None), "a car")
    assert message.header.frame_id == "base_link"
    assert to_ns(message.header.stamp) in placed.stamps["front"]
    one = _near(message)[0]
    turn, size = one.bbox.center.orientation, one.bbox.size
    assert turn.x == turn.y == 0
    assert math.hypot(turn.z, turn.w) == pytest.approx(1)
    assert (size.x, size.y, size.z) == pytest.approx((4.0, 1.8, 1.6), rel=1e-4)
    assert one.results[0].hypothesis.class_id == "car"
    assert one.header.frame_id == "base_link"


STAMPED_MS = {"front": 0, "left": 2, "back": 4, "right": 6, "roof": 8}
"""By how much sensors of one moment are apart, so that it shows whose stamp an output has."""

OUTAGES = (
    (),
    ("left",),
    ("left", "back"),
    ("left", "back", "right"),
    ("left", "back", "right", "front"),
    ("left", "back", "right", "roof"),
    ("roof",),
    ("roof", "front"),
    (),
)
"""Cameras die one after the other until the LiDAR is alone, then they come back and it dies."""


def _stamped(name: str) -> Change:
    def change(message: Any, stamp: int) -> Any:
        later = stamp + STAMPED_MS[name] * 1_000_000
        message.header.stamp = to_stamp(later)
        return _with_a_car(message, later) if name == "roof" else message

    return change


def _told(bench: Bench, dead: tuple[str, ...]) -> None:
    """Diagnostics say which are lost, and no other."""
    for name in KINDS:
        if name in dead:
            bench.wait_diagnostic(
                name,
                lambda d, name=name: (
                    d.level == DiagnosticStatus.WARN
                    and d.message == f"{name}: no message for more than 1500 ms"
                    and any((v.key, v.value) == ("health", "lost") for v in d.values)
                ),
                f"{name} is told as lost",
            )
        else:
            bench.wait_diagnostic(name, lambda d: d.level == DiagnosticStatus.OK, f"{name} is well")
    used = [name for name in KINDS if name not in dead]
    state = "degraded" if dead else "full"
    bench.wait_diagnostic(
        "output", lambda d: d.message.startswith(f"{state}: {', '.join(used)}"), "who is used"
    )


def _of(bench: Bench, alive: list[str]) -> list[int]:
    """The stamps of the newest outputs from exactly these sensors."""
    return [to_ns(s.header.stamp) for s in bench.statuses[-20:] if list(s.used) == alive]


def test_boxes_go_on_while_sensors_die_and_come_back(placed: Bench) -> None:
    boxes = placed.listen(Detection3DArray, "detections_3d")
    for dead in OUTAGES:
        alive = [name for name in KINDS if name not in dead]
        placed.changes = {name: drop if name in dead else _stamped(name) for name in KINDS}
        status = placed.wait_status(
            lambda s, alive=alive: list(s.used) == alive, f"an output from {alive}"
        )
        assert status.state == (PerceptionStatus.DEGRADED if dead else PerceptionStatus.FULL)
        _told(placed, dead)
        boxes.clear()
        wait_until(lambda: len(boxes) > 3, f"boxes seen by {alive}")
        stamps = [to_ns(m.header.stamp) for m in list(boxes)]
        assert stamps == sorted(set(stamps))
        assert {m.header.frame_id for m in list(boxes)} == {"base_link"}
        # Where a message is late, the next one's stamp is the output's.
        wait_until(
            lambda alive=alive: set(_of(placed, alive)) & {to_ns(m.header.stamp) for m in boxes},
            f"boxes of {alive}",
        )
        assert set(_of(placed, alive)) <= set(placed.stamps[alive[0]])
        if "roof" not in dead:
            wait_until(lambda: any(_near(m) for m in list(boxes)), f"the car, seen by {alive}")


def test_markers_come_and_are_deleted(placed: Bench) -> None:
    arrays = placed.listen(MarkerArray, "markers_3d")

    def named(array: MarkerArray) -> set[str]:
        return {m.ns for m in array.markers if m.action == Marker.ADD}

    wanted = {"boxes", "names", "velocity"}
    first = wait_until(
        lambda: next((a for a in list(arrays) if named(a) == wanted), None), "markers"
    )
    for marker in first.markers:
        assert marker.header.frame_id == "base_link"
        if marker.action == Marker.ADD:
            assert marker.lifetime.nanosec == 500_000_000
    assert any(m.text.startswith("car ") for m in first.markers)
    keys = [(m.ns, m.id) for m in first.markers]
    assert len(keys) == len(set(keys))
    arrays.clear()
    placed.changes["roof"] = _without

    def deleted() -> bool:
        return any(m.action == Marker.DELETE for a in arrays for m in a.markers)

    wait_until(deleted, "markers that go")


def test_the_overlay_shows_all_around(placed: Bench) -> None:
    pictures = placed.listen(Image, "overlay")
    wait_until(lambda: len(pictures) > 2, "pictures")
    assert pictures[-1].height == 660
    assert pictures[-1].width > 660
    assert (HEIGHT, WIDTH) == (96, 128)


def test_another_base_frame_needs_a_way_to_it(placed: Bench) -> None:
    assert placed.set_parameter("base_frame", "base_footprint").successful
    try:
        placed.wait_status(lambda s: any("'base_footprint'" in w for w in s.warnings), "it is told")
        placed.wait_status(lambda s: not s.used, "no output")
    finally:
        assert placed.set_parameter("base_frame", "").successful
    placed.wait_full(5)


def test_odometry_is_taken_and_told(placed: Bench) -> None:
    placed.wait_diagnostic(
        "calibration",
        lambda d: any(v.key == "motion" and v.value.startswith("not known") for v in d.values),
        "no motion yet",
    )
    publisher = placed.node.create_publisher(Odometry, f"/{placed.name}/odometry", 50)
    stop, began = threading.Event(), time.time_ns()

    def drive() -> None:
        """Straight on at 10 m/s."""
        while not stop.wait(0.02):
            now = time.time_ns()
            message = Odometry(header=header(now, "odom"), child_frame_id="base_link")
            message.pose.pose.position.x = 10.0 * (now - began) / 1e9
            message.pose.pose.orientation.w = 1.0
            publisher.publish(message)

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    try:
        placed.wait_diagnostic(
            "calibration",
            lambda d: any(v.key == "motion" and v.value == "odometry" for v in d.values),
            "the motion is told",
        )
        placed.wait_full(5)
    finally:
        stop.set()
        thread.join()
    publisher.publish(Odometry(header=header(time.time_ns(), "odom"), child_frame_id="wheel"))
    placed.wait_diagnostic(
        "calibration",
        lambda d: d.level == DiagnosticStatus.WARN and "odometry of 'wheel'" in d.message,
        "bad odometry is named",
    )
    good = Odometry(header=header(time.time_ns(), "odom"), child_frame_id="base_link")
    good.pose.pose.orientation.w = 1.0
    publisher.publish(good)
    placed.wait_diagnostic("calibration", lambda d: d.level == DiagnosticStatus.OK, "and mended")
