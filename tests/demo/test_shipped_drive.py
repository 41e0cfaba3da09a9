"""The drive that is shipped is what the simulator makes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.demo import DRIVE, FRAMES, SEED
from perception.data import open_recording
from perception.data.check import check_folder
from perception.files.shipped import shipped
from perception.sim.compact import (
    INTENSITY_STEP,
    INVERSE_DEPTH_STEP,
    LIDAR_STEP_M,
    THERMAL_STEP_K,
    coarse,
)
from perception.sim.generate import drive_sequence
from perception.sim.render import render
from perception.sim.sensors import BEAM_PATTERNS, mount_sensors

ROOT = Path(__file__).parents[2]


def test_it_is_whole_and_small() -> None:
    folder = shipped("recordings") / DRIVE
    assert len(open_recording("folder", folder)) == FRAMES
    assert check_folder(folder) == []
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 12e6


def test_its_readme_names_the_command_that_makes_it() -> None:
    text = (ROOT / "recordings/README.md").read_text()
    assert f"--kind drive --frames {FRAMES} --seed {SEED} --compact" in text


@pytest.mark.parametrize("index", [0, 47])  # by day, and as dusk falls
def test_frames_are_what_the_simulator_makes(index: int) -> None:
    recording = open_recording("folder", shipped("recordings") / DRIVE)
    stored, truth = recording.frame(index), recording.truth(index)
    scene = next(islice(drive_sequence(FRAMES, SEED), index, None))
    pattern = next(tag for tag in recording.tags(index) if tag in BEAM_PATTERNS)
    made = render(scene, mount_sensors((240, 320)), BEAM_PATTERNS[pattern])
    assert np.array_equal(truth.labels, made.labels)
    assert truth.boxes is not None
    assert np.allclose(truth.boxes.xyxy, made.boxes.xyxy, atol=1e-3)
    assert stored.stamp_ns == index * 100_000_000
    # Steps of each sensor, and what millimetres and centikelvins round on top.
    depth, wanted = stored["depth"].data, made.samples["depth"]
    assert np.array_equal(np.isfinite(depth), np.isfinite(wanted))
    seen = np.isfinite(depth)
    error = np.abs(1 / depth[seen] - 1 / wanted[seen])
    assert error.max() < INVERSE_DEPTH_STEP / 2 + (0.0006 / wanted[seen] ** 2).max()
    assert (
        np.abs(stored["thermal"].data - made.samples["thermal"]).max() < THERMAL_STEP_K / 2 + 0.01
    )
    cloud, points = stored["lidar"].data, made.samples["lidar"][:, :4]
    assert len(cloud) == len(points)
    assert np.abs(cloud[:, :3] - points[:, :3]).max() <= LIDAR_STEP_M / 2 + 1e-4
    assert np.abs(cloud[:, 3] - points[:, 3]).max() <= INTENSITY_STEP / 2 + 1e-6
    assert cv2.PSNR(stored["rgb"].data, made.samples["rgb"]) > 30


def test_coarse_steps_stay_within_the_noise() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.4, 40, (50, 60)).astype(np.float32)
    depth[:5] = np.nan
    found = coarse("depth", depth)
    assert np.isnan(found[:5]).all()
    assert (np.abs(found - depth)[5:] <= 2.5 * 0.0015 * depth[5:] ** 2).all()
    kelvin = rng.uniform(250, 320, (9, 9)).astype(np.float32)
    assert np.abs(coarse("thermal", kelvin) - kelvin).max() <= THERMAL_STEP_K / 2 + 1e-4
    cloud = rng.uniform(-50, 50, (100, 4)).astype(np.float32)
    assert np.abs(coarse("lidar", cloud) - cloud).max() <= LIDAR_STEP_M / 2 + 1e-5
    assert coarse("rgb", cloud) is cloud
    for kind, values in (("depth", depth), ("thermal", kelvin), ("lidar", cloud)):
        assert coarse(kind, values).dtype == values.dtype
