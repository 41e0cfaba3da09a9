"""nuScenes: quaternions, cars that move, boxes in space and in a picture; of a real frame, too."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
import yaml
from foreign_sets import Import

from perception.data.check import check_folder
from perception.geometry.transforms import RigidTransform

STAMP_US = 1_532_402_927_647_951
LOOK = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # optical to car: z ahead, x right


def pose(transform: RigidTransform) -> dict[str, Any]:
    x, y, z, w = transform.quaternion_xyzw
    return {"rotation": [w, x, y, z], "translation": transform.translation.tolist()}


def about_z(yaw: float, *place: float) -> RigidTransform:
    c, s = math.cos(yaw), math.sin(yaw)
    return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.array(place))


def tables(
    root: Path,
    samples: list[dict[str, Any]],
    boxes: list[tuple[int, str, RigidTransform, list[float], int]],
) -> Path:
    """The JSON tables.

    Args:
        root: of the data set.
        samples: by sensor (channel) its file, place on the car, the car's pose, and intrinsics with size.
        boxes: number of the sample, category, pose in the world, width length height, LiDAR points.
    """
    every: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in (
            "scene", "sample", "sample_data", "calibrated_sensor", "sensor", "ego_pose",
            "sample_annotation", "instance", "category",
        )
    }  # fmt: skip
    every["scene"] = [{"token": f"s{i}", "name": f"scene-{i:04d}"} for i in range(2)]
    for number, sample in enumerate(samples):
        token = f"sample{number}"
        every["sample"].append(
            {"token": token, "timestamp": STAMP_US + 500_000 * number,
             "scene_token": f"s{number % 2}"}
        )  # fmt: skip
        for channel, (name, place, moved, camera) in sample.items():
            key = f"{channel}{number}"
            modality = "camera" if camera else "lidar"
            every["sensor"].append({"token": key, "channel": channel, "modality": modality})
            every["calibrated_sensor"].append(
                {"token": key, "sensor_token": key, **pose(place),
                 "camera_intrinsic": camera[0] if camera else []}
            )  # fmt: skip
            every["ego_pose"].append({"token": key, **pose(moved)})
            size = camera[1] if camera else (0, 0)
            every["sample_data"].append(
                {"token": key, "sample_token": token, "ego_pose_token": key,
                 "calibrated_sensor_token": key, "filename": name, "is_key_frame": True,
                 "width": size[0], "height": size[1]}
            )  # fmt: skip
    for index, (number, category, place, size, count) in enumerate(boxes):
        every["category"].append({"token": f"c{index}", "name": category})
        every["instance"].append({"token": f"i{index}", "category_token": f"c{index}"})
        every["sample_annotation"].append(
            {"token": f"a{index}", "sample_token": f"sample{number}", "instance_token": f"i{index}",
             **pose(place), "size": size, "num_lidar_pts": count, "num_radar_pts": 0}
        )  # fmt: skip
    for name, rows in every.items():
        foreign.write_json(root / "v1.0-mini" / f"{name}.json", rows)
    return root


def nuscenes(root: Path) -> Path:
    """Two scenes of one frame each: a camera and a LiDAR on a car that turned and moved."""
    car = about_z(0.7, 400.0, 1200.0, 0.0)
    later = about_z(0.7, 400.5, 1200.4, 0.0)
    k = [[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]
    samples = []
    for number in range(2):
        foreign.picture(root / f"samples/CAM_FRONT/{number}.jpg", seed=number)
        rng = np.random.default_rng(number)
        cloud = rng.uniform([-5, 3, -1, 0, 0], [5, 20, 1, 1, 31], (200, 5)).astype("<f4")
        (root / "samples/LIDAR_TOP").mkdir(exist_ok=True)
        cloud.tofile(root / f"samples/LIDAR_TOP/{number}.pcd.bin")
        lidar = about_z(-math.pi / 2, 0.9, 0.0, 1.8)  # x to the right, y ahead
        camera = RigidTransform(LOOK, np.array([1.7, 0.0, 1.5]))
        samples.append(
            {
                "CAM_FRONT": (f"samples/CAM_FRONT/{number}.jpg", camera, later, (k, (64, 48))),
                "LIDAR_TOP": (f"samples/LIDAR_TOP/{number}.pcd.bin", lidar, car, None),
            }
        )
    ahead = car @ about_z(0.2, 11.7, 0.5, 1.0)  # of the car as it was with the LiDAR
    boxes = [
        (0, "vehicle.car", ahead, [2.0, 4.0, 1.5], 5),
        (0, "vehicle.car", ahead, [2.0, 4.0, 1.5], 0),
        (0, "animal", ahead, [1.0, 1.0, 1.0], 5),
        (0, "human.pedestrian.adult", car @ about_z(0, -9, 0, 1), [0.5, 0.5, 1.8], 5),
    ]
    return tables(root, samples, boxes)


def test_boxes_of_a_car_that_moves(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"nuscenes:{nuscenes(tmp_path / 'set')}", check=False)
    assert dict(recording.info.sensors) == {"cam_front": "rgb", "lidar_top": "lidar"}
    assert recording.stamp_ns(0) == STAMP_US * 1000
    assert recording.tags(0) == {"seq:scene-0000"}
    solid = yaml.safe_load((recording.root / "boxes3d" / f"{recording.ids[0]}.yaml").read_text())
    names = [recording.info.det_classes[b["class"]].name for b in solid]
    assert names == ["car", "car", "pedestrian"]  # the second without a point
    assert [b.get("ignore") for b in solid] == [None, True, None]
    # in the LiDAR's frame, x to the right: 10.8 m ahead of it, 0.5 m to the left
    assert np.allclose(solid[0]["center"], [-0.5, 10.8, -0.8], atol=1e-3)
    assert solid[0]["size"] == [4.0, 2.0, 1.5]
    assert math.isclose(solid[0]["yaw"], 0.2 + math.pi / 2, abs_tol=1e-4)
    boxes = recording.truth(0).boxes
    assert boxes is not None and boxes.class_ids.tolist() == [names.index("car") + 3] * 2
    assert boxes.ignore.tolist() == [False, True]
    x0, y0, x1, y1 = boxes.xyxy[0]
    # the car had moved by 0.64 m when the picture was taken
    assert y0 < 27 < y1 and 20 < x0 < x1 < 40 and x1 - x0 > 10


def test_places_of_sensors(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"nuscenes:{nuscenes(tmp_path / 'set')}", check=False)
    rig = recording.rig
    assert rig.base == "base_link" and rig.reference == "cam_front"
    point = np.array([[0.0, 10.0, 0.0]])  # ahead of the LiDAR
    found = rig.between("lidar_top", "cam_front").apply(point)
    assert np.allclose(found, [[0.0, 1.5 - 1.8, 10.9 - 1.7]], atol=1e-6)


def test_splits_by_scene(imported: Import, tmp_path: Path) -> None:
    root = nuscenes(tmp_path / "set")
    recording = imported(f"nuscenes:{root}", "--val-sequences", "scene-0001", check=False)
    assert [recording.tags(i) & {"train", "val"} for i in range(2)] == [{"train"}, {"val"}]


def moving(root: Path, visibility: str = "3") -> Path:
    """One car in four samples of one scene, which drives away at 5 m/s; ours follows at 3."""
    samples, boxes = [], []
    for number in range(4):
        own = about_z(0.7, 400.0, 1200.0, 0.0) @ about_z(0.0, 1.5 * number, 0, 0)
        rng = np.random.default_rng(number)
        cloud = rng.uniform([-5, 3, -1, 0, 0], [5, 20, 1, 1, 31], (200, 5)).astype("<f4")
        (root / "samples/LIDAR_TOP").mkdir(parents=True, exist_ok=True)
        cloud.tofile(root / f"samples/LIDAR_TOP/{number}.pcd.bin")
        foreign.picture(root / f"samples/CAM_FRONT/{number}.jpg", seed=number)
        camera = RigidTransform(LOOK, np.array([1.7, 0.0, 1.5]))
        k = [[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]
        lidar = about_z(-math.pi / 2, 0.9, 0.0, 1.8)
        samples.append(
            {
                "LIDAR_TOP": (f"samples/LIDAR_TOP/{number}.pcd.bin", lidar, own, None),
                "CAM_FRONT": (f"samples/CAM_FRONT/{number}.jpg", camera, own, (k, (64, 48))),
            }
        )
        place = about_z(0.7, 400.0, 1200.0, 0.0) @ about_z(0.0, 12 + 2.5 * number, 1.0, 0.8)
        boxes.append((number, "vehicle.car", place, [2.0, 4.0, 1.5], 7 + number))
    tables(root, samples, boxes)
    folder = root / "v1.0-mini"
    rows = json.loads((folder / "sample.json").read_text())
    foreign.write_json(folder / "sample.json", [{**row, "scene_token": "s0"} for row in rows])
    rows = json.loads((folder / "sample_annotation.json").read_text())
    for number, row in enumerate(rows):
        row |= {"instance_token": "i0", "visibility_token": visibility}
        row["prev"] = f"a{number - 1}" if number else ""
        row["next"] = f"a{number + 1}" if number < 3 else ""
    foreign.write_json(folder / "sample_annotation.json", rows)
    return root


def test_what_tables_know_of_boxes(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"nuscenes:{moving(tmp_path / 'set')}", check=False)
    for number in range(4):
        boxes = recording.truth(number).boxes3d
        assert boxes is not None and len(boxes) == 1 and boxes.frame == "lidar_top"
        # the LiDAR's y is ahead, its x to the right
        assert np.allclose(boxes.center, [[-1.0, 12 + 1.0 * number - 0.9, 0.8 - 1.8]], atol=1e-3)
        assert np.allclose(boxes.size, [[4.0, 2.0, 1.5]])
        assert np.allclose(boxes.velocity, [[0.0, 5.0]], atol=1e-3)
        assert boxes.points.tolist() == [7 + number] and boxes.track.tolist() == [0]
        assert boxes.occlusion.tolist() == [1] and not boxes.ignore.any()


@pytest.mark.parametrize(("visibility", "expected"), [("1", 3), ("4", 0), ("", -1), ("9", -1)])
def test_how_much_is_to_be_seen(
    imported: Import, tmp_path: Path, visibility: str, expected: int
) -> None:
    recording = imported(f"nuscenes:{moving(tmp_path / 'set', visibility)}", check=False)
    boxes = recording.truth(0).boxes3d
    assert boxes is not None and boxes.occlusion.tolist() == [expected]


def test_an_object_seen_once_or_after_a_long_time_has_no_velocity(
    imported: Import, tmp_path: Path
) -> None:
    root = moving(tmp_path / "set")
    path = root / "v1.0-mini/sample.json"
    rows = json.loads(path.read_text())
    rows[3]["timestamp"] += 1_100_000  # 1.6 s after the one before
    foreign.write_json(path, rows)
    path = root / "v1.0-mini/sample_annotation.json"
    rows = json.loads(path.read_text())
    rows[0]["next"] = rows[1]["prev"] = ""
    foreign.write_json(path, rows)
    recording = imported(f"nuscenes:{root}", check=False)
    found = [recording.truth(i).boxes3d for i in range(4)]
    known = [bool(np.isfinite(boxes.velocity).all()) for boxes in found if boxes is not None]
    assert known == [False, True, True, False]  # once; to the next; over both sides; 1.6 s


def test_where_the_car_was(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"nuscenes:{moving(tmp_path / 'set')}", check=False)
    trajectory = recording.trajectory
    assert trajectory is not None and len(trajectory) == 4
    stamps = [recording.stamp_ns(i) for i in range(4)]
    assert trajectory.stamps_ns.tolist() == stamps
    moved = trajectory.moved(stamps[2], stamps[0])
    assert moved is not None and np.allclose(moved.translation, [3.0, 0, 0], atol=1e-3)
    assert np.allclose(trajectory.poses[0].translation, [400, 1200, 0])
    pose = recording.frame(0)["lidar_top"].pose
    assert pose is not None and np.allclose(pose.translation, [0.9, 0, 1.8])


def change(root: Path, table: str, **fields: Any) -> None:
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    rows[0] |= fields
    path.write_text(json.dumps(rows))


FAULTS: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "quaternion": ("ego_pose", {"rotation": [0, 0, 0, 0]}, "a quaternion needs"),
    "numbers": ("ego_pose", {"rotation": [1, 0, "x", 0]}, "'rotation' is no list of 4 numbers"),
    "token": ("sample_data", {"ego_pose_token": "none"}, "there is no ego_pose 'none'"),
    "outside": ("sample_data", {"filename": "../../etc/passwd"}, "leads outside"),
    "matrix": ("calibrated_sensor", {"camera_intrinsic": [[1, 2], 3]}, "'camera_intrinsic' is no"),
    "focal": (
        "calibrated_sensor",
        {"camera_intrinsic": [[0, 0, 1], [0, 1, 1], [0, 0, 1]]},
        "calibrated_sensor.json[0]",
    ),
    "size": ("sample_annotation", {"size": [1, 0, 1]}, "'size' is not positive"),
    "missing": ("sample_data", {"filename": "samples/none.jpg"}, "samples/none.jpg"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(refused: Any, tmp_path: Path, fault: str) -> None:
    table, fields, expected = FAULTS[fault]
    root = nuscenes(tmp_path / "set")
    change(root, table, **fields)
    assert expected in refused(f"nuscenes:{root}")


def test_a_missing_table_is_named(refused: Any, tmp_path: Path) -> None:
    root = nuscenes(tmp_path / "set")
    (root / "v1.0-mini/category.json").unlink()
    assert "category.json" in refused(f"nuscenes:{root}")
    (root / "v1.0-trainval").mkdir()
    assert "version=v1.0-mini" in refused(f"nuscenes:{root}")


def real_frames(own: Path, root: Path, count: int = 1) -> tuple[Path, list[dict[str, Any]]]:
    """A data set of so many times the one frame that there is, and its objects on which points lie."""
    (info,) = json.loads((own / "info.json").read_text())["data_list"]
    car = RigidTransform.from_matrix(np.array(info["ego2global"], float))
    lidar = RigidTransform.from_matrix(np.array(info["lidar_points"]["lidar2ego"], float))
    (root / "samples").mkdir(parents=True)
    shutil.copy(own / "LIDAR_TOP.pcd.bin", root / "samples")
    sample: dict[str, Any] = {"LIDAR_TOP": ("samples/LIDAR_TOP.pcd.bin", lidar, car, None)}
    for channel, image in info["images"].items():
        shutil.copy(own / f"{channel}.jpg", root / "samples")
        placed = RigidTransform.from_matrix(np.array(image["cam2ego"], float))
        seen = RigidTransform.from_matrix(np.array(image["lidar2cam"], float))
        moved = car @ lidar @ seen.inverse() @ placed.inverse()
        from perception.importers.placing import size_of_file
        from perception.sensors.registry import kind_of

        high, wide = size_of_file(own / f"{channel}.jpg", kind_of("rgb"))
        camera = (image["cam2img"], (wide, high))
        sample[channel] = (f"samples/{channel}.jpg", placed, moved, camera)
    names = json.loads((own / "info.json").read_text())["metainfo"]["categories"]
    of_label = {label: name for name, label in names.items()}
    full = {"car": "vehicle.car", "truck": "vehicle.truck", "pedestrian": "human.pedestrian.adult",
            "traffic_cone": "movable_object.trafficcone", "barrier": "movable_object.barrier",
            "bus": "vehicle.bus.rigid", "trailer": "vehicle.trailer", "bicycle": "vehicle.bicycle",
            "motorcycle": "vehicle.motorcycle", "construction_vehicle": "vehicle.construction"}  # fmt: skip
    known = [one for one in info["instances"] if one["bbox_label"] >= 0 and one["num_lidar_pts"]]
    boxes = []
    for frame in range(count):
        for one in known:
            x, y, z, length, width, height, yaw = one["bbox_3d"]
            place = car @ lidar @ about_z(yaw, x, y, z)
            category, points = full[of_label[one["bbox_label"]]], one["num_lidar_pts"]
            boxes.append((frame, category, place, [width, length, height], points))
    return tables(root, [sample] * count, boxes), known


@pytest.mark.realdata
def test_a_real_frame(imported: Import, tmp_path: Path, real_data: Path) -> None:
    """Six cameras and a LiDAR; boxes hold as many points as the data set's own tools found in them."""
    made, known = real_frames(real_data / "nuscenes_frame", tmp_path / "set")
    counts = [one["num_lidar_pts"] for one in known]
    recording = imported(f"nuscenes:{made}", check=False)
    assert len(recording.info.sensors) == 7
    solid = yaml.safe_load((recording.root / "boxes3d" / f"{recording.ids[0]}.yaml").read_text())
    cloud = recording.frame(0)["lidar_top"].data
    assert len(solid) == len(counts) > 30
    told = [one["bbox_3d"] for one in known]
    truth = recording.truth(0).boxes3d
    assert truth is not None and truth.points.tolist() == counts
    assert np.allclose(truth.center, np.array(told)[:, :3], atol=2e-3)
    assert np.allclose(truth.size, np.array(told)[:, 3:6], atol=1e-3)
    assert np.allclose(np.cos(truth.yaw - np.array(told)[:, 6]), 1, atol=1e-5)
    assert all(recording.frame(0)[name].pose is not None for name in recording.info.sensors)
    assert not check_folder(recording.root)
    for box, count in zip(solid, counts, strict=True):
        c, s = math.cos(box["yaw"]), math.sin(box["yaw"])
        local = (cloud[:, :3] - box["center"]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        found = int((np.abs(local) <= np.array(box["size"]) / 2).all(axis=1).sum())
        assert abs(found - count) <= 2 + 0.1 * count


@pytest.mark.realdata
@pytest.mark.slow
def test_the_shipped_configuration_takes_a_step_on_real_frames(
    imported: Import, tmp_path: Path, real_data: Path
) -> None:
    """As it stands but for its batch of eight and its workers: all sensors, at their full size."""
    from perception.training.config import TrainConfig, load_config
    from perception.training.loop import Trainer

    made, known = real_frames(real_data / "nuscenes_frame", tmp_path / "set", 2)
    recording = imported(f"nuscenes:{made}", check=False)
    truths = [recording.truth(i).boxes3d for i in range(2)]
    assert [truth and len(truth) for truth in truths] == [len(known)] * 2
    source = f"folder:{recording.root}"
    config = load_config(Path(__file__).parents[2] / "configs/bev-nuscenes.yaml")
    content = config.model_dump(mode="json")
    content["data"] |= {"source": source, "val_source": source}
    content |= {"resolution": [{"batch": 2}], "epochs": 1, "validate_every": 1, "workers": 0}
    trainer = Trainer(TrainConfig.model_validate(content), tmp_path / "run")
    trainer.fit()
    (row,) = trainer.log
    assert math.isfinite(row["loss"]) and row["loss"] > 0
