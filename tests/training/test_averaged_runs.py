"""`anysense average`: the mean of weights, what it is judged by, and what cannot be averaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from perception.cli.main import main
from perception.errors import ConfigError, DataError
from perception.training.averaged_runs import average_runs, mean_of
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig
from perception.training.loop import Trainer

Configure = Callable[..., TrainConfig]
Record = Callable[..., Path]


def _trained(config: TrainConfig, out: Path) -> Path:
    Trainer(config, out).fit()
    return out


@pytest.fixture
def runs(record: Record, configure: Configure, tmp_path: Path) -> list[Path]:
    """Two runs that went on from one, differently."""
    root = record(20)
    start = _trained(configure(root), tmp_path / "start")
    model = {**configure(root).model.model_dump(mode="json"), "start_from": [str(start)]}
    return [
        _trained(configure(root, model=model, seed=seed), tmp_path / f"run{seed}")
        for seed in (1, 2)
    ]


def test_the_mean_is_of_every_tensor_in_its_own_type() -> None:
    one = {"w": torch.tensor([1.0, 4.0]), "n": torch.tensor(7)}
    other = {"w": torch.tensor([3.0, 0.0]), "n": torch.tensor(9)}
    found = mean_of([one, other])
    assert found["w"].tolist() == [2.0, 2.0] and found["w"].dtype == torch.float32
    assert found["n"].item() == 7
    assert one["w"].tolist() == [1.0, 4.0]


def test_the_new_run_has_the_mean_and_its_scores_and_is_exported(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bundle = tmp_path / "both", tmp_path / "bundle"
    assert main(["average", *map(str, runs), "--out", str(out), "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    first, second, mean = (load_checkpoint(path) for path in (*runs, out))
    key = max(mean.ema, key=lambda k: mean.ema[k].numel())
    assert not torch.equal(first.ema[key], second.ema[key])
    torch.testing.assert_close(mean.ema[key], (first.ema[key] + second.ema[key]) / 2)
    assert [run["run"] for run in said["runs"]] == [str(run) for run in runs]
    # Each is judged as it was when it was trained.
    for told, run in zip(said["runs"], (first, second), strict=True):
        assert told["scores"]["rgb/miou"] == pytest.approx(
            run.progress["scores"]["rgb"]["miou"], abs=1e-3
        )
    assert mean.progress["scores"]["depth"]["miou"] == said["average"]["scores"]["depth/miou"]
    assert mean.progress["averaged"] == ["run1", "run2"]
    assert main(["export", str(out), "--out", str(bundle)]) == 0
    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    assert manifest["training"]["command"] == mean.progress["command"]
    assert manifest["training"]["averaged"] == ["run1", "run2"]


def test_what_cannot_be_averaged_is_one_line(
    runs: list[Path], record: Record, configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    with pytest.raises(ConfigError, match="two runs or more"):
        average_runs(runs[:1], out)
    with pytest.raises(ConfigError, match="one of the runs"):
        average_runs(runs, runs[1])
    with pytest.raises(DataError, match="no such checkpoint"):
        average_runs([runs[0], tmp_path / "none"], out)
    wider = configure(
        record(6, name="wide"),
        model={"pretrained": False, "options": {"width": 0.25, "decoder_width": 24}},
    )
    with pytest.raises(ConfigError, match=r"its model\.options are not those of"):
        average_runs([runs[0], _trained(wider, tmp_path / "wider")], out)
    other = configure(record(6, name="more", classes=4))
    with pytest.raises(ConfigError, match="its classes are not those of"):
        average_runs([runs[0], _trained(other, tmp_path / "more_classes")], out)
    assert not out.exists()
