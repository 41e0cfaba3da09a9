"""Paths with spaces, markup, newlines and bytes that are no text: commands take them as they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from perception.cli.main import main

NAMES = {
    "space": b"a b",
    "markup": b"[/red][bold]",
    "newline": b"x\ny",
    "bytes": b"b\xe9\xff",
    "escape": b"\x1b[31m",
    "percent": b"100%s{0}",
    "colon": b"c:d=e",
    "emoji": ":smile: \N{SNOWMAN}".encode(),
}
CPU = ("--device", "onnxruntime-cpu", "--threads", "1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_work_in_odd_places(
    kind: str,
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NAMES[kind]))
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system does not take such a name")
    bundle, data = folder / "bundle", folder / "data"
    shutil.copytree(tiny_bundle, bundle)
    shutil.copytree(simulated, data)
    source = f"--data=folder:{data}"

    def done(*arguments: object) -> None:
        assert main([str(a) for a in arguments]) == 0, capsys.readouterr().err
        said = capsys.readouterr()
        assert said.err == "" and "\x1b" not in said.out

    rgb = data / "rgb/000000.png"
    done("data", "check", data)
    done("run", "--bundle", bundle, "--rgb", rgb, "--out", folder / "run", *CPU)
    done("eval", bundle, source, "--limit", 1, "--record", "--json", folder / "e.json", *CPU)
    done("bundle", "verify", bundle)
    done("record", source, "--limit", 2, "--out", folder / "bag")
    done("replay", folder / "bag", "--bundle", bundle, "--out", folder / "replay", *CPU)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    return path


def test_a_file_where_a_folder_should_be(
    file: Path, tiny_bundle: Path, simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"--data=folder:{simulated}"
    config = Path(__file__).parents[2] / "configs/sim-rgbdtl.yaml"
    for command in (
        ("run", "--bundle", tiny_bundle, "--rgb", simulated / "rgb/000000.png", "--out", file),
        ("record", data, "--out", file),
        ("demo", data, "--bundle", tiny_bundle, "--out", file),
        ("eval", tiny_bundle, data, "--limit", 1, "--json", file / "e.json"),
        ("bench", tiny_bundle, "--frames", 1, "--json", file / "b.json"),
        ("export", tiny_bundle, "--subset", "rgb", "--out", file),
        ("export", tiny_bundle, "--serve", "triton", "--out", file),
        ("export", tiny_bundle, "--report", file),
        ("data", "make-sim", "--frames", 1, "--out", file),
        ("train", config, data, "--out", file),
        ("pretrain", config, data, "--out", file / "below"),
        ("models", "--json", file / "m.json"),
        ("doctor", "--json", file / "d.json"),
    ):
        assert main([str(word) for word in command]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(file) in error
        assert "folder" in error or "exists already" in error, error
    assert file.read_bytes() == b"mine"


def test_training_data_whose_path_is_no_text_is_refused_before_any_work(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[2] / "configs/sim-rgbdtl.yaml"
    data = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe9"))
    shutil.copytree(simulated, data)
    out = tmp_path / "run"
    assert main(["train", str(config), "--data", f"folder:{data}", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no UTF-8" in error and not out.exists()
