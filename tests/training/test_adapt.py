"""Source-free adaptation: pseudo-labels, the choice between them, and a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perception.cli.main import main
from perception.data import open_recording
from perception.errors import ConfigError
from perception.training.adapt import (
    Adapter,
    AdaptOptions,
    agreement_labels,
    domain_gap,
    entropy_labels,
    information_loss,
)
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig
from perception.training.loop import Trainer


def _views(*rows: list[list[float]]) -> list[torch.Tensor]:
    """(1, K, 1, W) probabilities per model from W rows of K."""
    return [torch.tensor(r).T[None, :, None] for r in rows]


def test_agreement_keeps_only_what_all_say() -> None:
    views = _views([[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.9, 0.1]])
    assert agreement_labels(views).flatten().tolist() == [0, 255]


def test_entropy_weighting_follows_the_surer_model_and_drops_the_unsure() -> None:
    views = _views([[0.99, 0.01], [0.5, 0.5]], [[0.4, 0.6], [0.45, 0.55]])
    assert entropy_labels(views, keep=1.0).flatten().tolist() == [0, 1]
    many = torch.linspace(0.5, 1, 100)
    one = torch.stack([many, 1 - many])[None, :, None]
    kept = entropy_labels([one, one], keep=0.6).flatten()
    assert (kept[:38] == 255).all() and (kept[42:] == 0).all()


def test_the_gap_is_the_share_of_sure_disagreement() -> None:
    same = _views([[0.9, 0.1]] * 4, [[0.8, 0.2]] * 4)
    assert domain_gap(same) == 0.0
    half = _views([[0.9, 0.1]] * 4, [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    assert domain_gap(half) == pytest.approx(0.5)


def test_information_is_greatest_for_sure_and_varied_answers() -> None:
    sure = torch.eye(2)[None, :, None] * 20
    constant = torch.tensor([[20.0, 20.0], [0.0, 0.0]])[None, :, None]
    undecided = torch.zeros(1, 2, 1, 2)
    losses = [float(information_loss(x)) for x in (sure, constant, undecided)]
    assert losses[0] < min(losses[1:]) - 0.5


@pytest.mark.slow
def test_two_runs_adapt_each_other_and_can_be_used_again(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for modality in ("rgb", "thermal"):
        config = TrainConfig.model_validate(
            {
                "name": modality,
                "tasks": ["segmentation"],
                "model": {
                    "name": "adapnet++",
                    "pretrained": False,
                    "options": {"width": 0.125},
                },
                "data": {"source": f"folder:{simulated}"},
                "preprocess": {
                    "modalities": [modality],
                    "grid": {"height": 96, "width": 128},
                },
                "epochs": 1,
                "resolution": [{"crop": [64, 64], "scale": [0.8, 1.2], "batch": 4}],
                "optimizer": {"lr": 0.003, "warmup_epochs": 0, "ema_decay": 0.5},
                "validate_every": 100,
            }
        )
        trainer = Trainer(config, tmp_path / modality)
        trainer.shorten(4, 1)
        trainer.fit()
        runs.append(tmp_path / modality)
    out = tmp_path / "adapted"
    arguments = ["adapt", *map(str, runs), "--data", f"folder:{simulated}", "--out", str(out)]
    assert main([*arguments, "--limit", "4", "--epochs", "1"]) == 0
    assert "estimated domain gap" in capsys.readouterr().out
    for run in runs:
        old, new = load_checkpoint(run), load_checkpoint(out / run.name)
        name = "encoders." + run.name + ".stem.0.weight"
        assert not torch.equal(old.ema[name], new.ema[name])
        assert new.progress["adapted"]["fusion"] in ("agreement", "entropy")
    target = open_recording("folder", simulated)
    with pytest.raises(ConfigError, match="two or more runs"):
        Adapter(runs[:1], target, AdaptOptions())
    with pytest.raises(ConfigError, match="same name"):
        Adapter([runs[0], runs[0]], target, AdaptOptions())
