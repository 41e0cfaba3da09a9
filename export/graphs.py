"""The graphs that are exported from PyTorch: the encoders, each once, and the fuser.

Graph inputs and outputs are named as the runtime expects them, see `Wiring`:

- `encoder_<encoder>`: input `image`, or the tensors of its kind; outputs by the model's `feature_names`.
- `fuser`: input `presence`, float32 of as many as the model has inputs, in their order, and
  `<input>.<feature>` of every input; outputs as the tasks name them (`TrainingTask.outputs`).

`export.compose` joins them to graphs of everything, or of one subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perception.errors import EngineError
from perception.models.interface import Features, FusionModel, flatten_output
from perception.runtime.manifest import GraphFile, Graphs
from perception.runtime.wiring import IMAGE, PRESENCE, Wiring


class EncoderGraph(nn.Module):
    """The encoder of an input, with flat outputs; takes its `image`, or `tensors` in their order."""

    def __init__(self, model: FusionModel, name: str, tensors: Sequence[str] = (IMAGE,)) -> None:
        super().__init__()
        self.model, self.name, self.tensors = model, name, tuple(tensors)

    def forward(self, image: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.tensors, (image, *others), strict=True))
        features = self.model.encode(self.name, image if self.tensors == (IMAGE,) else given)
        return tuple(features[name] for name in self.model.feature_names)


class FuserGraph(nn.Module):
    """Fusion and heads, gated by presence."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, presence: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        names = self.model.feature_names
        features: dict[str, Features] = {}
        for i, name in enumerate(self.model.modalities):
            own = tensors[i * len(names) : (i + 1) * len(names)]
            features[name] = dict(zip(names, own, strict=True))
        present: dict[str, Tensor] = {
            name: (presence[i] > 0.5).reshape(1, 1, 1, 1)
            for i, name in enumerate(self.model.modalities)
        }
        return tuple(flatten_output(self.model.fuse(features, present)).values())


@dataclass
class GraphSpec:
    """A module to export with example inputs and the names of its inputs and outputs."""

    file: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


def modular_graphs(wiring: Wiring, **options: Any) -> Graphs:
    """The files that `graph_specs` names, as a manifest lists them; `options` are other fields of it."""
    return Graphs(
        encoders={e: GraphFile(file=f"encoder_{e}.onnx") for e in wiring.encoders.values()},
        fuser=GraphFile(file="fuser.onnx"),
        presence=wiring.presence,
        separator=wiring.separator,
        **options,
    )


@torch.no_grad()
def graph_specs(model: nn.Module, images: Mapping[str, Any]) -> list[GraphSpec]:
    """The graphs of `model`, for example `images` by input: (1, C, H, W), or tensors by name.

    Raises:
        EngineError: the model has no modular form.
    """
    if not isinstance(model, FusionModel):
        raise EngineError(f"{type(model).__name__} cannot be exported as encoders and fuser")
    model.eval()
    wiring, names = Wiring.of(model.encoder_of), list(model.feature_names)
    files = modular_graphs(wiring)
    specs: dict[str, GraphSpec] = {}
    inputs: dict[str, Tensor] = {PRESENCE: torch.ones(len(wiring.presence))}
    for name, encoder in wiring.encoders.items():
        given = images[name] if isinstance(images[name], dict) else {IMAGE: images[name]}
        graph = EncoderGraph(model, name, tuple(given))
        inputs |= wiring.features(name, dict(zip(names, graph(*given.values()), strict=True)))
        spec = GraphSpec(files.encoders[encoder].file, graph, given, names)
        specs.setdefault(encoder, spec)
    outputs = list(flatten_output(model(images)))
    return [*specs.values(), GraphSpec(files.fuser.file, FuserGraph(model), inputs, outputs)]
