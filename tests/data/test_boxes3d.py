"""Boxes in space and poses of the folder format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.errors import AnySenseError, CalibrationError, DataError, InputError
from perception.geometry.boxes import corners_of, inside, turned, wrapped
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

CLASSES = (ClassInfo(0, "person", (255, 0, 0)), ClassInfo(1, "car", (0, 0, 255)))


def _about_z(yaw: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> RigidTransform:
    c, s = np.cos(yaw), np.sin(yaw)
    return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.array(at))


def _boxes(frame: str = "") -> TruthBoxes3d:
    return TruthBoxes3d.of(
        [[10, 2, 0.8], [-4, 1, 0.9]],
        [[4.2, 1.8, 1.5], [0.6, 0.5, 1.7]],
        [0.3, -3.0],
        [1, 0],
        [False, True],
        [[5.0, 0.5], [np.nan, np.nan]],
        [140, 0],
        [0, 3],
        [7, -1],
        frame,
    )


def _write(root: Path, boxes: TruthBoxes3d, frame: str = "base") -> FolderRecording:
    info = folder_info(
        name="a",
        sensors={"lidar": "lidar"},
        size=(48, 64),
        seg_classes=(),
        det_classes=CLASSES,
        boxes3d_frame=frame,
    )
    with FolderWriter(root, info) as writer:
        for i in range(3):
            pose = _about_z(0.1 * i, (0.5 * i, 0.0, 0.0))
            cloud = np.array([[5, 0, 0, 0.5], [6, 1, 0, 0.25]], np.float32)
            times = {"lidar": np.array([0.0, 0.05], np.float32)}
            stamp = 10**8 * (i + 1)
            writer.add(
                f"{i}", {"lidar": cloud}, stamp_ns=stamp, boxes3d=boxes, times=times, pose=pose
            )
    return FolderRecording(root)


def test_boxes_and_poses_come_back(tmp_path: Path) -> None:
    recording = _write(tmp_path / "a", _boxes())
    found, written = recording.truth(1).boxes3d, _boxes()
    assert found is not None and found.frame == ""
    for name in ("center", "size", "yaw", "class_ids", "ignore", "velocity", "points", "track"):
        np.testing.assert_allclose(getattr(found, name), getattr(written, name), atol=1e-4)
    assert found.occlusion.tolist() == [0, 3]
    assert recording.trajectory is not None and len(recording.trajectory) == 3
    moved = recording.trajectory.moved(10**8, 2 * 10**8)
    assert moved is not None
    np.testing.assert_allclose(moved.inverse().translation, [0.5, 0, 0], atol=1e-6)


def test_a_recording_without_them_says_nothing(tmp_path: Path) -> None:
    info = folder_info(
        name="a", sensors={"lidar": "lidar"}, size=(48, 64), seg_classes=(), det_classes=CLASSES
    )
    assert "boxes3d_frame" not in info.to_dict() and info.boxes3d_of == "lidar"
    with FolderWriter(tmp_path / "a", info) as writer:
        writer.add("0", stamp_ns=0)
    with pytest.warns(UserWarning, match="no frame has a file in lidar"):
        recording = FolderRecording(tmp_path / "a")
    assert recording.truth(0).boxes3d is None and recording.trajectory is None


def test_boxes_of_another_frame_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frame of 'base', dataset.yaml says 'lidar'"):
        _write(tmp_path / "a", _boxes(), "")


@pytest.mark.parametrize(
    "row, line",
    [
        ("{class: 1, center: [0, 0, 0], size: [1, 1, 0], yaw: 0}", "size"),
        ("{class: 1, center: [0, 0, .nan], size: [1, 1, 1], yaw: 0}", "center"),
        ("{class: 9, center: [0, 0, 0], size: [1, 1, 1], yaw: 0}", "class 9 is not in dataset"),
        ("{class: 1, center: [0, 0], size: [1, 1, 1], yaw: 0}", "center"),
        ("{class: 1, center: [0, 0, 0], size: [1, 1, 1], yaw: 0, colour: red}", "colour"),
        ("a text", "rows"),
    ],
)
def test_wrong_boxes_are_refused_in_one_line(tmp_path: Path, row: str, line: str) -> None:
    recording = _write(tmp_path / "a", _boxes())
    (tmp_path / "a/boxes3d/1.yaml").write_text(f"- {row}\n")
    with pytest.raises(DataError, match=line) as caught:
        recording.truth(1)
    assert "boxes3d/1.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows, line",
    [
        (["5,0,0,0,0,0,0,1", "5,0,0,0,0,0,0,1"], "pose 1 is not later"),
        (["5,0,0,0,0,0,0,0"], "quaternion"),
        (["x,0,0,0,0,0,0,1"], "no numbers"),
        (["5,0,0,0,0"], "no numbers"),
    ],
)
def test_wrong_poses_are_refused(tmp_path: Path, rows: list[str], line: str) -> None:
    _write(tmp_path / "a", _boxes())
    header = "stamp_ns,x,y,z,qx,qy,qz,qw"
    (tmp_path / "a/poses.csv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(AnySenseError, match=line):
        FolderRecording(tmp_path / "a")


def test_boxes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        TruthBoxes3d.of([[0, 0, 0]], [[1, 1, 0]], [0], [0])
    with pytest.raises(InputError, match="yaw"):
        TruthBoxes3d.of([[0, 0, 0]], [[1, 1, 1]], [0, 1], [0])
    assert len(TruthBoxes3d.of([], [], [], [])) == 0


@given(st.floats(-3.1, 3.1), st.floats(-20, 20), st.floats(-20, 20), st.floats(-3.1, 3.1))
def test_boxes_move_with_the_points_in_them(yaw: float, x: float, y: float, by: float) -> None:
    transform = _about_z(by, (x, y, 0.3))
    boxes = TruthBoxes3d.of([[x, y, 1]], [[4, 2, 1.5]], [yaw], [1], velocity=[[3.0, 1.0]])
    moved = boxes.moved(transform, "lidar")
    corners = corners_of(boxes.center, boxes.size, boxes.yaw)[0]
    there = corners_of(moved.center, moved.size, moved.yaw)[0]
    np.testing.assert_allclose(transform.apply(corners), there, atol=1e-9)
    assert inside(there * 0.999 + moved.center * 0.001, moved.center, moved.size, moved.yaw).all()
    assert np.linalg.norm(moved.velocity) == pytest.approx(np.hypot(3, 1))
    assert (
        float(wrapped(turned(transform, np.array([yaw]))[0] - yaw - by))
        == pytest.approx(0, abs=1e-9)
        or abs(wrapped(yaw + by)) > 3.14
    )


def test_a_trajectory_says_nothing_of_what_it_does_not_know() -> None:
    poses = tuple(_about_z(0.2 * i, (1.0 * i, 0, 0)) for i in range(3))
    path = Trajectory(np.array([0, 10**8, 2 * 10**8]), poses)
    half = path.at(5 * 10**7)
    assert half is not None
    np.testing.assert_allclose(half.translation, [0.5, 0, 0])
    np.testing.assert_allclose(half.rotation, _about_z(0.1).rotation, atol=1e-12)
    on = path.at(25 * 10**7)
    assert on is not None and on.translation[0] == pytest.approx(2.5)
    assert path.at(10**9) is None and path.at(-(10**9)) is None
    gap = Trajectory(np.array([0, 10**9]), poses[:2])
    assert gap.at(5 * 10**8) is None and gap.at(10**9) is poses[1]
    with pytest.raises(CalibrationError, match="2 stamps for 3 poses"):
        Trajectory(np.array([0, 1]), poses)
