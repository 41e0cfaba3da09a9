"""Parameters, frames and topics of the perception node: what is refused, asked for, and there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from anysense_ros.conversions import from_transform
from bench import CAMERA, TO_OPTICAL, Bench
from diagnostic_msgs.msg import DiagnosticStatus
from processes import PATIENCE_S, NodeProcess, environment, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from starting import Start, Starter, quick
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.frame import KINDS

pytestmark = pytest.mark.slow

BASE = quick(KINDS)


@pytest.fixture
def start(starter: Starter, bundle: Path) -> Start:
    """Starts a node with a bench around it; both end with the test."""
    return lambda *arguments, placed=True, **changes: starter(
        {**BASE, "bundle": str(bundle), **changes}, *arguments, placed=placed
    )


@pytest.mark.parametrize(
    ("name", "hint"), [("sync.deadlin_ms", "sync.deadline_ms"), ("zzz", "ros2 param list")]
)
def test_a_misspelt_parameter_is_refused_by_name(
    own_domain: int, bundle: Path, tmp_path: Path, name: str, hint: str
) -> None:
    node = NodeProcess("perception_node", tmp_path, own_domain, {"bundle": str(bundle), name: 1.0})
    assert node.process.wait(PATIENCE_S) == 2
    assert f"parameter {name}: there is no such parameter" in node.log
    assert hint in node.log
    assert "Traceback" not in node.log


def test_a_rig_file_serves_a_robot_with_fewer_sensors_and_another_node_name(
    own_domain: int, bundle: Path, tmp_path: Path
) -> None:
    rig = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config/rig_all.yaml"
    arguments = ("--params-file", str(rig), "-p", "inputs:=[rgb]", "-p", "sync.deadline_ms:=77.0")
    node = NodeProcess("perception_node", tmp_path, own_domain, {}, *arguments, name="front")
    bench = Bench(own_domain, "front")
    try:
        from rcl_interfaces.srv import GetParameters

        names = ["inputs", "sync.deadline_ms", "rgb.timeout_ms"]
        request = GetParameters.Request(names=names)
        inputs, deadline, timeout = bench.call(GetParameters, "get_parameters", request).values
        assert list(inputs.string_array_value) == ["rgb"]
        assert deadline.double_value == 77.0
        assert timeout.double_value == 400.0
    finally:
        bench.close()
        assert node.stop() == 0, node.log


def _subscribed(bench: Bench, topic: str) -> int:
    return bench.node.count_subscribers(topic)


def test_tf_is_listened_to_only_when_a_place_comes_from_there(start: Start) -> None:
    _, bench = start(inputs=["rgb", "depth"], **{"align.mode": "off"})
    bench.drive()
    bench.wait_full(2)
    assert _subscribed(bench, "/tf") == _subscribed(bench, "/tf_static") == 0


def test_cameras_in_one_frame_need_no_moving_frames(start: Start) -> None:
    _, bench = start(inputs=["rgb", "depth"])
    bench.drive()
    bench.wait_full(2)
    # It may say where the two sit, should they ever name two frames.
    wait_until(lambda: _subscribed(bench, "/tf_static") == 1, "/tf_static")
    assert _subscribed(bench, "/tf") == 0


def test_static_frames_suffice_without_tf(start: Start) -> None:
    _, bench = start(inputs=["rgb", "lidar"])
    bench.drive()
    bench.wait_full(2)
    wait_until(lambda: _subscribed(bench, "/tf_static") == 1, "/tf_static")
    # It may have been asked for before the first static transform came.
    wait_until(lambda: _subscribed(bench, "/tf") == 0, "/tf left alone")
    found = bench.wait_diagnostic("calibration", lambda d: "lidar tf" in d.message, "its source")
    assert found.level == DiagnosticStatus.OK


def test_a_transform_that_stops_is_not_used_for_ever(start: Start) -> None:
    _, bench = start(placed=False, inputs=["rgb", "lidar"], **{"tf.max_age_ms": 600.0})
    moving = bench.node.create_publisher(TFMessage, "/tf", 10)

    def publish() -> None:
        mount = from_transform(TO_OPTICAL, "camera_optical", "lidar", time.time_ns())
        moving.publish(TFMessage(transforms=[mount]))

    timer = bench.node.create_timer(0.05, publish)
    bench.drive()
    bench.wait_full(2)
    wait_until(lambda: _subscribed(bench, "/tf") == 1, "/tf")
    timer.cancel()
    gone = bench.wait_status(
        lambda s: s.used == ["rgb"] and any("s old" in w for w in s.warnings), "a refusal by age"
    )
    assert gone.state == gone.DEGRADED
    timer.reset()
    bench.wait_full(2)


def test_a_lidar_without_a_place_is_no_ok_calibration(start: Start) -> None:
    _, bench = start(placed=False, inputs=["lidar"])
    found = bench.wait_diagnostic("calibration", lambda d: d.message.startswith("none"), "nothing")
    assert found.level == DiagnosticStatus.WARN


def test_depth_in_another_frame_is_named(start: Start) -> None:
    node, bench = start(inputs=["rgb", "depth"])

    def elsewhere(message: Any, stamp: int) -> Any:
        message.header.frame_id = "depth_optical"
        return message

    bench.changes["depth"] = elsewhere
    bench.drive()
    line = "depth: in frame 'depth_optical', rgb in 'camera_optical'"
    bench.wait_status(lambda s: any(line in w for w in s.warnings), "a warning")
    for part in ("depth", "calibration"):
        found = bench.wait_diagnostic(part, lambda d: line in d.message, "the frames")
        assert found.level == DiagnosticStatus.WARN
    bench.mend()
    bench.wait_status(lambda s: len(s.used) == 2 and not s.warnings, "no warning")
    assert node.log.count(line) == 1, node.log


def test_camera_info_and_label_info(start: Start) -> None:
    _, bench = start(inputs=["rgb"])
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    labels = bench.listen(LabelInfo, "segmentation/label_info", latched)
    infos = [bench.listen(CameraInfo, t) for t in ("camera_info", "segmentation/camera_info")]
    bench.drive()
    for heard in infos:
        info = wait_until(lambda heard=heard: heard[-1:], "camera_info")[0]
        assert (info.width, info.height, info.k[0]) == (CAMERA.width, CAMERA.height, CAMERA.fx)
        assert info.header.frame_id == "camera_optical"
        assert info.header.stamp.sec > 0
    wait_until(lambda: labels and labels[-1].threshold == 0.0, "the classes")
    assert bench.set_parameter("output.min_confidence", 0.25).successful
    wait_until(lambda: labels[-1].threshold == 0.25, "the new threshold")


def test_topics_of_tasks_that_the_bundle_lacks_are_not_there(start: Start) -> None:
    indoor = Path(__file__).parents[2] / "bundles/indoor-rgbd"
    _, bench = start(inputs=["rgb"], bundle=str(indoor))
    wanted = {f"/perception_node/{name}" for name in ("overlay", "segmentation/mask")}

    def outputs() -> set[str]:
        topics = {t for t, _ in bench.node.get_topic_names_and_types()}
        return topics if wanted <= topics else set()

    topics = wait_until(outputs, "the outputs")
    assert not [t for t in topics if "detections" in t]


def test_a_folder_is_replayed_without_rosbags(
    own_domain: int, drive: Path, tmp_path: Path, bundle: Path
) -> None:
    """With `rosbags` hidden, messages come from this ROS installation's classes."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "rosbags.py").write_text("raise ImportError('hidden')\n")
    code = "import sys; from anysense_ros.sensor_replay import main; sys.exit(main())"
    env = environment(own_domain, tmp_path)
    env["PYTHONPATH"] = f"{hidden}:{env.get('PYTHONPATH', '')}"
    command = [sys.executable, "-c", code, "--ros-args", "-p", f"source:=folder:{drive}"]
    replay = subprocess.Popen(
        [*command, "-p", "loop:=true"], env=env, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    remaps = [f"~/input/{m}:=/sensors/{m}/image_raw" for m in KINDS[:3]]
    remaps += [f"~/input/{m}/camera_info:=/sensors/{m}/camera_info" for m in KINDS[:3]]
    remaps += ["~/input/lidar:=/sensors/lidar/points"]
    arguments = [word for remap in remaps for word in ("-r", remap)]
    parameters = {**BASE, "inputs": list(KINDS), "bundle": str(bundle), "use_sim_time": True}
    node = NodeProcess("perception_node", tmp_path, own_domain, parameters, *arguments)
    bench = Bench(own_domain)
    try:
        bench.wait_full(4)
    finally:
        bench.close()
        node.stop()
        replay.terminate()
        output = replay.communicate(timeout=60)[0].decode()
    assert "Traceback" not in output, output
