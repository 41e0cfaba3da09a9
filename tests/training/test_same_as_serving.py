"""Training sees exactly what serving sees: every kind of sensor, both fits, sizes that divide by nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.data.base import Boxes, Recording, RecordingInfo, Truth
from perception.errors import CalibrationError, InputError
from perception.frame import KINDS, Frame, Kind, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.preprocess import GridSpec, PreprocessContract, preprocess_sample
from perception.training.augment import augment
from perception.training.config import CorruptionSpec, ResolutionPhase
from perception.training.dataset import load_raw, network_inputs

AHEAD = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
QUIET = CorruptionSpec(pixel_dropout=0, noise=0, exposure=0, beam_reduction=0, misalignment=0)


class Frames(Recording):
    """Frames and truth given as they are."""

    def __init__(self, frames: list[Frame], truth: list[Truth] | None = None) -> None:
        info = RecordingInfo("folder", "made", KINDS)
        super().__init__(Path(), info, [str(i) for i in range(len(frames))])
        self._frames, self._truth = frames, truth or [Truth()] * len(frames)

    def frame(self, index: int) -> Frame:
        return self._frames[index]

    def truth(self, index: int) -> Truth:
        return self._truth[index]


def contract(fit: str, grid: tuple[int, int] = (64, 96), **fields: object) -> PreprocessContract:
    spec = GridSpec(height=grid[0], width=grid[1], fit=fit)  # type: ignore[arg-type]
    return PreprocessContract(modalities=KINDS, grid=spec, **fields)  # type: ignore[arg-type]


def samples(size: tuple[int, int], seed: int, holes: float = 0.3) -> dict[Kind, Sample]:
    """One sample of each kind, with values missing at random where the kind knows such."""
    height, width = size
    rng = np.random.default_rng(seed)
    camera = CameraModel(width, height, width / 2, width / 2, width / 2 - 0.5, height / 2 - 0.5)
    depth = rng.uniform(0.2, 25, size).astype(np.float32)
    depth[rng.random(size) < holes] = np.nan
    depth[0, 0] = 1.0
    thermal = rng.uniform(280, 300, size).astype(np.float32)
    thermal[rng.random(size) < holes / 10] = np.nan
    thermal[0, 0] = 290
    cloud = rng.uniform((2, -1, -1, 0), (90, 1, 1, 1), (400, 4)).astype(np.float32)
    cloud[0] = (5, 0, 0, 0.5)
    cloud[rng.random(400) < holes, 3] = np.nan
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
        "depth": Sample("depth", depth),
        "thermal": Sample("thermal", thermal, unit="kelvin"),
        "lidar": Sample("lidar", cloud, camera=camera, extrinsics=AHEAD),
    }


@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    fit=st.sampled_from(["stretch", "letterbox"]),
    grid=st.sampled_from([(32, 32), (64, 96), (96, 64)]),
    unit=st.sampled_from(["kelvin", "counts8", "counts16"]),
    dilate=st.integers(0, 3),
    seed=st.integers(0, 999),
)
@settings(max_examples=120)
def test_training_inputs_equal_those_of_serving(
    height: int,
    width: int,
    fit: str,
    grid: tuple[int, int],
    unit: str,
    dilate: int,
    seed: int,
) -> None:
    rules = contract(fit, grid, lidar={"dilate_px": dilate})
    frame = samples((height, width), seed)
    thermal = frame["thermal"].data - (280 if unit == "counts8" else 0)
    frame["thermal"] = Sample("thermal", thermal, unit=unit)
    raw = load_raw(Frames([Frame(frame)]), 0, rules)
    got = network_inputs(raw, rules)
    for modality, sample in frame.items():
        try:
            wanted = preprocess_sample(sample, rules[modality])["image"][0]
        except InputError as error:
            assert modality not in got
            assert raw.unusable[modality] == str(error)
            continue
        assert got[modality].dtype == wanted.dtype
        assert np.array_equal(got[modality], wanted), modality
        assert modality not in raw.unusable


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_whole_view_without_corruption_is_what_serving_sees(fit: str) -> None:
    rules = contract(fit)
    frame = samples((50, 130), 4)
    raw = load_raw(Frames([Frame(frame)]), 0, rules)
    phase = ResolutionPhase(crop=(64, 96), scale=(1.0, 1.0))
    seen = 0
    for seed in range(8):
        view = augment(raw, phase, QUIET, np.random.default_rng(seed))
        mirrored = not np.array_equal(
            view.sensors["lidar"].grid.layers["range_m"],
            raw.sensors["lidar"].grid.layers["range_m"],
        )
        got = network_inputs(view, rules)
        for modality in ("thermal", "lidar"):
            # rgb and depth are always changed in brightness and scale
            wanted = preprocess_sample(frame[modality], rules[modality])["image"][0]
            if modality == "thermal":
                assert np.array_equal(
                    got[modality][1], wanted[1, :, ::-1] if mirrored else wanted[1]
                )
            elif not mirrored:
                assert np.array_equal(got[modality], wanted)
        depth = preprocess_sample(
            frame["depth"], contract(fit, depth={"min_m": 0.01, "max_m": 1e3})["depth"]
        )["image"]
        known = np.isfinite(view.sensors["depth"].grid.image)
        assert np.array_equal(known, depth[0, 1, :, ::-1] > 0 if mirrored else depth[0, 1] > 0)
        seen += mirrored
    assert 0 < seen < 8


def test_letterbox_padding_of_thermal_is_absent_and_not_cold() -> None:
    rules = contract("letterbox", thermal={"counts8": {"kind": "linear", "low": 0, "high": 255}})
    image = np.full((32, 96), 255, np.float32)  # half the grid's height
    frame = Frame({"thermal": Sample("thermal", image, unit="counts8")})
    got = network_inputs(load_raw(Frames([frame]), 0, rules), rules)["thermal"]
    assert np.unique(got[:, :32].reshape(2, -1), axis=1).tolist() == [[2.0], [1.0]]
    assert np.unique(got[:, 32:].reshape(2, -1), axis=1).tolist() == [[0.0], [0.0]]


def _blind(modality: Kind) -> Sample:
    whole = samples((40, 60), 0)[modality]
    if modality == "depth":
        return Sample("depth", np.full((40, 60), np.nan, np.float32))
    if modality == "thermal":
        return Sample("thermal", np.full((40, 60), np.nan, np.float32), unit="kelvin")
    return Sample(
        "lidar", np.zeros((0, 4), np.float32), camera=whole.camera, extrinsics=whole.extrinsics
    )


@pytest.mark.parametrize("modality", ["depth", "thermal", "lidar"])
def test_what_serving_leaves_out_training_leaves_out(modality: Kind) -> None:
    rules = contract("stretch")
    blind = _blind(modality)
    with pytest.raises(InputError) as refusal:
        preprocess_sample(blind, rules[modality])
    frame = {**samples((40, 60), 1), modality: blind}
    raw = load_raw(Frames([Frame(frame)]), 0, rules)
    assert set(raw.sensors) == set(KINDS) - {modality}
    assert raw.unusable == {modality: str(refusal.value)}


def test_lidar_without_calibration_is_named() -> None:
    bare = Sample("lidar", samples((40, 60), 1)["lidar"].data)
    with pytest.raises(CalibrationError, match="rig"):
        load_raw(Frames([Frame({"lidar": bare})]), 0, contract("stretch"))


def test_a_view_of_nothing_but_padding_warns_of_nothing() -> None:
    rules = contract("letterbox", (96, 96))
    raw = load_raw(Frames([Frame(samples((20, 200), 1))]), 0, rules)
    phase = ResolutionPhase(crop=(32, 32), scale=(1.0, 1.0))
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        for seed in range(40):
            inputs = network_inputs(
                augment(raw, phase, CorruptionSpec(), np.random.default_rng(seed)), rules
            )
            assert all(np.isfinite(x).all() for x in inputs.values())
    assert not log


def test_dead_pixels_of_thermal_do_not_grow_when_a_view_is_taken() -> None:
    values = np.linspace(280, 300, 64 * 96, dtype=np.float32).reshape(64, 96)
    values[20:23, 30:32] = np.nan
    frame = Frame({"thermal": Sample("thermal", values, unit="kelvin")})
    raw = load_raw(Frames([frame]), 0, contract("stretch"))
    for seed in range(6):
        for scale, least, most in ((1.0, 6, 6), (0.5, 1, 4)):
            phase = ResolutionPhase(crop=(64, 96), scale=(scale, scale))
            view = augment(raw, phase, QUIET, np.random.default_rng(seed))
            seen = view.sensors["thermal"].grid.image
            rows, columns = np.nonzero(np.isfinite(seen))
            inner = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert least <= np.isnan(inner).sum() <= most


def test_boxes_of_a_frame_without_rgb_follow_the_labeled_picture() -> None:
    rules = contract("stretch")
    boxes = Boxes.of(np.array([[10, 20, 30, 40]]), np.array([0]))
    labels = np.zeros((128, 192), np.uint8)
    depth = samples((32, 48), 1)["depth"]
    recording = Frames([Frame({"depth": depth})], [Truth(labels, boxes)])
    kept = load_raw(recording, 0, rules, ["boxes2d"]).truths["boxes2d"]
    assert kept is not None
    assert kept.xyxy.tolist() == [[5, 10, 15, 20]]
