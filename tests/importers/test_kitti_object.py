"""KITTI object benchmark: labels, calibration, boxes in the frame of the LiDAR, several calibrations."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
import yaml
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st

from perception.data.check import check_folder
from perception.errors import AnySenseError
from perception.importers.kitti_object import read_rows

HEIGHT, WIDTH = 40, 120
CAR = "Car 0.00 0 -1.57 50.00 15.00 70.00 30.00 1.50 1.60 4.00 {x} 1.65 {z} {turn}"


def calib(focal: float = 100.0) -> str:
    """A camera ahead of whose rectified frame the LiDAR looks along z."""
    p = f"{focal} 0 59.5 6.0 0 {focal} 19.5 0 0 0 1 0.003"
    lines = [f"P{i}: {p}" for i in range(4)]
    lines += ["R0_rect: 1 0 0 0 1 0 0 0 1", "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3"]
    return "\n".join([*lines, "Tr_imu_to_velo: 1 0 0 0 0 1 0 0 0 0 1 0", ""])


def points(count: int = 200) -> np.ndarray:
    """Points ahead, with reflectances."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform([4, -5, -1.5], [20, 5, 0.5], (count, 3))
    return np.column_stack([xyz, rng.uniform(0, 1, count)]).astype("<f4")


def kitti_object(root: Path, frames: int = 3, turn: float = 0.3) -> Path:
    """Training frames, the last without a text of labels."""
    for index in range(frames):
        name, folder = f"{index:06d}", root / "training"
        foreign.picture(folder / "image_2" / f"{name}.png", HEIGHT, WIDTH, seed=index)
        for kind in ("velodyne", "calib", "label_2"):
            (folder / kind).mkdir(exist_ok=True)
        points().tofile(folder / "velodyne" / f"{name}.bin")
        (folder / "calib" / f"{name}.txt").write_text(calib())
        if index < frames - 1:
            row = CAR.format(x=1.0, z=12.0, turn=turn)
            ignored = "DontCare -1 -1 -10 5 5 20 20 -1 -1 -1 -1000 -1000 -1000 -10"
            (folder / "label_2" / f"{name}.txt").write_text(f"{row}\r\n{ignored}\r\n")
    return root


def test_boxes_in_picture_and_space(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"kitti_object:{kitti_object(tmp_path / 'set')}")
    boxes = recording.truth(0).boxes
    assert boxes is not None and boxes.xyxy[~boxes.ignore].round(2).tolist() == [[50, 15, 70, 30]]
    apart = boxes.xyxy[boxes.ignore].round(2)  # DontCare, of whatever class
    assert len(apart) == 8 and (apart == [5, 5, 20, 20]).all()
    assert boxes.class_ids[boxes.ignore].tolist() == list(range(8))
    assert recording.truth(2).boxes is None
    (solid,) = yaml.safe_load((recording.root / "boxes3d/000000.yaml").read_text())
    # camera 0: right, down, ahead; the LiDAR 0.3 m behind it and 0.1 m above
    assert np.allclose(solid["center"], [12.3, -1.0, -(1.65 - 0.75) - 0.1], atol=1e-3)
    assert solid["size"] == [4.0, 1.6, 1.5]
    assert math.isclose(solid["yaw"], -0.3 - math.pi / 2, abs_tol=1e-4)
    sample = recording.frame(0)["lidar"]
    assert sample.camera is not None and sample.extrinsics is not None
    assert np.allclose(sample.data, points())


def test_a_region_to_be_ignored_is_there_once_for_each_class_taken(
    tmp_path: Path, capsys: Any
) -> None:
    from perception.cli.main import main
    from perception.data.folder import FolderRecording

    root, out = kitti_object(tmp_path / "set"), tmp_path / "out"
    options = ["--classes", "Car=vehicle,Van=vehicle,Pedestrian=person", "--size", "100x80"]
    assert main(["data", "import", f"kitti_object:{root}", "--out", str(out), *options]) == 0
    assert "4 boxes are to be ignored" in " ".join(capsys.readouterr().out.split())
    recording = FolderRecording(out)
    boxes = recording.truth(0).boxes
    assert boxes is not None
    assert boxes.class_ids.tolist() == [0, 0, 1] and boxes.ignore.tolist() == [False, True, True]
    again = tmp_path / "again"  # a recording that is imported keeps them
    assert main(["data", "import", f"folder:{out}", "--out", str(again)]) == 0
    copied = FolderRecording(again).truth(0).boxes
    assert copied is not None and copied.ignore.tolist() == boxes.ignore.tolist()
    assert np.allclose(copied.xyxy, boxes.xyxy, atol=1e-3)


