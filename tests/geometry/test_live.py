"""What is known about sensors while they run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.errors import CalibrationError
from perception.frame import Modality, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.live import LiveCalibration
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

S = 1_000_000_000
RGB = CameraModel(640, 480, 600.0, 600.0, 320.0, 240.0, frame_id="color")


def _image(modality: Modality, frame: str, size: tuple[int, int] = (480, 640)) -> Sample:
    shape = (*size, 3) if modality == "rgb" else size
    kind = np.uint8 if modality == "rgb" else np.float32
    return Sample(modality, np.ones(shape, kind), 1, frame)


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
