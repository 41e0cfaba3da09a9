"""Proof that exported graphs reproduce the PyTorch model, for every subset of modalities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from export.graphs import flatten_output
from perception.errors import ParityError
from perception.frame import MODALITIES, subset_name, subsets_of
from perception.models.interface import FusionModel

TOLERANCE = 1e-3

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class ParityRow:
    """Largest absolute difference to PyTorch of one form of the graphs for one subset."""

    form: str
    subset: str
    max_abs: float


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, feeds: Arrays) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _presence(subset: tuple[str, ...]) -> np.ndarray[Any, Any]:
    return np.array([m in subset for m in MODALITIES], np.float32)


def _modular(
    sessions: dict[str, ort.InferenceSession], images: Arrays, subset: tuple[str, ...]
) -> Arrays:
    fuser = sessions["fuser"]
    feeds: Arrays = {"presence": _presence(subset)}
    for modality in images:
        if modality in subset:
            feeds |= _run(sessions[f"encoder_{modality}"], {modality: images[modality]})
    shapes = {m: _run(sessions[f"encoder_{m}"], {m: images[m]}) for m in images if m not in subset}
    for outputs in shapes.values():
        feeds |= {name: np.full_like(value, np.nan) for name, value in outputs.items()}
    return _run(fuser, feeds)


def _single(session: ort.InferenceSession, images: Arrays, subset: tuple[str, ...]) -> Arrays:
    feeds = {m: x if m in subset else np.full_like(x, np.nan) for m, x in images.items()}
    return _run(session, {"presence": _presence(subset), **feeds})


def _own(session: ort.InferenceSession, images: Arrays, subset: tuple[str, ...]) -> Arrays:
    return _run(session, {m: images[m] for m in subset})


@torch.no_grad()
def check_parity(model: FusionModel, folder: Path, images: dict[str, Tensor]) -> list[ParityRow]:
    """Compare the graphs in `folder` with `model`, with NaN in the place of absent inputs.

    Raises:
        ParityError: a difference exceeds `TOLERANCE`, or an output is not finite.
    """
    model.eval()
    sessions = {p.stem: _session(p) for p in sorted(folder.glob("*.onnx"))}
    arrays: Arrays = {m: images[m].numpy() for m in model.modalities}
    rows = []
    for subset in subsets_of(model.modalities):
        wanted = flatten_output(model({m: images[m] for m in subset}))
        forms = {"modular": _modular(sessions, arrays, subset)}
        if "single" in sessions:
            forms["single"] = _single(sessions["single"], arrays, subset)
        own = f"subset_{'_'.join(subset)}"
        if own in sessions:
            forms["own graph"] = _own(sessions[own], arrays, subset)
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
