"""A depth camera's scale and bias from planes of a board, with known truth, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from depth_scenes import (
    BIAS_M,
    BOARD,
    CAMERA,
    SCALE,
    detections,
    plane_depth,
    plane_views,
    write_depth,
)

from calibration.values.correction import Correction
from calibration.values.depth import calibrate_depth
from calibration.values.planes import PlaneView
from calibration.values.planes import plane_views as read_planes
from perception.errors import CalibrationError, InputError
from perception.frame import Sample

TRUTH = np.array([BIAS_M, SCALE])


def test_scale_and_bias_are_found_with_their_sigma() -> None:
    found = calibrate_depth(plane_views(12, 1), {})
    assert found.trusted and found.needed and not found.left_out
    assert (np.abs(found.coefficients - TRUTH) < 4 * found.sigma).all()
    at = np.linspace(*found.range_m, 9)
    off = found.true_of(at) - (BIAS_M + SCALE * at)
    assert (np.abs(off) < 4 * found.sigma_at(at)).all() and np.abs(off).max() < 0.002
    before = float(np.sqrt(np.mean(found.off_before**2)))
    assert found.held_out_m[1] < before / 3


def test_two_sigma_hold_the_truth_as_often_as_they_say() -> None:
    inside, ratios = [], []
    for seed in range(100, 130):
        found = calibrate_depth(plane_views(10, seed), {})
        off = found.coefficients - TRUTH
        inside.append(np.abs(off) < 2 * found.sigma)
        ratios.append(off / found.sigma)
    assert 0.85 <= np.mean(inside) <= 1.0 and 1 / 1.5 < np.std(ratios) < 1.5


def test_a_right_camera_needs_nothing() -> None:
    found = calibrate_depth(plane_views(12, 3, scale=1.0, bias=0.0), {})
    assert found.trusted and not found.needed


def test_a_hand_before_the_board_and_a_board_that_moved_change_little() -> None:
    views = plane_views(12, 4)
    seen = views[2].seen.copy()
    seen[: len(seen) // 5] -= 0.1
    views[2] = replace(views[2], seen=seen)
    views[5] = replace(views[5], seen=views[5].seen + 0.05)
    found = calibrate_depth(views, {"99": "no board found"})
    assert set(found.left_out) == {"05", "99"} and "did the board move" in found.left_out["05"]
    at = np.array([0.7, 1.2])
    assert np.abs(found.true_of(at) - TRUTH[0] - TRUTH[1] * at).max() < 2e-3


def test_what_a_line_does_not_hold_a_polynomial_does() -> None:
    views = plane_views(14, 6, noise=0.0005)
    bent = [replace(view, seen=view.seen + 0.02 * view.seen**2) for view in views]
    line, square = (calibrate_depth(bent, {}, degree) for degree in (1, 2))
    assert square.held_out_m[2] < 0.8 * line.held_out_m[1]
    assert any("--degree" in remark for remark in line.remarks)
    assert not any("--degree" in remark for remark in square.remarks)


def _scaled(views: list[PlaneView], factor: float) -> list[PlaneView]:
    return [replace(view, seen=view.seen * factor) for view in views]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda v: v[:3], "3 usable poses.*near and far"),
        (lambda v: [v[0]] * 6, "at one distance.*near and far"),
        (lambda v: _scaled(v, 1000), "millimetres"),
        (lambda v: _scaled(v, 0.001), "metres stored as whole millimetres"),
        (lambda v: _scaled(v, 100), "centimetres"),
        (lambda v: _scaled(v, 10), "--depth-scale 0.0001"),
        (lambda v: [replace(one, seen=1 / one.seen) for one in v], "disparities"),
        (lambda v: [replace(one, seen=one.seen * one.stretch) for one in v], "along the rays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_tell_is_refused_with_what_to_record(change, problem: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CalibrationError, match=problem):
        calibrate_depth(change(plane_views(8, 7)), {})


def test_squares_of_another_size_are_not_trusted() -> None:
    views = [replace(view, true=view.true * 1.3) for view in plane_views(10, 8)]
    found = calibrate_depth(views, {})
    assert not found.trusted and any("squares" in doubt for doubt in found.doubts)


def test_files_are_read_in_millimetres_and_metres(tmp_path: Path) -> None:
    seen, at = detections(6, 9)
    found = []
    for suffix in (".png", ".npy"):
        folder = write_depth(tmp_path / suffix[1:], at, suffix=suffix)
        views, left_out = read_planes(seen, folder, CAMERA, BOARD)
        assert len(views) == 6 and not left_out
        found.append(calibrate_depth(views, {}).coefficients)
    assert np.allclose(*found, atol=3e-4)


def test_pictures_that_give_no_plane_are_left_out_with_the_reason(tmp_path: Path) -> None:
    seen, at = detections(6, 10)
    folder = write_depth(tmp_path / "depth", at, suffix=".npy")
    np.save(folder / "01.npy", np.full((CAMERA.height, CAMERA.width), np.nan, np.float32))
    (folder / "02.npy").write_bytes(b"nothing")
    (folder / "03.npy").unlink()
    views, left_out = read_planes(seen, folder, CAMERA, BOARD)
    assert [view.name for view in views] == ["00", "04", "05"]
    assert "0 % of the board has depth" in left_out["01"] and left_out["02"]
    assert left_out["03"] == "no depth picture of this name"


def test_depth_of_another_size_or_other_names_is_refused(tmp_path: Path) -> None:
    seen, at = detections(4, 11)
    folder = tmp_path / "small"
    folder.mkdir()
    np.save(folder / "00.npy", plane_depth(at[0])[::2, ::2].astype(np.float32))
    with pytest.raises(CalibrationError, match="is 160x120, the pictures 320x240.*registers"):
        read_planes(seen, folder, CAMERA, BOARD)
    (folder / "00.npy").rename(folder / "other.npy")
    with pytest.raises(CalibrationError, match="have the same name"):
        read_planes(seen, folder, CAMERA, BOARD)


def test_a_correction_is_applied_to_samples_and_none_stays_none() -> None:
    correction = Correction("depth", (3, 1), (BIAS_M, SCALE, 0.001), (0.5, 2.0))
    data = np.array([[1.0, np.nan, np.inf]], np.float32)
    done = correction.apply(Sample("depth", data))
    assert np.isclose(done.data[0, 0], BIAS_M + SCALE + 0.001) and done.data.dtype == np.float32
    assert np.isnan(done.data[0, 1]) and np.isposinf(done.data[0, 2])
    assert correction.beyond(Sample("depth", data)) == 0
    assert correction.beyond(Sample("depth", data * 3)) == 1
    with pytest.raises(InputError, match="is thermal"):
        correction.apply(Sample("thermal", data, unit="kelvin"))
    with pytest.raises(InputError, match="picture of 1x1"):
        correction.apply(Sample("depth", data[:, :1]))
