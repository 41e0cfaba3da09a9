"""KITTI drives in space: boxes, how they move, where the car was; on a made drive and on the real one."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from perception.data.kitti import KITTI
from perception.data.oxts import EARTH_RADIUS_M, read_row
from perception.errors import AnySenseError
from perception.geometry.boxes import inside
from perception.geometry.transforms import RigidTransform

FRAMES = 8
LATITUDE = 49.0
YAW = 0.3  # of the car, from east to north
SPEED = 5.0  # of the car, m/s
IMU = "R: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n"  # from the unit to the Velodyne

POSE = (
    "<item><tx>{x}</tx><ty>{y}</ty><tz>-1.73</tz><rx>0</rx><ry>0</ry><rz>{yaw}</rz><state>2</state>"
    "<occlusion>{occlusion}</occlusion><truncation>{truncation}</truncation></item>"
)


def _item(kind: str, first: int, poses: list[str]) -> str:
    return (
        f"<item><objectType>{kind}</objectType><h>1.5</h><w>1.8</w><l>4</l>"
        f"<first_frame>{first}</first_frame><poses>{''.join(poses)}</poses></item>"
    )


def drive(root: Path, oxts: bool = True) -> Path:
    """A car that goes straight on; one object stands, one goes ahead at 2 m/s to the car's left."""
    (root / "image_02").mkdir(parents=True)
    (root / "velodyne").mkdir()
    (root / "velodyne/0000000000.bin").touch()
    identity = "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n"
    (root / "calib_velo_to_cam.txt").write_text(identity)
    (root / "calib_imu_to_velo.txt").write_text(IMU)
    (root / "calib_cam_to_cam.txt").write_text(
        "S_rect_02: 1242 375\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
        "P_rect_02: 720 0 620 0 0 720 187 0 0 0 1 0\n"
    )
    first = datetime(2011, 9, 26, 13, 4, 32)
    lines = [f"{first + timedelta(seconds=0.1 * i):%Y-%m-%d %H:%M:%S.%f}000\n" for i in range(9)]
    for name in ("image_02", "velodyne_points"):
        (root / f"timestamps_{name}.txt").write_text("".join(lines))
    if oxts:
        (root / "oxts/data").mkdir(parents=True)
        (root / "oxts/timestamps.txt").write_text("".join(lines))
    scale = EARTH_RADIUS_M * math.cos(math.radians(LATITUDE))
    for i in range(FRAMES):
        (root / f"image_02/{i:010}.png").touch()
        if oxts:
            way = SPEED * 0.1 * i
            north, east = way * math.sin(YAW), way * math.cos(YAW)
            place = f"{LATITUDE + math.degrees(north / EARTH_RADIUS_M):.12f} "
            place += f"{8.4 + math.degrees(east / scale):.12f} 112.5"
            (root / f"oxts/data/{i:010}.txt").write_text(f"{place} 0 0 {YAW} 1 2 3")
    standing = [POSE.format(x=20 - 0.5 * i, y=3, yaw=0.1, occlusion=2, truncation=0)
                for i in range(FRAMES)]  # fmt: skip
    going = [POSE.format(x=9 - 0.5 * i, y=-2 + 0.2 * i, yaw=1.6, occlusion=0, truncation=t)
             for i, t in zip(range(2, 5), (0, 1, 99), strict=True)]  # fmt: skip
    truck = [POSE.format(x=30, y=0, yaw=0, occlusion=-1, truncation=-1)]
    items = _item("Car", 0, standing) + _item("Cyclist", 2, going) + _item("Truck", 5, truck)
    (root / "tracklet_labels.xml").write_text(f"<b><tracklets>{items}</tracklets></b>")
    return root


def test_boxes_are_the_tracklets_of_the_frame(tmp_path: Path) -> None:
    recording = KITTI(drive(tmp_path))
    boxes = recording.truth(2).boxes3d
    assert boxes is not None and boxes.frame == "lidar"
    assert boxes.class_ids.tolist() == [2, 1] and boxes.track.tolist() == [0, 1]
    assert np.allclose(boxes.center, [[19.0, 3.0, -1.73 + 0.75], [8.0, -1.6, -1.73 + 0.75]])
    assert np.allclose(boxes.size, [4.0, 1.8, 1.5]) and np.allclose(boxes.yaw, [0.1, 1.6])
    assert boxes.occlusion.tolist() == [3, 0] and not boxes.ignore.any()
    assert boxes.points.tolist() == [-1, -1]
    later = [recording.truth(i).boxes3d for i in (3, 4)]
    assert [b.occlusion[1] for b in later if b is not None] == [1, 3]  # cut off; behind the camera
    truck = recording.truth(5).boxes3d
    assert truck is not None
    assert truck.class_ids.tolist() == [2, 0, 1, 2] and truck.ignore.tolist() == [
        False,
        *[True] * 3,
    ]
    assert truck.occlusion.tolist() == [3, -1, -1, -1]


def test_velocities_are_over_the_ground(tmp_path: Path) -> None:
    recording = KITTI(drive(tmp_path))
    for i in range(FRAMES):
        boxes = recording.truth(i).boxes3d
        assert boxes is not None
        assert np.allclose(boxes.velocity[0], 0, atol=2e-3)  # it stands, as the car drives by
        if 2 <= i < 5:
            assert np.allclose(boxes.velocity[1], [0, 2], atol=2e-3)
    truck = recording.truth(5).boxes3d
    assert truck is not None and np.isnan(truck.velocity[1:]).all()  # seen but once


