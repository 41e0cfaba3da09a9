"""`data check` of boxes in space and of poses: each mistake is named, and what is right is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.check import Finding, check_folder
from perception.data.folder import FolderWriter, folder_info
from perception.geometry.boxes import corners_of
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

CLASSES = (ClassInfo(0, "car", (200, 0, 0)), ClassInfo(1, "person", (0, 0, 200)))
FRAMES = 6
FIRST = 10**18
HEIGHT = 1.8

Change = Callable[[TruthBoxes3d], TruthBoxes3d]


def same(boxes: TruthBoxes3d) -> TruthBoxes3d:
    return boxes


def boxes_at(frame: int) -> TruthBoxes3d:
    """Three cars and a person in the LiDAR's frame, on the ground."""
    rng = np.random.default_rng(frame)
    sizes = np.array([[4.2, 1.8, 1.5]] * 3 + [[0.6, 0.6, 1.75]]) * rng.uniform(0.95, 1.05, (4, 3))
    places = np.array([[9.0, 4], [14, -5], [22, 2], [11, 0.5]]) + rng.uniform(-0.5, 0.5, (4, 2))
    center = np.column_stack([places, sizes[:, 2] / 2 - HEIGHT])
    velocity = [[5.0, 0], [0, 0], [np.nan, np.nan], [1, 0]]
    yaw = rng.uniform(-3, 3, 4)
    return TruthBoxes3d.of(center, sizes, yaw, [0, 0, 0, 1], velocity=velocity, frame="lidar")


def cloud_of(boxes: TruthBoxes3d, frame: int) -> np.ndarray:
    """Ten points in each box, and the ground."""
    rng = np.random.default_rng(frame)
    corners = corners_of(boxes.center, boxes.size * 0.8, boxes.yaw)
    share = rng.dirichlet(np.ones(8), (len(boxes), 10))
    within = (share @ corners).reshape(-1, 3)
    ground = np.column_stack([rng.uniform(3, 30, (300, 1)), rng.uniform(-9, 9, (300, 1)),
                              np.full((300, 1), -HEIGHT)])  # fmt: skip
    points = np.concatenate([within, ground])
    return np.column_stack([points, np.full(len(points), 0.5)]).astype(np.float32)


def write(root: Path, change: Change = same, speed: float = 8.0, base: bool = True) -> Path:
    """A recording whose boxes are changed after their clouds were made."""
    place = RigidTransform(np.eye(3), np.array([0, 0, HEIGHT]))
    sensors = {"lidar": SensorCalibration(None, None, "lidar", pose=Pose(place))}
    info = folder_info(
        name="r", sensors={"lidar": "lidar"}, size=(48, 64), seg_classes=(), det_classes=CLASSES,
        rate_hz=10.0,
    )  # fmt: skip
    rig = Rig(sensors, "base_link") if base else None
    with FolderWriter(root, info, rig) as writer:
        for frame in range(FRAMES):
            boxes = boxes_at(frame)
            pose = RigidTransform(np.eye(3), np.array([speed * 0.1 * frame, 0, 0]))
            writer.add(
                f"{frame:03}",
                {"lidar": cloud_of(boxes, frame)},
                stamp_ns=FIRST + frame * 10**8,
                boxes3d=change(boxes),
                pose=pose,
            )
    return root


def found(root: Path, where: str) -> list[Finding]:
    """Of this part of the recording; the LiDAR is in nobody's picture here."""
    return [f for f in check_folder(root) if f.where.startswith(where)]


def test_what_is_right_is_not_named(tmp_path: Path) -> None:
    root = write(tmp_path / "r")
    assert not found(root, "boxes3d") and not found(root, "poses")


def _up(boxes: TruthBoxes3d, by: np.ndarray | float) -> TruthBoxes3d:
    center = boxes.center.copy()
    center[:, 2] += by
    return replace(boxes, center=center)


def _sized(boxes: TruthBoxes3d) -> TruthBoxes3d:
    size = boxes.size.copy()
    size[0, 0] *= 6
    return replace(boxes, size=size)


def _speeding(boxes: TruthBoxes3d) -> TruthBoxes3d:
    velocity = boxes.velocity.copy()
    velocity[0] = 200
    return replace(boxes, velocity=velocity)


