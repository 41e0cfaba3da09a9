"""Recordings of several sensors of a kind: topics, calibration and outputs by the sensors' own names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from small_bundles import SmallBundles

from perception.bags.files import messages_of, sensor_topics, topics_of, write_bag
from perception.cli.main import main
from perception.data.folder import FolderRecording, FolderWriter
from perception.data.layout import FolderInfo
from perception.errors import ConfigError, DataError
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform
from perception.runtime.pipeline import Pipeline
from perception.runtime.wiring import match_inputs

MS = 10**6
STEREO = {"left": ("rgb", "camera"), "right": ("rgb", "camera")}
TOPICS = ("--topic", "left=/stereo/left/image_raw", "--topic", "right=/stereo/right/image_raw")
BOTH, ALONE = ("full", "left+right"), ("degraded", "left")


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """A bundle of two cameras that share an encoder."""
    return SmallBundles(tmp_path).named(STEREO, name="stereo")


def _pairs(kit: Any, count: int, right: Callable[[int], bool] = lambda index: True) -> Path:
    messages = []
    for i in range(count):
        t = kit.start + i * 100 * MS
        messages += [("/stereo/left/image_raw", kit.image(t), t + MS)]
        messages += [("/stereo/right/image_raw", kit.image(t), t + 2 * MS)] * right(i)
    return kit.write(messages)


def test_two_cameras_of_which_one_dies_and_comes_back(kit: Any, replay: Any, stereo: Path) -> None:
    bag = _pairs(kit, 24, lambda index: not 6 <= index < 16)
    done = replay(bag, "--bundle", str(stereo), *TOPICS)
    assert done.status == 0
    states = done.states()
    assert states[:6] == [BOTH] * 6 and ALONE in states and states[-2:] == [BOTH] * 2
    lost = [row for row in done.rows if row["health"]["right"] == "lost"]
    assert lost and all(set(row["health"]) == {"left", "right"} for row in done.rows)
    assert any("right: no message for more than 500 ms" in row["warnings"] for row in lost)
    assert all(row["warnings"][0].startswith("right: ") for row in lost)
    assert "left 10 Hz" in done.out and "right 10 Hz" in done.out


@pytest.mark.parametrize("dead", ["left", "right"])
def test_either_camera_alone(kit: Any, replay: Any, stereo: Path, dead: str) -> None:
    there = "right" if dead == "left" else "left"
    given = ("--topic", f"{there}=/stereo/{there}/image_raw")
    done = replay(_pairs(kit, 4), "--bundle", str(stereo), *given, "--overlays")
    assert done.states() == [("full", there)] * 4
    assert len(list(done.folder.glob("overlay_*.png"))) == 4


def test_sensors_called_otherwise_than_the_inputs(kit: Any, replay: Any, stereo: Path) -> None:
    topics = ("--topic", "port=/stereo/left/image_raw", "--topic", "star=/stereo/right/image_raw")
    inputs = ("--input", "port=left", "--input", "star=right")
    bag = _pairs(kit, 4)
    done = replay(bag, "--bundle", str(stereo), *topics, *inputs, "--offset-ms", "star=1")
    assert done.states() == [("full", "port+star")] * 4
    done = replay(bag, "--bundle", str(stereo), *topics, *inputs, "--require", "star")
    assert done.states() == [("full", "port+star")] * 4


def test_the_only_sensor_of_its_kind_needs_no_input(kit: Any, replay: Any, tmp_path: Path) -> None:
    front = SmallBundles(tmp_path).named({"front": ("rgb", "camera")}, name="front")
    bag = kit.write(kit.pairs(3))
    done = replay(bag, "--bundle", str(front), "--topic", "rgb=/cam/rgb")
    assert done.states() == [("full", "rgb")] * 3


def test_stamps_of_another_clock_are_told_by_name(kit: Any, replay: Any, stereo: Path) -> None:
    messages = []
    for i in range(8):
        t = kit.start + i * 100 * MS
        messages += [("/stereo/left/image_raw", kit.image(t), t)]
        messages += [("/stereo/right/image_raw", kit.image(0), t)]
    done = replay(kit.write(messages), "--bundle", str(stereo), *TOPICS)
    assert done.states() == [BOTH] * 8
    assert all(any("right: no stamp" in w for w in row["warnings"]) for row in done.rows)
    assert "8 messages of right have no stamp" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--topic", "Left=/stereo/left/image_raw"), "'Left' is no name of a sensor"),
        (("--topic", "policy=/stereo/left/image_raw"), "no sensor can be called 'policy'"),
        (("--topic", "rear=/stereo/left/image_raw"), "takes left, right, not rear"),
        (("--topic", "rgb=/stereo/left/image_raw"), "takes left, right, not rgb"),
        (("--topic", "left=/none"), "no topic /none for left"),
        ((*TOPICS, "--input", "rear=none"), "no input 'none'"),
        ((*TOPICS, "--input", "a=left", "--input", "b=left"), "for the same input"),
        ((*TOPICS, "--input", "lidar=left"), "lidar"),
        ((*TOPICS, "--input", "left"), "is not SENSOR=INPUT"),
        ((*TOPICS, "--require", "rear"), "'rear' is not among left, right"),
        ((*TOPICS, "--minimum", "3"), "there are only 2 sensors"),
        ((*TOPICS, "--offset-ms", "rear=1"), "'rear' is not among left, right"),
        ((), "no sensor topic found"),
    ],
)
def test_names_that_cannot_be_give_one_line(
    kit: Any, replay: Any, stereo: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = replay(_pairs(kit, 2), "--bundle", str(stereo), *arguments)
    assert done.status == 2 and words in done.error and not done.rows
    assert len(done.error.splitlines()) == 1 and "Traceback" not in done.error


@pytest.fixture
def recording(tmp_path: Path) -> FolderRecording:
    """A drive of two cameras and a LiDAR, in the folder format."""
    info = FolderInfo.model_validate(
        {
            "schema": 2,
            "name": "stereo",
            "sensors": {
                "left": {"kind": "rgb"},
                "right": {"kind": "rgb"},
                "roof": {"kind": "lidar"},
            },
            "height": 48,
            "width": 64,
        }
    )
    camera = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
    rig = Rig({n: SensorCalibration(camera, kind="rgb") for n in ("left", "right")})
    random = np.random.default_rng(1)
    with FolderWriter(tmp_path / "drive", info, rig) as writer:
        for index in range(4):
            left, right = random.integers(0, 255, (2, 48, 64, 3), np.uint8)
            roof = random.uniform([5, -2, -1, 0], [15, 2, 1, 1], (50, 4)).astype(np.float32)
            writer.add(
                f"{index:04d}",
                {"left": left, "right": right, "roof": roof},
                stamp_ns=5 * 10**9 + index * 100 * MS,
            )
    return FolderRecording(tmp_path / "drive")


def test_a_recording_of_two_cameras_there_and_back(
    recording: FolderRecording, replay: Any, stereo: Path, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    assert main(["record", "--data", f"folder:{recording.root}", "--out", str(bag)]) == 0
    topics = topics_of(bag)
    assert {t for t in topics if "image_raw" in t or "points" in t} == {
        "/sensors/left/image_raw",
        "/sensors/right/image_raw",
        "/sensors/roof/points",
    }
    assert {"/sensors/left/camera_info", "/sensors/right/camera_info"} <= set(topics)
    done = replay(bag, "--bundle", str(stereo))
    assert done.states() == [BOTH] * 4
    pipeline = Pipeline.load(stereo, "cpu")
    assert [pipeline(recording.frame(i)).used for i in range(4)] == [("left", "right")] * 4


def test_topics_are_of_the_kinds_of_their_sensors(
    recording: FolderRecording, tmp_path: Path
) -> None:
    write_bag(tmp_path / "bag", messages_of(recording))
    kinds: dict[str, Any] = {"left": "rgb", "roof": "lidar", "rear": "rgb"}
    found = sensor_topics(tmp_path / "bag", {}, kinds)
    assert found == {"left": "/sensors/left/image_raw", "roof": "/sensors/roof/points"}
    with pytest.raises(DataError, match="which is no lidar") as told:
        sensor_topics(tmp_path / "bag", {"roof": "/sensors/left/image_raw"}, kinds)
    assert "could be /sensors/roof/points" in str(told.value)


def test_a_lidar_by_any_name_is_projected_into_a_camera_by_any_name(
    kit: Any, replay: Any, tmp_path: Path
) -> None:
    inputs = {**STEREO, "roof": ("lidar", "cloud")}
    bundle = SmallBundles(tmp_path).named(inputs, name="rig")
    mount = ("left_optical", "lidar", (0.5, -0.5, 0.5, 0.5))
    messages = []
    for i in range(4):
        t = kit.start + i * 100 * MS
        messages += [("/tf_static", kit.tf(t, mount), t)]
        for side in ("left", "right"):
            own = kit.header(t, f"{side}_optical")
            messages += [
                (f"/stereo/{side}/camera_info", kit.info(t, header=own), t),
                (f"/stereo/{side}/image_raw", kit.image(t, header=own), t + MS),
            ]
        messages += [("/points", kit.cloud(t), t + 2 * MS)]
    bag = kit.write(messages)
    done = replay(bag, "--bundle", str(bundle), *TOPICS, "--topic", "roof=/points")
    assert done.states() == [("full", "left+right+roof")] * 4
    rig = Rig({"left": SensorCalibration(CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5), kind="rgb")})
    save_rig(rig, tmp_path / "rig.yaml")
    given = ("--rig", str(tmp_path / "rig.yaml"), "--extrinsics", "tf")
    done = replay(bag, "--bundle", str(bundle), *TOPICS, "--topic", "roof=/points", *given)
    assert {used for _, used in done.states()} <= {"left+right+roof", "left+right"}


@pytest.mark.parametrize("into", ["left", "right"])
def test_a_cloud_is_projected_into_the_camera_of_the_input_that_the_bundle_says(
    kit: Any, replay: Any, tmp_path: Path, into: str
) -> None:
    """The rig knows one camera: into another, the cloud cannot be projected."""

    def edit(content: dict[str, Any]) -> None:
        roof = content["inputs"]["roof"]
        roof["view"] = {**roof["view"], "type": "projection", "into": into}

    inputs = {**STEREO, "roof": ("lidar", "cloud")}
    bundle = SmallBundles(tmp_path).named(inputs, name="rig", edit=edit)
    times = [kit.start + i * 100 * MS for i in range(4)]
    pairs = [("/near", kit.image(t), t) for t in times]
    bag = kit.write(
        sorted(pairs + [("/points", kit.cloud(t), t) for t in times], key=lambda m: m[2])
    )
    place = RigidTransform.from_quaternion_xyzw((0.5, -0.5, 0.5, 0.5), (0, 0, 0))
    camera = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
    known = {
        "near": SensorCalibration(camera, kind="rgb"),
        "roof": SensorCalibration(kind="lidar", pose=Pose(place)),
    }
    save_rig(Rig(known), tmp_path / "rig.yaml")
    given = ("--topic", "near=/near", "--input", "near=left", "--topic", "roof=/points")
    done = replay(bag, "--bundle", str(bundle), *given, "--rig", str(tmp_path / "rig.yaml"))
    assert done.status == 0
    assert {used for _, used in done.states()} == {"near+roof" if into == "left" else "near"}
    told = any("right has no intrinsics" in line for row in done.rows for line in row["warnings"])
    assert told == (into == "right")


@pytest.mark.parametrize(
    ("kinds", "inputs", "given", "found"),
    [
        ({"rgb": "rgb"}, {"rgb": "rgb", "depth": "depth"}, {}, {"rgb": "rgb", "depth": "depth"}),
        ({"rgb": "rgb"}, {"front": "rgb"}, {}, {"rgb": "front"}),
        ({"rgb": "rgb"}, {"left": "rgb", "right": "rgb"}, {}, {"left": "left", "right": "right"}),
        ({"a": "rgb", "b": "rgb"}, {"front": "rgb"}, {}, {"front": "front"}),
        ({"a": "rgb", "b": "rgb"}, {"front": "rgb"}, {"b": "front"}, {"b": "front"}),
        ({"front": "depth"}, {"front": "rgb"}, {}, {"front": "front"}),
        ({"a": "rgb"}, {"left": "rgb", "right": "rgb"}, {"right": "left"}, {"right": "left"}),
    ],
)
def test_which_input_a_sensor_is_for(
    kinds: dict[str, str], inputs: dict[str, str], given: dict[str, str], found: dict[str, str]
) -> None:
    assert match_inputs(kinds, inputs, given) == found


@pytest.mark.parametrize(
    ("kinds", "given", "words"),
    [
        ({}, {"a": "none"}, "no input 'none'"),
        ({"a": "depth"}, {"a": "left"}, "is depth, input left is rgb"),
        ({}, {"a": "left", "b": "left"}, "same input"),
    ],
)
def test_inputs_that_a_sensor_cannot_be_for(
    kinds: dict[str, str], given: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        match_inputs(kinds, {"left": "rgb", "right": "rgb"}, given)
