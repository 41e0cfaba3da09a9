"""Recordings of kinds that other distributions bring: written, read, checked and described as ours are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from laser_kind import LASER, scan

from perception.cli.main import main
from perception.data.check import check_folder
from perception.data.folder import FolderRecording, FolderWriter
from perception.data.layout import FolderInfo
from perception.errors import AnySenseError, DataError
from perception.sensors.kind import Inspection
from perception.sensors.registry import KINDS

pytestmark = pytest.mark.usefixtures("laser")


def info(**fields: Any) -> FolderInfo:
    sensors = {"front": "rgb", "bumper": "laser", "tail": {"kind": "laser", **fields}}
    content = {"name": "r", "sensors": sensors, "height": 12, "width": 16}
    return FolderInfo.model_validate(content)


def written(root: Path, frames: int = 3, **fields: Any) -> Path:
    with FolderWriter(root, info(**fields)) as writer:
        for index in range(frames):
            color = np.random.default_rng(index).integers(0, 255, (12, 16, 3), np.uint8)
            samples = {"front": color, "bumper": scan(index), "tail": scan(index + 50)}
            writer.add(f"{index:03}", samples, stamp_ns=index * 10**8)
    return root


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    root = written(tmp_path / "r")
    assert [p.name for p in sorted((root / "bumper").iterdir())] == [
        f"00{i}.scan" for i in range(3)
    ]
    recording = FolderRecording(root)
    assert recording.info.sensors == {"front": "rgb", "bumper": "laser", "tail": "laser"}
    assert recording.info.labels_of == "front", "the camera, whatever else is there"
    frame = recording.frame(1)
    assert frame["bumper"].kind == "laser" and frame["bumper"].sensor == "bumper"
    np.testing.assert_allclose(frame["tail"].data, scan(51), rtol=1e-6)
    said = yaml.safe_load((root / "dataset.yaml").read_text())
    assert said["schema"] == 2
    assert said["sensors"]["bumper"] == {"kind": "laser", "hints": {"unit": "metres"}}
    (root / "bumper" / "001.scan").rename(root / "bumper" / "001.TXT")
    np.testing.assert_allclose(FolderRecording(root).frame(1)["bumper"].data, scan(1), rtol=1e-6)


def test_hints_of_its_own_reach_the_reader(tmp_path: Path) -> None:
    root = written(tmp_path / "r", hints={"least_range_m": 8.0})
    frame = FolderRecording(root).frame(0)
    away = np.hypot(*scan(50)[:, :2].T)
    assert len(frame["tail"].data) == (away >= 8).sum() < len(away) == len(frame["bumper"].data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hints": {"columns": 4}}, "sensors.tail: a laser sensor has no columns"),
        ({"hints": {"least_range_m": -1}}, "sensors.tail.hints.least_range_m"),
        ({"hints": {"encoding": "x"}}, "sensors.tail.hints.encoding: no such field"),
        ({"depth_scale": 0.1}, "sensors.tail: a laser sensor has no depth_scale"),
        ({"width": 5}, "sensors.tail: a laser sensor has no width"),
        ({"laser_unit": "metres"}, "sensors.tail.laser_unit: no such field"),
    ],
)
def test_hints_that_it_has_not_are_refused(tmp_path: Path, fields: Any, said: str) -> None:
    root = written(tmp_path / "r")
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    content["sensors"]["tail"] = {"kind": "laser", **fields}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=said):
        FolderRecording(root)


def test_a_unit_that_is_not_written_and_a_kind_without_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="laser is written in metres, laser_unit says auto, feet"):
        FolderWriter(tmp_path / "r", info(hints={"unit": "feet"}))
    root = written(tmp_path / "t")
    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, to_file=None, from_file=None))
    with pytest.raises(DataError, match="no laser is written to files"):
        FolderWriter(tmp_path / "s", info())
    with pytest.raises(DataError, match="no laser is read from files"):
        FolderRecording(root)


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "r", info()) as writer:
        with pytest.raises(DataError, match=r"front/000\.png: a float64 image"):
            writer.add("000", {"front": np.zeros((12, 16, 2))}, stamp_ns=0)
        with pytest.raises(AnySenseError, match="brings_laser"):
            writer.add("001", {"bumper": np.zeros((2, 2, 2, 2))}, stamp_ns=0)
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"dataset.yaml", "frames.csv"}


def test_mistakes_in_its_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = written(tmp_path / "r")
    assert [f for f in check_folder(root) if f.severity == "error"] == []
    (root / "bumper" / "000.scan").write_text("1 2 3\n")
    (root / "bumper" / "001.scan").write_text("")
    (root / "tail" / "001.scan").write_text("1 2 3 4\n" * 101)
    (root / "tail" / "002.bin").write_text("")
    found = {f.where: f.message for f in check_folder(root)}
    assert "no scan" in found["bumper/000.scan"]
    assert found["bumper/001"] == "no echo"
    assert found["tail/001.scan"] == "is long"
    assert found["tail/002.bin"] == "is not read: none of .scan, .txt"
    assert main(["data", "check", str(root)]) == 2
    assert "no echo" in " ".join(capsys.readouterr().out.split())

    def inspect(sample: Any) -> Inspection:
        return Inspection(remarks=("looks odd",), kept=float(sample.data[:, 0].max()))

    looking = replace(LASER, inspect=inspect, judge=lambda kept: [f"{len(kept)} kept"])
    monkeypatch.setitem(KINDS.own, "laser", looking)
    found = {f.where: f.message for f in check_folder(written(tmp_path / "s"))}
    assert found["bumper"] == found["tail"] == "3 kept"
    assert found["bumper/000 and 2 more"] == "looks odd"


def test_it_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", f"folder:{written(tmp_path / 'r')}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "sensors front (rgb), bumper (laser), tail (laser)" in out
