"""Samples that callers make of what they have: stamps of other types, masked arrays, views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perception.errors import InputError
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.preprocess import GridSpec, PreprocessContract, preprocess_sample

CONTRACT = PreprocessContract(
    modalities=("rgb", "depth", "thermal", "lidar"), grid=GridSpec(height=32, width=64)
)
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
METERS = np.random.default_rng(0).uniform(1, 5, (16, 24)).astype(np.float32)


def made(sample: Sample) -> np.ndarray:
    return preprocess_sample(sample, CONTRACT[sample.kind])["image"]


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32, np.uint32, int])
def test_whole_numbers_of_any_type_are_stamps(kind: type) -> None:
    sample = Sample("rgb", IMAGE, kind(1_700_000_000))
    assert type(sample.stamp_ns) is int and sample.stamp_ns == 1_700_000_000
    assert type(Frame({"rgb": sample}, kind(7)).stamp_ns) is int
    # As Python's numbers they neither wrap around nor overflow
    assert sample.time_ns - Sample("rgb", IMAGE, kind(1_700_000_001)).time_ns == -1
    assert sample.time_ns * 10**12 == 17 * 10**20


@pytest.mark.parametrize(
    "stamp",
    [1.7e9, 1.7e18, np.float64(0), float("nan"), "1", True, np.datetime64(1, "ns"), np.array([1])],
)
def test_other_stamps_are_refused(stamp: Any) -> None:
    with pytest.raises(InputError, match="expected whole nanoseconds"):
        Sample("depth", METERS, stamp)
    with pytest.raises(InputError, match="expected whole nanoseconds"):
        replace(Sample("depth", METERS), stamp_ns=stamp)
    with pytest.raises(InputError, match="expected whole nanoseconds"):
        Frame({}, stamp)


def test_seconds_are_told_what_to_do() -> None:
    with pytest.raises(InputError, match=r"depth: .*float.*round\(seconds \* 1e9\)"):
        Sample("depth", METERS, 1_700_000_000.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rgb", "depth", "thermal", "lidar"])
def test_a_mask_is_not_lost(kind: Any) -> None:
    data = {"rgb": IMAGE, "depth": METERS, "thermal": METERS + 300, "lidar": METERS[:, :4]}[kind]
    masked = np.ma.array(data, mask=data > np.median(data))
    with pytest.raises(InputError, match="masked array"):
        made(Sample(kind, masked, unit="kelvin"))


def test_a_mask_of_nothing_is_none() -> None:
    plain = made(Sample("depth", METERS))
    masked = made(Sample("depth", np.ma.array(METERS)))
    assert np.array_equal(plain, masked)


def test_views_of_any_layout_are_what_they_show() -> None:
    wide = np.zeros((32, 48, 3), np.uint8)
    wide[::2, ::2] = IMAGE
    fixed = IMAGE.copy()
    fixed.flags.writeable = False
    views = [
        np.ascontiguousarray(IMAGE[..., ::-1])[..., ::-1],
        np.ascontiguousarray(IMAGE[::-1, ::-1])[::-1, ::-1],
        np.ascontiguousarray(IMAGE.transpose(2, 0, 1)).transpose(1, 2, 0),
        np.asfortranarray(IMAGE),
        wide[::2, ::2],
        fixed,
    ]
    want = made(Sample("rgb", IMAGE))
    for view in views:
        assert np.array_equal(made(Sample("rgb", view)), want)


@pytest.mark.parametrize(
    ("full", "dtype"), [(255, np.float32), (65535, np.float64), (1, np.float32)]
)
def test_intensities_of_counts_are_those_of_shares(full: int, dtype: type) -> None:
    rng = np.random.default_rng(1)
    cloud = np.column_stack([rng.uniform(-3, 3, (200, 2)), rng.uniform(4, 9, 200), rng.random(200)])
    cloud[0, 3] = 1
    camera = CameraModel(64, 32, 40, 40, 31.5, 15.5)

    def given(points: np.ndarray) -> np.ndarray:
        sample = Sample("lidar", points, camera=camera, extrinsics=RigidTransform.identity())
        return made(sample)

    counts = (cloud * [1, 1, 1, full]).astype(dtype)
    before = counts.copy()
    assert np.allclose(given(counts), given(cloud.astype(np.float32)), atol=1e-6)
    assert np.array_equal(counts, before)
    nearly = cloud.astype(np.float32)
    nearly[0, 3] = 1.01  # a share that was rounded
    assert np.allclose(given(nearly), given(cloud.astype(np.float32)), atol=1e-6)
