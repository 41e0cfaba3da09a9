"""The graphs that are exported from PyTorch: one encoder per modality, and the fuser.

Graph inputs and outputs are named as the runtime expects them:

- `encoder_<m>`: input `<m>`; outputs `<m>_<name>` for each of the model's `feature_names`.
- `fuser`: input `presence` float32[4] in the order rgb, depth, thermal, lidar, and all encoder
  outputs; outputs `seg_logits`, `det_cls_<s>` / `det_box_<s>` by stride, and `image_<name>` for
  pictures in 0..1 that the model makes besides.

`export.compose` joins them to graphs of everything, or of one subset.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.errors import EngineError
from perception.frame import MODALITIES
from perception.models.interface import Features, FusionModel, ModelOutput


def flatten_output(output: ModelOutput) -> dict[str, Tensor]:
    """A model's outputs by graph output name."""
    named: dict[str, Tensor] = {}
    if output.seg_logits is not None:
        named["seg_logits"] = output.seg_logits
    for stride, (logits, sides) in sorted(output.detections.items()):
        named[f"det_cls_{stride}"] = logits
        named[f"det_box_{stride}"] = sides
    for name, image in output.images.items():
        named[f"image_{name}"] = image
    return named


class EncoderGraph(nn.Module):
    """One encoder with flat outputs."""

    def __init__(self, model: FusionModel, modality: str) -> None:
        super().__init__()
        self.model, self.modality = model, modality

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode(self.modality, image)
        return tuple(features[name] for name in self.model.feature_names)


class FuserGraph(nn.Module):
    """Fusion and heads, gated by presence."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model
        self.slots = {m: MODALITIES.index(m) for m in model.modalities}

    def forward(self, presence: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        names = self.model.feature_names
        features: dict[str, Features] = {}
        for i, modality in enumerate(self.slots):
            own = tensors[i * len(names) : (i + 1) * len(names)]
            features[modality] = dict(zip(names, own, strict=True))
        present: dict[str, Tensor] = {
            m: (presence[s] > 0.5).reshape(1, 1, 1, 1) for m, s in self.slots.items()
        }
        return tuple(flatten_output(self.model.fuse(features, present)).values())


@dataclass
class GraphSpec:
    """A module to export with example inputs and the names of its inputs and outputs."""

    file: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


@torch.no_grad()
def graph_specs(model: nn.Module, images: dict[str, Tensor]) -> list[GraphSpec]:
    """The graphs of `model`, for example `images` (1, C, H, W) by modality.

    Raises:
        EngineError: the model has no modular form.
    """
    if not isinstance(model, FusionModel):
        raise EngineError(f"{type(model).__name__} cannot be exported as encoders and fuser")
    model.eval()
    presence = torch.ones(len(MODALITIES))
    specs: list[GraphSpec] = []
    tensors: dict[str, Tensor] = {}
    for modality in model.modalities:
        encoder = EncoderGraph(model, modality)
        names = [f"{modality}_{name}" for name in model.feature_names]
        tensors |= dict(zip(names, encoder(images[modality]), strict=True))
        inputs: dict[str, Tensor] = {modality: images[modality]}
        specs.append(GraphSpec(f"encoder_{modality}.onnx", encoder, inputs, names))
    outputs = list(flatten_output(model(images)))
    inputs = {"presence": presence, **tensors}
    specs.append(GraphSpec("fuser.onnx", FuserGraph(model), inputs, outputs))
    return specs
