"""Registration: the homography between pictures of two sensors, and whether it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_sensors import corner_error, homography, scene

from calibration.registration.fitting import consensus, polished, weighted
from calibration.registration.matching import Matches, everywhere
from calibration.registration.network import SHIPPED, DescriptorGraph
from calibration.registration.overlay import overlay
from calibration.registration.pictures import SIDE, filled, normalized, padded, prepare
from calibration.registration.register import register, sensible
from perception.errors import DataError, EngineError, InputError


@pytest.fixture(scope="module")
def graph() -> DescriptorGraph:
    return DescriptorGraph(threads=1)


@pytest.mark.parametrize(("share", "degrees", "px"), [(0.06, 0, 4), (0.12, 15, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_the_homography_is_found(
    graph: DescriptorGraph, seed: int, share: float, degrees: float, px: float
) -> None:
    a, b = scene(seed)
    truth = homography(480, 360, share, degrees, np.random.default_rng(seed))
    found = register(a, cv2.warpPerspective(b, truth, (480, 360)), graph)
    assert corner_error(found.matrix, truth, a.shape) < px and found.trusted, found
    assert found.inliers > 100 and found.inliers <= found.matches


def test_sizes_and_depths_of_values_may_differ(graph: DescriptorGraph) -> None:
    a, b = scene(7)
    large = cv2.resize(a, (1440, 1080), interpolation=cv2.INTER_CUBIC)
    raw = (b.astype(np.uint16) * 8 + 21000).astype(np.uint16)
    truth = np.diag([1 / 3, 1 / 3, 1.0])
    truth[:2, 2] = 1 / 6 - 0.5  # pixel centers
    found = register(large, raw, graph)
    assert corner_error(found.matrix, truth, large.shape) < 3 and found.trusted


def test_there_and_back_is_the_identity(graph: DescriptorGraph) -> None:
    a, b = scene(3)
    truth = homography(480, 360, 0.06, 5, np.random.default_rng(3))
    moved = cv2.warpPerspective(b, truth, (480, 360))
    there, back = register(a, moved, graph), register(moved, a, graph)
    assert corner_error(back.matrix @ there.matrix, np.eye(3), a.shape) < 5


def test_a_picture_fits_itself(graph: DescriptorGraph) -> None:
    a, _ = scene(4)
    found = register(a, a.copy(), graph)
    assert corner_error(found.matrix, np.eye(3), a.shape) < 0.5 and found.confidence > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_what_does_not_belong_together_is_not_trusted(graph: DescriptorGraph, seed: int) -> None:
    a, _ = scene(seed)
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, a.shape).astype(np.uint8)
    ramp = np.add.outer(np.arange(360), np.arange(480)).astype(np.uint16)
    for other in (scene(seed + 100)[1], noise, ramp):
        assert not register(a, other, graph).trusted


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (np.full((90, 120), 7, np.uint8), "one value"),
        (np.full((90, 120), np.nan, np.float32), "shows nothing"),
        (np.eye(20, dtype=np.uint8), "too small"),
        (np.zeros((90, 120, 3), np.uint8), "no gray"),
    ],
)
def test_pictures_that_cannot_be_used(graph: DescriptorGraph, image: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"cat.*{problem}"):
        register(image, scene(1)[1], graph, ("cat", "dog"))


def test_strange_values_are_met(graph: DescriptorGraph) -> None:
    a, b = scene(5)
    holes = b.astype(np.float32)
    holes[100:180, 200:300] = np.nan
    holes[0, 0] = np.inf
    found = register(a, holes, graph)
    assert corner_error(found.matrix, np.eye(3), a.shape) < 3
    wide = np.tile(a[:40], (1, 8))
    assert np.isfinite(register(wide, b, graph).matrix).all()


def test_a_file_that_is_no_matcher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        DescriptorGraph(tmp_path / "none.onnx")
    (tmp_path / "a.onnx").write_bytes(b"text")
    with pytest.raises(EngineError, match=r"a\.onnx"):
        DescriptorGraph(tmp_path / "a.onnx")
    other = Path(__file__).parents[2] / "bundles/sim-stereo/fuser.onnx"
    with pytest.raises(EngineError, match="no matcher"):
        DescriptorGraph(other)
    assert SHIPPED.stat().st_size < 5 * 2**20


def test_what_a_warp_left_empty_is_known() -> None:
    a, _ = scene(2)
    truth = homography(480, 360, 0.15, 20, np.random.default_rng(2))
    moved = cv2.warpPerspective(a, truth, (480, 360))
    inside = cv2.warpPerspective(np.full_like(a, 255), truth, (480, 360)) > 0
    deep = cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0
    empty = filled(moved.astype(np.float32))
    assert not (empty & deep).any() and empty[~inside].mean() > 0.95
    assert not filled(a.astype(np.float32)).any()


def test_the_network_sees_neither_level_nor_contrast() -> None:
    a, _ = scene(1)
    one, other = prepare(a), prepare(a.astype(np.float32) * 55.5 + 4000)
    assert max(one.shape) == SIDE
    assert np.allclose(
        normalized(one.gray, one.valid), normalized(other.gray, other.valid), atol=1e-3
    )
    assert padded(np.ones((2, 33, 64), np.float32)).shape == (2, 64, 64)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_exact_matches_give_the_homography_and_wrong_ones_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = homography(400, 300, 0.2, 20, rng)
    a = rng.uniform([0, 0], [400, 300], (60, 2))
    b = cv2.perspectiveTransform(a[None], truth)[0]
    found = weighted(Matches(a, b, np.ones(60)), np.ones(60))
    assert found is not None and corner_error(found, truth, (300, 400)) < 1e-5
    b[:20] = rng.uniform([0, 0], [400, 300], (20, 2))
    wrong = Matches(a, b, np.ones(60))
    start = consensus(wrong, 3.0)
    assert start is not None and corner_error(polished(start, wrong, 1.0), truth, (300, 400)) < 0.2


def test_outlines_that_no_camera_makes_are_known() -> None:
    assert sensible(np.eye(3), (300, 400))
    assert not sensible(np.diag([-1.0, 1, 1]), (300, 400))
    assert not sensible(np.diag([0.01, 0.01, 1]), (300, 400))
    assert not sensible(np.full((3, 3), np.nan), (300, 400))
    assert not sensible(np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]]), (300, 400))


def test_nothing_to_compare_gives_no_match(graph: DescriptorGraph) -> None:
    a, _ = scene(1)
    seen = graph.describe(prepare(a).gray, np.zeros(prepare(a).shape, bool))
    assert len(everywhere(seen, seen).a) == 0


def test_the_overlay_has_both_pictures() -> None:
    a, b = scene(1)
    shown = overlay(a, (b.astype(np.uint16) * 100), np.eye(3))
    assert shown.shape == (360, 480, 3) and shown.std() > 20
    away = np.array([[1, 0, 5000], [0, 1, 0], [0, 0, 1.0]])
    assert (overlay(a, b, away)[..., 1] <= shown[..., 0].max()).all()
