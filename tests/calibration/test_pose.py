"""The pose between two cameras from pictures and the depth of one, with known truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from two_sensors import A, B, hills, scene, seen_by_b, truth

from calibration.registration.network import DescriptorGraph
from calibration.registration.pose import PoseFit, register_pose
from perception.errors import CalibrationError, InputError


@pytest.fixture(scope="module")
def graph() -> DescriptorGraph:
    return DescriptorGraph(threads=1)


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
    with pytest.raises(CalibrationError, match="depth of A: is 240x180"):
        register_pose(a, small, depth[::2, ::2], (A, B), graph)
    with pytest.raises(CalibrationError, match="0 matches have depth"):
        register_pose(a, small, np.full_like(depth, np.nan), (A, B), graph)
    with pytest.raises(InputError, match="one value"):
        register_pose(a, np.zeros_like(small), depth, (A, B), graph)
