"""The node `calibrate` before which a board is held: what it takes, asks for, finds and publishes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from board_bench import LATCHED, BoardBench, lit, poses_of, still
from board_scenes import CAMERA as LENS
from diagnostic_msgs.msg import DiagnosticStatus
from processes import PATIENCE_S, NodeProcess, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from calibration.boards import parse_board
from calibration.detection import detect, read_gray
from calibration.fitting import project_view
from calibration.live.choosing import Rules
from perception.cli.main import main
from perception.geometry.camera import CameraModel
from perception.geometry.rig import load_rig

pytestmark = pytest.mark.slow

BOARD = parse_board("chessboard:7x5:0.05")
CAMERA = CameraModel(LENS.width, LENS.height, LENS.fx, LENS.fy, LENS.cx, LENS.cy)
GOOD = 10
POSES = poses_of(BOARD, CAMERA, GOOD + 2, seed=7)
TOPIC = "/cam/front"
FOCAL_SHARE, MIDDLE_PX = 0.005, 2.0
"""By how much what is found may be off the truth: focal lengths, and the principal point."""

BASE: dict[str, Any] = {
    "sensors": ["front"],
    "front.kind": "rgb",
    "front.topic": TOPIC,
    "board": str(BOARD),
    "model": "pinhole",
    "min_views": GOOD,
    "diagnostics.period_s": 0.3,
}


class Robot:
    """A node with a bench before it."""

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder, self.domain = folder, domain
        self.nodes: list[NodeProcess] = []
        self.bench = BoardBench(domain)

    def start(self, *, name: str = "calibrate", **parameters: Any) -> NodeProcess:
        """Start it; views lie in `views`."""
        given = {**BASE, "output": str(self.folder / "views"), **parameters}
        node = NodeProcess("calibrate", self.folder / name, self.domain, given)
        self.nodes.append(node)
        return node

    def close(self) -> None:
        """End all; none may have printed a traceback."""
        self.bench.close()
        for node in self.nodes:
            node.stop()
            assert "Traceback" not in node.log and "unexpected" not in node.log, node.log


@pytest.fixture
def robot(own_domain: int, tmp_path: Path) -> Iterator[Robot]:
    made = Robot(tmp_path, own_domain)
    yield made
    made.close()


def count(state: dict[str, Any]) -> int:
    return int(state["views"])


def front(state: dict[str, Any]) -> dict[str, Any]:
    return dict(state["sensors"]["front"])


def take_all(bench: BoardBench, poses: list[Any], show: Callable[[Any], None], first: int) -> None:
    """Show poses until each is taken."""
    for index, pose in enumerate(poses, first):
        show(pose)
        bench.wait_feedback(lambda s, n=index: count(s) >= n, f"view {index}")


def show_front(bench: BoardBench) -> Callable[[Any], None]:
    return lambda pose: bench.show.__setitem__(TOPIC, still(lit(BOARD, CAMERA, pose)))


ROOMY_M = 0.1
"""So far a board goes to and fro, and stays in the picture."""


def moved(pose: Any, moment: int) -> Any:
    """Where a board is that never comes back, so that no two pictures that a busy node sees are alike,
    whichever it drops: multiples of powers of the plastic number keep apart (M. Roberts, "The unreasonable
    effectiveness of quasirandom sequences", 2018)."""
    plastic = 1.324717957244746
    share = np.array([moment / plastic, moment / plastic**2]) % 1
    return pose + np.array([0, 0, 0, *(0.01 + ROOMY_M * share), 0])


def moving(pose: Any) -> Callable[[int], Any]:
    """A board that is elsewhere in every picture, each of them sharp."""
    return lambda moment: lit(BOARD, CAMERA, moved(pose, moment))


def test_no_two_pictures_of_a_moving_board_are_alike() -> None:
    """Nor is one like what stood there before."""
    poses = [POSES[3], *(moved(POSES[3], moment) for moment in range(1000, 1060))]
    seen = np.array([project_view(CAMERA, pose, BOARD.points) for pose in poses])
    assert (
        seen.min() > 12 and (seen.max(axis=(0, 1)) < [CAMERA.width - 12, CAMERA.height - 12]).all()
    )
    apart_px = np.sqrt(((seen[:, None] - seen[None]) ** 2).sum(axis=-1).mean(axis=-1))
    limit = Rules().still * CAMERA.width
    assert apart_px[~np.eye(len(seen), dtype=bool)].min() > 3 * limit


def test_only_good_views_are_taken_and_give_the_camera(robot: Robot, tmp_path: Path) -> None:
    """Poses one after the other, and between them what must not be taken."""
    bench, node = robot.bench, robot.start()
    views = tmp_path / "views"
    bench.wait_feedback(lambda s: "no message" in front(s)["problem"], "that nothing comes")
    empty = np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8)
    bench.show[TOPIC] = still(empty)
    bench.wait_feedback(lambda s: front(s)["problem"] == "no board found", "no board")
    annotated = bench.hear(Image, "/calibrate/view", 5)
    show = show_front(bench)
    take_all(bench, POSES[:3], show, 1)
    blurred = cv2.GaussianBlur(lit(BOARD, CAMERA, POSES[3]), (0, 0), 4)
    bench.show[TOPIC] = still(blurred)
    bench.wait_feedback(lambda s: front(s)["problem"] == "blurred", "that it is blurred")
    bench.show[TOPIC] = moving(POSES[3])
    bench.wait_feedback(lambda s: front(s)["problem"] == "hold the board still", "that it moves")
    bench.show[TOPIC] = still(np.minimum(lit(BOARD, CAMERA, POSES[3]), 60) // 4 + 100)
    bench.wait_feedback(lambda s: front(s)["problem"] == "too little contrast", "that it is dim")
    soft = cv2.GaussianBlur(lit(BOARD, CAMERA, POSES[3]), (0, 0), 1.5).astype(float)
    bright = np.minimum((soft + 15) * 5, 255).astype(np.uint8)  # white spreads into black
    bench.show[TOPIC] = still(bright)
    bench.wait_feedback(lambda s: front(s)["problem"] == "too bright", "that it is too bright")
    bench.show[TOPIC] = still(lit(BOARD, CAMERA, POSES[1] + np.array([0, 0, 0, 0.005, 0, 0])))
    known = bench.wait_feedback(
        lambda s: front(s)["problem"] == "" and not front(s)["new"], "a pose that is there"
    )
    assert count(known) == 3 and not known["enough"]
    assert known["hint"].startswith("front: ")
    take_all(bench, POSES[3:GOOD], show, 4)
    time.sleep(1.0)  # nothing more comes of what stands there
    files = sorted((views / "front").glob("*.png"))
    assert [path.stem for path in files] == [f"{n:04d}" for n in range(1, GOOD + 1)]
    for path, pose in zip(files, POSES, strict=False):
        seen = detect(read_gray(path), BOARD)
        assert seen is not None
        off = seen.pixels - project_view(CAMERA, pose, BOARD.points)
        turned = seen.pixels[::-1] - project_view(CAMERA, pose, BOARD.points)
        assert min(np.abs(off).max(), np.abs(turned).max()) < 1.0, path

    picture = wait_until(lambda: annotated[-1:], "a picture with what was found")[0]
    assert picture.encoding == "rgb8" and picture.width >= 400

    answer = bench.call("solve")
    assert answer.success and f"solving {GOOD} views" in answer.message
    result = bench.wait_feedback(lambda s: s["result"], "the answer")["result"]
    rig = load_rig(views / "rig.yaml")
    camera = rig.sensors["front"].camera
    assert camera is not None and result["rig"] == str(views / "rig.yaml")
    assert abs(camera.fx / CAMERA.fx - 1) < FOCAL_SHARE
    assert abs(camera.fy / CAMERA.fy - 1) < FOCAL_SHARE
    assert np.hypot(camera.cx - CAMERA.cx, camera.cy - CAMERA.cy) < MIDDLE_PX
    assert camera.frame_id == "front_optical"
    step = result["steps"]["intrinsics of front"]
    assert result["verdict"].startswith("could be better") or step["trusted"]
    assert np.allclose(step["K"], camera.matrix) and step["rms_px"] < 0.3
    assert json.loads((views / "result.json").read_text())["steps"] == result["steps"]

    infos = bench.hear(CameraInfo, "/calibrate/front/camera_info", LATCHED)
    wait_until(lambda: infos, "camera_info")
    assert np.allclose(infos[-1].k, camera.matrix.ravel())
    assert infos[-1].header.frame_id == "front_optical"
    volatile = bench.hear(CameraInfo, "/calibrate/front/camera_info", 5)
    wait_until(lambda: volatile, "camera_info for those who do not ask for what is latched")

    # The folder is what the command line reads, and it finds the same.
    out = tmp_path / "offline.yaml"
    command = ["calibrate", "intrinsics", str(views / "front"), "--board", str(BOARD)]
    assert main([*command, "--model", "pinhole", "--sensor", "front", "--out", str(out)]) == 0
    offline = load_rig(out).sensors["front"].camera
    assert offline is not None and np.allclose(offline.matrix, camera.matrix, rtol=1e-6)
    assert node.process.poll() is None


def test_a_restart_goes_on_from_the_folder(robot: Robot, tmp_path: Path) -> None:
    bench, first = robot.bench, robot.start(name="first")
    show = show_front(bench)
    take_all(bench, POSES[:3], show, 1)
    first.stop(signal.SIGKILL)
    # The drivers, too: Fast DDS may lose the way from a driver that had sent to the killed process to the
    # next one that takes its port of shared memory (docs/ros.md), with any node.
    bench.close()
    bench = robot.bench = BoardBench(robot.domain)
    show = show_front(bench)
    show(POSES[2])
    robot.start(name="second")
    state = bench.wait_feedback(lambda s: s["state"] == "taking", "what is there is read")
    assert count(state) == 3
    bench.wait_feedback(
        lambda s: front(s)["problem"] == "" and not front(s)["new"], "that the pose is known"
    )
    show(POSES[3])
    bench.wait_feedback(lambda s: count(s) == 4, "a new one")
    files = sorted(path.name for path in (tmp_path / "views/front").iterdir())
    assert files == ["0001.png", "0002.png", "0003.png", "0004.png"]


def test_services_take_set_aside_and_refuse(robot: Robot, tmp_path: Path) -> None:
    bench = robot.bench
    robot.start()
    bench.wait_feedback(lambda s: s["state"] == "taking", "that it is ready")
    refused = bench.call("take")
    assert not refused.success and "nothing was looked at" in refused.message
    show = show_front(bench)
    take_all(bench, POSES[:1], show, 1)
    bench.wait_feedback(lambda s: not front(s)["new"], "that the pose is known")
    taken = bench.call("take")
    assert taken.success and "0002" in taken.message
    few = bench.call("solve")
    assert few.success
    result = bench.wait_feedback(lambda s: s["result"], "the answer")["result"]
    assert result["rig"] is None and not result["trusted"]
    assert result["verdict"].startswith("not to be trusted: intrinsics of front: ")
    assert "usable views" in result["verdict"] and not (tmp_path / "views/rig.yaml").exists()
    bench.wait_diagnostic("solver", lambda d: d.level == DiagnosticStatus.ERROR, "the refusal")
    bench.show[TOPIC] = still(np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8))
    bench.wait_feedback(lambda s: front(s)["problem"] == "no board found", "no board")
    refused = bench.call("take")
    assert not refused.success and refused.message == "front: no board found"
    aside = bench.call("reset")
    assert aside.success and "before-01" in aside.message
    assert len(list((tmp_path / "views/before-01/front").glob("*.png"))) == 2
    bench.wait_feedback(lambda s: count(s) == 0, "no views")
    take_all(bench, POSES[:1], show, 1)


