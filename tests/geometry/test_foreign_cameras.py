"""Cameras as drivers describe them, right or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from calibration.kitti import rig_from_kitti
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.rig import load_rig

K = [500, 0, 320, 0, 510, 240, 0, 0, 1]
P = [400, 0, 310, -40, 0, 410, 230, 0, 0, 0, 1, 0]


def camera(rectified: bool = False, **changes: Any) -> CameraModel:
    info = {"width": 640, "height": 480, "k": K, "p": P, "d": [], "distortion_model": ""}
    return CameraModel.from_camera_info(info | changes, rectified=rectified)


@pytest.mark.parametrize(
    ("model", "used", "filled"),
    [
        ("plumb_bob", [0.1, -0.2, 0.01, 0.02, 0.05], [0, 0, 0]),
        ("plumb_bob", [0.1, -0.2, 0.01, 0.02, 0.05], [0] * 9),
        ("equidistant", [0.1, -0.2, 0.01, 0.02], [0]),
        ("fisheye", [0, 0, 0, 0], [0, 0, 0, 0]),
        ("rational_polynomial", [0.1] * 14, []),
    ],
)
def test_zeros_beyond_a_model_s_coefficients_say_nothing(
    model: str, used: list[float], filled: list[float]
) -> None:
    if model == "rational_polynomial":
        used = [*used[:8], *[0] * 6]
    got = camera(d=[*used, *filled], distortion_model=model)
    assert got == camera(d=used, distortion_model=model)
    assert got.distortion == tuple(used)
    if filled:
        with pytest.raises(CalibrationError, match=f"{len(used) + len(filled)} coefficients"):
            camera(d=[*used, *filled[:-1], 0.1], distortion_model=model)


def test_coefficients_without_a_model() -> None:
    with pytest.raises(CalibrationError, match="5 coefficients and no distortion_model"):
        camera(d=[0.1, 0, 0, 0, 0])
    assert camera(d=[0] * 5).distortion_model == "none"


@pytest.mark.parametrize(
    "k",
    [
        np.array(K).reshape(3, 3).T.reshape(-1).tolist(),
        [*K[:8], 0],
        [*K[:6], 0, 1e-9, 1],
        [2 * v for v in K],
    ],
    ids=["transposed", "not filled in", "remnants", "scaled"],
)
def test_a_matrix_of_another_form(k: list[float]) -> None:
    with pytest.raises(CalibrationError, match="not fx 0 cx"):
        camera(k=k)


def test_a_projection_of_another_form() -> None:
    assert (camera(rectified=True).fx, camera(rectified=True).cx) == (400, 310)
    with pytest.raises(CalibrationError, match="not fx 0 cx"):
        camera(rectified=True, p=[*P[:10], 0, 0])


@pytest.mark.parametrize(
    "k",
    [[1, 0, 0, 0, 1, 0, 0, 0, 1], [0.78, 0, 0.5, 0, 1.06, 0.5, 0, 0, 1], [500, 0, 1, 0, 1, 1, 0, 0, 1]],
    ids=["identity", "shares of the size", "one axis"],
)  # fmt: skip
def test_focal_lengths_that_are_no_pixels(k: list[float]) -> None:
    with pytest.raises(CalibrationError, match="focal lengths of .* none of a picture of 640x480"):
        camera(k=k)
    fields = {"width": 640, "height": 480, "intrinsics": [k[0], k[4], k[2], k[5]]}
    with pytest.raises(CalibrationError, match="focal lengths"):
        CameraModel.from_dict(fields)


def kitti(
    folder: Path, projection: str = "720 0 620 44 0 720 187 0.2 0 0 1 0", t: str = "0 0 0"
) -> Path:
    (folder / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: 1242 375\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {projection}\n"
    )
    (folder / "calib_velo_to_cam.txt").write_text(f"R: 0 -1 0 0 0 -1 1 0 0\nT: {t}\n")
    return folder


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"projection": "720 3 620 44 0 720 187 0.2 0 0 1 0"}, "skew 3"),
        ({"projection": "720 0 620 44 0 720 187 0.2 0 0 2 0"}, "not fx 0 cx"),
        ({"t": "0 -80 -270"}, "281.6 m apart.*millimetres"),
    ],
)
def test_kitti_texts_of_another_form(tmp_path: Path, changes: dict[str, str], what: str) -> None:
    rig = rig_from_kitti(kitti(tmp_path))
    assert (rig.sensors["rgb"].camera or camera()).fx == 720
    assert np.allclose(rig.sensors["lidar"].extrinsics.translation, [44 / 720, 0.2 / 720, 0])  # type: ignore[union-attr]
    with pytest.raises(CalibrationError, match=what):
        rig_from_kitti(kitti(tmp_path, **changes))


def test_a_rig_in_millimetres(tmp_path: Path) -> None:
    matrix = [[0, -1, 0, 100], [0, 0, -1, -200], [1, 0, 0, -300], [0, 0, 0, 1]]
    (tmp_path / "rig.yaml").write_text(yaml.dump({"sensors": {"lidar": {"to_reference": matrix}}}))
    with pytest.raises(CalibrationError, match=r"lidar: sensors 374.2 m apart"):
        load_rig(tmp_path / "rig.yaml")
