"""What a run says of settings that it does not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perception.models.heads import half_of, trained_tasks
from perception.training.config import LossSpec, TrainConfig
from perception.training.loop import Trainer
from perception.training.without_effect import without_effect


def _config(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "name": "tiny",
        "tasks": ["segmentation"],
        "data": {"source": "folder:x"},
        "preprocess": {"modalities": ["rgb", "depth"], "grid": {"height": 64, "width": 96}},
    }
    return TrainConfig.model_validate(fields | changes)


RGB_LIDAR = {"modalities": ["rgb", "lidar"], "grid": {"height": 64, "width": 96}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": {"heading": 2.0}}, "loss.heading changes nothing: it is of boxes3d"),
        ({"loss": {"fields": 0.5}}, "loss.fields changes nothing: it is of boxes3d"),
        ({"loss": {"boxes2d": 3.0}}, "loss.boxes2d changes nothing: it is none of the tasks"),
        (
            {"tasks": ["boxes2d"], "loss": {"lovasz": 0.3}},
            "loss.lovasz changes nothing: it is of segmentation",
        ),
        (
            {
                "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}},
                "loss": {"alone": 2.0},
            },
            "loss.alone changes nothing: there is one input",
        ),
        (
            {"corruption": {"fewer_beams": 0.5}},
            "corruption.fewer_beams changes nothing: no input has beams",
        ),
        (
            {"subsets": {"by_gap": 1.0}, "epochs": 2, "validate_every": 2},
            "subsets.by_gap changes nothing: no gap is measured before the last epoch",
        ),
    ],
)
def test_it_is_said(changes: dict[str, Any], said: str) -> None:
    assert without_effect(_config(**changes)) == [said]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": {"lovasz": 0.3, "alone": 2.0, "heading": 0.0, "segmentation": 2.0}},
        {"preprocess": RGB_LIDAR, "corruption": {"fewer_beams": 0.5, "beam_reduction": 0.1}},
        {"corruption": {"beam_reduction": 0.0}},
        {"subsets": {"by_gap": 1.0}, "epochs": 4, "validate_every": 2},
    ],
)
def test_nothing_is_said_of_what_is_read_or_off(changes: dict[str, Any]) -> None:
    config = _config(**changes)
    assert without_effect(config) == []
    # Nor of the same as a checkpoint has it, with all defaults written out.
    assert without_effect(TrainConfig.model_validate(config.model_dump())) == []


def test_tasks_name_weights_that_there_are() -> None:
    """A weight that was renamed would be told of as without effect in every run."""
    for task in trained_tasks():
        assert set(half_of(task).loss_weights) <= set(LossSpec.model_fields)


def test_training_says_it(
    record: Callable[..., Path], configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configure(record(10), epochs=1, loss={"heading": 2.0})
    assert any("loss.heading" in note for note in Trainer(config, tmp_path / "run")._look_at_data())
