"""`anysense data make-sim --kind surround`: the folder, the bag beside it, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from perception.bags.files import read_bag, topics_of
from perception.bags.messages import parse
from perception.bags.vehicle import vehicle_messages
from perception.cli.main import main
from perception.data.check import check_folder
from perception.data.folder import FolderRecording
from perception.data.objects import object_counts
from perception.errors import ConfigError, DataError
from perception.sim.drives import Drives

pytest.importorskip("mujoco")
pytest.importorskip("rosbags")

ARGV = ["data", "make-sim", "--kind", "surround", "--frames", "3", "--size", "64x48", "--seed", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder and a bag of three frames in two towns."""
    root = tmp_path_factory.mktemp("surround")
    out, bag = root / "folder", root / "bag"
    argv = [*ARGV, "--town-frames", "2", "--speed", "9", "--weather", "fog", "--lidar", "vlp16"]
    assert main([*argv, "--out", str(out), "--bag", str(bag)]) == 0
    return out, bag


def test_the_folder_is_one_that_readers_and_the_check_take(made: tuple[Path, Path]) -> None:
    recording = FolderRecording(made[0])
    assert [f for f in check_folder(made[0]) if f.severity == "error"] == []
    assert len(recording) == 3 and len({recording.scene(i) for i in range(3)}) == 2
    assert recording.rig.base == "base_link" and recording.rig.reference == "cam_front"
    assert all({"fog", "day", "vlp16"} <= recording.tags(i) for i in range(3))
    trajectory = recording.trajectory
    assert trajectory is not None
    for i in range(3):
        truth, stamp = recording.truth(i), recording.stamp_ns(i)
        assert truth.boxes3d is not None and truth.boxes3d.frame == "" and len(truth.boxes3d) > 3
        assert (truth.boxes3d.points >= 0).all() and (truth.boxes3d.occlusion >= 0).all()
        assert truth.labels is not None and truth.labels.shape == (48, 64)
        # From the first point of a scan to its last somebody knows where the vehicle was.
        whole = trajectory.moved(stamp + 50_000_000, stamp - 50_000_000)
        assert whole is not None and np.linalg.norm(whole.translation) > 0.3
        assert recording.frame(i)["lidar"].pose is not None


def test_the_bag_has_what_the_folder_has_and_where_the_vehicle_was(
    made: tuple[Path, Path],
) -> None:
    recording, found = FolderRecording(made[0]), list(read_bag(made[1]))
    assert topics_of(made[1])["/odom"] == "nav_msgs/msg/Odometry"
    stamps = [m.stamp_ns for m in found]
    assert stamps == sorted(stamps)
    [static] = [parse(m) for m in found if m.topic == "/tf_static"]
    mounts = {t.child_frame_id: t for t in static.transforms}
    assert set(mounts) == set(recording.info.sensors)
    assert {t.header.frame_id for t in static.transforms} == {"base_link"}
    assert mounts["lidar"].transform.translation.z == pytest.approx(1.9)
    clouds = [parse(m) for m in found if m.topic == "/sensors/lidar/points"]
    assert len(clouds) == 3
    assert [f.name for f in clouds[0].fields] == ["x", "y", "z", "intensity", "ring", "time"]
    table = np.frombuffer(bytes(clouds[0].data), "<f4").reshape(-1, 6)
    assert np.array_equal(table[:, :4], recording.frame(0)["lidar"].data)
    assert set(np.unique(table[:, 4])) <= set(range(16))
    assert -0.05 < table[:, 5].min() < -0.04 and 0.04 < table[:, 5].max() < 0.05
    odometry = [parse(m) for m in found if m.topic == "/odom"]
    moving = [parse(m) for m in found if m.topic == "/tf"]
    assert recording.trajectory is not None
    assert len(odometry) == len(moving) == len(recording.trajectory)
    for i, message in enumerate(odometry):
        assert message.header.frame_id == "odom" and message.child_frame_id == "base_link"
        x, y, _ = recording.trajectory.poses[i].translation
        assert (message.pose.pose.position.x, message.pose.pose.position.y) == (x, y)
        twist = message.twist.twist
        assert 0 < twist.linear.x <= 15 and abs(twist.linear.y) < 0.2 and abs(twist.angular.z) < 0.7
    for name in ("cam_front", "cam_left", "cam_right", "cam_rear"):
        infos = [parse(m) for m in found if m.topic == f"/sensors/{name}/camera_info"]
        assert len(infos) == 3 and infos[0].header.frame_id == name and infos[0].width == 64


def test_a_recording_that_does_not_say_where_it_was_makes_no_such_bag(simulated: Path) -> None:
    with pytest.raises(DataError, match="does not say where the vehicle was"):
        next(vehicle_messages(FolderRecording(simulated)))


def test_objects_are_counted(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str], simulated: Path
) -> None:
    recording = FolderRecording(made[0])
    truths = [recording.truth(i).boxes3d for i in range(3)]
    counts = object_counts(recording)
    assert [*counts] == ["person", "car", "truck", "cyclist"]
    for place, own in enumerate(counts.values()):
        ids = [t.class_ids == place for t in truths if t is not None]
        kept = [~t.ignore[i] for t, i in zip(truths, ids, strict=True) if t is not None]
        assert own["boxes"] == sum(int(k.sum()) for k in kept)
        assert own["ignored"] == sum(int((~k).sum()) for k in kept)
        assert sum(own.get("occlusion", [])) == own["boxes"]
    capsys.readouterr()
    assert main(["data", "info", f"folder:{made[0]}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == counts
    plain = object_counts(FolderRecording(simulated))
    assert "moving" not in plain["vehicle"] and "points" not in plain["vehicle"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--sensors", "rgb"], "--sensors: is no option of surround"),
        (["--yaw", "rgb=4"], "--yaw: is no option of surround"),
        (["--labels-of", "rgb"], "--labels-of: is no option of surround"),
        (["--weather", "fogg"], "unknown weather 'fogg'"),
        (["--scan", "fast"], "unknown scan 'fast'"),
        (["--lidar", "mid4"], "unknown LiDAR 'mid4'"),
        (["--speed", "20"], "--speed: must be 0 or more, and at most 15"),
        (["--town-frames", "0"], "--town-frames: must be"),
        (["--kind", "drive", "--weather", "fog"], "--weather: is no option of drive"),
        (["--kind", "scenes", "--bag", "b"], "--bag: is no option of scenes"),
        (["--kind", "drive", "--lidar", "mid40"], "unknown LiDAR 'mid40'"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], fault: str
) -> None:
    status: int | str | None = 0
    with contextlib.suppress(SystemExit):
        status = main([*ARGV, "--out", str(tmp_path / "x"), *options])
        assert status == 2
    error = capsys.readouterr().err.strip()
    assert fault in error and "\n" not in error, error
    assert not (tmp_path / "x").exists()


def test_a_bag_that_is_there_is_kept_and_nothing_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bag").mkdir()
    assert main([*ARGV, "--out", str(tmp_path / "x"), "--bag", str(tmp_path / "bag")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("frames", 0), ("town_frames", 0), ("size", (16, 64)), ("speed", -1.0), ("scan", "x")],
)
def test_drives_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        Drives(**{"frames": 2, "seed": 1, field: value})  # type: ignore[arg-type]
