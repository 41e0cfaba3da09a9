"""Inputs that come to lie on the ground grid: pillars of points, tables of pictures, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from perception.corruptions import corrupt, corrupt_grid
from perception.corruptions.training import grid_faults
from perception.errors import BlindError, CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.lifting import lift_of
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.preprocess.sample import on_grid, preprocess_sample, source_size
from perception.sensors.registry import kind_of

GROUND = {"x": [-12.8, 12.8], "y": [-12.8, 12.8], "cell_m": 0.4, "heights": [0.2, 1.4]}
CAMERA = CameraModel(96, 64, 60.0, 60.0, 47.5, 31.5)
AHEAD = RigidTransform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.5, 0, 1.4])
ROOF = RigidTransform(np.eye(3), [0, 0, 1.7])


def contract(**inputs: object) -> PreprocessContract:
    return PreprocessContract.model_validate(inputs)


def lidar(**preprocess: object) -> InputSpec:
    view = {"type": "birdseye", "birdseye": GROUND}
    return contract(lidar={"kind": "lidar", "view": view, "preprocess": preprocess})["lidar"]


def picture(kind: str) -> InputSpec:
    view = {"height": 64, "width": 96, "birdseye": GROUND}
    return contract(**{kind: {"kind": kind, "view": view}})[kind]


def depth() -> InputSpec:
    view = {"type": "birdseye", "birdseye": GROUND}
    return contract(depth={"kind": "depth", "view": view})["depth"]


def cloud(points: np.ndarray | None = None, count: int = 500, **about: object) -> Sample:
    rng = np.random.default_rng(3)
    made = rng.uniform((-10, -10, -1.5, 0), (10, 10, 1, 1), (count, 4)).astype(np.float32)
    return Sample(
        "lidar", made if points is None else points, pose=about.pop("pose", ROOF), **about
    )


def color(**about: object) -> Sample:
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return Sample("rgb", image, **{"camera": CAMERA, "pose": AHEAD, **about})


def test_inputs_of_each_kind():
    spec = lidar(max_pillars=50, max_points=4)
    assert {n: (t.shape, t.dtype) for n, t in spec.tensors.items()} == {
        "pillars": ((50, 4, 8), "float32"),
        "cells": ((50,), "int32"),
    }
    usual = {n: t.shape for n, t in lidar().tensors.items()}
    assert usual == {"pillars": (6000, 12, 8), "cells": (6000,)}
    assert {n: t.shape for n, t in depth().tensors.items()} == usual
    for kind, channels in (("rgb", 3), ("thermal", 2)):
        found = {n: (t.shape, t.dtype) for n, t in picture(kind).tensors.items()}
        assert found == {
            "image": ((channels, 64, 96), "float32"),
            "table": ((2, 64, 64), "int32"),
            "ranges": ((64, 64), "float32"),
            "rays": ((3, 16, 24), "float32"),
        }


def test_a_cloud_becomes_pillars_in_the_base_frame():
    sample = cloud()
    out = preprocess_sample(sample, lidar())
    pillars, cells = out["pillars"][0], out["cells"][0]
    there = pillars[pillars[..., 7] > 0]
    wanted = sample.data + np.array([0, 0, 1.7, 0], np.float32)
    order = np.lexsort(wanted.T)
    found = there[:, :4]
    np.testing.assert_allclose(found[np.lexsort(found.T)], wanted[order], atol=1e-5)
    again = preprocess_sample(replace(sample, data=sample.data.copy()), lidar())
    assert all(out[n].tobytes() == again[n].tobytes() for n in out)
    row, column = np.divmod(cells[cells < 64 * 64], 64)
    first = pillars[: len(row), 0]
    np.testing.assert_allclose(first[:, 0] - first[:, 4], -12.8 + (row + 0.5) * 0.4, atol=1e-4)
    np.testing.assert_allclose(first[:, 1] - first[:, 5], -12.8 + (column + 0.5) * 0.4, atol=1e-4)


def test_intensities_in_counts_are_scaled():
    points = np.array([[1, 1, 0, 51], [2, 2, 0, 255]], np.float32)
    pillars = preprocess_sample(cloud(points), lidar())["pillars"][0]
    np.testing.assert_allclose(pillars[:2, 0, 3], [0.2, 1.0], atol=1e-6)


@pytest.mark.parametrize("kind", ["rgb", "thermal"])
def test_a_picture_brings_how_it_is_lifted(kind):
    spec = picture(kind)
    image = color().data
    if kind == "thermal":
        image = image[..., 0].astype(np.float32)
    sample = Sample(kind, image, unit="counts8" * (kind == "thermal"), camera=CAMERA, pose=AHEAD)
    out = preprocess_sample(sample, spec)
    lift = lift_of(spec.view, CAMERA, AHEAD)
    for name in ("table", "ranges", "rays"):
        np.testing.assert_array_equal(out[name][0], getattr(lift, name))
    assert (out["table"] < 16 * 24).any()
    plain = contract(**{kind: {"kind": kind, "view": {"height": 64, "width": 96}}})[kind]
    alone = preprocess_sample(replace(sample, pose=None), plain)
    np.testing.assert_array_equal(out["image"], alone["image"])


def test_a_depth_camera_stands_in_for_a_lidar():
    meters = np.full((64, 96), 5.0, np.float32)
    meters[:, :48] = np.nan
    meters[0] = 50.0  # beyond the range of the input
    sample = Sample("depth", meters, camera=CAMERA, pose=AHEAD)
    pillars = preprocess_sample(sample, depth())["pillars"][0]
    there = pillars[pillars[..., 7] > 0]
    np.testing.assert_allclose(there[:, 0], 5.5, atol=1e-5)  # 5 m ahead of the camera
    assert (there[:, 1] <= 0.05).all()  # the right half of the picture
    assert not there[:, 3].any()
    assert source_size(sample, depth()) == (64, 64)


LENSES = {
    "none": CAMERA,
    "plumb_bob": replace(
        CAMERA, distortion_model="plumb_bob", distortion=(-0.1, 0.02, 0.003, 0, 0)
    ),
}


def room(lens: CameraModel = CAMERA) -> Sample:
    """Between 1 and 3 m away, with holes; wherever a fault moves it, it stays on the grid."""
    y, x = np.mgrid[:64, :96]
    meters = (1 + x / 100 + y / 70).astype(np.float32)
    meters[(x * 7 + y * 5) % 11 == 0] = np.nan
    return Sample("depth", meters, camera=lens, pose=AHEAD)


@pytest.mark.parametrize("fault", grid_faults("depth"))
@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("severity", [1, 5])
def test_a_depth_camera_is_spoilt_on_the_ground_as_in_its_picture(
    fault: str, lens: str, severity: int
) -> None:
    clean, spec, own = room(LENSES[lens]), depth(), kind_of("depth")
    before = own.resample(corrupt(clean, fault, severity, seed=5), spec).layers["points"]
    grid = on_grid(clean, spec)
    after = corrupt_grid("depth", grid, fault, severity, seed=5).layers["points"]
    assert after.dtype == np.float32 and after.shape == before.shape
    np.testing.assert_allclose(after, before, atol=2e-4)
    lost = len(grid.layers["points"]) - len(after)
    assert lost > 0 or not np.array_equal(after, grid.layers["points"])


def test_points_of_a_depth_camera_are_roughened_in_training_but_keep_their_scale() -> None:
    grid, augment = on_grid(room(), depth()), kind_of("depth").augment
    assert augment is not None
    clean, rng = grid.layers["points"], np.random.default_rng(2)
    none = {"pixel_dropout": 0.0, "noise": 0.0}
    np.testing.assert_array_equal(augment(grid, none, rng).layers["points"], clean)
    fewer = augment(grid, {**none, "pixel_dropout": 1.0}, rng).layers["points"]
    assert 0.3 * len(clean) < len(fewer) < len(clean)
    assert {p.tobytes() for p in fewer} < {p.tobytes() for p in clean}
    noisy = augment(grid, {**none, "noise": 1.0}, rng).layers["points"]
    rays, moved = (p[:, :3] - AHEAD.translation for p in (clean, noisy))
    away, further = (np.linalg.norm(p, axis=1) for p in (rays, moved))
    np.testing.assert_allclose(rays / away[:, None], moved / further[:, None], atol=1e-5)
    assert abs((further / away).mean() - 1) < 0.01 < (further - away).std()


def test_a_depth_camera_without_a_point_on_the_ground_can_be_spoilt() -> None:
    grid = on_grid(replace(room(), data=np.full((64, 96), np.nan, np.float32)), depth())
    assert not len(corrupt_grid("depth", grid, "rain", 5).layers["points"])


@pytest.mark.parametrize(
    ("sample", "spec", "error", "line"),
    [
        (cloud(np.zeros((0, 4), np.float32)), lidar(), BlindError, "lidar: empty cloud"),
        (cloud(np.full((9, 4), np.nan, np.float32)), lidar(), BlindError, "empty cloud: no return"),
        (cloud(np.full((9, 4), 300.0, np.float32)), lidar(), InputError, "no point lies on the"),
        (cloud(np.ones((9, 2), np.float32)), lidar(), InputError, "expected float .N, 3 or more"),
        (cloud(np.ones((9, 4), np.int32)), lidar(), InputError, "cloud is int32"),
        (
            cloud(pose=None),
            lidar(),
            CalibrationError,
            "lidar: its place on the vehicle is not known",
        ),
        (
            color(pose=None),
            picture("rgb"),
            CalibrationError,
            "rgb: its place on the vehicle is not",
        ),
        (color(camera=None), picture("rgb"), CalibrationError, "rgb: its intrinsics are not known"),
        (
            color(pose=RigidTransform(AHEAD.rotation, [90, 0, 1.4])),
            picture("rgb"),
            InputError,
            "rgb: sees nothing of the ground grid",
        ),
        (
            Sample("depth", np.ones((64, 96), np.float32), pose=AHEAD),
            depth(),
            CalibrationError,
            "depth: its intrinsics are not known",
        ),
        (
            Sample("depth", np.full((64, 96), np.nan, np.float32), camera=CAMERA, pose=AHEAD),
            depth(),
            InputError,
            "depth: no point lies on the ground grid",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(sample, spec, error, line):
    with pytest.raises(error, match=line) as told:
        preprocess_sample(sample, spec)
    assert "\n" not in str(told.value)


def test_one_point_and_two_million_do():
    one = preprocess_sample(cloud(np.array([[1, 2, 0, 0.5]], np.float32)), lidar())
    assert one["cells"][0, :2].tolist() == [34 * 64 + 37, 64 * 64]
    many = preprocess_sample(cloud(count=2_000_000), lidar())
    assert (many["pillars"][0, :2500, :, 7] == 1).all()


def test_old_manifests_keep_their_bytes():
    """What is usual is not written, so that versions that know no pillars read it."""
    old = contract(lidar={"kind": "lidar"}, depth={"kind": "depth"})
    text = yaml.safe_dump(old.model_dump())
    assert "max_p" not in text
    assert "birdseye" not in text
    given = {"kind": "lidar", "view": {"type": "birdseye", "birdseye": GROUND}}
    new = contract(lidar={**given, "preprocess": {"max_pillars": 99}})
    dumped = new.model_dump()
    assert dumped["lidar"]["preprocess"]["max_pillars"] == 99
    assert "max_points" not in dumped["lidar"]["preprocess"]
    assert PreprocessContract.model_validate(dumped).root == new.root


def test_faults_act_on_points_of_the_ground_as_on_the_cloud():
    kind, sample, spec = kind_of("lidar"), cloud(), lidar()
    for fault in kind.faults:
        rng = np.random.default_rng(5)
        grid = kind.apply(fault, on_grid(sample, spec), "grid", 3, rng)
        spoilt = kind.apply(fault, sample, "sample", 3, np.random.default_rng(5))
        if fault == "dark":
            assert not len(grid.layers["points"])
            continue
        wanted = on_grid(spoilt, spec).layers["points"]
        assert len(grid.layers["points"]) == pytest.approx(len(wanted), abs=0.1 * len(wanted) + 3)
        out = {n: np.empty(t.shape, t.dtype) for n, t in spec.tensors.items()}
        kind.normalize(grid, spec, out)
    chances = {"beam_reduction": 1.0, "noise": 1.0, "pixel_dropout": 1.0}
    grid = on_grid(sample, spec)
    fewer = kind.augment(grid, chances, np.random.default_rng(0)).layers["points"]
    assert 0 < len(fewer) < len(grid.layers["points"])
