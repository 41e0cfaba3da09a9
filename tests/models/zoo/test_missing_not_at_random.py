"""Thermal is absent by day in training and at night in the test: who learned that absence means day?"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.interface import Features, FusionModel, ModelCard, ModelOutput, gather
from perception.models.zoo.backbone import LitePyramid
from perception.models.zoo.blocks import ConvNorm
from perception.models.zoo.multimodn import MultiModN
from perception.preprocess.contract import CHANNELS


class ParallelFusion(FusionModel):
    """Features side by side, zeros for what is missing: the usual way, as the measure."""

    card = ModelCard(kind="concatenation", source="a test")
    feature_names = ("f8",)

    def __init__(self, modalities: tuple[str, ...], seg_classes: int) -> None:
        super().__init__(modalities, seg_classes)
        pyramids = {m: LitePyramid(CHANNELS[m], 0.25, (8,)) for m in self.modalities}
        self.encoders = nn.ModuleDict(pyramids)
        joined = sum(p.channels[8] for p in pyramids.values())
        self.mix = nn.Sequential(ConvNorm(joined, 32), ConvNorm(32, 32, 3))
        self.classify = nn.Conv2d(32, seg_classes, 1)

    def encode(self, modality: str, image: Tensor) -> Features:
        return {"f8": self.encoders[modality](image)[8]}

    def fuse(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
        maps = gather(self.modalities, features, present, "f8").maps
        return ModelOutput(self.classify(self.mix(torch.cat(maps, dim=1))))


def _draw(count: int, absent_by_day: bool, generator: torch.Generator):  # type: ignore[no-untyped-def]
    """Scenes of one class each, nine of ten of class 0 by day and of class 1 at night.

    Both sensors show the class with an error of their own; alone, either is right 84 % of the time.
    """
    day = torch.rand(count, generator=generator) < 0.5
    rare = torch.rand(count, generator=generator) < 0.1
    label = (~day ^ rare).long()
    images = {}
    for modality in ("rgb", "thermal"):
        level = (2.0 * label - 1) + torch.randn(count, generator=generator)
        size = (count, CHANNELS[modality], 32, 32)  # type: ignore[index]
        noise = 0.1 * torch.randn(size, generator=generator)
        images[modality] = level[:, None, None, None] + noise
    absent = day if absent_by_day else ~day
    present = {"rgb": torch.ones(count, dtype=torch.bool), "thermal": ~absent}
    return images, present, label, absent


def _accuracy_where_absent(model: FusionModel) -> tuple[float, float]:
    """Accuracy on frames without thermal: as in training (day), and at night."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in range(150):
        images, present, label, _ = _draw(24, True, generator)
        labels = label[:, None, None].expand(-1, 32, 32)
        output = model(images, present)
        assert output.seg_logits is not None
        logits = output.seg_logits.mean((2, 3))
        loss = F.cross_entropy(logits, label) + sum(model.losses(output, labels).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    scores = []
    for absent_by_day in (True, False):
        images, present, label, absent = _draw(600, absent_by_day, generator)
        with torch.no_grad():
            logits = model(images, present).seg_logits
        right = logits.mean((2, 3)).argmax(1) == label  # type: ignore[union-attr]
        scores.append(float(right[absent].float().mean()))
    return scores[0], scores[1]


@pytest.mark.slow
def test_sequential_fusion_does_not_take_absence_for_daylight() -> None:
    torch.manual_seed(0)
    sequential = MultiModN(("rgb", "thermal"), 2, width=0.25, state=16, decoder_width=32)
    torch.manual_seed(0)
    parallel = ParallelFusion(("rgb", "thermal"), 2)
    by_day, at_night = _accuracy_where_absent(sequential)
    usual_by_day, usual_at_night = _accuracy_where_absent(parallel)
    assert by_day > 0.7 and usual_by_day > 0.8
    assert at_night > usual_at_night + 0.15
