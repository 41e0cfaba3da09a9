"""Files as their own tools write them: the directions of transforms, names, units, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from calibration_texts import BODY, CAMCHAIN, KIT, LAUNCH, ROBOT, TF

from calibration.formats.base import Chosen, Options
from calibration.formats.registry import read_calibration, write_calibration
from calibration.kitti import rig_from_kitti
from perception.errors import AnySenseError, ConfigError
from perception.geometry.rig import Rig, load_rig
from perception.geometry.transforms import RigidTransform


def read(
    tmp_path: Path, name: str, text: str, options: Options | None = None
) -> tuple[Rig, list[str]]:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    _, found = read_calibration(path, options)
    return found.rig, list(found.remarks)


def test_kalibr_places_each_camera_against_the_one_before(tmp_path: Path) -> None:
    rig, remarks = read(tmp_path, "chain.yaml", CAMCHAIN)
    assert list(rig.sensors) == ["cam0", "stereo_right"] and not remarks
    moved = rig.between("cam0", "stereo_right").translation  # camera 0's points in camera 1's frame
    assert np.allclose(moved, [-0.11, 0, 0])
    left, right = (rig.sensors[name].camera for name in rig.sensors)
    assert left and right and left.distortion_model == "plumb_bob"
    assert right.distortion_model == "equidistant" and right.fx == 457.5


def test_kalibr_with_an_imu_leads_from_the_imu_to_the_camera(tmp_path: Path) -> None:
    chain = yaml.safe_load(CAMCHAIN)
    there = RigidTransform.from_quaternion_xyzw((0, 0, 1, 1), [0.1, 0.2, 0.3])
    chain["cam0"] |= {"T_cam_imu": there.matrix.tolist(), "timeshift_cam_imu": 0.0123}
    rig, remarks = read(tmp_path, "chain.yaml", yaml.safe_dump(chain | {"extra": 1}))
    assert rig.base == "imu" and rig.sensors["cam0"].time_offset_ns == 12_300_000
    pose = rig.sensors["cam0"].pose
    assert pose and np.allclose(pose.transform.matrix, np.linalg.inv(there.matrix))
    other = rig.sensors["stereo_right"].pose  # through the chain
    assert other and np.allclose(
        other.transform.matrix,
        np.linalg.inv(np.array(chain["cam1"]["T_cn_cnm1"]) @ there.matrix),
    )
    assert len(remarks) == 1 and "extra" in remarks[0]


def test_autoware_chains_both_files_and_turns_body_frames(tmp_path: Path) -> None:
    read(tmp_path, "config/sensor_kit_calibration.yaml", KIT)
    _, found = read_calibration(tmp_path / "config/sensor_kit_calibration.yaml")
    assert found.rig.base == "sensor_kit_base_link"
    (tmp_path / "config/sensors_calibration.yaml").write_text(BODY)
    known, found = read_calibration(tmp_path / "config")
    rig = found.rig
    assert known.name == "autoware" and rig.base == "base_link"
    assert rig.kinds == {"camera0": "rgb", "velodyne_top": "lidar"}
    pose = rig.sensors["camera0"].pose
    assert pose
    ahead = pose.transform.apply(np.array([[0.0, 0, 2]]))  # yaw of 90 degrees: it looks along y
    assert np.allclose(ahead, [[1.9, 2.5, 1.8]])
    told = "\n".join(found.remarks)
    assert "tamagawa/imu_link" in told and "housing" in told and "body frame" in told


def test_urdf_takes_the_optical_frame_and_names_joints_that_move(tmp_path: Path) -> None:
    rig, remarks = read(tmp_path, "robot.urdf", ROBOT)
    assert rig.kinds == {"front_camera": "rgb", "velodyne": "lidar"} and rig.base == "base_link"
    pose = rig.sensors["front_camera"].pose
    assert pose and np.allclose(pose.transform.apply(np.array([[0.0, 0, 1]])), [[1.1, 0, 1.5]])
    assert any("wheel" in line and "move" in line for line in remarks)


def test_static_transforms_in_a_launch_file(tmp_path: Path) -> None:
    rig, remarks = read(tmp_path, "tf.launch.xml", LAUNCH)
    laser, cam = rig.sensors["laser"].pose, rig.sensors["cam"].pose
    assert laser and np.allclose(laser.transform.apply(np.array([[1.0, 0, 0]])), [[0, 1, 0.2]])
    assert cam and np.allclose(cam.transform.apply(np.array([[0.0, 0, 1]])), [[1.3, 0, 1]])
    assert len(remarks) == 1 and "talker" in remarks[0]


def test_static_transforms_as_messages_and_sensors_that_are_named(tmp_path: Path) -> None:
    text = yaml.safe_dump(TF) + "---\n"
    rig, _ = read(tmp_path, "tf.yaml", text)
    assert rig.kinds == {"os_lidar": "lidar"} or rig.kinds == {"os": "lidar"}
    options = Options(sensors={"top": Chosen("lidar", "os_lidar")})
    rig, _ = read(tmp_path, "tf.yaml", text, options)
    pose = rig.sensors["top"].pose
    assert pose and np.allclose(pose.transform.apply(np.array([[1.0, 0, 0]])), [[0, 2, 3]])


def test_camera_info_of_an_echoed_message_in_capitals(real_data: Path, tmp_path: Path) -> None:
    _, found = read_calibration(real_data / "lidar_camera_board/camera_info.yaml")
    camera = found.rig.sensors["rgb"].camera
    assert camera and camera.distortion_model == "equidistant" and camera.width == 1920
    _, lost = write_calibration(found.rig, tmp_path / "chain.yaml", "kalibr")
    _, back = read_calibration(tmp_path / "chain.yaml")
    assert not lost and back.rig.sensors["rgb"].camera == camera


@pytest.mark.parametrize("suffix", [".yml", ".xml"])
def test_what_opencv_itself_writes(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"out_camera_data{suffix}")
    matrix = np.array([[520.25, 0, 320.5], [0, 521, 240], [0, 0, 1]])
    store = cv2.FileStorage(path, cv2.FILE_STORAGE_WRITE)
    store.write("calibration_time", "Thu Jan  1 2026")
    store.write("image_width", 640)
    store.write("image_height", 480)
    store.write("fisheye_model", 0)
    store.write("camera_matrix", matrix)
    store.write("distortion_coefficients", np.array([[-0.1], [1e-5], [0.001], [0.0], [0.003]]))
    store.write("image_points", np.zeros((3, 54, 2), np.float32))
    store.release()
    _, found = read_calibration(Path(path))
    camera = next(iter(found.rig.sensors.values())).camera
    assert camera and np.array_equal(camera.matrix, matrix) and camera.distortion[1] == 1e-5
    assert any("image_points" in line for line in found.remarks)
    files, _ = write_calibration(found.rig, tmp_path / f"again{suffix}", "opencv")
    store = cv2.FileStorage(str(files[0]), cv2.FILE_STORAGE_READ)
    assert np.array_equal(store.getNode("camera_matrix").mat(), matrix)
    assert store.getNode("image_width").real() == 640
    store.release()


def test_opencv_stereo_leads_from_the_first_camera_to_the_second(tmp_path: Path) -> None:
    matrix = np.diag([500.0, 500, 1])
    for name, values in (
        ("intrinsics.yml", {"M1": matrix, "D1": np.zeros((1, 5)), "M2": matrix, "D2": np.zeros(5)}),
        ("extrinsics.yml", {"R": np.eye(3), "T": np.array([[-0.12], [0.0], [0.0]])}),
    ):
        store = cv2.FileStorage(str(tmp_path / name), cv2.FILE_STORAGE_WRITE)
        for key, value in values.items():
            store.write(key, value)
        store.release()
    with pytest.raises(AnySenseError, match="how large"):
        read_calibration(tmp_path)
    known, found = read_calibration(tmp_path, Options((640, 480)))
    assert known.name == "opencv"
    assert np.allclose(found.rig.between("left", "right").translation, [-0.12, 0, 0])


def test_kitti_raw_has_all_four_cameras_and_is_the_readers_rig(real_data: Path) -> None:
    folder = real_data / "kitti_0005"
    _, found = read_calibration(folder)
    rig, own = found.rig, rig_from_kitti(folder)
    assert list(rig.sensors) == ["rgb", "camera_0", "camera_1", "camera_3", "lidar"]
    assert np.array_equal(rig.between("lidar", "rgb").matrix, own.between("lidar", "rgb").matrix)
    # The stereo baseline of colour cameras is 0.53 m to the right.
    assert np.allclose(rig.between("camera_3", "rgb").translation, [0.5327, 0, 0], atol=0.01)


@pytest.mark.parametrize(
    "target", ["kalibr.yaml", "ros", "kitti", "kitti.txt", "opencv", "urdf.urdf", "autoware.yaml",
               "nuscenes", "rig.yaml"]
)  # fmt: skip
def test_a_real_rig_comes_back_from_each_format(
    real_data: Path, tmp_path: Path, target: str
) -> None:
    rig = read_calibration(real_data / "kitti_0005")[1].rig
    name = target.partition(".")[0]
    write_calibration(rig, tmp_path / target, name)
    known, found = read_calibration(tmp_path / target)
    assert known.name == name
    lidars = [n for n, kind in found.rig.kinds.items() if kind == "lidar"]
    assert len(lidars) == (name not in ("kalibr", "opencv"))
    for label in ["camera_0", "camera_1", "camera_3", *lidars]:
        there = rig.between(label if label in rig.sensors else "lidar", "rgb")
        assert np.abs(found.rig.between(label, "rgb").matrix - there.matrix).max() < 1e-9


def test_the_object_benchmarks_text_of_a_real_frame(real_data: Path, tmp_path: Path) -> None:
    info = json.loads((real_data / "kitti_object_000008/info.json").read_text())
    images = info["data_list"][0]["images"]
    lines = [
        f"P{i}: {' '.join(map(str, np.array(images[f'CAM{i}']['cam2img'])[:3].ravel()))}"
        for i in range(4)
    ]
    turn = np.array(images["R0_rect"])[:3, :3]
    # lidar2cam of this file is R0_rect and Tr together.
    to_camera = np.linalg.inv(np.array(images["R0_rect"])) @ np.array(images["CAM2"]["lidar2cam"])
    lines += [f"R0_rect: {' '.join(map(str, turn.ravel()))}"]
    lines += [f"Tr_velo_to_cam: {' '.join(map(str, to_camera[:3].ravel()))}"]
    text = tmp_path / "training/calib/000008.txt"
    text.parent.mkdir(parents=True)
    text.write_text("\n".join(lines) + "\n")
    with pytest.raises(AnySenseError, match="--size"):
        read_calibration(text)
    (tmp_path / "training/image_2").mkdir()
    (tmp_path / "training/image_2/000008.png").symlink_to(
        real_data / "kitti_object_000008/000008.png"
    )
    rig = read_calibration(text)[1].rig
    camera = rig.sensors["rgb"].camera
    assert camera and (camera.width, camera.height) == (1242, 375)
    points = np.array([[10.0, 1, -1], [20, -3, 0.5]])
    seen = camera.project(rig.between("lidar", "rgb").apply(points))[0]
    whole = np.array(images["CAM2"]["lidar2img"]) @ np.column_stack([points, [1, 1]]).T
    assert np.allclose(seen, (whole[:2] / whole[2]).T, atol=0.01)
    write_calibration(rig, tmp_path / "again.txt", "kitti")
    back = read_calibration(tmp_path / "again.txt")[1].rig
    assert np.allclose(back.between("lidar", "rgb").matrix, rig.between("lidar", "rgb").matrix)


def test_a_real_frame_of_nuscenes_as_its_tables(real_data: Path, tmp_path: Path) -> None:
    info = json.loads((real_data / "nuscenes_frame/info.json").read_text())["data_list"][0]
    sensors, rows = [], []
    placed = {name: np.array(own["cam2ego"]) for name, own in info["images"].items()}
    placed["LIDAR_TOP"] = np.array(info["lidar_points"]["lidar2ego"])
    for name, matrix in placed.items():
        modality = "lidar" if name == "LIDAR_TOP" else "camera"
        sensors.append({"token": f"s_{name}", "channel": name, "modality": modality})
        x, y, z, w = RigidTransform.from_matrix(matrix).quaternion_xyzw
        k = info["images"][name]["cam2img"] if modality == "camera" else []
        rows.append(
            {
                "token": f"c_{name}",
                "sensor_token": f"s_{name}",
                "translation": matrix[:3, 3].tolist(),
                "rotation": [w, x, y, z],
                "camera_intrinsic": k,
            }
        )
    sensors.append({"token": "s_r", "channel": "RADAR_FRONT", "modality": "radar"})
    rows.append({**rows[-1], "token": "c_r", "sensor_token": "s_r"})
    (tmp_path / "sensor.json").write_text(json.dumps(sensors))
    (tmp_path / "calibrated_sensor.json").write_text(json.dumps(rows))
    with pytest.raises(AnySenseError, match="--size"):
        read_calibration(tmp_path)
    known, found = read_calibration(tmp_path, Options((1600, 900)))
    rig = found.rig
    assert known.name == "nuscenes" and len(rig.cameras) == 6 and rig.base == "base_link"
    assert any("RADAR_FRONT" in line for line in found.remarks)
    for name, own in info["images"].items():  # through the ego poses, up to its motion in between
        apart = rig.between("lidar_top", name.lower()).matrix - np.array(own["lidar2cam"])
        assert np.abs(apart).max() < 0.4
    write_calibration(rig, tmp_path / "ros", "ros")
    back = read_calibration(tmp_path / "ros")[1].rig
    for name in rig.sensors:
        apart = back.between(name, "cam_front").matrix - rig.between(name, "cam_front").matrix
        assert np.abs(apart).max() < 1e-9


_MATRIX = "camera_matrix: !!opencv-matrix"
_RIGHT = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", CAMCHAIN.replace("radtan", "fov"), "pinhole-fov"),
        ("a.yaml", CAMCHAIN.replace("camera_model: pinhole", "camera_model: ds"), "ds-radtan"),
        ("a.yaml", CAMCHAIN.replace("752, 480", "752"), "resolution"),
        ("a.yaml", CAMCHAIN.replace("458.6", "x"), "not numeric"),
        ("a.yaml", CAMCHAIN.replace("1.0, 0.0, 0.0, -0.11", "2.0, 0.0, 0.0, 0"), "rotation"),
        ("a.yaml", CAMCHAIN.replace("-0.11", "-110.0"), "millimetres"),
        ("a.yaml", "cam0:\n  camera_model: pinhole\n", "no entry 'intrinsics'"),
        ("a.yaml", KIT.replace("yaw: 0.0}", "yaw: .nan}"), "not finite"),
        ("a.yaml", KIT.replace("z: -0.2, ", ""), "no entry 'z'"),
        ("a.yaml", "", "is empty"),
        ("a.yaml", "just: text\n", "no format that is known"),
        ("a.yaml", "[1, 2", "not YAML"),
        ("a.urdf", ROBOT.replace("<link ", "<xacro:macro/><link "), "xacro FILE"),
        ("a.urdf", ROBOT.replace('xyz="0 0 1.5"', 'xyz="0 0"'), "shape"),
        ("a.urdf", ROBOT.replace("<child link=\"velodyne\"/>", "<child link=\"mast_link\"/>"), "twice"),
        ("a.urdf", ROBOT.replace('"base_link"/><child link="mast', '"velodyne"/><child link="mast'), "loop"),
        ("a.urdf", '<!DOCTYPE r [<!ENTITY a "b">]>' + ROBOT.partition("?>")[2], "document type"),
        ("a.urdf", "<robot", "not XML"),
        ("a.urdf", "<robot name='x'><link name='a'/></robot>", "no sensor found"),
        ("tf.xml", LAUNCH.replace("--x 0.3", "--x $(var x)"), "substitutions"),
        ("tf.xml", LAUNCH.replace("--x 0.3", "--left 0.3"), "no option"),
        ("tf.xml", LAUNCH.replace("base_link laser", "laser"), "names no frames"),
        ("launch.py", "def generate_launch_description(): pass\n", "program"),
        ("tf.yaml", yaml.safe_dump({"transforms": [{"child_frame_id": "a"}]}), "fields with names"),
        ("c.txt", f"P2: {_RIGHT}\n", "--size"),
        ("c.txt", "P2: 1 2 3\n", "expected 12"),
        ("c.yml", f"%YAML:1.0\n---\n{_MATRIX} {{rows: 3, cols: 3, dt: d, data: [1]}}\n", "numbers"),
        ("c.yml", f"%YAML:1.0\n---\n{_MATRIX} {{sizes: [a], dt: d, data: [1]}}\n", "no numbers"),
        ("c.yml", "%YAML:1.0\n---\nx: 1\n", "no entry 'camera_matrix'"),
        ("calibrated_sensor.json", "[]", "sensor.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    options = Options((640, 480)) if words == "expected 12" else None
    with pytest.raises(AnySenseError) as caught:
        read(tmp_path, name, text, options)
    line = str(caught.value)
    assert words in line and str(tmp_path) in line and "\n" not in line, line


def test_a_rig_file_is_what_it_was(tmp_path: Path) -> None:
    rig, _ = read(tmp_path, "chain.yaml", CAMCHAIN)
    write_calibration(rig, tmp_path / "rig.yaml", "rig")
    assert load_rig(tmp_path / "rig.yaml").to_dict() == rig.to_dict()


def test_autoware_files_are_written_into_a_folder_by_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    rig, _ = read(tmp_path, "sensor_kit.yaml", KIT)
    files, _ = write_calibration(rig, tmp_path / "kit", "autoware")
    assert [file.name for file in files] == ["sensor_kit_calibration.yaml"]
    assert read_calibration(tmp_path / "kit")[1].rig.kinds == rig.kinds
    kit = yaml.safe_load(KIT)["sensor_kit_base_link"]
    again = yaml.safe_load(files[0].read_text())["sensor_kit_base_link"]
    for frame in ("camera0/camera_link", "velodyne_top_base_link"):
        assert np.allclose(list(again[frame].values()), list(kit[frame].values()))


def test_the_odometry_benchmarks_text_has_its_size_from_the_sequence(tmp_path: Path) -> None:
    (tmp_path / "image_2").mkdir()
    cv2.imwrite(str(tmp_path / "image_2/000000.png"), np.zeros((37, 124), np.uint8))
    text = f"P2: 70 0 60 0 0 70 18 0 0 0 1 0\nTr: {_RIGHT}\n"
    rig, remarks = read(tmp_path, "calib.txt", text)
    camera = rig.sensors["rgb"].camera
    assert camera and (camera.width, camera.height) == (124, 37) and not remarks


def test_what_a_stereo_camera_info_rectifies_is_named(tmp_path: Path) -> None:
    info = {
        "image_width": 64,
        "image_height": 48,
        "camera_name": "right",
        "camera_matrix": {"rows": 3, "cols": 3, "data": [50.0, 0, 32, 0, 50, 24, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, 0, 0, 0, 0]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": [50.0, 0, 32, 0, 0, 50, 24, 0, 0, 0, 1, 0]},
    }  # fmt: skip
    rig, remarks = read(tmp_path, "right.yaml", yaml.safe_dump(info))
    assert list(rig.sensors) == ["right"] and not remarks
    info["projection_matrix"]["data"][3] = -6.0  # type: ignore[index]
    _, remarks = read(tmp_path, "right.yaml", yaml.safe_dump(info | {"odd": 1}))
    assert len(remarks) == 2 and "stereo pair" in remarks[1] and "odd" in remarks[0]


def _tree(parents: Callable[[int], int], count: int) -> str:
    joints = "".join(
        f'<joint name="j{i}" type="fixed"><parent link="lidar_{parents(i)}"/>'
        f'<child link="lidar_{i}"/></joint>'
        for i in range(1, count)
    )
    return f"<robot name='r'>{joints}</robot>"


def test_trees_that_are_deep_or_wide_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(AnySenseError, match="nested more than 90 deep"):
        read(tmp_path, "deep.urdf", _tree(lambda i: i - 1, 9_000))
    with pytest.raises(AnySenseError, match="more than 10000 frames"):
        read(tmp_path, "wide.urdf", _tree(lambda i: 0, 10_100))
    start = time.monotonic()
    rig, _ = read(tmp_path, "many.urdf", _tree(lambda i: 0, 1_000))
    assert len(rig.sensors) == 999 and time.monotonic() - start < 20


def test_a_kind_of_a_plug_in_is_known_by_its_words_and_a_broken_one_harms_nobody(
    tmp_path: Path, laser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibration.formats.naming import guessed_kind

    assert guessed_kind("front_laser") == "laser" or guessed_kind("front_laser") == "lidar"

    def broken(kind: str) -> None:
        raise ConfigError("cannot be imported")

    monkeypatch.setattr("calibration.formats.naming.kind_of", broken)
    assert guessed_kind("top_lidar_frame") == "lidar"
