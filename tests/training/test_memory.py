"""A step for which memory does not suffice is one line that says what to make smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perception.errors import ConfigError
from perception.training.config import TrainConfig
from perception.training.loop import Trainer
from perception.training.memory import within_memory

TOO_MUCH = 2**50  # no machine has a pebibyte


def test_what_does_not_fit_is_told() -> None:
    with (
        pytest.raises(ConfigError, match=r"^a.b: memory does not hold it \(less\)$"),
        within_memory("it", "a.b", "less"),
    ):
        torch.empty(TOO_MUCH)
    with pytest.raises(ConfigError, match="does not hold"), within_memory("it", "a.b", "less"):
        bytearray(TOO_MUCH)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_does_not_fit_a_gpu_is_told() -> None:
    with pytest.raises(ConfigError, match="the GPU's memory"), within_memory("it", "a.b", "less"):
        torch.empty(TOO_MUCH, device="cuda")


def test_other_faults_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shape"), within_memory("it", "a.b", "less"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("training", "resolution: memory does not hold one training step"),
        ("validation", "preprocess.grid: memory does not hold a frame of validation"),
    ],
)
def test_training_says_what_to_make_smaller(
    part: str, said: str, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {
        "name": "small",
        "tasks": ["segmentation"],
        "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 32}},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 96, "width": 128}},
        "epochs": 1,
        "resolution": [{"crop": [64, 96], "scale": [1.0, 1.0], "batch": 4}],
        "optimizer": {"lr": 0.003, "warmup_epochs": 0, "ema_decay": 0.5},
    }
    trainer = Trainer(TrainConfig.model_validate(fields), tmp_path / "run", "cpu")
    hungry = trainer.model.features

    def features(*inputs: object) -> object:
        if trainer.model.training == (part == "training"):
            torch.empty(TOO_MUCH)
        return hungry(*inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.model, "features", features)
    with pytest.raises(ConfigError) as error:
        trainer.fit()
    assert str(error.value).startswith(said)
