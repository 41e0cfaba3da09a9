"""A task that another distribution brings is trained, exported and run like ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "tasks"))

from free_space import FREE_SPACE
from free_space_training import FREE_SPACE as TRAINING

from export.bundle_writer import ExportOptions, export_bundle, model_from_checkpoint
from perception.data import open_recording
from perception.errors import ConfigError
from perception.models.heads import half_of
from perception.plugins import PluginError
from perception.preprocess import preprocess_sample
from perception.runtime.pipeline import Pipeline
from perception.tasks.registry import TASKS
from perception.training.checkpoint import load_checkpoint
from perception.training.config import LossSpec, TrainConfig
from perception.training.loop import Trainer
from perception.training.tasks.task import TrainingTask

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def free_space(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(FREE_SPACE, training="free_space_training:FREE_SPACE")
    monkeypatch.setitem(TASKS.own, "free_space", task)


@pytest.mark.parametrize("tasks", [["free_space"], ["free_space", "segmentation"]])
def test_a_task_of_a_plug_in_is_trained_exported_and_run(
    record: Record, configure: Configure, tmp_path: Path, tasks: list[str]
) -> None:
    torch.set_num_threads(1)
    root = record(10, unlabeled={1})
    config = configure(root, tasks=tasks, loss={"free_space": 2.0}, precision="float32", epochs=2)
    trainer = Trainer(config, tmp_path / "run")
    before = trainer.model.trunk.head_free_space.classify.weight.clone()  # type: ignore[union-attr]
    trainer.fit()
    assert not torch.equal(before, trainer.model.trunk.head_free_space.classify.weight)  # type: ignore[union-attr]
    assert 0 <= trainer.log[-1]["rgb+depth/free_agreement"] <= 1
    assert trainer.model.aux_task == ("segmentation" if "segmentation" in tasks else "")

    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    pipeline, frame = Pipeline.load(tmp_path / "bundle"), open_recording("folder", root).frame(0)
    assert pipeline.manifest.tasks["free_space"].free == ("class0",)  # type: ignore[attr-defined]
    found = pipeline(frame).values["free_space"]
    model = model_from_checkpoint(load_checkpoint(tmp_path / "run"))
    images = {
        name: torch.from_numpy(np.array(preprocess_sample(frame[name], spec)["image"]))
        for name, spec in config.preprocess.items()
    }
    with torch.no_grad():
        wanted = model(images).values["free_space"].sigmoid()[0].repeat_interleave(8)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_a_run_goes_on_with_the_same_weights_of_tasks_only(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    fields = {"tasks": ["free_space"], "loss": {"free_space": 2.0}}
    Trainer(configure(root, **fields), tmp_path / "run").fit()
    longer = Trainer(configure(root, epochs=2, **fields), tmp_path / "run")
    longer.resume()
    assert longer.epoch == 1
    other = configure(root, epochs=2, **{**fields, "loss": {"free_space": 3.0}})
    with pytest.raises(ConfigError, match=r"loss\.free_space was 2\.0, is 3\.0"):
        Trainer(other, tmp_path / "run").resume()


def test_values_of_any_task_are_mixed_and_compared() -> None:
    one, two = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    assert TRAINING.mix([one, two], [-1.0, 1.0]).tolist() == [[2.0, 3.0]]
    assert float(TRAINING.distance(one, two)) == pytest.approx(6.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": {"free_spaec": 1.0}}, "no task 'free_spaec'"),
        ({"tasks": ["points"]}, "no task 'points'"),
        ({"tasks": ["pictures"]}, "no task 'pictures'"),
        ({"loss": {"free_space": "much"}}, "valid number"),
        ({"loss": {"detection": float("nan")}}, "finite"),
    ],
)
def test_tasks_that_cannot_be_trained_are_named(
    tmp_path: Path, configure: Configure, given: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        configure(tmp_path, **given)


def test_the_old_word_for_boxes_is_read() -> None:
    assert LossSpec(detection=3.0).weight("boxes2d") == 3.0
    assert LossSpec(detection=1.0, segmentation=1.0) == LossSpec()


@pytest.mark.parametrize(
    "target", ["no_such_module:X", "free_space_training:NOTHING", "json:dumps"]
)
def test_a_half_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    broken = replace(FREE_SPACE, training=target)
    monkeypatch.setitem(TASKS.own, "free_space", broken)
    with pytest.raises(PluginError, match="free_space"):
        half_of("free_space")


def test_our_halves_are_of_their_tasks() -> None:
    trained = [name for name in TASKS if TASKS[name].training is not None]
    assert {*trained} >= {"segmentation", "boxes2d", "pictures"}
    assert all(isinstance(half_of(name), TrainingTask) for name in trained)
