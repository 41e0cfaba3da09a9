"""Bags: what is written reads back the same, runs like the recording, and damage is told."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import DataError, EncodingError
from perception.frame import MODALITIES, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.adapters.messages import to_camera
from perception.bags.files import (
    TOPICS,
    messages_of,
    read_bag,
    sensor_topics,
    topics_of,
    write_bag,
)
from perception.bags.messages import BagMessage, camera_message, parse, sample_message
from perception.cli.main import main
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.sensors.samples import to_sample

CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
TO_OPTICAL = RigidTransform(np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.zeros(3))
COUNT = 6


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> FolderRecording:
    root = tmp_path_factory.mktemp("bags") / "drive"
    info = folder_info(
        size=(24, 32),
        seg_classes=(),
        det_classes=(),
        name="drive",
        modalities=MODALITIES,
        thermal_unit="centikelvin",
    )
    sensors = {m: SensorCalibration(CAMERA) for m in MODALITIES[:3]}
    rig = Rig({**sensors, "lidar": SensorCalibration(CAMERA, TO_OPTICAL, "lidar")})
    random = np.random.default_rng(2)
    with FolderWriter(root, info, rig) as writer:
        for index in range(COUNT):
            writer.add(
                f"{index:04d}",
                stamp_ns=5_000_000_000 + index * 100_000_000,
                rgb=random.integers(20, 220, (24, 32, 3), np.uint8),
                depth=random.uniform(1, 9, (24, 32)).astype(np.float32),
                thermal=random.uniform(280, 310, (24, 32)).astype(np.float32),
                lidar=random.uniform([5, -2, -1, 0], [15, 2, 1, 1], (300, 4)).astype(np.float32),
            )
    return FolderRecording(root)


@pytest.fixture(scope="module")
def bag(recording: FolderRecording) -> Path:
    path = recording.root.parent / "bag"
    assert write_bag(path, messages_of(recording)) == COUNT * 7 + 1
    return path


def test_samples_come_back_as_they_were(recording: FolderRecording, bag: Path) -> None:
    by_topic = {topic: m for m, topic in TOPICS.items()}
    seen = 0
    for message in read_bag(bag, by_topic):
        modality = by_topic[message.topic]
        index = round((message.stamp_ns - 5e9) / 1e8)
        before = recording.frame(index)[modality]
        after = to_sample(modality, parse(message))
        assert (after.stamp_ns, after.unit) == (before.stamp_ns, before.unit)
        assert after.data.dtype == before.data.dtype
        np.testing.assert_allclose(after.data, before.data, rtol=1e-6)
        seen += 1
    assert seen == COUNT * 4


def test_the_bag_says_what_is_in_it(bag: Path) -> None:
    topics = topics_of(bag)
    assert topics["/tf_static"] == "tf2_msgs/msg/TFMessage"
    assert topics["/sensors/rgb/camera_info"] == "sensor_msgs/msg/CameraInfo"
    assert sensor_topics(bag, {}) == TOPICS
    assert sensor_topics(bag, {"rgb": TOPICS["thermal"]}) == {"rgb": TOPICS["thermal"]}
    with pytest.raises(DataError, match="no topic /other"):
        sensor_topics(bag, {"rgb": "/other"})


def test_a_single_mcap_file_reads_like_its_folder(bag: Path) -> None:
    (file,) = bag.glob("*.mcap")
    assert [m.topic for m in read_bag(file)] == [m.topic for m in read_bag(bag)]


def test_bags_are_not_overwritten(recording: FolderRecording, bag: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        write_bag(bag, messages_of(recording))


def test_what_is_no_bag(tmp_path: Path, bag: Path) -> None:
    with pytest.raises(DataError, match="no such bag"):
        list(read_bag(tmp_path / "none"))
    (tmp_path / "text.mcap").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_bag(tmp_path / "text.mcap"))
    (file,) = bag.glob("*.mcap")
    (tmp_path / "cut.mcap").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_bag(tmp_path / "cut.mcap"))


@pytest.mark.parametrize("size", [0, 3, 20, 200])
def test_cut_off_messages(bag: Path, size: int) -> None:
    message = next(iter(read_bag(bag, [TOPICS["rgb"]])))
    with pytest.raises(EncodingError, match="sensor_msgs/msg/Image"):
        parse(BagMessage(message.topic, message.type, 0, message.data[:size]))


def test_record_and_replay(
    recording: FolderRecording,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bag = tmp_path / "bag"
    assert main(["record", "--data", f"folder:{recording.root}", "--out", str(bag)]) == 0
    arguments = ["replay", str(bag), "--bundle", str(tiny_bundle), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--overlays"]) == 0
    lines = (tmp_path / "out" / "status.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["stamp_ns"] for r in rows] == [5_000_000_000 + i * 100_000_000 for i in range(COUNT)]
    assert all(r["used"] == list(MODALITIES) and r["state"] == "full" for r in rows)
    assert len(list((tmp_path / "out").glob("overlay_*.png"))) == COUNT


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--topic", "rgb"], "SENSOR=TOPIC"),
        (["--topic", "sonar=/x"], "sonar"),
        (["--topic", "rgb=/x"], "no topic"),
        (["--topic", "rgb=/x", "--topic", "rgb=/y"], "'rgb' is given twice"),
        (["--topic", "rgb=/x", "--topic", "depth=/x"], "/x is given for rgb and depth"),
        (["--deadline-ms", "0"], "positive"),
        (["--rig", "/no/rig.yaml"], "no such file"),
    ],
)
def test_wrong_arguments(
    bag: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    word: str,
) -> None:
    base = ["replay", str(bag), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]
    assert main([*base, *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert len(error.splitlines()) == 1


@given(
    st.integers(9, 5000), st.integers(9, 5000), st.floats(0.5, 3), st.floats(0.5, 3), st.booleans()
)
def test_camera_infos_are_as_ros_defines_them(
    width: int, height: int, wide: float, high: float, distorted: bool
) -> None:
    side = max(width, height)
    camera = CameraModel(width, height, wide * side, high * side, width / 3, height / 5)
    if distorted:
        camera = replace(
            camera, distortion_model="plumb_bob", distortion=(0.1, -0.2, 0.3, 0.01, 0.5)
        )
    message = parse(camera_message("/info", camera, 7, "optical"))
    assert (message.width, message.height, message.distortion_model) == (width, height, "plumb_bob")
    assert np.array_equal(message.k.reshape(3, 3), camera.matrix)
    assert np.array_equal(message.p.reshape(3, 4), np.column_stack([camera.matrix, np.zeros(3)]))
    assert np.array_equal(message.r.reshape(3, 3), np.eye(3))
    assert message.d.tolist() == (list(camera.distortion) if distorted else [0] * 5)
    whole = (message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height)
    assert whole == (0, 0, 0, 0) and (message.binning_x, message.binning_y) == (0, 0)
    assert to_camera(message).matrix.tolist() == camera.matrix.tolist()


@pytest.mark.parametrize(("unit", "most"), [("counts8", 255), ("counts16", 65535)])
def test_counts_are_rounded_into_their_range(unit: str, most: int) -> None:
    values = np.array([[0, 0.4, 0.6, 1.5, -3, np.nan], [most, most - 0.4, most + 9, 7, 2, 1]])
    sample = Sample("thermal", values.astype(np.float32), 5, unit=unit)
    message = parse(sample_message("/t", sample, "thermal"))
    stored = message.data.view(np.uint8 if most == 255 else np.uint16).reshape(2, 6)
    expected = [[0, 0, 1, 2, 0, 0], [most, most, most, 7, 2, 1]]
    assert stored.tolist() == expected
    assert (message.height, message.width, message.step) == (2, 6, 6 * stored.itemsize)


@pytest.mark.parametrize("columns", [3, 4, 5])
def test_clouds_have_the_layout_that_they_say(columns: int) -> None:
    points = np.random.default_rng(columns).uniform(1, 9, (7, columns)).astype(np.float32)
    message = parse(sample_message("/p", Sample("lidar", points, 5), "lidar"))
    names = ["x", "y", "z", "intensity"][:columns]
    assert [f.name for f in message.fields] == names
    assert (message.height, message.width, message.is_bigendian) == (1, 7, False)
    assert message.row_step == 7 * message.point_step == len(message.data)
    for index, field in enumerate(message.fields):
        got = [
            struct.unpack_from("<f", message.data, row * message.point_step + field.offset)[0]
            for row in range(7)
        ]
        assert got == points[:, index].tolist() and (field.datatype, field.count) == (7, 1)


def test_players_keep_static_transforms_for_whoever_comes_later(
    recording: FolderRecording, tmp_path: Path
) -> None:
    write_bag(tmp_path / "bag", messages_of(recording))
    told = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    topics = told["rosbag2_bagfile_information"]["topics_with_message_count"]
    qos = {t["topic_metadata"]["name"]: t["topic_metadata"]["offered_qos_profiles"] for t in topics}
    ((latched,), others) = qos.pop("/tf_static"), list(qos.values())
    never = {"sec": 2**31 - 1, "nsec": 2**32 - 1}  # as rosbag2 writes an infinite time
    assert latched == {
        "history": "keep_last",
        "depth": 1,
        "reliability": "reliable",
        "durability": "transient_local",
        "deadline": never,
        "lifespan": never,
        "liveliness": "automatic",
        "liveliness_lease_duration": never,
        "avoid_ros_namespace_conventions": False,
    }
    assert others and not any(others)
