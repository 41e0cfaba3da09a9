"""Recordings as people make them: other units, names, sizes; told by the check, or by the reader."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from perception.data import open_recording
from perception.data.base import Boxes, ClassInfo
from perception.data.check import Finding, check_folder
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.errors import AnySenseError, DataError

H, W = 24, 32
START = 1_700_000_000
GROUND, PERSON = ClassInfo(0, "ground", (1, 2, 3)), ClassInfo(1, "person", (3, 2, 1))


def write(root: Path, names: list[str], *, boxes: bool = True, **info: Any) -> Path:
    """A recording of RGB, depth and LiDAR at 10 Hz in which everything is right."""
    rng = np.random.default_rng(0)
    layout = folder_info(
        size=(H, W),
        seg_classes=(GROUND, PERSON),
        det_classes=(GROUND,) if boxes else (),
        name="made",
        modalities=("rgb", "depth"),
        **info,
    )
    with FolderWriter(root, layout) as writer:
        for i, name in enumerate(names):
            writer.add(
                name,
                stamp_ns=START * 10**9 + i * 10**8,
                rgb=rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
                depth=rng.uniform(0.5, 5, (H, W)).astype(np.float32),
                labels=rng.integers(0, 2, (H, W), dtype=np.uint8),
                boxes=Boxes.of(np.array([[4, 4, 12, 12]]), np.zeros(1)) if boxes else None,
            )
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "made", ["0000", "0001", "0002", "0003"])


def found(findings: list[Finding], severity: str, where: str, what: str) -> bool:
    return any(f.severity == severity and where in f.where and what in f.message for f in findings)


def test_what_is_right_has_no_finding(root: Path) -> None:
    assert check_folder(root) == []


def _stamps(root: Path, stamps: list[int]) -> None:
    lines = (root / "frames.csv").read_text().splitlines()
    rows = [
        f"{line.split(',')[0]},{stamp}," for line, stamp in zip(lines[1:], stamps, strict=False)
    ]
    (root / "frames.csv").write_text("\n".join([lines[0], *rows]) + "\n")


@pytest.mark.parametrize(
    ("per_second", "unit"), [(10**6, "microseconds"), (10**3, "milliseconds"), (1, " seconds")]
)
def test_stamps_of_another_unit(root: Path, per_second: int, unit: str) -> None:
    step = max(per_second // 10, 1)
    _stamps(root, [START * per_second + i * step for i in range(4)])
    assert found(check_folder(root), "error", "frames.csv", unit)


@pytest.mark.parametrize("start", [0, 10**9, 10**12, 2 * 10**15])
def test_stamps_since_a_start_may_be_of_any_rate(root: Path, start: int) -> None:
    for step in (10**7, 10**8, 2 * 10**9):
        _stamps(root, [start + i * step for i in range(4)])
        assert check_folder(root) == []


def test_another_rate_than_said(root: Path) -> None:
    _stamps(root, [START * 10**9 + i * 10**9 for i in range(4)])
    assert found(check_folder(root), "warning", "frames.csv", "1 s apart, rate_hz says 10 Hz")


def test_accents_are_the_same_in_any_form(tmp_path: Path) -> None:
    names = ["größe_é1", "größe_é2"]
    root = write(tmp_path / "made", [unicodedata.normalize("NFC", n) for n in names])
    for path in [p for p in root.rglob("*") if p.stem.startswith("gr")]:
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert check_folder(root) == []
    recording = FolderRecording(root)
    assert set(recording.frame(1)) == {"rgb", "depth"} and recording.truth(1).labels is not None
    twice = unicodedata.normalize("NFC", names[0])
    (root / "rgb" / f"{twice}.png").write_bytes(b"")
    with pytest.raises(DataError, match="two files for one frame"):
        recording = FolderRecording(root)
        recording.frame(0)
    with (root / "frames.csv").open("a") as file:
        file.write(f"{unicodedata.normalize('NFD', names[0])},{2 * START * 10**9},\n")
    with pytest.raises(DataError, match="is that of line 2, too"):
        FolderRecording(root)


def test_a_sensor_without_any_file_is_told(root: Path) -> None:
    (root / "depth").rename(root / "Depth")
    assert found(check_folder(root), "error", "depth", "no frame has a file")
    with pytest.warns(UserWarning, match="no frame has a file in depth/"):
        open_recording("folder", root)


def test_a_column_may_not_come_twice(root: Path) -> None:
    text = (root / "frames.csv").read_text().replace("stamp_ns,tags", "stamp_ns,stamp_ns")
    (root / "frames.csv").write_text(text)
    with pytest.raises(DataError, match="has the column stamp_ns twice"):
        FolderRecording(root)


def _save(path: Path, height: int, width: int, channels: int = 3) -> None:
    image = np.random.default_rng(1).integers(0, 2, (height, width, channels), dtype=np.uint8)
    cv2.imwrite(str(path), image.squeeze())


@pytest.mark.parametrize(("height", "width"), [(W, H), (H // 2, W // 2)])
def test_labels_of_another_size_are_no_truth(root: Path, height: int, width: int) -> None:
    _save(root / "labels" / "0000.png", height, width, 1)
    with pytest.raises(DataError, match=f"is {width}x{height}, dataset.yaml says {W}x{H}"):
        FolderRecording(root).truth(0)


@pytest.mark.parametrize(
    ("size", "boxes", "right"),
    [
        ((2 * H, 2 * W), True, False),  # boxes would be compared in other pixels
        ((2 * H, 2 * W), False, True),  # labels are resized
        ((H // 2, W // 2), False, True),
        ((W, H), False, False),  # not to another shape
    ],
)
def test_pictures_of_another_size_than_the_truth(
    tmp_path: Path, size: tuple[int, int], boxes: bool, right: bool
) -> None:
    root = write(tmp_path / "made", ["a"], boxes=boxes)
    _save(root / "rgb" / "a.png", *size)
    recording = FolderRecording(root)
    if right:
        assert recording.frame(0)["rgb"].data.shape[:2] == size
        return
    with pytest.raises(AnySenseError, match=f"is {size[1]}x{size[0]} pixels, labels and boxes"):
        recording.frame(0)


def _all_ignored(root: Path) -> None:
    for path in (root / "labels").iterdir():
        cv2.imwrite(str(path), np.full((H, W), 255, np.uint8))


def _floats_of_millimetres(root: Path) -> None:
    for path in list((root / "depth").iterdir()):
        path.unlink()
        np.save(path.with_suffix(".npy"), np.full((H, W), 1500.0, np.float32))


def _outside(root: Path) -> None:
    (root / "boxes" / "0000.txt").write_text("0 0.05 0.5 0.5 0.2\n")


def _twice(root: Path) -> None:
    (root / "boxes" / "0000.txt").write_text("0 0.5 0.5 0.2 0.2\n" * 2)


def _no_classes(root: Path) -> None:
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    (root / "dataset.yaml").write_text(yaml.dump({**info, "seg_classes": []}))


def _of_another_resolution(root: Path) -> None:
    camera = {"width": W, "height": H, "intrinsics": [50, 50, W, H]}
    (root / "rig.yaml").write_text(yaml.dump({"schema": 1, "sensors": {"rgb": {"camera": camera}}}))


@pytest.mark.parametrize(
    ("spoil", "severity", "where", "what"),
    [
        (_all_ignored, "error", "labels", "every pixel is 255"),
        (_floats_of_millimetres, "error", "depth", "Floats must be metres"),
        (_outside, "warning", "boxes/0000", "outside the image"),
        (_twice, "warning", "boxes/0000", "twice"),
        (_no_classes, "warning", "labels", "no seg_classes"),
        (_of_another_resolution, "warning", "rig.yaml: rgb", "principal point lies at 1.02"),
    ],
)
def test_the_check_tells(
    root: Path, spoil: Callable[[Path], None], severity: str, where: str, what: str
) -> None:
    spoil(root)
    assert found(check_folder(root), severity, where, what)


@pytest.mark.parametrize("unit", ["auto", "counts16", "centikelvin"])
def test_counts_that_look_like_temperatures(root: Path, unit: str) -> None:
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    info |= {"modalities": ["rgb", "thermal"], "thermal_unit": unit}
    (root / "dataset.yaml").write_text(yaml.dump(info))
    (root / "thermal").mkdir()
    for i in range(4):
        image = np.linspace(29000, 31000, H * W).reshape(H, W).astype(np.uint16)
        cv2.imwrite(str(root / "thermal" / f"{i:04d}.png"), image)
    told = found(check_folder(root), "warning", "thermal", "0.01 K")
    assert told == (unit != "centikelvin")


def test_a_cloud_in_millimetres(root: Path) -> None:
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    (root / "dataset.yaml").write_text(yaml.dump(info | {"modalities": ["rgb", "lidar"]}))
    (root / "lidar").mkdir()
    for i in range(4):
        points = np.random.default_rng(i).uniform(2000, 9000, (90, 4)).astype(np.float32)
        np.save(root / "lidar" / f"{i:04d}.npy", points)
    assert found(check_folder(root), "error", "lidar/0000", "millimetres?")


@pytest.mark.parametrize("unit", ["auto", "centikelvin", "counts16", "kelvin"])
def test_temperatures_come_back_as_they_were_written(tmp_path: Path, unit: str) -> None:
    layout = folder_info(
        size=(1, 3), seg_classes=(), det_classes=(), name="warm", modalities=("thermal",),
        thermal_unit=unit,
    )  # fmt: skip
    kelvin = np.array([[290.15, 310.0, np.nan]], np.float32)
    if unit in ("counts16", "kelvin"):
        with pytest.raises(DataError, match="written in centikelvin"):
            FolderWriter(tmp_path / "made", layout)
        return
    with FolderWriter(tmp_path / "made", layout) as writer:
        writer.add("a", stamp_ns=0, thermal=kelvin)
    got = FolderRecording(tmp_path / "made").frame(0)["thermal"]
    assert got.unit == "kelvin" and np.allclose(got.data, kelvin, atol=0.006, equal_nan=True)


def test_depth_beyond_what_is_stored_is_no_return(tmp_path: Path) -> None:
    layout = folder_info(
        size=(1, 4), seg_classes=(), det_classes=(), name="far", modalities=("depth",)
    )
    with FolderWriter(tmp_path / "made", layout) as writer:
        depth = np.array([[1.5, 65.535, 66.0, 1e6]], np.float32)
        writer.add("a", stamp_ns=0, depth=depth)
    got = FolderRecording(tmp_path / "made").frame(0)["depth"].data
    assert np.allclose(got, [[1.5, 65.535, np.nan, np.nan]], equal_nan=True)
