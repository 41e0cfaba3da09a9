"""Rigs of any sensors, for tests of the files that they are written to."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

SENSORS = {
    "front_cam": "rgb",
    "left_cam": "rgb",
    "flir": "thermal",
    "depth_cam": "depth",
    "rgb": "rgb",
}
LIDARS = ("top_lidar", "velodyne")
NUMBERS = st.floats(-1, 1, allow_subnormal=False)
SMALL = st.floats(-0.05, 0.05, allow_subnormal=False)


@st.composite
def transforms(draw: Any) -> RigidTransform:
    """Any rotation, up to 5 m."""
    turn = draw(st.lists(NUMBERS, min_size=4, max_size=4))
    if np.linalg.norm(turn) < 1e-3:
        turn = [0.0, 0.0, 0.0, 1.0]
    place = np.array(draw(st.lists(NUMBERS, min_size=3, max_size=3))) * 5
    return RigidTransform.from_quaternion_xyzw(turn, place)


@st.composite
def cameras(draw: Any, models: tuple[str, ...]) -> CameraModel:
    """A camera of one of these models with small coefficients."""
    model = draw(st.sampled_from(models))
    count = {"none": 0, "plumb_bob": 5, "radtan": 4, "rational_polynomial": 8}.get(model, 4)
    values = draw(st.lists(SMALL, min_size=count, max_size=count))
    if model == "omni":
        values = [draw(st.floats(0.1, 2.0)), *values]
    width, height = draw(st.integers(64, 4000)), draw(st.integers(64, 3000))
    focal = draw(st.floats(0.3, 3.0)) * max(width, height)
    model = {"radtan": "plumb_bob"}.get(model, model)
    return CameraModel(
        width, height, focal, focal * 1.01, width / 2 + draw(NUMBERS), height / 2, model, tuple(values)
    )  # fmt: skip


@st.composite
def rigs(
    draw: Any,
    models: tuple[str, ...],
    lidars: bool = True,
    bases: tuple[str, ...] = ("", "base_link"),
) -> Rig:
    """Up to five cameras and two LiDARs, in a base or against the first camera."""
    base = draw(st.sampled_from(bases))
    names = draw(st.lists(st.sampled_from(list(SENSORS)), min_size=1, max_size=5, unique=True))
    points = draw(st.lists(st.sampled_from(LIDARS), max_size=2, unique=True)) if lidars else []
    sensors = {}
    for index, name in enumerate([*names, *points]):
        frame = draw(st.sampled_from(["", f"{name}_optical_frame", f"{name}_x"]))
        pose = None if not base and not index else Pose(draw(transforms()))
        camera = draw(cameras(models)) if name in names else None
        if name in points:
            frame = draw(st.sampled_from(["", name]))
        kind = SENSORS.get(name, "lidar")
        sensors[name] = SensorCalibration(camera, frame_id=frame, kind=kind, pose=pose)
    return Rig(sensors, base, names[0] if base else "")
