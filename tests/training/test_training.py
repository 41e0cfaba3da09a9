"""Training as a whole: it learns, it resumes exactly, and what it writes can be exported and run."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fusion_configs import TOP

from export.bundle_writer import ExportOptions, export_bundle
from perception.data import open_recording
from perception.errors import ConfigError, DataError, MissingDependencyError
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline
from perception.training.augment import augment
from perception.training.building import open_splits
from perception.training.checkpoint import load_checkpoint
from perception.training.config import CorruptionSpec, ResolutionPhase, TrainConfig, load_config
from perception.training.dataset import FusionDataset, network_inputs
from perception.training.loop import Trainer

CONFIGS, BUNDLES = (Path(__file__).parents[2] / n for n in ("configs", "bundles"))


def _config(simulated: Path, **changes: object) -> TrainConfig:
    fields = {
        "name": "small",
        "tasks": ["segmentation", "detection"],
        "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 32}},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {
            "modalities": ["rgb", "depth", "thermal", "lidar"],
            "grid": {"height": 96, "width": 128},
        },
        "epochs": 2,
        "resolution": [{"crop": [64, 96], "scale": [0.8, 1.2], "batch": 4}],
        "optimizer": {"lr": 0.003, "warmup_epochs": 0, "ema_decay": 0.5},
        "validate_every": 100,
        **changes,
    }
    return TrainConfig.model_validate(fields)


@pytest.mark.slow
def test_training_reduces_the_loss_and_exports(simulated: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = _config(
        simulated,
        epochs=15,
        precision="float32",
        preprocess={"modalities": ["rgb", "depth"], "grid": {"height": 96, "width": 128}},
        optimizer={"lr": 0.006, "warmup_epochs": 0, "ema_decay": 0.5},
    )
    trainer = Trainer(config, tmp_path / "run")
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1  # so few steps would leave the statistics where they began
    trainer.fit()
    losses = [row["loss"] for row in trainer.log]
    assert losses[-1] < 0.8 * losses[0]
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "last.safetensors",
        "best.safetensors",
        "log.csv",
        "curves.png",
    }
    rows = export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    assert max(r.max_abs for r in rows) < 1e-3
    recording = open_recording("folder", simulated)
    pipeline = Pipeline.load(tmp_path / "bundle")
    truth = np.stack([recording.truth(i).labels for i in range(len(recording))])
    found = np.stack([pipeline(recording.frame(i)).labels for i in range(len(recording))])
    chance = np.bincount(truth.ravel()).max() / truth.size
    assert (found == truth).mean() > 1.2 * chance


@pytest.mark.slow
def test_resuming_gives_the_same_weights_as_never_stopping(simulated: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = Trainer(_config(simulated), tmp_path / "whole")
    whole.fit()
    first = Trainer(_config(simulated), tmp_path / "parts")
    first.train_set.preload()
    first.log.append(first._run_epoch())
    first.epoch = 1
    first._save()
    second = Trainer(_config(simulated), tmp_path / "parts")
    second.resume()
    second.fit()
    one, other = (
        load_checkpoint(tmp_path / n / "last.safetensors").weights for n in ("whole", "parts")
    )
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_configured_arithmetic_is_used(precision: str, simulated: Path, tmp_path: Path) -> None:
    trainer = Trainer(_config(simulated, epochs=1, precision=precision), tmp_path)
    trainer.shorten(4, 1)
    seen = {True: set(), False: set()}  # type: ignore[var-annotated]
    trainer.model.trunk.segmentation.classify.register_forward_hook(  # type: ignore[union-attr]
        lambda module, _, output: seen[module.training].add(str(output.dtype))
    )
    trainer.fit()
    assert seen == {True: {f"torch.{precision}"}, False: {f"torch.{precision}"}}


def test_tensorboard_gets_the_log(simulated: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(MissingDependencyError, match=r"anysense\[tensorboard\]"):
            Trainer(_config(simulated), tmp_path, tensorboard=True)
        return
    trainer = Trainer(_config(simulated, epochs=1), tmp_path, tensorboard=True)
    trainer.shorten(4, 2)
    trainer.fit()
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_resuming_under_another_configuration_is_refused(simulated: Path, tmp_path: Path) -> None:
    trainer = Trainer(_config(simulated), tmp_path)
    trainer._save()
    with pytest.raises(ConfigError, match="another configuration"):
        Trainer(_config(simulated, seed=9), tmp_path).resume()


def test_a_run_goes_on_with_other_workers_and_longer(simulated: Path, tmp_path: Path) -> None:
    trainer = Trainer(_config(simulated), tmp_path)
    trainer.epoch = 1
    trainer._save()
    other = Trainer(_config(simulated, workers=2, epochs=9), tmp_path)
    other.resume()
    assert other.epoch == 1


def test_damaged_and_missing_checkpoints_are_named(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"last\.safetensors"):
        load_checkpoint(tmp_path)
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_augmentation_depends_on_seed_epoch_and_index_alone(simulated: Path) -> None:
    config = _config(simulated)
    recording = open_recording("folder", simulated)
    sets = [FusionDataset(recording, config.preprocess, config.corruption, 5) for _ in range(2)]
    for data in sets:
        data.phase = config.phase(0)
    a, b = (d[3] for d in sets)
    assert all(np.array_equal(a[0][m], b[0][m]) for m in a[0])
    sets[1].epoch = 1
    assert not np.array_equal(a[0]["rgb"], sets[1][3][0]["rgb"])


def test_one_geometry_moves_images_labels_and_boxes_together(simulated: Path) -> None:
    config = _config(simulated)
    data = FusionDataset(
        open_recording("folder", simulated), config.preprocess, config.corruption, 0
    )
    quiet = CorruptionSpec(pixel_dropout=0, noise=0, exposure=0, beam_reduction=0, misalignment=0)
    phase = ResolutionPhase(crop=(64, 96), scale=(1.0, 1.0))
    for seed in range(8):
        out = augment(data.raw(0), phase, quiet, np.random.default_rng(seed))
        assert out.sensors["rgb"].grid.image.shape == (64, 96, 3)
        assert out.truths["segmentation"].shape == (64, 96)
        for (x0, y0, x1, y1), kind, ignore in zip(
            out.truths["boxes2d"].xyxy.round().astype(int),
            out.truths["boxes2d"].class_ids,
            out.truths["boxes2d"].ignore,
            strict=True,
        ):
            if not ignore and (x1 - x0) * (y1 - y0) > 60:
                inside = out.truths["segmentation"][y0:y1, x0:x1]
                assert (inside == (5 if kind == 0 else 6)).mean() > 0.1
        assert set(network_inputs(out, config.preprocess)) == {"rgb", "depth", "thermal", "lidar"}


@pytest.mark.parametrize("path", TOP, ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", sorted(BUNDLES.iterdir()), ids=lambda p: p.name)
def test_shipped_bundles_name_the_configuration_that_made_them(path: Path) -> None:
    manifest = Bundle.open(path, verify=False).manifest
    training = manifest.training
    program, command, *words = training["command"].split()
    assert program == "anysense" and command in ("train", "average")
    files = words if command == "train" else [f"configs/{n}.yaml" for n in training["averaged"]]
    configs = [load_config(BUNDLES.parent / file) for file in files]
    if command == "average":
        assert words[: len(files)] == [f"runs/{config.name}" for config in configs]
    assert max(config.epochs for config in configs) == training["epochs"]
    assert configs[0].full_set_probability == training["full_set_probability"]
    assert {config.method.name for config in configs} == {training.get("method", "plain")}
    for config in configs:
        assert config.model.name == manifest.model["name"]
        assert config.preprocess == manifest.inputs
    assert manifest.licence.data and training["data"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name: x", "tasks: this field is missing"),
        ("- 1", "expected fields with names, got a list"),
        ("name: x\ntasks: [dancing]", "tasks.0: "),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_configurations_name_the_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert field in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_keeps_the_frames_with_that_tag_in_both_splits(simulated: Path) -> None:
    train, val = open_splits(_config(simulated, data={"source": f"folder:{simulated}"}))
    every = sum("night" in train.tags(i) for i in range(len(train)))
    assert 0 < every < len(train)
    data = {"source": f"folder:{simulated}", "only": "night"}
    train, val = open_splits(_config(simulated, data=data))
    assert len(train) == every
    assert all("night" in r.tags(i) for r in (train, val) for i in range(len(r)))


def test_only_without_such_frames_is_refused(simulated: Path, tmp_path: Path) -> None:
    source = tmp_path / "day"
    shutil.copytree(simulated, source)
    table = source / "frames.csv"
    table.write_text(table.read_text().replace("night", "dusk"))
    config = _config(simulated, data={"source": f"folder:{source}", "only": "night"})
    with pytest.raises(ConfigError, match=r"data\.only"):
        open_splits(config)


def test_crops_must_fit_the_network(simulated: Path) -> None:
    raw = yaml.safe_load((CONFIGS / "road-rgbt.yaml").read_text())
    raw["resolution"][0]["crop"] = [100, 100]
    with pytest.raises(ValueError, match="multiples of 32"):
        TrainConfig.model_validate(raw)