def test_what_cannot_be_decoded_is_a_warning_and_the_node_lives(robot: Robot) -> None:
    bench, node = robot.bench, robot.start()
    wrong = Image(height=4, width=4, encoding="jpeg2000", step=4, data=bytes(16))
    bench.show[TOPIC] = still(wrong)
    bad = bench.wait_diagnostic(
        "front", lambda d: d.level == DiagnosticStatus.WARN and "jpeg2000" in d.message, "the fault"
    )
    assert "unknown" in bad.message
    cut = Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(1000))
    bench.show[TOPIC] = still(cut)
    bench.wait_diagnostic(
        "front",
        lambda d: d.level == DiagnosticStatus.WARN and "jpeg2000" not in d.message,
        "the next fault",
    )
    take_all(bench, POSES[:1], show_front(bench), 1)
    bench.wait_diagnostic("front", lambda d: d.level == DiagnosticStatus.OK, "that it is well")
    assert node.process.poll() is None


def test_a_driver_that_is_there_and_not_heard_is_told_as_such(robot: Robot) -> None:
    bench = robot.bench
    bench.node.create_publisher(Image, TOPIC, 5)
    robot.start()
    found = bench.wait_diagnostic(
        "front", lambda d: "is published" in d.message, "the strange thing"
    )
    assert found.level == DiagnosticStatus.WARN
    assert found.message.startswith(f"no message yet, though {TOPIC} is published: see its QoS")
    take_all(bench, POSES[:1], show_front(bench), 1)
    bench.wait_diagnostic("front", lambda d: d.level == DiagnosticStatus.OK, "that it is well")


