"""Boxes in space on the page of a recording: edges in pictures, points and boxes from above."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.viz.space import draw_edges, draw_from_above

RED = ClassInfo(0, "car", (230, 0, 0))
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # to a frame with x forward
CAMERA = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)


def rig(base: str = "base_link") -> Rig:
    """A LiDAR, a camera that looks ahead and one that looks back."""
    back = RigidTransform(np.diag([-1.0, -1, 1]) @ OPTICAL, np.array([-1.0, 0, 1.5]))
    sensors = {
        "front": SensorCalibration(CAMERA, None, "front", kind="rgb",
                                   pose=Pose(RigidTransform(OPTICAL, np.array([1.0, 0, 1.5])))),
        "rear": SensorCalibration(CAMERA, None, "rear", kind="rgb", pose=Pose(back)),
        "lidar": SensorCalibration(None, None, "lidar",
                                   pose=Pose(RigidTransform(np.eye(3), np.array([0, 0, 1.8])))),
    }  # fmt: skip
    return Rig(sensors, base, "front")


def boxes(x: float = 12.0, y: float = 3.0, frame: str = "lidar") -> TruthBoxes3d:
    z = -1.0 if frame else 0.8
    return TruthBoxes3d.of(
        [[x, y, z]], [[4.0, 2.0, 1.6]], [0.2], [0], velocity=[[6.0, 0]], frame=frame
    )


def _frame() -> Frame:
    gray = np.random.default_rng(0).integers(80, 100, (120, 160, 3), np.uint8)
    points = np.array([[12.0, 3, -1, 0.5], [12, 2.5, -0.5, 0.5], [30, -9, 0, 0.5]], np.float32)
    samples = {
        "front": Sample("rgb", gray, 1, sensor="front"),
        "rear": Sample("rgb", gray, 1, sensor="rear"),
        "lidar": Sample("lidar", points, 1),
    }
    return Frame({name: rig().attach(sample) for name, sample in samples.items()})


@pytest.mark.parametrize("frame", ["lidar", ""])
def test_edges_lie_on_the_object_in_the_camera_that_sees_it(frame: str) -> None:
    shown, sample = _frame(), _frame()["front"]
    drawn = draw_edges(sample.data, sample, boxes(frame=frame), rig(), [RED])
    assert drawn is not None
    rows, columns = np.nonzero(drawn[..., 0] > 150)
    # 11 m ahead of the camera, 3 m to its left
    assert abs(columns.mean() - (79.5 - 100 * 3 / 11)) < 4 and 55 < rows.mean() < 75
    rear = draw_edges(shown["rear"].data, shown["rear"], boxes(frame=frame), rig(), [RED])
    assert rear is not None and (rear == shown["rear"].data).all()


def test_where_it_is_not_known_how_a_camera_sees_it_nothing_is_drawn() -> None:
    shown = _frame()
    sample = shown["front"]
    bare = Rig({})
    assert draw_edges(sample.data, sample, boxes(), bare, [RED]) is None
    assert draw_edges(sample.data, sample, boxes(frame=""), bare, [RED]) is None
    assert draw_edges(sample.data, shown["lidar"], boxes(), rig(), [RED]) is None


def _red(image: np.ndarray) -> np.ndarray:
    return np.argwhere((image[..., 0] > 120) & (image[..., 1] < 90))


def test_from_above_points_lie_in_their_box() -> None:
    shown = _frame()
    one, other = (draw_from_above(shown, boxes(frame=f), rig(), [RED]) for f in ("lidar", ""))
    assert (one == other).all()
    row, column = _red(one).mean(axis=0)
    top, left = _red(one).min(axis=0)
    bottom, right = _red(one).max(axis=0)
    assert row < one.shape[0] * 0.6 and column < one.shape[1] / 2  # ahead, to the left
    inside = one[top + 3 : bottom - 3, left + 3 : right - 3]
    assert (inside.min(axis=2) > 80).any()  # the points
    unplaced = draw_from_above(shown, boxes(), Rig({}), [RED])
    assert len(_red(unplaced))  # about the LiDAR, as nothing says where it sits
    empty = TruthBoxes3d.of([], [], [], [], frame="lidar")
    assert not len(_red(draw_from_above(shown, empty, rig(), [RED])))


def test_what_is_behind_is_shown_too() -> None:
    ahead, behind = (draw_from_above(_frame(), boxes(x=x), rig(), [RED]) for x in (12.0, -12.0))
    assert behind.shape[0] / behind.shape[1] > ahead.shape[0] / ahead.shape[1]
    assert _red(behind).mean(axis=0)[0] > behind.shape[0] / 2


def test_the_page_shows_them(tmp_path: Path) -> None:
    root, sensors = tmp_path / "r", {"front": "rgb", "rear": "rgb", "lidar": "lidar"}
    info = folder_info(
        name="r", sensors=sensors, size=(120, 160), seg_classes=(), det_classes=(RED,), rate_hz=10
    )
    with FolderWriter(root, info, rig()) as writer:
        for index in range(3):
            arrays = {name: sample.data for name, sample in _frame().items()}
            found = boxes() if index else None
            writer.add(f"{index}", arrays, stamp_ns=10**18 + index * 10**8, boxes3d=found)
    page = tmp_path / "page.html"
    assert main(["data", "check", str(root), "--html", str(page)]) == 0
    text = page.read_text()
    samples = text[text.index("<h2>Samples") :]
    assert samples.count("<figcaption>front, boxes in space</figcaption>") == 2
    assert samples.count("<figcaption>rear, boxes in space</figcaption>") == 2
    assert samples.count("<figcaption>from above</figcaption>") == 2
    assert samples.count("<figcaption>front</figcaption>") == 1  # where there is nothing in space
    assert samples.count("1 box in space") == 2
    assert re.search("boxes in space of.*?<tr><th>car</th>(<td>[0-9]</td>)*<td>2</td>", text)
    assert len(FolderRecording(root)) == 3
