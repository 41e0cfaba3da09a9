"""The pose between two cameras from pictures and the depth of one, with known truth."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from two_sensors import scene

from calibration.registration.network import DescriptorGraph
from calibration.registration.pose import PoseFit, register_pose
from perception.errors import CalibrationError, InputError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

A = CameraModel(480, 360, 420.0, 421.0, 238.0, 182.0)
B = CameraModel(400, 300, 330.0, 331.0, 202.0, 148.0, "plumb_bob", (-0.05, 0.01, 0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def graph() -> DescriptorGraph:
    return DescriptorGraph(threads=1)


def hills(seed: int) -> NDArray[np.float64]:
    """(360, 480) metres, from near 1.3 to 3: no homography joins two views of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:360, 0:480]
    waves = np.sin(x / 90 + rng.uniform(0, 6)) + np.cos(y / 75 + rng.uniform(0, 6))
    return np.asarray(2.1 + 0.4 * waves, np.float64)


def seen_by_b(
    picture: NDArray[Any], depth: NDArray[np.float64], pose: RigidTransform
) -> NDArray[np.uint8]:
    """What B sees of a picture of A, by fixed-point iteration; the surface is smooth."""
    y, x = np.mgrid[0 : B.height, 0 : B.width]
    target = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    at = target * [A.width / B.width, A.height / B.height]
    for _ in range(60):
        z = cv2.remap(depth, *at.T.astype(np.float32).reshape(2, B.height, B.width), 1,
                      borderMode=cv2.BORDER_REPLICATE).ravel()  # fmt: skip
        put = B.project(pose.apply(A.unproject(at, z)))[0]
        at = at + (target - put) * A.fx / B.fx * 0.8
    maps = at.astype(np.float32).reshape(B.height, B.width, 2)
    return np.asarray(cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR), np.uint8)


def truth(seed: int, baseline: float = 0.15) -> RigidTransform:
    rng = np.random.default_rng(seed + 50)
    turn = cv2.Rodrigues(np.radians(rng.uniform(-3, 3, 3)))[0]
    move = rng.normal(0, 1, 3) * [1, 0.6, 0.4]
    return RigidTransform(turn, baseline * move / np.linalg.norm(move))


def found_and_off(seed: int, graph: DescriptorGraph) -> tuple[PoseFit, NDArray[np.float64]]:
    a, b = scene(seed)
    depth, pose = hills(seed), truth(seed)
    rng = np.random.default_rng(seed)
    noisy = depth + rng.normal(0, 0.002, depth.shape) * depth**2
    noisy[rng.random(depth.shape) < 0.02] = np.nan
    found = register_pose(a, seen_by_b(b, depth, pose), noisy.astype(np.float32), (A, B), graph)
    turn = cv2.Rodrigues(found.transform.rotation @ pose.rotation.T)[0].ravel()
    return found, np.concatenate([found.transform.translation - pose.translation, turn])


def test_the_pose_is_found_with_its_sigma(graph: DescriptorGraph) -> None:
    inside = []
    for seed in range(6):
        found, off = found_and_off(seed, graph)
        assert found.trusted, found.doubts
        assert np.linalg.norm(off[:3]) < 0.03 and np.degrees(np.linalg.norm(off[3:])) < 0.8
        inside.append(np.abs(off) < 3 * found.sigma)
    assert np.mean(inside) > 0.85


def test_what_does_not_belong_together_is_not_trusted(graph: DescriptorGraph) -> None:
    depth = hills(1).astype(np.float32)
    for seed in range(3):
        a, other = scene(seed)[0], cv2.resize(scene(seed + 100)[1], (B.width, B.height))
        try:
            found = register_pose(a, other, depth, (A, B), graph)
        except CalibrationError:
            continue
        assert not found.trusted


def test_what_cannot_be_used_is_refused(graph: DescriptorGraph) -> None:
    a, b = scene(2)
    small = cv2.resize(b, (B.width, B.height))
    depth = hills(2).astype(np.float32)
    with pytest.raises(CalibrationError, match="B: is 480x360, its camera 400x300"):
        register_pose(a, b, depth, (A, B), graph)
    with pytest.raises(CalibrationError, match="depth: is 240x180"):
        register_pose(a, small, depth[::2, ::2], (A, B), graph)
    with pytest.raises(CalibrationError, match="0 matches have depth"):
        register_pose(a, small, np.full_like(depth, np.nan), (A, B), graph)
    with pytest.raises(InputError, match="one value"):
        register_pose(a, np.zeros_like(small), depth, (A, B), graph)
