"""What is known about sensors while they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.errors import CalibrationError
from perception.frame import Kind, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.live import LiveCalibration
from perception.geometry.rig import Pose, Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform

S = 1_000_000_000
RGB = CameraModel(640, 480, 600.0, 600.0, 320.0, 240.0, frame_id="color")


def _image(kind: Kind, frame: str, size: tuple[int, int] = (480, 640), sensor: str = "") -> Sample:
    shape = (*size, 3) if kind == "rgb" else size
    dtype = np.uint8 if kind == "rgb" else np.float32
    return Sample(kind, np.ones(shape, dtype), 1, frame, sensor=sensor)


def _known(depth: CameraModel | None = None) -> LiveCalibration:
    calibration = LiveCalibration()
    calibration.note_camera("rgb", RGB)
    if depth is not None:
        calibration.note_camera("depth", depth)
    return calibration


def test_a_depth_image_in_another_frame_is_named() -> None:
    calibration = _known()
    calibration.attach(_image("rgb", "color"))
    calibration.attach(_image("depth", "depth_optical"))
    assert "depth: in frame 'depth_optical', rgb in 'color'" in calibration.unaligned["depth"]
    calibration.attach(_image("depth", "/color"))
    assert calibration.unaligned == {}


def test_a_depth_image_of_another_lens_is_named() -> None:
    calibration = _known(replace(RGB, fx=380.0, fy=380.0))
    calibration.attach(_image("rgb", "color"))
    calibration.attach(_image("depth", "color"))
    assert "depth: fx is 0.594 of the width, rgb's 0.938" in calibration.unaligned["depth"]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_one_view_in_another_size_is_aligned(scale: float) -> None:
    size = (round(480 * scale), round(640 * scale))
    values = {k: getattr(RGB, k) * scale for k in ("fx", "fy", "cx", "cy")}
    calibration = _known(replace(RGB, width=size[1], height=size[0], **values))
    calibration.attach(_image("rgb", "color"))
    calibration.attach(_image("depth", "color", size))
    assert calibration.unaligned == {}


def test_what_is_not_known_is_not_blamed() -> None:
    calibration = LiveCalibration()
    calibration.attach(_image("depth", ""))
    calibration.attach(_image("rgb", "color"))
    calibration.attach(_image("depth", ""))
    assert calibration.unaligned == {}


def _tree(static: bool = False) -> FrameTree:
    tree = FrameTree()
    tree.set("base", "color", RigidTransform.identity(), 0, static=True)
    tree.set("base", "lidar", RigidTransform.identity(), 10 * S, static=static)
    return tree


@pytest.mark.parametrize("ends", [("color", "lidar"), ("lidar", "color")])
def test_a_transform_that_stopped_is_refused_after_a_while(ends: tuple[str, str]) -> None:
    tree = _tree()
    tree.lookup(*ends, 12 * S, max_age_ns=2 * S)
    with pytest.raises(CalibrationError, match=r"from 'lidar' to 'base' is 2.1 s old"):
        tree.lookup(*ends, 12 * S + S // 10, max_age_ns=2 * S)
    tree.lookup(*ends, 99 * S)
    tree.lookup(*ends, None, max_age_ns=1)
    tree.set("base", "lidar", RigidTransform.identity(), 12 * S)
    tree.lookup(*ends, 13 * S, max_age_ns=2 * S)


def test_static_transforms_do_not_age() -> None:
    _tree(static=True).lookup("color", "lidar", 10_000 * S, max_age_ns=1)


def test_a_step_beyond_the_meeting_does_not_matter() -> None:
    tree = _tree(static=True)
    tree.set("map", "base", RigidTransform.identity(), 1)
    tree.lookup("color", "lidar", 10_000 * S, max_age_ns=1)


def test_the_tree_is_needed_for_a_lidar_without_a_place() -> None:
    calibration = LiveCalibration()
    assert calibration.needs_tree(("rgb", "lidar"))
    assert not calibration.needs_tree(("rgb", "depth"))
    calibration.rig = Rig({"lidar": SensorCalibration(extrinsics=RigidTransform.identity())})
    assert not calibration.needs_tree(("lidar",))
    calibration.source = "tf"
    assert calibration.needs_tree(("lidar",))
    calibration.source, calibration.rig = "file", Rig({})
    assert not calibration.needs_tree(("lidar",))


HERE, THERE = RigidTransform.identity(), RigidTransform(np.eye(3), np.array([1.0, 2, 3]))
CLOUD = Sample("lidar", np.ones((2, 4), np.float32), 10 * S, "lidar")
OWN = CameraModel(64, 48, 60.0, 60.0, 32.0, 24.0, frame_id="own")


def _moved(source: str = "auto", **rig: SensorCalibration) -> LiveCalibration:
    """RGB intrinsics noted, a tree in which the LiDAR sits off `color` and elsewhere off `base`."""
    calibration = LiveCalibration(source)
    calibration.note_camera("rgb", RGB)
    calibration.tree.set("color", "lidar", THERE, 10 * S, static=True)
    calibration.tree.set("base", "color", THERE, 10 * S, static=True)
    calibration.rig = Rig(rig)
    return calibration


@pytest.mark.parametrize(
    ("source", "in_file", "wanted"),
    [
        ("auto", None, THERE),
        ("auto", HERE, HERE),
        ("tf", None, THERE),
        ("tf", HERE, THERE),
        ("file", HERE, HERE),
        ("file", None, None),
    ],
)
def test_where_the_place_of_a_lidar_comes_from(
    source: str, in_file: RigidTransform | None, wanted: RigidTransform | None
) -> None:
    calibration = _moved(source, lidar=SensorCalibration(extrinsics=in_file))
    found = calibration.attach(CLOUD).extrinsics
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert np.allclose(found.matrix, wanted.matrix)
    from_file = source != "tf" and in_file is not None
    assert calibration.sources() == ["rgb camera_info"] + (
        ["lidar rig file"] if from_file else ["lidar tf"] if source != "file" else []
    )
    # What stands in a file or is static does not change; what was never looked up is unknown.
    assert calibration.follows_changes() == (source == "file" or from_file)
    bare = LiveCalibration(source)
    bare.rig = calibration.rig
    assert bare.needs_tree(("lidar",)) == (not from_file and source != "file")


def test_a_lidar_is_placed_in_the_frame_of_its_camera_or_the_one_named() -> None:
    calibration = _moved()
    assert np.allclose(calibration.attach(CLOUD).extrinsics.translation, [1, 2, 3])  # type: ignore[union-attr]
    assert not calibration.follows_changes()
    calibration.reference_frame = "base"
    assert np.allclose(calibration.attach(CLOUD).extrinsics.translation, [2, 4, 6])  # type: ignore[union-attr]
    calibration.tree.set("base", "color", THERE, 11 * S)
    assert calibration.follows_changes()


def test_a_lidar_sees_through_its_own_camera_or_the_first_image_sensors() -> None:
    calibration = LiveCalibration("file")
    with pytest.raises(CalibrationError, match="no camera to project into"):
        calibration.attach(CLOUD)
    calibration.note_camera("thermal", OWN)
    assert calibration.attach(CLOUD).camera == OWN
    calibration.note_camera("depth", RGB)
    assert calibration.attach(CLOUD).camera == RGB
    calibration.rig = Rig({"depth": SensorCalibration(), "lidar": SensorCalibration(camera=OWN)})
    assert calibration.attach(CLOUD).camera == OWN
    assert calibration.camera("depth") == RGB  # a rig that says nothing of it changes nothing


@pytest.mark.parametrize(("camera", "cloud"), [("", "lidar"), ("color", "")])
def test_frames_without_a_name_are_told(camera: str, cloud: str) -> None:
    calibration = _moved()
    calibration.note_camera("rgb", replace(RGB, frame_id=camera))
    sample = replace(CLOUD, frame_id=cloud)
    with pytest.raises(CalibrationError, match="a frame has no name"):
        calibration.attach(sample)
    if cloud:
        calibration.reference_frame = "color"
        assert np.allclose(calibration.attach(sample).extrinsics.matrix, THERE.matrix)  # type: ignore[union-attr]


def test_a_missing_transform_is_announced_and_named() -> None:
    calibration = _moved()
    missing: list[int] = []
    calibration.on_missing = lambda: missing.append(1)
    calibration.attach(CLOUD)
    assert not missing
    with pytest.raises(CalibrationError, match="nothing is known of 'ghost'"):
        calibration.attach(replace(CLOUD, frame_id="ghost"))
    assert missing == [1] and calibration.follows_changes()
    assert calibration.sources() == ["rgb camera_info"]


def test_the_age_of_a_transform_is_held_to_the_limit() -> None:
    calibration = LiveCalibration("tf", max_age_ns=S)
    calibration.note_camera("rgb", RGB)
    calibration.tree.set("color", "lidar", THERE, 10 * S)
    for late, fine in ((S, True), (S + 1, False)):
        sample = replace(CLOUD, stamp_ns=10 * S + late)
        if fine:
            calibration.attach(sample)
            continue
        with pytest.raises(CalibrationError, match="has its publisher stopped"):
            calibration.attach(sample)


def test_the_rig_file_goes_before_what_is_heard() -> None:
    calibration = _known(RGB)
    calibration.rig = Rig({"rgb": SensorCalibration(OWN, time_offset_ns=-7)})
    assert calibration.camera("rgb") == OWN and calibration.camera("depth") == RGB
    assert calibration.camera("thermal") is None
    assert calibration.sources() == ["rgb rig file", "depth camera_info"]
    assert (calibration.offset_ns("rgb"), calibration.offset_ns("depth")) == (-7, 0)
    calibration.note_camera("depth")  # nothing is known any more
    assert calibration.sources() == ["rgb rig file"]


def test_of_several_models_the_one_of_the_images_size_is_attached() -> None:
    half = replace(RGB, width=320, height=240)
    calibration = LiveCalibration()
    calibration.note_camera("rgb", half, RGB)
    assert calibration.camera("rgb") == half
    assert calibration.attach(_image("rgb", "color")).camera == RGB
    calibration.note_camera("rgb", half, RGB)  # said again: what was found out stays
    assert calibration.camera("rgb") == RGB
    assert calibration.attach(_image("rgb", "color", (240, 320))).camera == half
    assert calibration.attach(_image("rgb", "color", (1, 1))).camera == half
    calibration.note_camera("rgb", RGB)
    assert calibration.attach(_image("rgb", "color", (240, 320))).camera == RGB


@pytest.mark.parametrize("value", ["fx", "fy", "cx", "cy"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_views_differ_from_two_percent_of_the_picture_on(value: str, sign: int) -> None:
    """Of the focal length where that is longer than the picture is wide."""
    for focal in (300.0, 2000.0):
        rgb = replace(RGB, fx=focal, fy=focal)
        length = max(640 if value in ("fx", "cx") else 480, getattr(rgb, value))
        for share, told in ((0.019, False), (0.021, True)):
            other = replace(rgb, **{value: getattr(rgb, value) + sign * share * length})
            calibration = _known(other)
            calibration.note_camera("rgb", rgb)
            calibration.attach(_image("rgb", "color"))
            calibration.attach(_image("depth", "color"))
            assert (value in calibration.unaligned.get("depth", "")) is told


ROBOT: dict[str, Kind] = {
    "roof": "lidar", "front": "rgb", "rear": "rgb", "night": "thermal", "nose": "lidar"
}  # fmt: skip
REAR = replace(OWN, frame_id="rear")


def _at(x: float, y: float, z: float) -> RigidTransform:
    return RigidTransform(np.eye(3), np.array([x, y, z]))


def _robot(**more: str) -> LiveCalibration:
    """Two cameras, two LiDARs and their tree."""
    calibration = LiveCalibration(kinds=ROBOT, into=more)
    calibration.note_camera("front", RGB)
    calibration.note_camera("rear", REAR)
    for frame, place in (("color", 1), ("rear", -1), ("roof", 0), ("nose", 3)):
        calibration.tree.set("base", frame, _at(place, 0, 0), 10 * S, static=True)
    return calibration


def _cloud(sensor: str, frame: str = "") -> Sample:
    return replace(CLOUD, sensor=sensor, frame_id=frame or sensor)


def _found(sample: Sample) -> tuple[CameraModel | None, list[float]]:
    assert sample.extrinsics is not None
    return sample.camera, sample.extrinsics.translation.tolist()


def test_each_lidar_is_projected_into_the_camera_that_is_said() -> None:
    calibration = _robot(nose="rear")
    assert calibration.sources() == ["front camera_info", "rear camera_info"]
    assert _found(calibration.attach(_cloud("roof"))) == (RGB, [-1, 0, 0])
    assert calibration.follows_changes()  # the other LiDAR was not looked up
    assert _found(calibration.attach(_cloud("nose"))) == (REAR, [4, 0, 0])
    assert not calibration.follows_changes()
    assert calibration.sources() == [
        "roof tf", "front camera_info", "rear camera_info", "nose tf"
    ]  # fmt: skip
    calibration.reference_frame = "base"
    assert _found(calibration.attach(_cloud("roof"))) == (RGB, [0, 0, 0])
    assert _found(calibration.attach(_cloud("nose"))) == (REAR, [4, 0, 0])
    calibration.tree.set("base", "nose", _at(3, 0, 0), 11 * S)
    assert calibration.follows_changes()
    for into, why in (("night", ": night has no intrinsics"), ("ghost", ": ghost has no")):
        calibration.into["nose"] = into
        with pytest.raises(CalibrationError, match=f"nose: no camera to project into{why}"):
            calibration.attach(_cloud("nose"))


def test_the_rig_file_places_each_lidar_before_its_camera() -> None:
    calibration = _robot(nose="rear")
    calibration.rig = Rig(
        {
            "front": SensorCalibration(kind="rgb", pose=Pose(_at(1, 0, 0.5))),
            "rear": SensorCalibration(kind="rgb", pose=Pose(_at(-1, 0, 0.5)), time_offset_ns=3),
            "nose": SensorCalibration(kind="lidar", pose=Pose(_at(3, 0, 0))),
        },
        base="base_link",
        reference="front",
    )
    assert _found(calibration.attach(_cloud("nose"))) == (REAR, [4, 0, -0.5])
    assert _found(calibration.attach(_cloud("roof"))) == (RGB, [-1, 0, 0])  # of the tree
    assert calibration.needs_tree(("roof",)) and not calibration.needs_tree(("nose", "front"))
    assert calibration.sources()[-1] == "nose rig file"
    assert calibration.offset_ns("rear") == 3
    calibration.into = {}
    assert _found(calibration.attach(_cloud("nose"))) == (RGB, [2, 0, -0.5])
    calibration.into = {"nose": "front"}
    assert _found(calibration.attach(_cloud("nose"))) == (RGB, [2, 0, -0.5])
    calibration.into = {"nose": "night"}  # whose place the rig does not say
    calibration.note_camera("night", REAR)
    assert calibration.needs_tree(("nose",))
    assert _found(calibration.attach(_cloud("nose"))) == (REAR, [4, 0, 0])
    calibration.source = "file"
    assert calibration.attach(_cloud("nose")).extrinsics is None


def test_of_a_rig_with_a_reference_no_other_camera_is_taken() -> None:
    calibration = LiveCalibration("file", kinds=ROBOT)
    rear = SensorCalibration(frame_id="rear", kind="rgb", pose=Pose(_at(0, 0, 0)))
    roof = SensorCalibration(kind="lidar", pose=Pose(_at(0, 0, 2)))
    calibration.rig = Rig({"rear": rear, "roof": roof}, "base_link", "rear")
    calibration.note_camera("front", RGB)
    with pytest.raises(CalibrationError, match="roof: no camera to project into: rear has no"):
        calibration.attach(_cloud("roof"))
    calibration.note_camera("rear", replace(REAR, frame_id=""))
    assert _found(calibration.attach(_cloud("roof")))[1] == [0, 0, 2]
    calibration.source = "tf"
    calibration.tree.set("rear", "roof", _at(9, 0, 0), 1, static=True)
    assert _found(calibration.attach(_cloud("roof")))[1] == [9, 0, 0]


def test_several_cameras_of_a_kind_need_not_be_aligned() -> None:
    calibration = _robot()
    calibration.attach(_image("thermal", "rear", sensor="night"))
    calibration.attach(_image("rgb", "color", sensor="front"))
    calibration.attach(_image("thermal", "rear", sensor="night"))
    assert calibration.unaligned == {}  # the rear one may be its like, it was not seen yet
    calibration.attach(_image("rgb", "rear", sensor="rear"))
    calibration.attach(_image("thermal", "rear", sensor="night"))
    assert calibration.unaligned == {}
    calibration.attach(_image("thermal", "bumper", sensor="night"))
    line = "night: in frame 'bumper', front in 'color': fused as if registered, which it is not"
    assert calibration.unaligned == {"night": line}


def test_what_the_rig_calls_aligned_is_held_to_its_intrinsics_alone() -> None:
    calibration = _robot()
    night = SensorCalibration(kind="thermal", aligned_with="rear")
    calibration.rig = Rig({"rear": SensorCalibration(kind="rgb"), "night": night})
    image = _image("thermal", "bumper", sensor="night")
    calibration.attach(_image("rgb", "color", sensor="front"))
    calibration.attach(_image("rgb", "rear", sensor="rear"))
    calibration.attach(image)
    calibration.note_camera("night", REAR)
    calibration.attach(image)
    assert calibration.unaligned == {}
    calibration.note_camera("night", replace(REAR, fx=30.0))
    calibration.attach(image)
    assert calibration.unaligned["night"].startswith(
        "night: fx is 0.469 of the width, rear's 0.938"
    )


def test_a_rig_file_of_other_kinds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    calibration = _robot()
    known = calibration.rig = Rig({"front": SensorCalibration(kind="rgb")})
    save_rig(Rig({"front": SensorCalibration(kind="thermal")}), path)
    with pytest.raises(CalibrationError, match=r"rig\.yaml: front is of kind thermal, not rgb"):
        calibration.load(str(path))
    assert calibration.rig is known
    save_rig(Rig({"other": SensorCalibration(kind="thermal")}), path)
    calibration.load(str(path))
    assert calibration.rig.kinds == {"other": "thermal"}


def _vehicle(base: str = "base_link") -> Rig:
    ahead = RigidTransform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1.5, 0, 1.2])
    camera = CameraModel(64, 48, 40, 40, 31.5, 23.5, frame_id="front_optical")
    roof = Pose(RigidTransform(np.eye(3), [0, 0, 1.8]))
    sensors = {
        "front": SensorCalibration(camera, kind="rgb", frame_id="front_optical", pose=Pose(ahead)),
        "roof": SensorCalibration(kind="lidar", frame_id="velo", pose=roof),
    }
    return Rig(sensors, base=base, reference="front")


GROUNDED = {"front": "rgb", "warm": "thermal", "roof": "lidar"}


def _of(sensor: str, frame: str, stamp: int = 0) -> Sample:
    kind = GROUNDED[sensor]
    shape = {"rgb": (48, 64, 3), "thermal": (48, 64), "lidar": (5, 4)}[kind]
    data = np.ones(shape, np.uint8 if kind == "rgb" else np.float32)
    return Sample(kind, data, stamp, frame, sensor=sensor)


def test_sensors_of_the_ground_get_their_pose_of_the_rig_file() -> None:
    calibration = LiveCalibration(kinds=GROUNDED, ground=GROUNDED)
    calibration.rig = _vehicle()
    front, roof = (calibration.attach(_of(s, f"{s}_frame")) for s in ("front", "roof"))
    assert front.pose is not None and front.pose.translation.tolist() == [1.5, 0, 1.2]
    assert front.camera is not None
    assert roof.pose is not None and roof.pose.translation.tolist() == [0, 0, 1.8]
    assert not calibration.unaligned
    assert calibration.sources()[:2] == ["front pose rig file", "front rig file"]
    # The thermal camera is not in the file: TF has to say it.
    assert calibration.uses_tree(GROUNDED)
    assert not calibration.uses_tree(("front", "roof"))
    with pytest.raises(
        CalibrationError, match="warm: its place on the vehicle is not known"
    ) as told:
        calibration.attach(_of("warm", "warm_optical"))
    assert "no transform from 'warm_optical' to 'base_link'" in str(told.value)
    with pytest.raises(CalibrationError, match="its frame has no name"):
        calibration.attach(_of("warm", ""))


def test_sensors_of_the_ground_get_their_pose_of_the_tree() -> None:
    calibration = LiveCalibration("tf", kinds=GROUNDED, ground=GROUNDED, max_age_ns=S)
    calibration.rig = _vehicle()  # which is not asked
    asked: list[bool] = []
    calibration.on_missing = lambda: asked.append(True)
    with pytest.raises(CalibrationError, match="roof: its place"):
        calibration.attach(_of("roof", "velo"))
    assert asked
    at = RigidTransform(np.eye(3), [3.0, 0, 0])
    calibration.tree.set("base_link", "/velo", at, static=True)
    found = calibration.attach(_of("roof", "velo")).pose
    assert found is not None and found.translation.tolist() == [3.0, 0, 0]
    assert "roof pose tf" in calibration.sources()
    assert not calibration.unaligned
    calibration.tree.set("base_link", "turret", at, S)
    calibration.tree.set("turret", "warm_optical", at, static=True)
    warm = calibration.attach(_of("warm", "warm_optical", S)).pose
    assert warm is not None and warm.translation.tolist() == [6.0, 0, 0]
    with pytest.raises(CalibrationError, match="its place on the vehicle is not known"):
        calibration.attach(_of("warm", "warm_optical", 5 * S))  # what it stands on has gone silent


def test_another_base_frame_is_reached_from_the_rig_files_base() -> None:
    calibration = LiveCalibration(kinds=GROUNDED, ground=GROUNDED, base_frame="base_footprint")
    calibration.rig = _vehicle()
    assert calibration.needs_tree(("roof",))
    with pytest.raises(CalibrationError, match="no transform from 'base_link' to 'base_footprint'"):
        calibration.attach(_of("roof", "velo"))
    lift = RigidTransform(np.eye(3), [0, 0, 0.3])
    calibration.tree.set("base_footprint", "base_link", lift, static=True)
    roof = calibration.attach(_of("roof", "velo")).pose
    assert roof is not None and roof.translation[2] == pytest.approx(2.1)


def test_from_a_file_alone_what_it_lacks_stays_unknown() -> None:
    calibration = LiveCalibration("file", kinds=GROUNDED, ground=GROUNDED)
    calibration.rig = _vehicle()
    assert calibration.attach(_of("warm", "warm_optical")).pose is None
    assert not calibration.uses_tree(GROUNDED)