def test_without_poses_nothing_is_known_of_velocities(tmp_path: Path) -> None:
    recording = KITTI(drive(tmp_path, oxts=False))
    boxes = recording.truth(2).boxes3d
    assert recording.trajectory is None
    assert boxes is not None and len(boxes) == 2 and np.isnan(boxes.velocity).all()


def test_the_base_is_on_the_road_below_the_velodyne(tmp_path: Path) -> None:
    recording = KITTI(drive(tmp_path))
    rig, trajectory = recording.rig, recording.trajectory
    placed, camera = rig.in_base("lidar"), rig.in_base("rgb")
    assert rig.base == "base_link" and placed is not None and camera is not None
    assert np.allclose(placed.apply(np.array([[1.0, 2, 0]])), [[1, 2, 1.73]])
    assert np.allclose(camera.apply(np.array([[0, 0, 5.0]])), [[5, 0, 1.73]])
    assert trajectory is not None and len(trajectory) == FRAMES
    ahead = trajectory.moved(int(trajectory.stamps_ns[4]), int(trajectory.stamps_ns[0]))
    assert ahead is not None
    assert np.allclose(ahead.translation, [SPEED * 0.4, 0, 0], atol=1e-3)
    first = trajectory.poses[0]
    # The unit is 0.8 m behind and 0.3 m left of the Velodyne, 0.93 m above the road.
    unit = first.apply(np.array([[-0.8, 0.3, 0.93]]))
    assert np.allclose(unit, 0, atol=1e-9)
    assert np.allclose(first.rotation[:2, 0], [math.cos(YAW), math.sin(YAW)])


def test_stamps_that_go_back_are_left_out(tmp_path: Path) -> None:
    root = drive(tmp_path)
    lines = (root / "oxts/timestamps.txt").read_text().splitlines()
    lines[3] = lines[1]
    (root / "oxts/timestamps.txt").write_text("\n".join(lines))
    trajectory = KITTI(root).trajectory
    assert trajectory is not None and len(trajectory) == FRAMES - 1


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("oxts/data/0000000002.txt", "49 8", "has 2 numbers, expected latitude"),
        ("oxts/data/0000000002.txt", "49 8 x 0 0 0", "not numbers"),
        ("oxts/data/0000000002.txt", "nan 8 1 0 0 0", "is no place"),
        ("oxts/data/0000000002.txt", "4900 8 1 0 0 0", "is no place"),
        ("oxts/data/0000000002.txt", "49 8 1 0 0 90", "no angles in radians"),
        ("oxts/data/next.txt", "49 8 1 0 0 0", "no frame number"),
        ("oxts/timestamps.txt", "yesterday", "not a time stamp"),
        ("calib_imu_to_velo.txt", "R: 1 0 0\nT: 0 0 0\n", "'R' has 3 numbers"),
        ("tracklet_labels.xml", "<b><tracklets><item><objectType>Car</objectType><h>1</h><w>1</w><l>1</l>"
         "<first_frame>0</first_frame><poses><item><tx>1</tx><ty>1</ty><tz>1</tz><rz>0</rz>"
         "<occlusion>much</occlusion></item></poses></item></tracklets></b>", "occlusion is no number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, file: str, text: str, what: str) -> None:
    root = drive(tmp_path)
    (root / file).write_text(text)
    with pytest.raises(AnySenseError, match=what) as caught:
        KITTI(root)
    assert Path(file).name in str(caught.value) or file.endswith("next.txt")
    assert "\n" not in str(caught.value)


def test_a_row_of_oxts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0.txt"
    path.write_text("49.0 8.4 112.8 0.02 0.01 -1.2 5 6 7 8")
    assert read_row(path).tolist() == [49.0, 8.4, 112.8, 0.02, 0.01, -1.2]


@pytest.mark.realdata
def test_a_real_drive(real_data: Path) -> None:
    """Boxes hold points, parked cars stand, and clouds of a second apart lie on each other."""
    recording = KITTI(real_data / "kitti_0005")
    speeds: dict[int, list[float]] = {}
    for index in range(0, len(recording), 7):
        cloud, boxes = recording.frame(index)["lidar"], recording.truth(index).boxes3d
        assert boxes is not None and cloud.pose is not None
        counts = inside(cloud.data, boxes.center, boxes.size, boxes.yaw).sum(axis=1)
        assert (counts[boxes.occlusion == 0] > 100).all() and (counts > 20).all()
        for track, velocity in zip(boxes.track, boxes.velocity, strict=True):
            speeds.setdefault(int(track), []).append(float(np.linalg.norm(velocity)))
    median = {track: np.nanmedian(own) for track, own in speeds.items()}
    assert 3 < median[0] < 7 and 2 < median[1] < 6  # a van and a cyclist drive, one car is parked
    assert median[3] < 0.6
    apart = [_apart(recording, moved) for moved in (True, False)]
    assert apart[0] < 0.25 < 3 * apart[0] < apart[1]


def _apart(recording: KITTI, moved: bool) -> float:
    """How far points of a cloud lie from those of one a second before: with the car's motion, or without."""
    from scipy.spatial import cKDTree

    clouds = []
    for index in (10, 20):
        sample = recording.frame(index)["lidar"]
        points = sample.data[:, :3].astype(float)
        points = points[(np.linalg.norm(points[:, :2], axis=1) < 30) & (points[:, 2] > -1.2)]
        trajectory, placed = recording.trajectory, sample.pose
        assert trajectory is not None and placed is not None
        pose = trajectory.at(sample.time_ns) if moved else RigidTransform.identity()
        assert pose is not None
        clouds.append((pose @ placed).apply(points))
    return float(np.median(cKDTree(clouds[0]).query(clouds[1][::10])[0]))
