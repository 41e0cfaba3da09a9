"""Data sets as other systems leave them: leftovers, suffixes, encodings, spreadsheets, hostile XML."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from perception.data import open_recording
from perception.data.base import Boxes
from perception.data.check import Finding, check_folder
from perception.data.folder import read_frames
from perception.data.tracklets import read_tracklets
from perception.errors import DataError
from perception.metrics.detection import average_precision
from perception.tasks.detections import Detections

LEFTOVERS = ("Thumbs.db", ".DS_Store", "._0001.jpg", "desktop.ini", "0001.jpg.bak", "notes.txt")


def _picture(path: Path, size: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(3).integers(1, 255, (*size, 3), np.uint8)
    if path.parent.name in ("depth", "label", "labels"):
        picture = np.full(size, 1, np.uint8)
    if path.parent.name == "thermal":  # in color it would be refused
        picture = picture[..., 0]
    suffix = path.suffix.lower()
    path.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())


def _nyu(root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpg")) -> Path:
    for number, suffix in enumerate(suffixes, 1):
        _picture(root / f"rgb/{number:04}{suffix}")
        _picture(root / f"depth/{number:04}.png")
        _picture(root / f"label/{number:04}.png")
    return root


def _msrs(root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpg")) -> Path:
    for name, suffix in zip(("00001D", "00002N"), suffixes, strict=True):
        for folder in ("rgb", "thermal"):
            _picture(root / folder / f"{name}{suffix}", (480, 640))
        (root / "boxes_fusion").mkdir(exist_ok=True)
        (root / "boxes_fusion" / f"{name}.txt").write_text("0 0.5 0.5 0.1 0.1\r\n\r\n")
    return root


def _persons(root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpg")) -> Path:
    for number, suffix in enumerate(suffixes, 1):
        for folder in ("rgb", "thermal"):
            _picture(root / folder / f"{number}{suffix}")
        _picture(root / f"label/{number}.png")
    return root


def _kitti(root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpg")) -> Path:
    for number, suffix in enumerate(suffixes):
        _picture(root / "image_02" / f"{number:010}{suffix}", (375, 1242))
    (root / "velodyne").mkdir()
    np.savez(root / "velodyne/0000000000.npz", points=np.ones((5, 4), np.float32))
    identity = "R: 1 0 0 0 1 0 0 0 1\nT: 0 0 0\n"
    (root / "calib_velo_to_cam.txt").write_text(f"calib_time: today\n{identity}")
    (root / "calib_cam_to_cam.txt").write_text(
        "S_rect_02: 1242 375\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
        "P_rect_02: 720 0 620 0 0 720 187 0 0 0 1 0\n"
    )
    for name in ("image_02", "velodyne_points"):
        lines = [f"2011-09-26 13:04:3{i}.5\n" for i in range(len(suffixes))]
        (root / f"timestamps_{name}.txt").write_text("".join(lines))
    (root / "tracklet_labels.xml").write_text(
        "<!DOCTYPE boost_serialization>\n<b><tracklets><count>0</count></tracklets></b>"
    )
    return root


def _folder(root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpg")) -> Path:
    rows = ["id,stamp_ns,tags"]
    for number, suffix in enumerate(suffixes, 1):
        _picture(root / f"rgb/{number:04}{suffix}")
        (root / "boxes").mkdir(exist_ok=True)
        (root / f"boxes/{number:04}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        rows.append(f"{number:04},{number * 1000},day")
    (root / "frames.csv").write_text("\n".join(rows) + "\n")
    info = {"schema": 1, "name": "Prüfstand", "modalities": ["rgb"], "height": 48, "width": 64}
    info["det_classes"] = [{"id": 0, "name": "person", "color": [1, 2, 3]}]
    (root / "dataset.yaml").write_text(yaml.safe_dump(info, allow_unicode=True), "utf-8")
    return root


READERS: dict[str, Callable[..., Path]] = {
    "nyuv2": _nyu,
    "msrs": _msrs,
    "rgbt_person": _persons,
    "kitti": _kitti,
    "folder": _folder,
}


def _frames(kind: str, root: Path, **options: str) -> list[set[str]]:
    recording = open_recording(kind, root, **options)
    for index in range(len(recording)):
        recording.truth(index)
    return [set(recording.frame(i)) for i in range(len(recording))]


@pytest.mark.parametrize("kind", READERS)
def test_leftovers_of_other_systems_are_not_read(kind: str, tmp_path: Path) -> None:
    wanted = _frames(kind, READERS[kind](tmp_path / "plain"))
    root = READERS[kind](tmp_path / "full")
    for folder in [p for p in root.iterdir() if p.is_dir()]:
        for name in LEFTOVERS:
            (folder / name).write_bytes(b"\x00\x05\x16\x07junk")
    assert _frames(kind, root) == wanted and len(wanted) == 2


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("suffixes", [(".JPG", ".JPG"), (".jpg", ".png"), (".PNG", ".Jpg")])
def test_suffixes_may_be_mixed_and_in_any_case(
    kind: str, suffixes: tuple[str, ...], tmp_path: Path
) -> None:
    wanted = _frames(kind, READERS[kind](tmp_path / "plain"))
    assert _frames(kind, READERS[kind](tmp_path / "other", suffixes)) == wanted


def test_a_leftover_does_not_spoil_the_numbers_of_scenes(tmp_path: Path) -> None:
    root = _nyu(tmp_path)
    (root / "rgb/._0001.jpg").write_bytes(b"x")
    assert len(open_recording("nyuv2", root, split="train")) == 2


@pytest.mark.parametrize("kind", ["nyuv2", "msrs", "rgbt_person", "kitti"])
def test_a_frame_with_two_files_is_refused(kind: str, tmp_path: Path) -> None:
    root = READERS[kind](tmp_path)
    first = min(
        next(p for p in sorted(root.iterdir()) if (p.name in ("rgb", "image_02"))).iterdir()
    )
    _picture(first.with_suffix(".png"))
    with pytest.raises(DataError, match="two files for one frame"):
        open_recording(kind, root).frame(0)


def test_a_folder_with_two_files_for_a_frame_is_refused_and_checked(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _picture(root / "rgb/0001.png")
    with pytest.raises(DataError, match="two files"):
        open_recording("folder", root).frame(0)
    found = check_folder(root)
    assert [f.where for f in found if f.severity == "error"] == ["rgb"]
    assert Finding("warning", "rgb", "several formats: 2 .jpg, 1 .png") in found


def _utf8_boxes(text: str) -> Callable[[Path], None]:
    return lambda root: (root / "boxes/0001.txt").write_bytes(text.encode())  # type: ignore[return-value]


def _changed(name: str, change: Callable[[str], bytes]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / name
        path.write_bytes(change(path.read_text("utf-8")))

    return apply


FINE: dict[str, Callable[[Path], None]] = {
    **{
        f"{coding} {name}": _changed(name, lambda text, c=coding: text.encode(c))
        for name in ("dataset.yaml", "frames.csv", "boxes/0001.txt")
        for coding in ("utf-8-sig", "utf-16", "utf-32")
    },
    **{
        f"CRLF {name}": _changed(name, lambda text: text.replace("\n", "\r\n").encode())
        for name in ("dataset.yaml", "frames.csv", "boxes/0001.txt")
    },
    "semicolons": _changed("frames.csv", lambda text: text.replace(",", ";").encode("utf-8-sig")),
    "tabs": _changed("frames.csv", lambda text: text.replace(",", "\t").encode()),
    "columns in another order": _changed(
        "frames.csv", lambda text: b"tags,id,more,stamp_ns\nday,0001,x,1\nnight,0002,y,2\n"
    ),
    "no tags": _changed("frames.csv", lambda text: b"id,stamp_ns\n0001,1\n0002,2\n"),
    "blank lines": _changed("frames.csv", lambda text: text.replace("\n", "\n\n").encode()),
    "comment": _utf8_boxes("# größe\n0 0.5 0.5 0.2 0.2 # größe\n\n"),
    "no box": _utf8_boxes(""),
}


@pytest.mark.parametrize("name", FINE)
def test_text_as_other_tools_save_it(name: str, tmp_path: Path) -> None:
    root = _folder(tmp_path)
    FINE[name](root)
    recording = open_recording("folder", root)
    assert recording.ids == ["0001", "0002"]
    assert recording.info.name == "Prüfstand"
    boxes = recording.truth(0).boxes
    assert boxes is not None and len(boxes.xyxy) == (0 if name == "no box" else 1)
    assert check_folder(root) == []


WRONG = {
    "Latin-1": ("frames.csv", "id,stamp_ns,tags\n0001,1,tägig\n".encode("latin-1"), ":?.*line 2"),
    "null": ("frames.csv", b"id,stamp_ns,tags\n0001,1,\n000\0,2,\n", "line 3"),
    "missing column": ("frames.csv", b"id,tags\n0001,\n", "no column stamp_ns"),
    "no header": ("frames.csv", b"0001,1,day\n", "no column id, stamp_ns"),
    "empty": ("frames.csv", b"", "no column id, stamp_ns"),
    "rounded": ("frames.csv", b"id,stamp_ns\n0001,1\n0002,1.7E+18\n", r":3: stamp_ns '1\.7E\+18'"),
    "no stamp": ("frames.csv", b"id,stamp_ns,tags\n0001\n", ":2: no stamp_ns"),
    "no id": ("frames.csv", b"id,stamp_ns,tags\n,5,\n", ":2: no id"),
    "large": ("frames.csv", b"id,stamp_ns\n0001,9300000000000000000\n", ":2: stamp_ns"),
    "digits": ("frames.csv", b"id,stamp_ns\n0001," + b"9" * 5000 + b"\n", ":2: stamp_ns"),
    "word": ("frames.csv", b"id,stamp_ns\n0001,soon\n", ":2: stamp_ns 'soon'"),
    "twice": ("frames.csv", b"id,stamp_ns\n0001,1\n\n0001,2\n", r":4: id '0001' is that of line 2"),
    "outside": ("frames.csv", b"id,stamp_ns\n../../etc/passwd,1\n", ":2: id '../../etc/passwd'"),
    "hidden": ("frames.csv", b"id,stamp_ns\n.a,1\n", ":2: id '.a'"),
    "list": ("dataset.yaml", b"- 1\n", "is empty|expected fields"),
    "nothing": ("dataset.yaml", b"", "is empty|expected fields"),
    "Latin-1 YAML": ("dataset.yaml", "name: Prüfstand\n".encode("latin-1"), "line 1"),
    "huge": (
        "dataset.yaml",
        b"{schema: 1, name: a, modalities: [rgb], height: 70000, width: 70000}",
        "70000x70000",
    ),
    "no rate": (
        "dataset.yaml",
        b"{schema: 1, name: a, modalities: [rgb], height: 48, width: 64, rate_hz: .inf}",
        "rate_hz",
    ),
    "NaN scale": (
        "dataset.yaml",
        b"{schema: 1, name: a, modalities: [rgb], height: 48, width: 64, depth_scale: .nan}",
        "depth_scale",
    ),
    "sensor twice": (
        "dataset.yaml",
        b"{schema: 1, name: a, modalities: [rgb, rgb], height: 48, width: 64}",
        "given twice",
    ),
    "key twice": ("dataset.yaml", b"name: a\nname: b\n", "yaml:2: not YAML: 'name'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    file, content, message = WRONG[name]
    root = _folder(tmp_path)
    (root / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_recording("folder", root)
    assert file in str(caught.value)


def test_stamps_go_to_the_ends_of_64_bits(tmp_path: Path) -> None:
    rows = f"a,{2**63 - 1}\nb,-{2**63 - 1}\nc, +7 \n"
    (tmp_path / "frames.csv").write_text(f"id,stamp_ns\n{rows}")
    assert [r.stamp_ns for r in read_frames(tmp_path)] == [2**63 - 1, -(2**63) + 1, 7]


BOXES = {
    "5 0.5 0.5 0.1 0.1": "no class 5",
    "0.5 0.5 0.5 0.1 0.1": "no class 0.5",
    "nan 0.5 0.5 0.1 0.1": "no class nan",
    "0 0.5 0.5 0.1": "4 numbers",
    "0 0.5 0.5 0.1 0.1 0.9": "6 numbers",
    "0 0.5 0,5 0.1 0.1": "not numbers",
    "person 0.5 0.5 0.1 0.1": "not numbers",
    "0 1.5 0.5 0.1 0.1": "outside",
    "0 0.5 nan 0.1 0.1": "outside",
    "0 320 240 64 64": "outside",
    "0 0.5 0.5 0 0.1": "positive",
    "0 0.5 0.5 0.1 -0.001": "positive",
}


@pytest.mark.parametrize("row", BOXES)
def test_wrong_boxes_are_named_by_line_and_fault(row: str, tmp_path: Path) -> None:
    root = _folder(tmp_path)
    (root / "boxes/0001.txt").write_text(f"# a comment\n0 0.5 0.5 0.1 0.1\n{row}\n")
    with pytest.raises(DataError, match=rf"0001\.txt:3: not a box: .*{BOXES[row]}"):
        open_recording("folder", root).truth(0)
    assert [f.where for f in check_folder(root)] == ["boxes/0001.txt:3"]


def _check(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", "data", "check", str(root)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


def test_an_ascii_locale_changes_nothing(tmp_path: Path) -> None:
    done = _check(_folder(tmp_path), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (0, "")


XML = "<b><tracklets>{}</tracklets></b>"
ITEM = "<item><objectType>Car</objectType><h>1</h><w>2</w><l>{}</l><first_frame>0</first_frame>{}</item>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<b", r"t\.xml:1: not XML"),
        ("<b></c>", "mismatched tag"),
        ("", "no element found"),
        ("<b/>", "no element 'tracklets'"),
        ('<!DOCTYPE b [<!ENTITY a "aaaa">]><b>&a;</b>', "document type of its own"),
        ('<?xml version="1.0" encoding="none"?><b/>', "not XML"),
        ('<?xml version="1.0" encoding="gb2312"?><b/>', "not XML"),
        (XML.format(ITEM.format("x", "")), "tracklet 0: l is no number"),
        (XML.format(ITEM.format("nan", "")), "tracklet 0: l is no number"),
        (XML.format(ITEM.format("", "")), "tracklet 0: no l"),
        (XML.format(ITEM.format("3", "<poses><item><tx>1</tx></item></poses>")), "no ty"),
        (XML.format(ITEM.format("3", "").replace(">0<", ">1e400<")), "first_frame is no number"),
    ],
)
def test_wrong_or_hostile_tracklets_are_one_line(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "t.xml").write_text(content)
    with pytest.raises(DataError, match=message):
        read_tracklets(tmp_path / "t.xml")


def test_entity_bombs_are_refused_before_they_grow(tmp_path: Path) -> None:
    entities = "".join(
        f'<!ENTITY l{i} "{"&l" + str(i - 1) + ";" if i else "x"}{"&l" + str(i - 1) + ";" if i else "x"}">'
        for i in range(40)
    )
    (tmp_path / "t.xml").write_text(f"<!DOCTYPE b [{entities}]><b>&l39;</b>")
    with pytest.raises(DataError, match="document type"):
        read_tracklets(tmp_path / "t.xml")


def test_a_kitti_file_whose_names_are_no_numbers(tmp_path: Path) -> None:
    root = _kitti(tmp_path)
    _picture(root / "image_02/cover.jpg")
    with pytest.raises(DataError, match="'cover' is no frame number"):
        open_recording("kitti", root)


@pytest.mark.parametrize("kind", ["Truck", "Car"])
def test_a_truck_of_kitti_excuses_whatever_is_found_on_it(tmp_path: Path, kind: str) -> None:
    root = _kitti(tmp_path)
    pose = "<poses><count>1</count><item><tx>0</tx><ty>0</ty><tz>10</tz><rz>0</rz></item></poses>"
    item = ITEM.format("4", pose).replace("Car", kind)
    (root / "tracklet_labels.xml").write_text(XML.format(item))
    truth = open_recording("kitti", root).truth(0).boxes
    assert truth is not None
    bicycle = np.array([1])
    on_it = Detections(truth.xyxy[:1], np.array([0.9], np.float32), bicycle)
    box = np.array([[10, 10, 90, 90]], np.float32)
    right = Detections(box, np.array([0.5], np.float32), bicycle)
    frames = [(on_it, truth), (right, Boxes(box, bicycle, np.zeros(1, bool)))]
    # Surer than the right one: where a car stands it costs half of the precision.
    wanted = {"Truck": 1.0, "Car": 0.5}[kind]
    assert average_precision(frames, 3).per_class[1][0] == pytest.approx(wanted)


def test_kitti_clouds_as_kitti_has_them(tmp_path: Path) -> None:
    root = _kitti(tmp_path)
    cloud = np.random.default_rng(0).uniform(1, 30, (40, 4)).astype("<f4")
    (root / "velodyne/0000000000.npz").unlink()
    with pytest.warns(UserWarning, match="no frame has a cloud"):
        assert set(open_recording("kitti", root).frame(0)) == {"rgb"}
    (root / "velodyne/0000000000.bin").write_bytes(cloud.tobytes())
    recording = open_recording("kitti", root)
    assert np.array_equal(recording.frame(0)["lidar"].data[:, :3], cloud[:, :3])
    assert set(recording.frame(1)) == {"rgb"}
    stamps = root / "timestamps_velodyne_points.txt"
    stamps.write_text("\n" + stamps.read_text())  # the line of a frame without a cloud
    with pytest.raises(DataError, match="no lidar stamp for frame 0"):
        open_recording("kitti", root).frame(0)


def test_msrs_boxes_are_of_pictures_of_its_size(tmp_path: Path) -> None:
    root = _msrs(tmp_path)
    _picture(root / "thermal/00001D.jpg", (240, 320))
    with pytest.raises(DataError, match=r"thermal/00001D: is 320x240, MSRS pictures are 640x480"):
        open_recording("msrs", root).frame(0)
