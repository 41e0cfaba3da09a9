"""`anysense calibrate depth`, `thermal` and `apply`: from pictures to a values file, and to true pictures."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from depth_scenes import (
    BIAS_M,
    BOARD,
    CAMERA,
    SCALE,
    plane_depth,
    poses,
    write_depth,
    write_pictures,
)
from thermal_scenes import PEDESTAL, SHAPE, Sensor, planck, points, write_table

from calibration.camera_info import save_camera_info
from perception.cli.main import main
from perception.geometry.rig import Rig, SensorCalibration, save_rig
from perception.sensors.depth.decode import load_depth
from perception.sensors.thermal.decode import load_thermal

POSES = poses(8, 21)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    write_pictures(folder / "pictures", POSES)
    write_depth(folder / "depth", POSES)
    save_camera_info(CAMERA, folder / "camera.yaml")
    return folder


def depth_line(recorded: Path, out: Path, **change: str | None) -> list[str]:
    given = {
        "--board": str(BOARD),
        "--camera-info": str(recorded / "camera.yaml"),
        "--out": str(out),
        **{f"--{key.replace('_', '-')}": value for key, value in change.items()},
    }
    folders = [given.pop("--pictures", None), given.pop("--depths", None)]
    usual = [recorded / "pictures", recorded / "depth"]
    words = [str(own or default) for own, default in zip(folders, usual, strict=True)]
    words += [word for key, value in given.items() if value is not None for word in (key, value)]
    return ["calibrate", "depth", *words]


def test_depth_is_found_told_and_applied(recorded: Path, tmp_path: Path) -> None:
    values, report, page = (tmp_path / name for name in ("v.yaml", "found.json", "page.html"))
    line = depth_line(recorded, values, json=str(report), report=str(page), sensor="front_depth")
    assert main(line) == 0
    found = json.loads(report.read_text())
    assert abs(found["scale"] - SCALE) < 4 * found["sigma"][1] < 0.02
    assert abs(found["bias_m"] - BIAS_M) < 4 * found["sigma"][0]
    assert found["trusted"] and found["needed"] and found["values"] == str(values)
    assert found["held_out_rms_m"]["1"] < found["before_rms_m"] / 2
    text = page.read_text()
    assert text.count("<svg") == 3 and f"{found['scale']:.5f}" in text
    assert all(f"<th>{name}</th>" in text for name in found["poses"])
    assert all(html.escape(line) in text for line in found["remarks"])
    out = tmp_path / "true"
    assert main(["calibrate", "apply", str(values), str(recorded / "depth"), str(out)]) == 0
    for index, pose in enumerate(POSES):
        true, made = plane_depth(pose), load_depth(out / f"{index:02}.tiff").data
        raw = load_depth(recorded / "depth" / f"{index:02}.png").data
        off = [float(np.nanmedian(one - true)) for one in (raw, made)]
        assert abs(off[1]) < 0.003 and (np.isnan(made) == np.isnan(raw)).all()
    mean = np.mean([abs(np.nanmedian(load_depth(out / "07.tiff").data - plane_depth(POSES[7])))])
    assert mean < 0.5 * abs(np.nanmedian(raw - true))


def test_a_rig_gives_the_intrinsics_and_a_file_keeps_other_sensors(
    recorded: Path, tmp_path: Path
) -> None:
    rig, values = tmp_path / "rig.yaml", tmp_path / "v.yaml"
    save_rig(Rig({"rgb": SensorCalibration(CAMERA), "thermal": SensorCalibration(CAMERA)}), rig)
    table = write_table(tmp_path / "points.csv", points(9))
    assert main(["calibrate", "thermal", "--points", str(table), "--out", str(values)]) == 0
    assert main(depth_line(recorded, values, camera_info=str(rig), camera="rgb", degree="2")) == 0
    text = values.read_text()
    assert "thermal:" in text and "depth:" in text and "planck" in text


def test_squares_of_another_size_are_3_and_write_nothing(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values, report = tmp_path / "v.yaml", tmp_path / "found.json"
    board = str(replace(BOARD, square_m=0.07))
    assert main(depth_line(recorded, values, board=board, json=str(report))) == 3
    assert not values.exists() and "not to be trusted" in capfd.readouterr().out
    found = json.loads(report.read_text())
    assert found["values"] is None and any("squares" in doubt for doubt in found["doubts"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"board": "charuco:5x4:0.05:0.03"}, "no board"),
        ({"depths": "nowhere"}, "nowhere"),
        ({"pictures": "nowhere"}, "nowhere"),
        ({"camera_info": "nowhere.yaml"}, "nowhere.yaml"),
        ({"depth_scale": "1.0"}, "at the board"),
        ({"depth_scale": "0.000001"}, "board is at"),
        ({"degree": "4"}, "--degree"),
        ({"sensor": "Front Left"}, "Front Left"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: dict, problem: str
) -> None:
    if change.get("depth_scale") == "1.0":
        problem = "depth says"
    if change.get("depth_scale") == "0.000001":
        problem = "whole millimetres"
    assert main(depth_line(recorded, tmp_path / "v.yaml", **change)) == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
    assert len(lines) == 1 and problem in lines[0], lines
    assert not (tmp_path / "v.yaml").exists()


def test_a_file_that_is_no_values_file_is_not_overwritten(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "rig.yaml"
    save_rig(Rig({"rgb": SensorCalibration(CAMERA)}), other)
    before = other.read_text()
    assert main(depth_line(recorded, other)) == 2 and other.read_text() == before


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sensor]:
    """Two flat fields, and pictures of things of known temperatures with a table of their regions."""
    folder, sensor = tmp_path_factory.mktemp("camera"), Sensor(31)
    sensor.write_flat(folder / "cold", 3000.0, seed=4)
    sensor.write_flat(folder / "hot", 4000.0, seed=5)
    rng, rows = np.random.default_rng(8), ["picture;x;y;width;height;celsius"]
    (folder / "pictures").mkdir()
    for index, celsius in enumerate(np.linspace(-10, 110, 9)):
        signal = np.full(SHAPE, float(planck(np.array(celsius + 273.15))))
        name = f"pictures/{index}.png"
        cv2.imwrite(str(folder / name), sensor.frame(signal, rng))
        rows.append(f"{name};40;30;60;40;{celsius:.3f}")
    (folder / "regions.csv").write_text("\n".join(rows) + "\n")
    return folder, sensor


def test_counts_become_kelvin_and_pixels_even(camera: tuple[Path, Sensor], tmp_path: Path) -> None:
    folder, sensor = camera
    values, report, page = (tmp_path / name for name in ("v.yaml", "found.json", "page.html"))
    line = ["calibrate", "thermal", "--flat", str(folder / "cold"), "--flat", str(folder / "hot")]
    line += ["--points", str(folder / "regions.csv"), "--out", str(values), "--report", str(page)]
    assert main([*line, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["trusted"] and found["curve"]["model"] == "planck"
    bad = found["flat_field"]["bad_pixels"]
    assert abs(sum(bad.values()) - int((sensor.bad > 0).sum())) <= 5
    text = page.read_text()
    assert text.count("<svg") == 4 and text.count("data:image/jpeg") == 5
    assert f"{found['curve']['held_out_rms_k']['planck']:.3f} K" in text
    out = tmp_path / "kelvin"
    assert main(["calibrate", "apply", str(values), str(folder / "pictures"), str(out)]) == 0
    for index, celsius in enumerate(np.linspace(-10, 110, 9)):
        sample = load_thermal(out / f"{index}.tiff")
        assert sample.unit == "kelvin" and np.isfinite(sample.data).all()
        assert abs(float(sample.data.mean()) - 273.15 - celsius) < 0.1
        assert float(sample.data.std()) < 0.5


def test_a_flat_field_alone_gives_even_counts_of_16_bit(
    camera: tuple[Path, Sensor], tmp_path: Path
) -> None:
    folder, _ = camera
    values, out = tmp_path / "v.yaml", tmp_path / "even"
    line = ["calibrate", "thermal", "--flat", str(folder / "cold"), "--flat", str(folder / "hot")]
    assert main([*line, "--out", str(values), "--sensor", "warm"]) == 0
    assert main(["calibrate", "apply", str(values), str(folder / "pictures"), str(out)]) == 0
    even = tifffile.imread(out / "4.tiff")
    assert even.dtype == np.uint16 and even.shape == SHAPE and even.std() < 20
    assert PEDESTAL < even.mean() < 16000
    assert load_thermal(out / "4.tiff").unit == "counts16"


def test_values_beyond_what_was_calibrated_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "points.csv", points(9))
    values, report = tmp_path / "v.yaml", tmp_path / "applied.json"
    assert main(["calibrate", "thermal", "--points", str(table), "--out", str(values)]) == 0
    assert "beyond it is a guess" in capfd.readouterr().out
    (tmp_path / "in").mkdir()
    image = np.full((20, 30), 6000, np.uint16)
    cv2.imwrite(str(tmp_path / "in" / "good.png"), image)
    image[:5] = 30000
    cv2.imwrite(str(tmp_path / "in" / "hot.png"), image)
    (tmp_path / "in" / "torn.png").write_bytes(b"nothing")
    line = ["calibrate", "apply", str(values), str(tmp_path / "in"), str(tmp_path / "out")]
    assert main([*line, "--json", str(report)]) == 0
    said = json.loads(report.read_text())
    assert said["beyond_range"] == {"hot.png": 0.25} and said["written"] == 2
    assert list(said["left_out"]) == ["torn.png"] and "guess" in capfd.readouterr().out


def test_points_that_do_not_agree_are_3(tmp_path: Path) -> None:
    table = write_table(tmp_path / "points.csv", points(12, noise_k=8.0))
    line = ["calibrate", "thermal", "--points", str(table), "--out", str(tmp_path / "v.yaml")]
    assert main(line) == 3 and not (tmp_path / "v.yaml").exists()


def test_what_cannot_be_is_one_line(
    camera: tuple[Path, Sensor], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _ = camera
    table = write_table(tmp_path / "points.csv", points(9))
    out, cold = ["--out", str(tmp_path / "v.yaml")], str(folder / "cold")
    thermal = ["calibrate", "thermal", *out]
    apply = ["calibrate", "apply"]
    good = tmp_path / "good.yaml"
    assert main(["calibrate", "thermal", "--points", str(table), "--out", str(good)]) == 0
    for line, problem in (
        (thermal, "--points or --flat"),
        ([*thermal, "--points", "nowhere.csv"], "nowhere.csv"),
        ([*thermal, "--points", str(table), "--model", "plank"], "did you mean 'planck'"),
        ([*thermal, "--points", str(table), "--tolerance", "0"], "--tolerance"),
        ([*thermal, "--flat", cold, "--flat", cold], "given twice"),
        ([*thermal, "--flat", str(folder)], "file"),
        ([*thermal, "--flat", str(folder / "pictures")], "uniform surface"),
        ([*apply, str(table), cold, str(tmp_path / "o")], "points.csv"),
        ([*apply, str(good), "nowhere", str(tmp_path / "o")], "nowhere"),
        ([*apply, str(good), cold, cold], "folder of the pictures"),
        ([*apply, str(good), cold, str(tmp_path / "o"), "--sensor", "x"], "no values of 'x'"),
    ):
        capfd.readouterr()
        assert main(line) == 2, line
        lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
        assert len(lines) == 1 and problem in lines[0], (line, lines)
    assert not (tmp_path / "v.yaml").exists()