def test_compressed_pictures(robot: Robot, tmp_path: Path) -> None:
    bench = robot.bench
    robot.start(**{"front.transport": "compressed"})
    done, content = cv2.imencode(".png", lit(BOARD, CAMERA, POSES[0]))
    assert done
    message = CompressedImage(format="rgb8; png compressed", data=content.tobytes())
    bench.show[f"{TOPIC}/compressed"] = still(message)
    bench.wait_feedback(lambda s: count(s) == 1, "a view")
    assert [p.name for p in (tmp_path / "views/front").iterdir()] == ["0001.png"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"board": ""}, "parameter board: no board is said"),
        ({"board": "chessboard:9x6"}, "parameter board: 'chessboard:9x6' has 2 parts"),
        ({"front.kind": "lidar"}, "sensors: needs at least one camera"),
        ({"front.kind": "rbg"}, "did you mean 'rgb'?"),
        ({"front.kind": ""}, "front: says no kind"),
        ({"sensors": ["front", "top"], "top.kind": "lidar"}, "parameter plate: '' is no size"),
        ({"plate": "0.6x0.8"}, "plate: goes with a LiDAR"),
        ({"wanted": ["rear"]}, "wanted: there is no sensor 'rear'"),
        ({"front.intrinsics": "rig"}, "front.intrinsics: no rig has its intrinsics"),
        ({"guess": "/nowhere.yaml", "front.intrinsics": "rig"}, "/nowhere.yaml: no such file"),
        ({"front.topik": "/a"}, "did you mean 'front.topic'?"),
        ({"min_views": 1}, "parameter min_views"),
        ({"model": "pinhol"}, "did you mean 'pinhole'?"),
        ({"output": "/proc/views"}, "/proc/views: cannot be made"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_parameter_is_one_line(
    own_domain: int, tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    given = {**BASE, "output": str(tmp_path / "views"), **change}
    node = NodeProcess("calibrate", tmp_path, own_domain, given)
    assert node.process.wait(PATIENCE_S) == 2
    assert line in node.log and "Traceback" not in node.log, node.log
    assert len([one for one in node.log.splitlines() if one.startswith("error: ")]) == 1