def test_each_calibration_is_a_recording(tmp_path: Path, capsys: Any) -> None:
    from perception.cli.main import main
    from perception.data.folder import FolderRecording

    root, out = kitti_object(tmp_path / "set"), tmp_path / "out"
    (root / "training/calib/000001.txt").write_text(calib(90.0))
    assert main(["data", "import", f"kitti_object:{root}", "--out", str(out)]) == 0
    assert "2 calibrations" in capsys.readouterr().out
    parts = [FolderRecording(out / f"part-{i:02d}") for i in range(2)]
    assert [p.ids for p in parts] == [["000000", "000002"], ["000001"]]
    assert [p.rig.sensors["rgb"].camera.fx for p in parts] == [100.0, 90.0]  # type: ignore[union-attr]


def test_without_clouds_one_recording(imported: Import, tmp_path: Path) -> None:
    root = kitti_object(tmp_path / "set")
    (root / "training/calib/000001.txt").write_text(calib(90.0))
    shutil.rmtree(root / "training/velodyne")
    recording = imported(f"kitti_object,lidar=false:{root}")
    assert len(recording.ids) == 3 and not recording.rig.sensors


@pytest.mark.parametrize(
    ("truncation", "occlusion", "expected"),
    [("0.00", 0, 0), ("0.10", 1, 1), ("0.20", 0, 1), ("0.40", 1, 2), ("0.60", 0, 3), ("0", 2, 2),
     ("0.00", 3, -1), ("-1", -1, -1)],
)  # fmt: skip
def test_how_much_is_hidden(
    imported: Import, tmp_path: Path, truncation: str, occlusion: int, expected: int
) -> None:
    root = kitti_object(tmp_path / "set")
    row = CAR.format(x=1.0, z=12.0, turn=0.3).replace("0.00 0", f"{truncation} {occlusion}")
    (root / "training/label_2/000000.txt").write_text(row)
    boxes = imported(f"kitti_object:{root}").truth(0).boxes3d
    assert boxes is not None and boxes.occlusion.tolist() == [expected]


def test_the_base_is_on_the_road_below_the_lidar(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"kitti_object:{kitti_object(tmp_path / 'set')}")
    frame, boxes = recording.frame(0), recording.truth(0).boxes3d
    pose, camera = frame["lidar"].pose, frame["rgb"].pose
    assert pose is not None and camera is not None and boxes is not None
    assert np.allclose(pose.translation, [0, 0, 1.73])
    assert np.allclose(boxes.moved(pose).center[0, 2], 1.73 - 0.1 - (1.65 - 0.75), atol=1e-3)
    # camera 2 is 0.3 m ahead of and 0.1 m below the LiDAR, and beside camera 0 by its P2
    assert np.allclose(camera.translation, [0.3 - 0.003, 0.06, 1.63], atol=2e-3)


def test_boxes_without_the_lidar_are_in_the_base(imported: Import, tmp_path: Path) -> None:
    root = kitti_object(tmp_path / "set")
    recording = imported(f"kitti_object,lidar=false:{root}")
    boxes = recording.truth(0).boxes3d
    assert boxes is not None and boxes.frame == ""
    assert np.allclose(boxes.center, [[12.3, -1.0, 1.73 - (1.65 - 0.75) - 0.1]], atol=1e-3)


def test_a_folder_of_ones_own_with_types_of_its_own(imported: Import, tmp_path: Path) -> None:
    root = kitti_object(tmp_path / "set") / "training"
    for name, kinds in (("000000", ("Forklift", "Car")), ("000001", ("Pallet", "Forklift"))):
        rows = [CAR.format(x=1.0, z=12.0, turn=0.3).replace("Car", kind) for kind in kinds]
        rows.append("DontCare -1 -1 -10 5 5 20 20 -1 -1 -1 -1000 -1000 -1000 -10")
        (root / "label_2" / f"{name}.txt").write_text("\n".join(rows))
    recording = imported(f"kitti_object,types=any,height_m=0.9:{root}")
    assert [c.name for c in recording.info.det_classes] == ["Forklift", "Car", "Pallet"]
    first, second = (recording.truth(i) for i in range(2))
    assert first.boxes3d is not None and first.boxes3d.class_ids.tolist() == [0, 1]
    assert second.boxes3d is not None and second.boxes3d.class_ids.tolist() == [2, 0]
    assert first.boxes is not None and first.boxes.ignore.sum() == 3  # the region, of each class
    pose = recording.frame(0)["lidar"].pose
    assert pose is not None and np.allclose(pose.translation, [0, 0, 0.9])


@pytest.mark.parametrize(
    ("option", "what"),
    [("types=some", "there are no types 'some'"), ("height_m=25", "height_m of 25"),
     ("height_m=1730", "height_m of 1730")],
)  # fmt: skip
def test_wrong_options_are_named(refused: Any, tmp_path: Path, option: str, what: str) -> None:
    assert what in refused(f"kitti_object,{option}:{kitti_object(tmp_path / 'set')}")


