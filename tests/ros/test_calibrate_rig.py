"""The node `calibrate` with several sensors, and `publish_rig`: places, camera_info and /tf_static."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from board_bench import LATCHED, BoardBench, apart, lit, poses_of, still
from diagnostic_msgs.msg import DiagnosticStatus
from launching import launched, share
from lidar_scenes import BOARD, CAMERA, PLATE, TRUTH, cloud_of, middles, vector_of
from processes import PATIENCE_S, NodeProcess, wait_until
from sensor_msgs.msg import CameraInfo

from calibration.boards import parse_board
from perception.adapters.messages import to_camera, to_transform
from perception.files.writing import write_yaml
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, load_rig
from perception.geometry.transforms import RigidTransform

pytestmark = pytest.mark.slow

FRONT, TOP, WARM = "/cam/front", "/velodyne_points", "/cam/warm"
METRES, DEGREES = 0.015, 0.4
"""By how much a place may be off the truth, in ten poses."""

SMALL = parse_board("chessboard:7x5:0.05")
LENSES = {
    "front": CameraModel(640, 480, 520.0, 525.0, 322.0, 236.0, frame_id="front_optical"),
    "warm": CameraModel(320, 256, 300.0, 301.0, 158.0, 129.0, frame_id="warm_optical"),
}
TO_FRONT = RigidTransform(
    cv2.Rodrigues(np.radians([1.0, -3.0, 2.0]))[0], np.array([0.12, 0.01, 0.02])
)
"""From warm to front."""


@pytest.fixture
def bench(own_domain: int) -> Iterator[BoardBench]:
    made = BoardBench(own_domain)
    yield made
    made.close()


@pytest.fixture
def start(own_domain: int, tmp_path: Path) -> Iterator[Any]:
    """Starts nodes; none may have printed a traceback."""
    nodes: list[NodeProcess] = []

    def started(executable: str, parameters: dict[str, Any]) -> NodeProcess:
        nodes.append(NodeProcess(executable, tmp_path, own_domain, parameters))
        return nodes[-1]

    yield started
    for node in nodes:
        node.stop()
        assert "Traceback" not in node.log and "unexpected" not in node.log, node.log


def off(found: RigidTransform, truth: RigidTransform) -> tuple[float, float]:
    """Metres and degrees."""
    turn = cv2.Rodrigues(found.rotation @ truth.rotation.T)[0]
    move = np.linalg.norm(found.translation - truth.translation)
    return float(move), float(np.degrees(np.linalg.norm(turn)))


def cloud(middle: RigidTransform, seed: int) -> np.ndarray:
    """(N, 4) float32 with an intensity."""
    points = cloud_of(middle, np.random.default_rng(seed))
    return np.column_stack([points, np.full(len(points), 0.5, np.float32)]).astype(np.float32)


def links(bench: BoardBench) -> dict[tuple[str, str], RigidTransform]:
    """The steps of /tf_static by parent and child."""
    return {
        (one.header.frame_id, one.child_frame_id): to_transform(one)
        for message in bench.transforms
        for one in message.transforms
    }


def test_a_lidar_is_placed_and_published(bench: BoardBench, start: Any, tmp_path: Path) -> None:
    poses: list[RigidTransform] = []
    for middle in middles(200, seed=4):
        if apart(BOARD, CAMERA, [vector_of(p) for p in poses], vector_of(middle)):
            poses.append(middle)
    poses = poses[:10]
    assert len(poses) == 10
    parameters = {
        "sensors": ["front", "top"],
        "front": {"kind": "rgb", "topic": FRONT, "info_topic": "/front/camera_info"},
        "front.intrinsics": "camera_info",
        "top": {"kind": "lidar", "topic": TOP},
        "board": str(BOARD),
        "plate": f"{PLATE.width_m}x{PLATE.height_m}",
        "output": str(tmp_path / "views"),
        "min_views": 10,
        "diagnostics.period_s": 0.3,
    }
    start("calibrate", parameters)
    bench.infos["/front/camera_info"] = replace(CAMERA, frame_id="front_optical")
    bench.show[FRONT] = still(lit(BOARD, CAMERA, vector_of(poses[0])))
    wall = cloud(RigidTransform(poses[0].rotation, np.array([0, 0, -5.0])), 0)  # behind the LiDAR
    bench.show[TOP] = still(wall)
    state = bench.wait_feedback(
        lambda s: (
            s["sensors"]["top"]["problem"].startswith("no plate")
            and s["sensors"]["front"]["problem"] == ""
        ),
        "that the board is there and no plate",
    )
    assert state["views"] == 0
    bench.shift_ns[TOP] = 350_000_000
    bench.wait_diagnostic(
        "top",
        lambda d: d.level == DiagnosticStatus.WARN and "from those of front" in d.message,
        "that stamps are apart",
    )
    bench.shift_ns.clear()
    for index, middle in enumerate(poses, 1):
        picture = lit(BOARD, CAMERA, vector_of(middle))
        bench.show.update({TOP: still(cloud(middle, index)), FRONT: still(picture)})
        bench.wait_feedback(lambda s, n=index: s["views"] >= n, f"view {index}")
        if index == 3:
            refused = bench.call("solve")
            result = bench.wait_feedback(lambda s: s["result"], "an answer to three")["result"]
            assert refused.success and not result["trusted"] and result["rig"] is None
            assert "poses" in result["steps"]["place of top"]["line"]
    assert len(list((tmp_path / "views/top").glob("*.npy"))) == 10
    assert bench.call("solve").success
    result = bench.wait_feedback(lambda s: (s["result"] or {}).get("trusted"), "the answer")
    rig = load_rig(tmp_path / "views/rig.yaml")
    found = rig.between("top", "front")
    metres, degrees = off(found, TRUTH)
    assert metres < METRES and degrees < DEGREES, (metres, degrees)
    step = result["result"]["steps"]["place of top"]
    assert np.allclose(step["lidar_to_camera"], found.matrix)
    wait_until(lambda: ("front_optical", "velodyne") in links(bench), "/tf_static")
    said = links(bench)["front_optical", "velodyne"]
    assert np.allclose(said.matrix, found.matrix, atol=1e-9)
    infos = bench.hear(CameraInfo, "/calibrate/front/camera_info", LATCHED)
    wait_until(lambda: infos, "camera_info")
    assert np.allclose(infos[-1].k, CAMERA.matrix.ravel())


def test_two_cameras_are_found_and_placed(bench: BoardBench, start: Any, tmp_path: Path) -> None:
    parameters = {
        "sensors": ["front", "warm"],
        "front": {"kind": "rgb", "topic": FRONT},
        "warm": {"kind": "thermal", "topic": WARM, "unit": "counts16"},
        "board": str(SMALL),
        "model": "pinhole",
        "output": str(tmp_path / "views"),
        "min_views": 10,
        "diagnostics.period_s": 0.3,
    }
    start("calibrate", parameters)
    shown = 0
    for pose in poses_of(SMALL, LENSES["front"], 40, seed=3):
        turn = cv2.Rodrigues(pose[:3])[0]
        other = TO_FRONT.inverse() @ RigidTransform(turn, pose[3:])
        vector = np.concatenate([cv2.Rodrigues(other.rotation)[0].ravel(), other.translation])
        seen, valid = LENSES["warm"].project(other.apply(SMALL.points))
        if not (valid.all() and (seen > 12).all() and (seen < [307, 243]).all()):
            continue
        shown += 1
        warm = lit(SMALL, LENSES["warm"], vector)[:, :, 0].astype(np.uint16) * 40 + 20_000
        # At once: what one camera shows of this pose must not meet what the other shows of the last.
        bench.show.update({FRONT: still(lit(SMALL, LENSES["front"], pose)), WARM: still(warm)})
        bench.wait_feedback(lambda s, n=shown: s["views"] >= n, f"view {shown}")
        if shown == 10:
            break
    assert shown == 10
    assert {p.suffix for p in (tmp_path / "views/warm").iterdir()} <= {".png", ".tiff"}
    assert bench.call("solve").success
    result = bench.wait_feedback(lambda s: s["result"], "the answer")["result"]
    assert result["rig"], result["verdict"]
    rig = load_rig(tmp_path / "views/rig.yaml")
    for name, truth in LENSES.items():
        camera = rig.sensors[name].camera
        assert camera is not None and abs(camera.fx / truth.fx - 1) < 0.01, name
    metres, degrees = off(rig.between("warm", "front"), TO_FRONT)
    assert metres < METRES and degrees < 2 * DEGREES, (metres, degrees)
    wait_until(lambda: ("front_optical", "warm_optical") in links(bench), "/tf_static")


def test_a_rig_file_is_published(bench: BoardBench, start: Any, tmp_path: Path) -> None:
    mount = RigidTransform.from_quaternion_xyzw((-0.5, 0.5, -0.5, 0.5), (0.3, 0.0, 0.5))
    roof = RigidTransform(np.eye(3), np.array([0.0, 0.0, 1.2]))
    own = {
        "front": SensorCalibration(
            LENSES["front"], frame_id="front_optical", kind="rgb", pose=Pose(mount)
        ),
        "warm": SensorCalibration(
            LENSES["warm"], frame_id="warm_frame", kind="thermal", pose=Pose(mount @ TO_FRONT)
        ),
        "top": SensorCalibration(frame_id="velodyne", kind="lidar", pose=Pose(roof)),
    }
    path = tmp_path / "rig.yaml"
    write_yaml(path, Rig(own, base="base_link", reference="front").to_dict())
    start("publish_rig", {"rig": str(path), "camera_info_period_s": 0.2})
    wait_until(lambda: links(bench), "/tf_static")
    said = links(bench)
    assert set(said) == {
        ("base_link", "front_optical"),
        ("base_link", "warm_frame"),
        ("warm_frame", "warm_frame_optical_frame"),
        ("base_link", "velodyne"),
    }
    assert np.allclose(said["base_link", "front_optical"].matrix, mount.matrix)
    assert np.allclose(said["base_link", "velodyne"].matrix, roof.matrix)
    for name, frame in (("front", "front_optical"), ("warm", "warm_frame")):
        heard = bench.hear(CameraInfo, f"/publish_rig/{name}/camera_info", LATCHED)
        wait_until(lambda heard=heard: len(heard) > 2, "camera_info time and again")
        assert to_camera(heard[-1]) == replace(LENSES[name], frame_id=frame)


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({}, "parameter rig: is empty"),
        ({"rig": "/nowhere.yaml"}, "/nowhere.yaml: no such file"),
        ({"rig": __file__}, "error: "),
        ({"rgi": "rig.yaml"}, "did you mean 'rig'?"),
    ],
)
def test_a_wrong_rig_is_one_line(
    own_domain: int, tmp_path: Path, parameters: dict[str, Any], line: str
) -> None:
    node = NodeProcess("publish_rig", tmp_path, own_domain, parameters)
    assert node.process.wait(PATIENCE_S) == 2
    assert line in node.log and "Traceback" not in node.log
    assert len([one for one in node.log.splitlines() if one.startswith("error: ")]) == 1


def documented(start: str, output: Path) -> dict[str, str]:
    """The arguments of a launch command of docs/ros.md, with another folder for the views."""
    page = (Path(__file__).parents[2] / "docs/ros.md").read_text(encoding="utf-8")
    lines = page[page.index(f"ros2 launch anysense_ros calibrate.launch.py {start}") :]
    command = re.sub(r"\\\n\s*", " ", lines).splitlines()[0]
    command = command.replace("$(ros2 pkg prefix --share anysense_ros)", str(share()))
    given = dict(word.split(":=", 1) for word in shlex.split(command)[4:])
    return {**given, "output": str(output)}


@pytest.mark.parametrize(
    ("command", "topics"),
    [
        ("board:=chessboard:9x6", {"rgb": "/camera/image_raw"}),
        ("board:=chessboard:5x7", {"front": "/cam_front/image_raw", "top": "/velodyne_points"}),
    ],
)
def test_the_node_is_started_as_the_page_says(
    bench: BoardBench, own_domain: int, tmp_path: Path, command: str, topics: dict[str, str]
) -> None:
    words = launched(documented(command, tmp_path / "views"), "calibrate.launch.py")
    node = NodeProcess("calibrate", tmp_path, own_domain, {}, *words)
    try:
        bench.wait_feedback(
            lambda s: (
                {n: o["problem"] for n, o in s["sensors"].items()}
                == dict.fromkeys(topics, "no message yet")
            ),
            "the sensors that it was started with",
        )
        for topic in topics.values():
            points = np.ones((300, 4), np.float32)
            picture = np.full((240, 320, 3), 90, np.uint8)
            bench.show[topic] = still(points if "points" in topic else picture)
        bench.wait_feedback(
            lambda s: s["sensors"][next(iter(topics))]["problem"] == "no board found", "pictures"
        )
        assert (tmp_path / "views" / next(iter(topics))).is_dir()
    finally:
        assert node.stop() == 0, node.log
        assert "Traceback" not in node.log, node.log


def test_the_launch_files_arguments_are_the_nodes_parameters() -> None:
    """`launch` has no wheels here: what it hands on must be what the node declares."""
    from anysense_ros.calibrate_settings import COMMON

    root = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/launch/calibrate.launch.py"
    tree = ast.parse(root.read_text())
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SETTINGS"
    )
    assert isinstance(table, ast.Dict)
    pairs = zip(table.keys, table.values, strict=True)
    settings = {ast.literal_eval(name): ast.unparse(kind) for name, kind in pairs}
    known = {spec.name: type(spec.default).__name__ for spec in COMMON} | {"use_sim_time": "bool"}
    assert settings == {name: known[name] for name in settings}
