"""Readers of the published data sets' layouts, on small files made here, and on the real ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.data import open_recording, parse_data_argument
from perception.data.kitti import KITTI
from perception.data.nyuv2 import scene_runs
from perception.data.rgbt_person import boxes_of_mask
from perception.data.stamps import read_stamps
from perception.data.tracklets import read_tracklets
from perception.errors import ConfigError, DataError


def _png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in [*range(1, 5), *range(8, 11), 20, 21, *range(30, 35)]:
        name = f"{number:04d}"
        _png(tmp_path / "rgb" / f"{name}.jpg", rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        _png(tmp_path / "depth" / f"{name}.png", np.full((24, 32), 51, np.uint8))
        _png(tmp_path / "label" / f"{name}.png", np.full((24, 32), 3, np.uint8))
    return tmp_path


def test_nyu_depth_is_mapped_to_meters_once(nyu: Path) -> None:
    recording = open_recording("nyuv2", nyu)
    assert recording.frame(0)["depth"].data[0, 0] == pytest.approx(2.0)
    assert (recording.truth(0).labels == 3).all()
    assert [c.name for c in recording.info.seg_classes][39] == "otherprop"


def test_nyu_splits_never_cut_a_run_of_ids(nyu: Path) -> None:
    everything = open_recording("nyuv2", nyu)
    parts = [set(open_recording("nyuv2", nyu, split=s).ids) for s in ("train", "val")]
    assert parts[0] | parts[1] == set(everything.ids)
    assert not parts[0] & parts[1]
    for run in scene_runs(everything.ids):
        assert set(run) <= parts[0] or set(run) <= parts[1]


def test_labels_out_of_range_are_named(nyu: Path) -> None:
    _png(nyu / "label" / "0001.png", np.full((24, 32), 77, np.uint8))
    with pytest.raises(DataError, match=r"0001\.png.*77"):
        open_recording("nyuv2", nyu).truth(0)


@pytest.fixture
def msrs(tmp_path: Path) -> Path:
    for index in range(60):
        name = f"{index:05d}{'N' if index % 2 else 'D'}"
        for folder in ("rgb", "thermal"):
            _png(tmp_path / folder / f"{name}.jpg", np.full((480, 640, 3), index, np.uint8))
        for labels in ("fusion", "visible", "infrared"):
            path = tmp_path / f"boxes_{labels}" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("2 0.5 0.5 0.25 0.5\n" if labels == "fusion" else "")
    return tmp_path


def test_msrs_boxes_tags_and_label_sets(msrs: Path) -> None:
    recording = open_recording("msrs", msrs)
    assert recording.truth(0).boxes.xyxy.tolist() == [[240, 120, 400, 360]]
    assert recording.truth(0).boxes.class_ids.tolist() == [2]
    assert recording.tags(0) == {"day"}
    recording.select("night")
    assert len(recording) == 30
    assert len(open_recording("msrs", msrs, labels="visible").truth(0).boxes.xyxy) == 0
    assert recording.frame(0)["thermal"].unit == "counts8"


def test_msrs_validation_takes_blocks_of_neighbors(msrs: Path) -> None:
    ids = open_recording("msrs", msrs, split="val").ids
    assert ids == open_recording("msrs", msrs).ids[20:30]


@pytest.mark.parametrize(
    "row", ["5 0.5 0.5 0.1 0.1", "0 0.5 0.5", "0 a b c d", "0 0.5 0.5 -1 0.1", "0.5 0 0 1 1"]
)
def test_wrong_box_rows_are_named(msrs: Path, row: str) -> None:
    (msrs / "boxes_fusion" / "00000D.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{row}\n")
    with pytest.raises(DataError, match=r"00000D\.txt:2"):
        open_recording("msrs", msrs).truth(0)


def test_mask_components_become_boxes() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:8, 3:6] = 1
    mask[10:12, 20:22] = 1
    boxes = boxes_of_mask(mask)
    assert boxes.xyxy.tolist() == [[3, 2, 6, 8], [20, 10, 22, 12]]
    assert boxes.ignore.tolist() == [False, True]


def test_kitti_stamps_keep_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "stamps.txt"
    path.write_text("2011-09-26 13:04:32.345808896\n2011-09-26 13:04:32.449188864\n")
    first, second = read_stamps(path)
    assert first is not None and second is not None and second - first == 103379968
    path.write_text("2011-09-26 13:04:32.5\n\n2011-09-26 13:04:32.7\n\n\n")
    stamps = read_stamps(path)  # a frame's number is its line's
    assert stamps[1] is None and [s % 10**9 for s in stamps if s] == [500_000_000, 700_000_000]
    path.write_text("yesterday\n")
    with pytest.raises(DataError, match=":1"):
        read_stamps(path)


def test_tracklet_corners(tmp_path: Path) -> None:
    pose = "<tx>10</tx><ty>2</ty><tz>-1</tz><rz>1.5707963</rz>"
    path = tmp_path / "t.xml"
    path.write_text(
        "<r><tracklets><count>1</count><item><objectType>Car</objectType><h>1.5</h><w>2</w><l>4</l>"
        f"<first_frame>3</first_frame><poses><count>1</count><item>{pose}</item></poses></item>"
        "</tracklets></r>"
    )
    (car,) = read_tracklets(path)
    corners = car.corners(3)
    assert car.corners(2) is None and car.corners(4) is None
    assert np.allclose(corners.min(0), [9, 0, -1], atol=1e-5)
    assert np.allclose(corners.max(0), [11, 4, 0.5], atol=1e-5)
    path.write_text("<broken")
    with pytest.raises(DataError, match=r"t\.xml"):
        read_tracklets(path)


@pytest.mark.parametrize("argument", ["nyuv2", "nyuv2:", "imagenet:dir", ":dir", ""])
def test_wrong_data_arguments_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="KIND:DIR"):
        parse_data_argument(argument)


def test_missing_folders_and_wrong_options_are_refused(tmp_path: Path, nyu: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_recording("nyuv2", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="does not take"):
        open_recording("nyuv2", nyu, labels="fusion")
    with pytest.raises(ConfigError, match="split"):
        open_recording("nyuv2", nyu, split="test")


@pytest.mark.realdata
def test_the_real_recordings_open(real_data: Path) -> None:
    counts = {"nyuv2": (795, real_data / "nyuv2" / "train"), "msrs": (289, real_data / "msrs")}
    for kind, (count, path) in counts.items():
        recording = open_recording(kind, path)
        assert len(recording) == count
        assert set(recording.frame(0)) == set(recording.info.modalities)


@pytest.mark.realdata
def test_kitti_boxes_hold_their_lidar_points(real_data: Path) -> None:
    recording = KITTI(real_data / "kitti_0005")
    frame, truth = recording.frame(10), recording.truth(10)
    lidar = frame["lidar"]
    uv, valid = lidar.camera.project(lidar.extrinsics.apply(lidar.data[:, :3]))
    for x0, y0, x1, y1 in truth.boxes.xyxy:
        inside = valid & (uv[:, 0] > x0) & (uv[:, 0] < x1) & (uv[:, 1] > y0) & (uv[:, 1] < y1)
        assert inside.sum() > 20


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("<h>1.5</h>", "<h>0</h>", "size 0 x 2 x 4 is not positive"),
        ("<w>2</w>", "<w>-2</w>", "is not positive"),
        ("<first_frame>0", "<first_frame>0.5", "first_frame 0.5 is no frame"),
        ("<first_frame>0", "<first_frame>-1", "first_frame -1 is no frame"),
        ("<rz>0", "<rz>90", "rz of 90 is no angle in radians"),
    ],
)
def test_tracklets_that_cannot_be(tmp_path: Path, old: str, new: str, what: str) -> None:
    text = (
        "<r><tracklets><item><objectType>Car</objectType><h>1.5</h><w>2</w><l>4</l>"
        "<first_frame>0</first_frame><poses><item><tx>9</tx><ty>0</ty><tz>0</tz><rz>0</rz></item>"
        "</poses></item></tracklets></r>"
    )
    (tmp_path / "t.xml").write_text(text)
    assert len(read_tracklets(tmp_path / "t.xml")) == 1
    (tmp_path / "t.xml").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=what):
        read_tracklets(tmp_path / "t.xml")