FAULTS = {
    "label_2/000000.txt": {
        "Car 1 2 3": "000000.txt:1: not an object: 4 columns",
        CAR.format(x="a", z=1, turn=1): "000000.txt:1: not an object: not numbers",
        CAR.format(x="inf", z=1, turn=1): "000000.txt:1: not an object: not finite",
        CAR.format(x=1, z=1, turn=1).replace("Car", "Boat"): "unknown type 'Boat'",
    },
    "calib/000000.txt": {
        "P2: 1 2 3": "'P2' has 3 numbers",
        calib().replace("Tr_velo_to_cam", "Tr_v"): "no entry 'Tr_velo_to_cam'",
        calib().replace("P2: 100.0", "P2: nan"): "'P2' is not finite",
    },
}


@pytest.mark.parametrize(
    ("file", "text"), [(file, text) for file, texts in FAULTS.items() for text in texts]
)
def test_what_is_wrong_is_named(refused: Any, tmp_path: Path, file: str, text: str) -> None:
    root = kitti_object(tmp_path / "set")
    (root / "training" / file).write_text(text)
    line = refused(f"kitti_object:{root}")
    assert FAULTS[file][text] in line and Path(file).name in line


def test_a_cloud_of_another_kind_is_named(refused: Any, tmp_path: Path) -> None:
    root = kitti_object(tmp_path / "set")
    (root / "training/velodyne/000001.bin").write_bytes(b"123")
    assert "000001.bin" in refused(f"kitti_object:{root}")


@given(text=st.text(alphabet="Car DontCare0123456789.-\n", max_size=150))
def test_any_text_is_objects_or_one_error(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "label.txt"
    path.write_text(text)
    try:
        assert all(np.isfinite(row.box).all() for row in read_rows(path))
    except AnySenseError as error:
        assert "label.txt" in error.where


def inside(cloud: np.ndarray, box: dict[str, Any]) -> int:
    """Points within a box that is turned about z."""
    c, s = math.cos(box["yaw"]), math.sin(box["yaw"])
    local = (cloud[:, :3] - box["center"]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return int((np.abs(local) <= np.array(box["size"]) / 2).all(axis=1).sum())


@pytest.mark.realdata
def test_a_real_frame(imported: Import, tmp_path: Path, real_data: Path) -> None:
    """Boxes hold as many points as the data set's own tools found in them."""
    own = real_data / "kitti_object_000008"
    (info,) = json.loads((own / "info.json").read_text())["data_list"]
    root = tmp_path / "set/training"
    for kind in ("image_2", "velodyne", "calib", "label_2"):
        (root / kind).mkdir(parents=True)
    shutil.copy(own / "000008.png", root / "image_2")
    shutil.copy(own / "000008.bin", root / "velodyne")

    def words(matrix: Any, *shape: int) -> str:
        values = np.array(matrix, float)[: shape[0], : shape[1]]
        return " ".join(f"{v:.12e}" for v in values.reshape(-1))

    images = info["images"]
    lines = [f"P2: {words(images['CAM2']['cam2img'], 3, 4)}"]
    lines.append(f"R0_rect: {words(images['R0_rect'], 3, 3)}")
    lines.append(f"Tr_velo_to_cam: {words(info['lidar_points']['Tr_velo_to_cam'], 3, 4)}")
    (root / "calib/000008.txt").write_text("\n".join(lines))
    kinds = ("Pedestrian", "Cyclist", "Car")
    known = [one for one in info["instances"] if one["bbox_label"] >= 0]
    rows = []
    for one in known:
        x, y, z, length, high, wide, turn = one["bbox_3d"]
        box = " ".join(map(str, one["bbox"]))
        rows.append(
            f"{kinds[one['bbox_label']]} 0 0 0 {box} {high} {wide} {length} {x} {y} {z} {turn}"
        )
    (root / "label_2/000008.txt").write_text("\n".join(rows))
    recording = imported(f"kitti_object:{tmp_path / 'set'}")
    solid = yaml.safe_load((recording.root / "boxes3d/000008.yaml").read_text())
    cloud = recording.frame(0)["lidar"].data
    truth, pose = recording.truth(0).boxes3d, recording.frame(0)["lidar"].pose
    assert truth is not None and pose is not None and truth.frame == "lidar"
    stands = truth.moved(pose).center[:, 2] - truth.size[:, 2] / 2  # above the road
    assert (np.abs(stands) < 0.4).all() and not check_folder(recording.root)
    for box, one in zip(solid, known, strict=True):
        # they counted within the picture's edges alone, which cut through the first
        assert abs(inside(cloud, box) - one["num_lidar_pts"]) <= 2 + 0.08 * one["num_lidar_pts"]
