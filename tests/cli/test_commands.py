"""The command line as a user meets it: real processes, exit codes, one-line errors."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from perception.frame import MODALITIES, subset_name, subsets_of
from perception.runtime.bundle import Bundle


def _anysense(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def _error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("anysense: error: ")
    assert "Traceback" not in done.stdout
    return lines[0]


def test_run_writes_pictures_and_json(tiny_bundle: Path, simulated: Path, tmp_path: Path) -> None:
    done = _anysense(
        "run",
        "--bundle",
        tiny_bundle,
        "--out",
        tmp_path / "out",
        "--rgb",
        simulated / "rgb/000000.png",
        "--depth",
        simulated / "depth/000000.png",
        "--thermal",
        simulated / "thermal/000000.png",
        "--thermal-unit",
        "centikelvin",
        "--lidar",
        simulated / "lidar/000000.npz",
        "--rig",
        simulated / "rig.yaml",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["used"] == ["rgb", "depth", "thermal", "lidar"]
    assert result["state"] == "full"
    for name in ("overlay.png", "labels.png", "labels_color.png", "confidence.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_run_goes_on_without_a_blind_sensor(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    done = _anysense(
        "run",
        "--bundle",
        tiny_bundle,
        "--out",
        tmp_path,
        "--rgb",
        simulated / "rgb/000000.png",
        "--lidar",
        simulated / "lidar/000000.npz",
    )
    assert done.returncode == 0
    assert "warning: lidar: needs intrinsics" in done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["used"] == ["rgb"]


def test_eight_bit_depth_needs_a_scale_from_somewhere(tiny_bundle: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(20, 200, (60, 80)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "depth.png"), picture)
    arguments = ["run", "--depth", tmp_path / "depth.png", "--out", tmp_path / "out", "--bundle"]
    assert "scale is not known" in _error(_anysense(*arguments, tiny_bundle))
    assert _anysense(*arguments, tiny_bundle, "--depth-scale", "0.04").returncode == 0
    ruled = tmp_path / "ruled"
    shutil.copytree(tiny_bundle, ruled)
    manifest = yaml.safe_load((ruled / "bundle.yaml").read_text())
    manifest["inputs"]["depth"]["preprocess"]["m_per_count8"] = 0.04
    (ruled / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (ruled / "records.yaml").unlink()  # of the bundle as it was
    done = _anysense(*arguments, ruled)
    assert done.returncode == 0
    assert "read as 0.04 m per step" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--bundle", "BUNDLE", "--out", "OUT"], "no sensor file"),
        (["run", "--bundle", "nowhere", "--rgb", "RGB", "--out", "OUT"], "no such bundle"),
        (["run", "--bundle", "BUNDLE", "--rgb", "none.png", "--out", "OUT"], "none.png"),
        (["run", "--bundle", "BUNDLE", "--rgb", "RIG", "--out", "OUT"], "rig.yaml"),
        (
            ["run", "--bundle", "BUNDLE", "--rgb", "RGB", "--rig", "RGB", "--out", "OUT"],
            "000000.png",
        ),
        (["run", "--bundle", "BUNDLE", "--rgb", "RGB", "--device", "tpu", "--out", "OUT"], "tpu"),
        (["eval", "BUNDLE", "--data", "folder:nowhere"], "nowhere"),
        (["eval", "BUNDLE", "--data", "nothing"], "KIND:DIR"),
        (["eval", "BUNDLE", "--data", "folder:DATA", "--subset", "sonar"], "sonar"),
        (["eval", "BUNDLE", "--data", "folder:DATA", "--limit", "0"], "--limit"),
        (["bundle", "verify", "DATA"], "bundle.yaml"),
        (["data", "check", "nowhere"], "nowhere"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "RIG"], "rig.yaml"),
        (["export", "nowhere", "--out", "OUT"], "nowhere"),
        (["bench", "BUNDLE", "--frames", "0"], "--frames"),
        (["bench", "BUNDLE", "--backends", "tpu"], "tpu"),
        (["bench", "BUNDLE", "--backends", "auto"], "--backends"),
        (["bench", "BUNDLE", "BUNDLE", "--backends", "onnxruntime"], "one bundle"),
        (["bench", "BUNDLE", "--device", "cpu,cpu"], "--device"),
        (["eval", "BUNDLE", "--data", "folder:DATA", "--reference", "BUNDLE"], "--backends"),
    ],
)
def test_wrong_use_gives_one_line_and_exit_code_2(
    arguments: list[str], message: str, tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    values = {
        "BUNDLE": tiny_bundle,
        "DATA": simulated,
        "RGB": simulated / "rgb/000000.png",
        "RIG": simulated / "rig.yaml",
        "OUT": tmp_path / "out",
    }
    filled = [a if a not in values else str(values[a]) for a in arguments]
    filled = [a.replace("folder:DATA", f"folder:{simulated}") for a in filled]
    assert message in _error(_anysense(*filled, cwd=tmp_path))


def test_eval_of_every_subset(tiny_bundle: Path, simulated: Path, tmp_path: Path) -> None:
    done = _anysense(
        "eval",
        tiny_bundle,
        "--data",
        f"folder:{simulated}",
        "--all-subsets",
        "--limit",
        "2",
        "--json",
        tmp_path / "e.json",
    )
    assert done.returncode == 0, done.stderr
    subsets = json.loads((tmp_path / "e.json").read_text())["subsets"]
    assert len(subsets) == 15
    assert next(iter(subsets)) == "rgb+depth+thermal+lidar"
    assert {"miou", "ap50", "ap", "per_class", "frames"} <= set(subsets["rgb"])
    assert subsets["rgb"]["frames"] == 2


def test_eval_records_accuracy_in_the_bundle(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    arguments = ["eval", bundle, "--data", f"folder:{simulated}", "--limit", "2"]
    done = _anysense(*arguments, "--json", tmp_path / "found.json", "--record")
    assert done.returncode == 0, done.stderr
    opened = Bundle.open(bundle, verify=True)
    (entry,) = (v for k, v in opened.records.accuracy.items() if k.endswith(" all"))
    (subset,) = json.loads((tmp_path / "found.json").read_text())["subsets"].items()
    assert entry["subsets"][subset[0]]["miou"] == pytest.approx(subset[1]["miou"], abs=1e-4)
    assert "--json" not in entry["command"] and "--record" not in entry["command"]


def test_bench_prints_ratios(tiny_bundle: Path, tmp_path: Path) -> None:
    done = _anysense("bench", tiny_bundle, "--frames", "3", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    found = next(iter(json.loads((tmp_path / "b.json").read_text())["bundles"].values()))
    assert found["subsets"]["rgb"]["overhead_over_engine"] > 0
    assert set(found["saving_when_lost"]) == {"rgb", "depth", "thermal", "lidar"}


def test_bench_compares_backends_with_onnx_runtime(tiny_bundle: Path, tmp_path: Path) -> None:
    done = _anysense(
        "bench", tiny_bundle, "--backends", "onnxruntime,openvino-f32", "--frames", "2",
        "--threads", "1", "--json", tmp_path / "b.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["baseline"] == "onnxruntime-cpu"
    assert set(found["speedup"]) == {"onnxruntime-cpu", "openvino-f32"}
    assert found["backends"]["openvino-f32"]["backend"] == "openvino-f32"
    row = found["backends"]["openvino-f32"]["subsets"]["rgb"]["total_ms"]["p50"]
    base = found["backends"]["onnxruntime-cpu"]["subsets"]["rgb"]["total_ms"]["p50"]
    assert found["speedup"]["openvino-f32"]["rgb"] == pytest.approx(base / row)
    assert set(found["speedup"]["onnxruntime-cpu"].values()) == {1.0}


def test_eval_of_backends_records_what_they_cost(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:

    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    done = _anysense(
        "eval", copy, "--data", f"folder:{simulated}", "--limit", "2", "--threads", "1",
        "--backends", "openvino,openvino-f32", "--record", "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())["backends"]
    assert found["openvino-f32"]["passed"]
    assert found["openvino-f32"]["probe_error"] < 1e-4
    recorded = Bundle.open(copy).records.backends
    native = found["openvino"]["backend"]
    assert recorded[native].lost == found["openvino"]["lost"]
    assert set(recorded[native].change) == {subset_name(s) for s in subsets_of(MODALITIES)}


def test_demo_writes_report_and_csv(tiny_bundle: Path, simulated: Path, tmp_path: Path) -> None:
    done = _anysense(
        "demo", "--bundle", tiny_bundle, "--data", f"folder:{simulated}", "--out", tmp_path / "demo"
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "demo/frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"frame", "stamp_ns", "present", "used", "state", "total_ms", "engine_ms"}
    assert wanted <= set(rows[0])
    assert len(rows) == 14
    assert {r["state"] for r in rows} == {"full", "degraded"}
    report = (tmp_path / "demo/report.html").read_text()
    assert "simulated" in report
    assert "http" not in report.replace("http-equiv", "")


def test_bundle_verify_names_a_changed_file(tiny_bundle: Path, tmp_path: Path) -> None:

    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    assert _anysense("bundle", "verify", copy).returncode == 0
    path = Path(copy) / "encoder_depth.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert "encoder_depth.onnx" in _error(_anysense("bundle", "verify", copy))
    assert _anysense("bundle", "info", tiny_bundle).returncode == 0
    assert "present schema" in _anysense("bundle", "upgrade", tiny_bundle).stdout


def test_data_commands(simulated: Path, tmp_path: Path) -> None:
    assert _anysense("data", "check", simulated).returncode == 0
    info = _anysense("data", "info", f"folder:{simulated}")
    assert "14" in info.stdout and "simulated" in info.stdout
    made = _anysense(
        "data",
        "make-sim",
        "--out",
        tmp_path / "s",
        "--frames",
        2,
        "--size",
        "64x48",
        "--kind",
        "scenes",
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "s/labels/000000.png").write_bytes(b"")
    assert _anysense("data", "check", tmp_path / "s").returncode == 2
    assert "WIDTHxHEIGHT" in _error(
        _anysense("data", "make-sim", "--out", tmp_path / "t", "--size", "big")
    )
