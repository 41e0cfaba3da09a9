"""`anysense train`, `pretrain`, `distill` and `adapt`: what their arguments change, and what they refuse."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest
import torch
import yaml

from perception.cli.main import build_parser, main
from perception.cli.train import read_config
from perception.training.checkpoint import BEST, load_checkpoint

ROOT = Path(__file__).parents[2]
MSRS = str(ROOT / "configs/road-rgbt.yaml")  # has data.options for msrs


def _arguments(*words: str) -> argparse.Namespace:
    return build_parser("train").parse_args(["train", *words])


def test_data_of_another_kind_takes_no_options_of_the_configured_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = read_config(_arguments(MSRS, "--data", "folder:/my/drive"))
    assert config.data.source == "folder:/my/drive"
    assert config.data.options == {}
    said = " ".join(capsys.readouterr().out.split())
    assert "data.options (labels) are for msrs data and left aside" in said


def test_data_of_the_same_kind_keeps_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(_arguments(MSRS, "--data", "msrs:/other/msrs"))
    assert config.data.options == {"labels": "fusion"}
    assert read_config(_arguments(MSRS)).data.options == {"labels": "fusion"}
    assert "left aside" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "drive"], "KIND:DIR"),
        (["--epochs", "0"], "--epochs: must be at least 1"),
        (["--threads", "0"], "--threads: must be at least 1"),
        (["--threads", "-2"], "--threads: must be at least 1"),
    ],
)
def test_wrong_arguments_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", MSRS, *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def _configuration(folder: Path, simulated: Path, name: str = "anyfuse") -> str:
    options = {
        "anyfuse": {"width": 0.25, "decoder_width": 16},
        "multimae": {"size": "micro", "decoder_width": 16},
    }
    config = {
        "name": f"cli-{name}",
        "tasks": ["segmentation"],
        "model": {"name": name, "pretrained": False, "options": options[name]},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": ["rgb", "depth"], "grid": {"height": 96, "width": 128}},
        "resolution": [{"crop": [64, 96], "scale": [0.8, 1.0], "batch": 4}],
        "epochs": 2,
        "optimizer": {"warmup_epochs": 0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_cuda_where_there_is_none_is_one_line(
    command: str, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _configuration(tmp_path, simulated, "multimae")
    out = tmp_path / "out"
    assert main([command, config, "--device", "cuda", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "CUDA" in error
    assert not out.exists()


@pytest.mark.slow
def test_pretraining_gives_what_training_starts_from(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = _configuration(tmp_path, simulated, "multimae")
    assert main(["pretrain", config, "--epochs", "1", "--device", "cpu"]) == 0
    run = tmp_path / "runs/cli-multimae-pretrained"
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert float(rows[-1]["reconstruction"]) > 0
    given = load_checkpoint(run / BEST)
    second = yaml.safe_load(Path(config).read_text())
    second["model"]["start_from"] = [str(run)]
    second["optimizer"] = {"lr": 1e-12, "ema_decay": 0.0, "weight_decay": 0.0}
    Path(config).write_text(yaml.safe_dump(second))
    assert main(["train", config, "--epochs", "1", "--out", "fine", "--device", "cpu"]) == 0
    name = "encoders.rgb.project.weight"
    taken = load_checkpoint(tmp_path / "fine").ema[name]
    assert torch.allclose(taken, given.ema[name], atol=1e-4)


@pytest.mark.slow
def test_a_run_of_gaps_ends_with_its_notes_on_the_terminal(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    root = tmp_path / "[red]drive[/red]"  # not markup
    shutil.copytree(simulated, root)
    (root / "depth/000002.png").unlink()
    config = _configuration(tmp_path, root)
    assert main(["train", config, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: depth is in 11 of 12 training frames" in said
