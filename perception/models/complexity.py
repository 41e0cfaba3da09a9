"""Parameters and multiply-accumulate operations of a model, and a table of all models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from perception.models.heads import specs_for
from perception.models.interface import FusionModel, Inputs, ModelCard
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.sensors.registry import KINDS


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters used at inference: those of a model's training-only parts are left out."""
    groups = model.parameter_groups() if isinstance(model, FusionModel) else {}
    spared = sum(p.numel() for p in groups.get("training", {}).values())
    return sum(p.numel() for p in model.parameters()) - spared


@torch.no_grad()
def count_gmac(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    """Billions of multiply-accumulates of convolutions and matrix products in one forward pass.

    They are counted on shapes: a copy without values runs, so that nothing is computed.
    """
    shapes = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        shapes(tree_map(lambda x: x.to("meta"), dict(inputs)))
    return counter.get_total_flops() / 2e9


def _reference(card: ModelCard, size: tuple[int, int]) -> Inputs:
    """The inputs that a model's cost is stated for, on the usual grid on the ground where it needs one."""
    if not card.ground:
        return card.reference
    rows: dict[str, Any] = {}
    for kind in card.reference:
        points = not KINDS[kind].has_picture
        grid = {"type": "birdseye"} if points else {"height": size[0], "width": size[1]}
        rows[kind] = {"kind": kind, "view": {**grid, "birdseye": {}}}
    return PreprocessContract.model_validate(rows)


def _empty(spec: InputSpec, size: tuple[int, int]) -> Any:
    """An input's tensors without values: a picture of (height, width), or all by name."""
    tensors = spec.tensors
    if set(tensors) == {"image"}:
        return torch.empty(1, tensors["image"].shape[0], *size)
    return {n: torch.empty(1, *t.shape, dtype=getattr(torch, t.dtype)) for n, t in tensors.items()}


def describe_models(
    models: Mapping[str, type[FusionModel]],
    classes: int,
    size: tuple[int, int],
) -> list[dict[str, Any]]:
    """Every model's card and cost at its reference modalities and default options.

    The cost is counted on shapes alone: no weight is drawn and nothing is computed.

    Args:
        models: by name.
        classes: to count with, of the first task that it has a head for.
        size: (height, width) of the network input.
    """
    rows = []
    for name, kind in models.items():
        card = kind.card
        with torch.device("meta"):
            model = kind(_reference(card, size), specs_for(**{card.heads[0]: classes}))
            inputs = {m: _empty(spec, size) for m, spec in model.inputs.items()}
            gmac = count_gmac(model, inputs)
        rows.append(
            {
                "name": name,
                "kind": card.kind,
                "source": card.source,
                "modalities": list(card.reference),
                "takes": [card.fewest, card.most],
                "tasks": card.heads,
                "parameters": count_parameters(model),
                "published_parameters": card.published_parameters,
                "gmac": round(gmac, 3),
                "exportable": "modular, single",
            }
        )
    return rows