MISTAKES: dict[str, tuple[Change, str, str]] = {
    "millimetres": (lambda b: replace(b, center=b.center * 1000), "error", "are these millimetres?"),
    "twice": (lambda b: b.chosen(np.array([0, 1, 2, 3, 3])), "warning", "6 boxes are given twice"),
    "fast": (_speeding, "warning", "6 boxes are faster than 80 m/s, as box 0 of 000 with 282.8"),
    "size": (_sized, "warning", "6 boxes are of car of an odd size, as box 0 of 000"),
    "elsewhere": (lambda b: replace(b, center=b.center[:, [1, 0, 2]]), "error",
                  "are they in the frame of lidar"),
    "bottom": (lambda b: _up(b, -b.size[:, 2] / 2), "warning", "is it that of the bottom face"),
    "below": (lambda b: _up(b, -HEIGHT), "warning", "m above the ground"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_boxes_are_named(tmp_path: Path, mistake: str) -> None:
    change, severity, text = MISTAKES[mistake]
    root = write(tmp_path / "r", change)
    findings = found(root, "boxes3d")
    own = [f for f in findings if text in f.message]
    assert len(own) == 1 and own[0].severity == severity, findings
    assert own[0].frames and "\n" not in own[0].message
    if mistake in ("twice", "fast"):
        assert len(findings) == 1


def test_empty_boxes_are_a_remark_and_those_said_to_be_empty_or_a_few_are_none(
    tmp_path: Path,
) -> None:
    def away(boxes: TruthBoxes3d) -> TruthBoxes3d:
        center = boxes.center.copy()
        center[0, 1] += 15
        return replace(boxes, center=center)

    def said(boxes: TruthBoxes3d) -> TruthBoxes3d:
        return replace(away(boxes), points=np.array([0, -1, -1, -1]))

    def one_in_four(boxes: TruthBoxes3d) -> TruthBoxes3d:
        return away(boxes) if (boxes.center == boxes_at(0).center).all() else boxes

    assert not found(write(tmp_path / "c", one_in_four), "boxes3d")  # 1 of 24 may be hidden
    (one,) = found(write(tmp_path / "a", away), "boxes3d")
    assert (
        one.severity == "warning" and one.message == "6 of 24 boxes within 30 m hold no point: 000"
    )
    assert not found(write(tmp_path / "b", said), "boxes3d")


def test_degrees_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "r")
    path = root / "boxes3d/002.yaml"
    rows = yaml.safe_load(path.read_text())
    rows[0]["yaw"] = 45.0
    path.write_text(yaml.safe_dump(rows))
    (one,) = [f for f in found(root, "boxes3d") if f.severity == "error"]
    assert (
        "1 files (002.yaml) have a yaw of more than a whole turn: are these degrees?" in one.message
    )


def test_a_file_that_is_wrong_or_missing_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    root = write(tmp_path / "r", lambda b: b.chosen(np.array([0, 1, 2, 3, 3])))
    (root / "boxes3d/001.yaml").write_text("- {class: 0, center: [1, 2]}")
    (root / "boxes3d/003.yaml").unlink()
    (broken,) = [f for f in found(root, "boxes3d") if f.severity == "error"]
    assert broken.where.startswith("boxes3d/001.yaml"), broken
    texts = [f.message for f in found(root, "boxes3d")]
    assert any("4 boxes are given twice" in text for text in texts)
    assert any(text.startswith("1 of 6 frames have no file") for text in texts)


def test_boxes_in_space_alone_are_labels_enough(tmp_path: Path) -> None:
    root = write(tmp_path / "r")
    assert [f.severity for f in found(root, "boxes") if f.where == "boxes"] == ["warning"]
    for path in (root / "boxes3d").iterdir():
        path.unlink()
    assert [f.severity for f in found(root, "boxes") if f.where == "boxes"] == ["error"]


def test_mistakes_in_poses_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "a", base=False)
    (one,) = found(root, "poses.csv")
    assert one.severity == "warning" and "rig.yaml names none" in one.message
    (one,) = found(write(tmp_path / "b", speed=300.0), "poses.csv")
    assert one.severity == "warning" and one.message.startswith("5 jumps, as 30 m in 0.1 s")
    root = write(tmp_path / "c")
    path = root / "poses.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:4]))
    (one,) = found(root, "poses.csv")
    assert one.severity == "warning" and one.frames == ("004", "005")
    assert one.message == "2 of 6 frames have no pose at their stamp: 004"
    late = [line.replace("1000000000", "1700000000", 1) for line in lines]
    path.write_text("\n".join(late))
    (one,) = found(root, "poses.csv")
    assert one.severity == "error" and one.message.startswith("6 of 6 frames have no pose")


def test_poses_that_cannot_be_read_do_not_end_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "r")
    path = root / "poses.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[1]]))
    (one,) = found(root, "poses.csv")
    assert one.severity == "error" and "not later than the one before" in one.message
    assert main(["data", "check", str(root)]) == 2
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.realdata
def test_a_real_drive_and_its_import_are_right(tmp_path: Path, real_data: Path) -> None:
    from perception.data.folder import FolderRecording
    from perception.data.kitti import KITTI

    drive = real_data / "kitti_0005"
    out = tmp_path / "out"
    assert main(["data", "check", f"kitti:{drive}"]) == 0
    assert main(["data", "import", f"kitti:{drive}", "--out", str(out), "--limit", "6"]) == 0
    assert not check_folder(out)
    whole, taken = KITTI(drive), FolderRecording(out)
    for index, name in enumerate(taken.ids):
        own = whole.truth(whole.ids.index(name)).boxes3d
        boxes = taken.truth(index).boxes3d
        assert own is not None and boxes is not None and boxes.frame == "lidar"
        for field in ("center", "size", "yaw", "velocity"):
            assert np.allclose(getattr(boxes, field), getattr(own, field), atol=1e-4)
        for field in ("class_ids", "ignore", "track", "occlusion", "points"):
            assert (getattr(boxes, field) == getattr(own, field)).all()
    assert taken.trajectory is not None and whole.trajectory is not None
    assert taken.rig.base == whole.rig.base
    pose = whole.trajectory.at(taken.stamp_ns(3))
    assert pose is not None
    assert np.allclose(taken.trajectory.poses[3].matrix, pose.matrix, atol=1e-6)
