"""Proof that exported graphs reproduce the PyTorch model, for every subset of inputs that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from export.graphs import flatten_output, modular_graphs
from perception.errors import ParityError
from perception.frame import subset_name, subsets_of
from perception.models.interface import FusionModel
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.manifest import Graphs
from perception.runtime.modular import run_forms
from perception.runtime.wiring import Wiring

TOLERANCE = 1e-3


@dataclass(frozen=True)
class ParityRow:
    """Largest absolute difference to PyTorch of one form of the graphs for one subset."""

    form: str
    subset: str
    max_abs: float


@torch.no_grad()
def check_parity(
    model: FusionModel, folder: Path, images: Mapping[str, Any], graphs: Graphs | None = None
) -> list[ParityRow]:
    """Compare the graphs in `folder` with `model`, with NaN in the place of absent inputs.

    Args:
        model: what they were exported from.
        folder: where their files are.
        images: by input, (1, C, H, W), or tensors by name.
        graphs: what there is; None for encoders and fuser alone.

    Raises:
        ParityError: a difference exceeds `TOLERANCE`, or an output is not finite.
    """
    model.eval()

    wiring = Wiring.of(model.encoder_of)
    arrays = tree_map(lambda x: x.numpy(), {name: images[name] for name in wiring.names})

    def load(file: str) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(folder / file, "cpu")

    rows = []
    for subset, forms in run_forms(
        graphs or modular_graphs(wiring), wiring, load, arrays, subsets_of(wiring.names)
    ):
        wanted = flatten_output(model({n: images[n] for n in subset}))
        for form, got in forms.items():
            worst = max(float(np.abs(got[n] - v.numpy()).max()) for n, v in wanted.items())
            rows.append(ParityRow(form, subset_name(subset), worst))
            if not worst <= TOLERANCE:  # also true for NaN
                raise ParityError(
                    f"{form} graphs differ from PyTorch by {worst:.2e} for {subset_name(subset)}",
                    where=str(folder),
                    hint=f"the tolerance is {TOLERANCE:g}",
                )
    return rows
