"""Holds a model to the contract that what is absent changes nothing, whatever stands in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from export.graphs import FuserGraph, flatten_output, graph_specs
from perception.frame import subsets_of
from perception.models.interface import FusionModel


@torch.no_grad()
def assert_absent_change_nothing(
    model: FusionModel, inputs: Mapping[str, Any], atol: float
) -> None:
    """The fuser's graph, NaN in the features of absent inputs, answers as the model does without these.

    Args:
        model: in the mode of serving.
        inputs: by name of the model's inputs, of one frame.
        atol: how far an output may be off.
    """
    spec = next(s for s in graph_specs(model, inputs) if s.file == "fuser.onnx")
    fuser = FuserGraph(model)
    for subset in subsets_of(model.modalities):
        feeds = dict(spec.inputs)
        feeds["presence"] = torch.tensor([float(m in subset) for m in model.modalities])
        for name, value in spec.inputs.items():
            if name != "presence" and name.split(".")[0] not in subset:
                feeds[name] = torch.full_like(value, torch.nan)
        wanted = flatten_output(model({m: inputs[m] for m in subset}))
        for name, got in zip(wanted, fuser(*feeds.values()), strict=True):
            assert torch.allclose(got, wanted[name], atol=atol), (subset, name)
