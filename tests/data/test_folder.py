"""The folder format and its check: every planted mistake is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from perception.data import open_recording
from perception.data.check import check_folder
from perception.errors import DataError


@pytest.fixture
def copy(simulated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated, tmp_path / "copy"))


def test_frames_come_back_in_si_units(simulated: Path) -> None:
    recording = open_recording("folder", simulated)
    frame = recording.frame(2)
    assert frame.stamp_ns == 200_000_000
    assert 0.4 < np.nanmedian(frame["depth"].data) < 40
    assert 240 < np.median(frame["thermal"].data) < 330
    assert frame["lidar"].camera is not None
    assert recording.truth(2).labels.shape == (96, 128)
    assert {"day"} <= recording.tags(0)


def test_splits_by_time(simulated: Path) -> None:
    train, val = (open_recording("folder", simulated, split=s) for s in ("train", "val"))
    assert len(train) == 12 and len(val) == 2
    assert max(train.ids) < min(val.ids)


def test_a_missing_file_is_a_missing_modality(copy: Path) -> None:
    (copy / "rgb" / "000003.png").unlink()
    assert "rgb" not in open_recording("folder", copy).frame(3)


def _wrong_size(root: Path) -> None:
    cv2.imwrite(str(root / "rgb" / "000001.png"), np.full((50, 50, 3), 7, np.uint8))


def _wrong_label(root: Path) -> None:
    labels = cv2.imread(str(root / "labels" / "000001.png"), cv2.IMREAD_UNCHANGED)
    labels[0, 0] = 200
    cv2.imwrite(str(root / "labels" / "000001.png"), labels)


def _wrong_scale(root: Path) -> None:
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    info["depth_scale"] = 1e-6
    (root / "dataset.yaml").write_text(yaml.safe_dump(info))


def _wrong_box(root: Path) -> None:
    (root / "boxes" / "000001.txt").write_text("0 1.5 0.5 0.1 0.1\n")


def _damaged_image(root: Path) -> None:
    (root / "depth" / "000001.png").write_bytes(b"\x89PNG broken")


def _empty_cloud(root: Path) -> None:
    np.savez(root / "lidar" / "000001.npz", points=np.zeros((0, 4), np.float32))


def _wrong_extrinsics(root: Path) -> None:
    rig = yaml.safe_load((root / "rig.yaml").read_text())
    matrix = np.array(rig["sensors"]["lidar"]["pose"]["matrix"])
    matrix[:3, :3] = np.diag([-1, 1, -1]) @ matrix[:3, :3]
    rig["sensors"]["lidar"]["pose"]["matrix"] = matrix.tolist()
    (root / "rig.yaml").write_text(yaml.safe_dump(rig))


def _stamps(root: Path) -> None:
    text = (root / "frames.csv").read_text().replace("000002,200000000", "000002,100000000")
    (root / "frames.csv").write_text(text)


def _wrong_thermal_unit(root: Path) -> None:
    path = root / "thermal" / "000001.png"
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), (values // 10).astype(np.uint16))


@pytest.mark.parametrize(
    ("spoil", "where", "what"),
    [
        (_wrong_size, "rgb/000001", "50x50"),
        (_wrong_label, "labels/000001", "200"),
        (_wrong_scale, "depth", "median depth"),
        (_wrong_box, "boxes/000001", "not a box"),
        (_damaged_image, "000001", "no complete image"),
        (_empty_cloud, "lidar/000001", "empty"),
        (_wrong_extrinsics, "lidar/000001", "extrinsics"),
        (_stamps, "000002", "does not rise"),
        (_wrong_thermal_unit, "thermal/000001", "temperature"),
    ],
)
def test_planted_mistakes_are_found(
    copy: Path, spoil: Callable[[Path], None], where: str, what: str
) -> None:
    spoil(copy)
    errors = [f for f in check_folder(copy) if f.severity == "error"]
    assert any(where in f.where and what in f.message for f in errors), errors


def test_files_without_a_frame_are_warned_about(copy: Path) -> None:
    (copy / "rgb" / "stray.png").touch()
    assert any("stray" in f.where for f in check_folder(copy))


@pytest.mark.parametrize("name", ["dataset.yaml", "frames.csv"])
def test_missing_descriptions_are_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        open_recording("folder", copy)
