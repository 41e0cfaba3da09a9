"""Views on the disk: what is written is read back, numbered on, and set aside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.detection import read_gray
from calibration.live.recording import ViewFolder
from calibration.scans import read_points
from perception.errors import CalibrationError, ConfigError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 255, (24, 32, 3), np.uint8)
RAW = RNG.integers(20_000, 30_000, (24, 32)).astype(np.uint16)
KELVIN = RNG.uniform(280, 310, (24, 32)).astype(np.float32)
POINTS = RNG.uniform(1, 9, (200, 4)).astype(np.float32)


def test_pictures_and_clouds_are_read_back_as_they_were(tmp_path: Path) -> None:
    folder = ViewFolder(tmp_path / "views", ["front", "raw", "warm"], ["top"])
    name = folder.add({"front": COLOUR, "raw": RAW, "warm": KELVIN, "top": POINTS})
    assert name == "0001" and folder.views() == ["0001"]
    assert np.array_equal(read_gray(folder.files("raw")["0001"]), RAW)
    assert np.allclose(read_gray(folder.files("warm")["0001"]), KELVIN)
    assert read_gray(folder.files("front")["0001"]).shape == (24, 32)
    assert np.allclose(read_points(folder.files("top")["0001"]), POINTS[:, :3])


def test_numbers_go_on_after_the_highest_of_any_sensor(tmp_path: Path) -> None:
    folder = ViewFolder(tmp_path, ["front"], ["top"])
    folder.add({"front": COLOUR})
    np.save(tmp_path / "top/0007.npy", POINTS)  # as a kill between two files leaves it
    (tmp_path / "front/mine.png").write_bytes((tmp_path / "front/0001.png").read_bytes())
    again = ViewFolder(tmp_path, ["front"], ["top"])
    assert again.add({"front": COLOUR, "top": POINTS}) == "0008"
    assert again.views() == ["0001", "0007", "0008", "mine"]


def test_views_are_set_aside_and_not_lost(tmp_path: Path) -> None:
    folder = ViewFolder(tmp_path, ["front"], ["top"])
    assert folder.set_aside() is None
    folder.add({"front": COLOUR, "top": POINTS})
    first = folder.set_aside()
    assert first is not None and folder.views() == []
    assert (first / "front/0001.png").is_file() and (first / "top/0001.npy").is_file()
    folder.add({"front": COLOUR})
    assert folder.set_aside() != first


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        ViewFolder(tmp_path / "file", ["front"])
    folder = ViewFolder(tmp_path / "views", ["front"])
    (tmp_path / "views/front").rmdir()
    with pytest.raises(CalibrationError, match="cannot be written"):
        folder.add({"front": COLOUR})
