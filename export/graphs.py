"""The exported graphs: one encoder per modality, the fuser, and all of it as one.

Graph inputs and outputs are named as the runtime expects them:

- `encoder_<m>`: input `<m>`; outputs `<m>_f<s>` (features) and `<m>_s<s>` (scores) at strides s.
- `fuser`: input `presence` float32[4] in the order rgb, depth, thermal, lidar, and all encoder
  outputs; outputs `seg_logits`, and `det_cls_<s>` / `det_box_<s>` by stride.
- `single`: inputs `presence` and every `<m>`; the fuser's outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.errors import EngineError
from perception.frame import MODALITIES
from perception.models.anyfuse import AnyFuse, AnyFuseOutput, Maps


def flatten_output(output: AnyFuseOutput) -> dict[str, Tensor]:
    """A model's outputs by graph output name."""
    named: dict[str, Tensor] = {}
    if output.seg_logits is not None:
        named["seg_logits"] = output.seg_logits
    for stride, (logits, sides) in sorted(output.detections.items()):
        named[f"det_cls_{stride}"] = logits
        named[f"det_box_{stride}"] = sides
    return named


def map_names(modality: str, scales: tuple[int, ...]) -> list[str]:
    """Names of an encoder's outputs."""
    return [f"{modality}_{kind}{s}" for s in scales for kind in "fs"]


class EncoderGraph(nn.Module):
    """One encoder with flat outputs."""

    def __init__(self, encoder: nn.Module, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.scales = encoder, scales

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps: Maps = self.encoder(image)
        return tuple(tensor for s in self.scales for tensor in maps[s])


class FuserGraph(nn.Module):
    """Fusion, late stages and heads, gated by presence."""

    def __init__(self, model: AnyFuse) -> None:
        super().__init__()
        self.trunk, self.scales = model.trunk, model.scales
        self.slots = [MODALITIES.index(m) for m in model.modalities]

    def forward(self, presence: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        per_modality = 2 * len(self.scales)
        maps: list[Maps] = []
        for i in range(len(self.slots)):
            own = tensors[i * per_modality : (i + 1) * per_modality]
            maps.append({s: (own[2 * k], own[2 * k + 1]) for k, s in enumerate(self.scales)})
        present = [(presence[slot] > 0.5).reshape(1, 1, 1, 1) for slot in self.slots]
        return tuple(flatten_output(self.trunk(maps, present)).values())


class SingleGraph(nn.Module):
    """Encoders and fuser in one graph, for runtimes that take one file."""

    def __init__(self, model: AnyFuse) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            EncoderGraph(model.encoders[m], model.scales) for m in model.modalities
        )
        self.fuser = FuserGraph(model)

    def forward(self, presence: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        for encoder, image in zip(self.encoders, images, strict=True):
            tensors.extend(encoder(image))
        outputs: tuple[Tensor, ...] = self.fuser(presence, *tensors)
        return outputs


@dataclass
class GraphSpec:
    """A module to export with example inputs and the names of its inputs and outputs."""

    file: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


@torch.no_grad()
def graph_specs(model: nn.Module, images: dict[str, Tensor], *, single: bool) -> list[GraphSpec]:
    """The graphs of `model`, for example `images` (1, C, H, W) by modality.

    Raises:
        EngineError: the model has no modular form.
    """
    if not isinstance(model, AnyFuse):
        raise EngineError(f"{type(model).__name__} cannot be exported as encoders and fuser")
    model.eval()
    presence = torch.ones(len(MODALITIES))
    specs: list[GraphSpec] = []
    tensors: dict[str, Tensor] = {}
    for modality in model.modalities:
        encoder = EncoderGraph(model.encoders[modality], model.scales)
        names = map_names(modality, model.scales)
        tensors |= dict(zip(names, encoder(images[modality]), strict=True))
        inputs: dict[str, Tensor] = {modality: images[modality]}
        specs.append(GraphSpec(f"encoder_{modality}.onnx", encoder, inputs, names))
    outputs = list(flatten_output(model(images)))
    inputs = {"presence": presence, **tensors}
    specs.append(GraphSpec("fuser.onnx", FuserGraph(model), inputs, outputs))
    if single:
        inputs = {"presence": presence, **{m: images[m] for m in model.modalities}}
        specs.append(GraphSpec("single.onnx", SingleGraph(model), inputs, outputs))
    return specs
