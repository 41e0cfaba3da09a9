"""Small versions of every model, for tests."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from perception.frame import KINDS, Kind
from perception.models.heads import specs_for
from perception.models.interface import FusionModel, Inputs
from perception.models.registry import MODELS
from perception.preprocess.contract import CHANNELS

CLASSES = 6
PICTURES = tuple(name for name, model in MODELS.items() if not model.card.ground)
"""Models whose inputs are pictures of one size; those on the ground are tested in test_pillarbev.py."""
OPTIONS: dict[str, dict[str, object]] = {
    "anyfuse": {"width": 0.25, "decoder_width": 32},
    "adapnet++": {"width": 0.125},
    "ssma": {"width": 0.125},
    "multimodn": {"width": 0.25, "state": 16, "decoder_width": 32},
    "featenhancer": {"width": 0.25, "decoder_width": 32},
    "segmif": {"width": 0.25, "decoder_width": 32, "edge": True},
    "any2seg": {"width": 0.25, "decoder_width": 32},
    "tokens": {"size": "micro", "decoder_width": 32},
    "blocked": {"width": 0.25, "decoder_width": 32, "block": "glmix"},
    "mixer": {"width": 0.25, "decoder_width": 32},
    "multimae": {"size": "micro", "decoder_width": 32},
}
"""Options that make each model small; a model without an entry is tested at its default size."""


def modalities_for(name: str) -> tuple[str, ...]:
    """As many modalities as the model takes, up to three, thermal among them where it can be."""
    card = MODELS[name].card
    if card.most == 1:
        return card.needs or ("rgb",)
    if card.most == 2:
        return "rgb", "thermal"
    return KINDS[:3]


def small_model(name: str, modalities: Inputs | None = None) -> FusionModel:
    """A small model with heads for all its tasks, its weights far from any symmetric start."""
    torch.manual_seed(0)
    kind = MODELS[name]
    tasks = specs_for(**{t: 2 if t == "boxes2d" else CLASSES for t in kind.card.heads})
    chosen = modalities or modalities_for(name)
    model = kind(chosen, tasks, **OPTIONS.get(name, {}))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    _tame(model.eval())
    return model


@torch.no_grad()
def _tame(model: FusionModel) -> None:
    """Bring logits to the size of trained ones, for which absolute tolerances are meant.

    Deep residual networks with drawn statistics in their normalizations reach thousands.
    """
    logits = model(random_inputs(model.modalities, kinds=model.kinds)).values.get("segmentation")
    decoder = getattr(model, "decoder", None)
    if logits is not None and decoder is not None and logits.abs().max() > 10:
        decoder.classify.weight.mul_(5 / logits.abs().max())


def random_inputs(
    modalities: tuple[str, ...],
    batch: int = 2,
    size: tuple[int, int] = (64, 96),
    kinds: Mapping[str, Kind] | None = None,
) -> dict[str, torch.Tensor]:
    """Network inputs, reproducible."""
    generator = torch.Generator().manual_seed(3)
    of: Mapping[str, Kind] = kinds or {kind: kind for kind in KINDS}
    return {m: torch.randn(batch, CHANNELS[of[m]], *size, generator=generator) for m in modalities}
