"""The demo of a vehicle that looks to all sides: its script, its pictures, and its simulated drive."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import cv2
import pytest
from ground_bundles import ground_bundle
from ground_scenes import Scenes, write_scenes

from perception.cli.main import main
from perception.demo.scenario import make_scenario, make_surround_scenario

KINDS = {**{f"cam_{n}": "rgb" for n in ("front", "left", "right", "rear")}, "lidar": "lidar"}
INPUTS = {name: (kind, "cloud" if kind == "lidar" else "camera") for name, kind in KINDS.items()}
QUIET = ["--device", "onnxruntime-cpu", "--threads", "1"]


def test_what_measures_dies_and_comes_back_then_the_cameras_die() -> None:
    phases = make_surround_scenario(list(KINDS), 54, KINDS)
    assert [p.start for p in phases] == [0, *(p.stop for p in phases[:-1])]
    assert phases[-1].stop == 54
    gone = [set(p.faults) for p in phases]
    cameras = {name for name, kind in KINDS.items() if kind == "rgb"}
    assert gone[:4] == [set(), {"lidar"}, set(), {"cam_front"}]
    assert all(a < b for a, b in itertools.pairwise(gone[3:7]))
    assert gone[6:] == [cameras, {*KINDS} - {"cam_front"}, set()]
    assert [p.name for p in phases][1:3] == ["LiDAR is lost", "LiDAR is back"]
    assert phases[3].faults == {"cam_front": "dark"}


@pytest.mark.parametrize("sensors", [("lidar",), ("cam_front", "cam_rear")])
def test_without_pictures_or_points_it_is_the_other_script(sensors: tuple[str, ...]) -> None:
    assert make_surround_scenario(sensors, 40, KINDS) == make_scenario(sensors, 40, KINDS)


def test_a_report_of_boxes_in_space(tmp_path: Path) -> None:
    bundle = ground_bundle(tmp_path / "bundle", INPUTS)
    data, out = write_scenes(Scenes(18), tmp_path / "data"), tmp_path / "out"
    line = ["demo", "--bundle", str(bundle), "--data", f"folder:{data}", "--out", str(out)]
    assert main([*line, *QUIET]) == 0
    with (out / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    used = [set(row["used"].split("+")) for row in rows]
    assert used[0] == used[-1] == {*KINDS}
    assert all(some in used for some in ({*KINDS} - {"lidar"}, {"lidar"}, {"cam_front"}))
    assert all(row["used"] for row in rows)
    report = (out / "report.html").read_text("utf-8")
    assert "LiDAR is lost" in report and "mAP 3D" in report and "rgb(220, 40, 40)" in report
    pictures = [cv2.imread(str(path)) for path in sorted((out / "overlays").iterdir())]
    assert {p.shape[1] for p in pictures} == {1200} and len({p.shape for p in pictures}) == 1
    assert len({p.tobytes() for p in pictures}) == len(pictures)


@pytest.mark.slow
def test_a_drive_is_simulated_where_none_is_given(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="needs the simulator: pip install 'anysense[sim]'")
    bundle, out = ground_bundle(tmp_path / "bundle", INPUTS), tmp_path / "out"
    line = ["demo", "--bundle", str(bundle), "--frames", "10", "--out", str(out), *QUIET]
    assert main(line) == 0
    drive = out / "simulated_surround"
    assert {path.name for path in drive.iterdir()} >= {*KINDS, "boxes3d", "seed7-frames10"}
    before = (drive / "seed7-frames10").stat().st_mtime_ns
    assert main(line) == 0
    assert (drive / "seed7-frames10").stat().st_mtime_ns == before  # once is enough
    assert (out / "report.html").is_file()
