"""A model or a training method of another distribution that is broken: one line that names it, status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from distributions import written

from perception.cli.main import main

GOOD = """
import torch
from torch import nn
from perception.models.interface import FusionModel, ModelCard, ModelOutput, gather
from perception.training.methods.base import TrainingMethod

class Made(FusionModel):
    card = ModelCard(kind="made", source="a test", published_weights=False)
    feature_names = ("map",)

    def build(self, width=4):
        for name, channels in self.encoder_channels.items():
            self.encoders[name] = nn.Conv2d(channels, width, 4, 4)
        self.classify = nn.Conv2d(width, self.classes_of("segmentation"), 1)

    def encode(self, modality, image):
        return {"map": self.encoders[self.encoder_of[modality]](image)}

    def fuse(self, features, present=None):
        got = gather(self.modalities, features, present, "map")
        return ModelOutput({"segmentation": self.classify(torch.stack(got.maps).sum(0))})

class Own(TrainingMethod):
    def backward(self, terms, inputs, output, batch):
        return super().backward(terms, inputs, output, batch)
"""


@pytest.fixture
def configuration(site: Path, tmp_path: Path, simulated: Path) -> Path:
    entries = {
        "anysense.models": {"made": "brought_made:Made"},
        "anysense.methods": {"own": "brought_made:Own"},
    }
    written(site, "made", entries, GOOD)
    content = {
        "name": "made",
        "tasks": ["segmentation"],
        "model": {"name": "made", "pretrained": False},
        "method": {"name": "own"},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 64}},
        "epochs": 1,
        "validate_every": 1,
        "resolution": [{"crop": [32, 32], "batch": 4}],
    }
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "made.yaml"


def words(configuration: Path) -> list[str]:
    return ["train", str(configuration), "--out", str(configuration.parent / "run"), "--smoke"]


@pytest.mark.slow
def test_one_without_fault_is_trained(configuration: Path) -> None:
    assert main(words(configuration)) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import torch\n", "import torhc\n", "No module named 'torhc'"),
        ("class Made(FusionModel)", "class Made", "is no subclass of FusionModel"),
        ("    card = ", "    cord = ", "has no card"),
        ("    feature_names = ", "    names = ", "has no feature_names"),
        ("def build(self", "def bild(self", "NotImplementedError"),
        ("self.encoders[name] = ", "self.encoders[nom] = ", "name 'nom' is not defined"),
        ('return {"map": self', 'return {"map": self.nothing + self', "AttributeError"),
        ("return ModelOutput(", "return (", "fuse gave dict, not a ModelOutput"),
        ('"segmentation": self.cl', '"boxes2d": self.cl', "gave nothing for segmentation"),
        ("torch.stack(got.maps).sum(0))", "got.maps[0][..., :1, :1])", "RuntimeError"),
        ("return super().backward", "return 1 / 0 * super().backward", "division by zero"),
        ("return super().backward", "return super().backword", "AttributeError"),
        ("class Own(TrainingMethod)", "class Own", "is no subclass of TrainingMethod"),
    ],
)
def test_one_that_is_broken(
    configuration: Path,
    site: Path,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert old in GOOD
    (site / "brought_made.py").write_text(GOOD.replace(old, new))
    assert main(words(configuration)) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "made 1.0" in line and "Traceback" not in line
    assert line.count("\n") == 0, line
