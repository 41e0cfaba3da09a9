"""Pictures of samples, of kinds that draw themselves and of those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.sensors.kind import SensorKind
from perception.sensors.registry import KINDS
from perception.viz.overlay import background, draw_sample, is_drawn

CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
AHEAD = RigidTransform.from_quaternion_xyzw((0.5, -0.5, 0.5, 0.5), (0.0, 0.0, 0.0))


def test_near_and_warm_are_bright_and_what_is_missing_is_black() -> None:
    depth = np.array([[1.0, 4.0, np.nan, np.inf, -np.inf, 0.0]], np.float32)
    near, far, *missing = draw_sample(Sample("depth", depth))[0].astype(int)
    assert near[0] > far[0] and near[2] < far[2], "red is near, blue is far"
    assert [p.sum() for p in missing] == [0, missing[1].sum(), 0, 0]
    cold, warm, none = draw_sample(
        Sample("thermal", np.array([[280.0, 310.0, np.nan]], np.float32), unit="kelvin")
    )[0]
    assert warm.sum() > cold.sum() and none.sum() == 0


def test_a_plugin_s_points_are_drawn_from_above_or_in_their_camera(laser: Path) -> None:
    points = np.array([[10.0, 0, 0, 1], [0, 10.0, 0, 1]], np.float32)
    above = draw_sample(Sample("laser", points))
    lit = np.argwhere(above.any(axis=2))
    assert above.shape == (320, 320, 3) and above.dtype == np.uint8
    assert lit[:, 0].min() < 5 and lit[:, 1].min() < 5, "x is up, y is left"
    seen = draw_sample(Sample("laser", points, camera=CAMERA, extrinsics=AHEAD))
    assert seen.shape == (48, 64, 3) and seen[23:25, 31:33].any(), "the one ahead"
    assert is_drawn(Sample("laser", points)) and not is_drawn(Sample("lidar", points))
    assert background(Frame({"laser": Sample("laser", points)}), None).shape == above.shape


@pytest.mark.parametrize("data", [np.zeros((0, 4)), np.full((3, 4), np.nan), np.zeros((1, 4))])
def test_points_that_lie_nowhere_are_drawn(laser: Path, data: np.ndarray) -> None:
    assert draw_sample(Sample("laser", data.astype(np.float32))).shape == (320, 320, 3)


def test_pictures_of_any_shape_are_drawn(laser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = SensorKind("laser", *(None,) * 5)  # type: ignore[arg-type]
    monkeypatch.setitem(KINDS._loaded, "laser", picture)
    for shape, dtype in (((4, 6), "u2"), ((4, 6, 2), "f4"), ((4, 6, 3), "u1"), ((4, 6, 1), "f8")):
        data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        assert draw_sample(Sample("laser", data)).shape == (4, 6, 3)
