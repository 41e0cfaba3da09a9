"""Thermal is absent by day in training and at night in the test: who learns that absence means day?

    python benchmarks/missing_not_at_random.py [--seeds 5] [--steps 150] [--json FILE]

Scenes of one class each, nine of ten of class 0 by day and of class 1 at night.  Both sensors show the
class with an error of their own; alone, either is right 84 % of the time.  Sequential fusion (MultiModN)
and the usual concatenation with zeros for what is missing are trained on the same frames, in float32.
What a single seed gives differs between CPUs by as much as the two ways differ: look at the mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.frame import Kind
from perception.models.efficientnet_lite import LitePyramid
from perception.models.heads import specs_for
from perception.models.interface import Features, FusionModel, ModelCard, ModelOutput, gather
from perception.models.zoo.blocks import ConvNorm
from perception.models.zoo.multimodn import MultiModN
from perception.preprocess.contract import CHANNELS

SENSORS: tuple[Kind, ...] = ("rgb", "thermal")
SIZE, BATCH, TESTED = 32, 24, 600
CLASSES = specs_for(segmentation=2)


class ParallelFusion(FusionModel):
    """Features side by side, zeros for what is missing: the usual way, as the measure."""

    card = ModelCard(kind="concatenation", source="this script")
    feature_names = ("f8",)

    def build(self) -> None:
        pyramids = {e: LitePyramid(n, 0.25, (8,)) for e, n in self.encoder_channels.items()}
        self.encoders = nn.ModuleDict(pyramids)
        joined = sum(p.channels[8] for p in pyramids.values())
        self.mix = nn.Sequential(ConvNorm(joined, 32), ConvNorm(32, 32, 3))
        self.classify = nn.Conv2d(32, self.classes_of("segmentation"), 1)

    def encode(self, modality: str, image: Tensor) -> Features:
        return {"f8": self.encoders[self.encoder_of[modality]](image)[8]}

    def fuse(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
        maps = gather(self.modalities, features, present, "f8").maps
        return ModelOutput({"segmentation": self.classify(self.mix(torch.cat(maps, dim=1)))})


def draw(
    count: int, absent_by_day: bool, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Network inputs (N, C, 32, 32), presence (N,) and class (N,) of `count` scenes."""
    day = torch.rand(count, generator=generator) < 0.5
    rare = torch.rand(count, generator=generator) < 0.1
    label = (~day ^ rare).long()
    images = {}
    for modality in SENSORS:
        level = (2.0 * label - 1) + torch.randn(count, generator=generator)
        noise = torch.randn((count, CHANNELS[modality], SIZE, SIZE), generator=generator)
        images[modality] = level[:, None, None, None] + 0.1 * noise
    absent = day if absent_by_day else ~day
    return images, {"rgb": torch.ones(count, dtype=torch.bool), "thermal": ~absent}, label


def train(model: FusionModel, steps: int, seed: int) -> None:
    """Adam on scenes whose thermal is absent by day."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in range(steps):
        images, present, label = draw(BATCH, True, generator)
        output = model(images, present)
        labels = label[:, None, None].expand(-1, SIZE, SIZE)
        loss = F.cross_entropy(output.values["segmentation"].mean((2, 3)), label)
        loss = loss + sum(model.losses(output, {"segmentation": labels}).values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy_without_thermal(model: FusionModel, absent_by_day: bool, seed: int) -> float:
    """Share of right answers among scenes that lack thermal."""
    generator = torch.Generator().manual_seed(9000 + seed)
    images, present, label = draw(TESTED, absent_by_day, generator)
    logits = model(images, present).values["segmentation"]
    assert logits is not None
    right = logits.mean((2, 3)).argmax(1) == label
    return float(right[~present["thermal"]].float().mean())


WAYS: dict[str, Callable[[], FusionModel]] = {
    "sequential": lambda: MultiModN(SENSORS, CLASSES, width=0.25, state=16, decoder_width=32),
    "concatenation": lambda: ParallelFusion(SENSORS, CLASSES),
}


def main() -> None:
    """Train both ways on each seed, and print mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--json", type=Path, help="also write every seed's numbers here")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for seed in range(args.seeds):
        for name, make in WAYS.items():
            torch.manual_seed(seed)
            model = make()
            train(model, args.steps, seed)
            row = [accuracy_without_thermal(model, by_day, seed) for by_day in (True, False)]
            found[name].append((row[0], row[1]))
            print(f"seed {seed}, {name}: as in training {row[0]:.2f}, at night {row[1]:.2f}")
    for name, rows in found.items():
        mean, spread = np.mean(rows, 0), np.std(rows, 0)
        print(
            f"{name}: as in training {mean[0]:.2f} +- {spread[0]:.2f}, "
            f"at night {mean[1]:.2f} +- {spread[1]:.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
