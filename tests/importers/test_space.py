"""A recording that is imported keeps its boxes in space, its poses and the times of its points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_sets import Import

from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

CLASSES = (
    ClassInfo(0, "car", (1, 2, 3)), ClassInfo(1, "truck", (4, 5, 6)), ClassInfo(2, "tree", (7, 8, 9))
)  # fmt: skip


def write(root: Path, frame: str) -> FolderRecording:
    """Three frames of a LiDAR, with a region to be ignored of two classes."""
    info = folder_info(
        name="r",
        sensors={"lidar": "lidar"},
        size=(24, 32),
        seg_classes=(),
        det_classes=CLASSES,
        boxes3d_frame="" if frame else "base",
        rate_hz=10.0,
    )
    place = RigidTransform(np.eye(3), np.array([0, 0, 1.8]))
    rig = Rig({"lidar": SensorCalibration(None, None, pose=Pose(place))}, "base_link")
    rng = np.random.default_rng(0)
    with FolderWriter(root, info, rig) as writer:
        for index in range(3):
            points = rng.uniform([4, -9, -2, 0], [40, 9, 2, 1], (50, 4)).astype(np.float32)
            boxes = TruthBoxes3d.of(
                [[9, 0, 0.8], [20, 3, 0.8], [20, 3, 0.8], [5, -4, 2]],
                [[4, 2, 1.6]] * 4,
                [0.1, 1, 1, 0],
                [0, 0, 1, 2],
                [False, True, True, False],
                [[1, 0.5], [np.nan, np.nan], [np.nan, np.nan], [0, 0]],
                track=[5, 6, 6, 7],
                frame=frame,
            )
            writer.add(
                f"{index}",
                {"lidar": points},
                stamp_ns=10**18 + index * 10**8,
                boxes3d=boxes if index else None,
                times={"lidar": points[:, 3] * np.float32(0.1)},
                pose=RigidTransform(np.eye(3), np.array([index, 2.0, 0])),
            )
    return FolderRecording(root)


@pytest.mark.parametrize("frame", ["lidar", ""])
def test_what_is_known_in_space_is_kept(imported: Import, tmp_path: Path, frame: str) -> None:
    whole = write(tmp_path / "r", frame)
    taken = imported(f"folder:{tmp_path / 'r'}", check=False)
    assert taken.ids == whole.ids and taken.rig.base == "base_link"
    for index in range(3):
        own, found = (r.truth(index).boxes3d for r in (whole, taken))
        if own is None:
            assert found is None and index == 0
            continue
        assert found is not None and found.frame == own.frame == frame
        for name in ("center", "size", "yaw", "class_ids", "ignore", "velocity", "track"):
            np.testing.assert_array_equal(getattr(found, name), getattr(own, name))
        samples = [r.frame(index)["lidar"] for r in (whole, taken)]
        assert samples[1].times is not None
        np.testing.assert_array_equal(samples[1].data, samples[0].data)
        assert np.allclose(samples[1].times, samples[1].data[:, 3] * 0.1)
    assert taken.trajectory is not None
    assert [p.translation[0] for p in taken.trajectory.poses] == [0, 1, 2]


def test_classes_that_are_joined_or_left_out(
    imported: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "r", "lidar")
    options = ("--classes", "car=vehicle,truck=vehicle")
    taken = imported(f"folder:{tmp_path / 'r'}", *options, check=False)
    assert "boxes in space 2: vehicle 2" in " ".join(capsys.readouterr().out.split())
    boxes = taken.truth(1).boxes3d
    assert boxes is not None and boxes.class_ids.tolist() == [0, 0]
    assert boxes.ignore.tolist() == [False, True] and boxes.track.tolist() == [5, 6]
