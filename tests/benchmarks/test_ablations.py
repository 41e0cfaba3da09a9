"""The comparison of designs and recipes: what each variant changes, and a small one from end to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from perception.errors import ConfigError
from perception.training.config import TrainConfig, load_config

ROOT = Path(__file__).parents[2]
_PLACE = ROOT / "tests/training/conftest.py"


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


ablations = _module(ROOT / "benchmarks/ablations.py")
record = _module(_PLACE).record
BUDGET = ablations.Budget(epochs=4, more=2, grid=(96, 128), batch=8)


def _flat(config: TrainConfig) -> dict[str, Any]:
    def walk(value: Any, place: str) -> dict[str, Any]:
        if isinstance(value, dict) and value:
            return {k: v for n, x in value.items() for k, v in walk(x, f"{place}.{n}").items()}
        return {place: value}

    return walk(config.model_dump(mode="json"), "")


@pytest.mark.parametrize("comparison", sorted(ablations.COMPARISONS))
def test_a_variant_changes_nothing_but_what_it_says(comparison: str) -> None:
    config = load_config(ROOT / "configs/indoor-rgbd.yaml")
    variants = ablations.COMPARISONS[comparison]
    for variant in variants.values():
        start = None if variant.after is None else Path("run")
        plain = ablations.Variant(after=variant.after)
        one, other = (_flat(ablations.prepared(config, v, BUDGET, start)) for v in (plain, variant))
        names = [f".{name}" for name in variant.change]
        for key in one.keys() | other.keys():
            if one.get(key) != other.get(key):
                assert any(key.startswith(n) or n.startswith(".resolution") for n in names), key
        assert (one == other) == (not variant.change)


def test_stages_are_the_configured_ones_made_small() -> None:
    config = load_config(ROOT / "configs/indoor-rgbd.yaml")
    first = ablations.prepared(config, ablations.Variant(), BUDGET, None)
    assert first.epochs == 4 and first.resolution[0].crop == (64, 96)
    assert first.preprocess.grid.height == 96 and first.optimizer.lr == config.optimizer.lr
    later = ablations.prepared(config, ablations.Variant(after="lite0"), BUDGET, Path("run"))
    assert later.epochs == 2 and later.resolution[0].crop == (96, 128)
    assert later.model.start_from == ["run"]
    wanted = config.optimizer.lr * (1 - 86 / 124) ** config.optimizer.power
    assert later.optimizer.lr == pytest.approx(wanted)


def test_what_does_not_fit_is_named() -> None:
    config = load_config(ROOT / "configs/indoor-rgbd.yaml")
    with pytest.raises(ConfigError, match="subsets"):
        ablations.changed(config, {"subsets.weight": {"radar": 2}})


def test_means_and_spreads_are_over_seeds() -> None:
    found = {"a": {"0": {"rgb/miou": 0.1}, "1": {"rgb/miou": 0.3}}, "b": {"0": {"rgb/miou": 0.5}}}
    assert ablations.lines(found) == ["a (2): rgb/miou 20.00 ± 14.14", "b (1): rgb/miou 50.00"]


def test_a_comparison_runs_goes_on_and_keeps_what_it_found(
    record: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    content = {
        "name": "tiny",
        "tasks": ["segmentation"],
        "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 16}},
        "data": {"source": f"folder:{record(20)}"},
        "preprocess": {"modalities": ["rgb", "depth"], "grid": {"height": 64, "width": 96}},
        "epochs": 10,
        "resolution": [
            {"crop": [32, 64], "scale": [1, 1], "batch": 2},
            {"from_epoch": 6, "crop": [64, 96], "scale": [1, 1], "batch": 2},
        ],
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    words = f"ablations {config} --compare recipe --only lite0 X --epochs 1 --seeds 2 --frames 6"
    only = "rgb counts twice"
    arguments = [only if w == "X" else w for w in words.split()]
    monkeypatch.setattr(sys, "argv", [*arguments, "--threads", "1", "--out", str(out)])
    assert ablations.main() == 0
    found = json.loads((out / "ablations.json").read_text())
    assert found.keys() == {"lite0", only} and found[only].keys() == {"0", "1"}
    assert all(0 <= v <= 1 for runs in found.values() for s in runs.values() for v in s.values())
    logs = [
        (out / name / "log.csv").read_text().splitlines()[1].split(",")[1]
        for name in ("lite0", "lite0-1")
    ]
    assert logs[0] != logs[1]  # the loss: another seed
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*/last.safetensors")}
    assert len(stamps) == 4 and ablations.main() == 0
    assert json.loads((out / "ablations.json").read_text()) == found
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps  # nothing was trained again


def test_an_unknown_variant_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ROOT / "configs/indoor-rgbd.yaml"
    words = ["ablations", str(config), "--only", "more", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert ablations.main() == 2
    assert "no variant 'more'" in capsys.readouterr().err
