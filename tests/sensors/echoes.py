"""A kind of sensor as another distribution brings it: echoes (N, 4), and a network that takes two tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from perception.errors import BlindError, InputError
from perception.frame import Sample
from perception.sensors.kind import Grid, Hints, KindSpec, SensorKind, TensorSpec

CELL = 8


class EchoSpec(KindSpec):
    """`most` echoes are used, the strongest first; strength is divided by `scale`."""

    most: int = Field(16, ge=1, le=4096)
    scale: float = Field(1.0, gt=0)


def tensors(spec: EchoSpec, view: Any) -> Mapping[str, TensorSpec]:
    return {
        "strength": TensorSpec((spec.most,)),
        "place": TensorSpec((spec.most,), "int32"),
        "picture": TensorSpec((view.height // CELL, view.width // CELL), "uint8"),
    }


def validate(sample: Sample) -> None:
    if sample.data.ndim != 2 or sample.data.shape[1] != 4:
        raise InputError(f"shape {sample.data.shape}, expected (N, 4)", where=sample.sensor)
    if not len(sample.data):
        raise BlindError("no echo", where=sample.sensor)


def resample(sample: Sample, input: Any) -> Grid:
    """Strength by cell of the grid: x to the right and y down, in shares of it."""
    rows, columns = input.view.height // CELL, input.view.width // CELL
    x, y, _, strength = sample.data.T
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    cells = np.zeros((rows, columns), np.float32)
    at = (y[inside] * rows).astype(int), (x[inside] * columns).astype(int)
    np.maximum.at(cells, at, strength[inside].astype(np.float32))
    return Grid({"cells": cells})


def normalize(grid: Grid, input: Any, out: Mapping[str, np.ndarray]) -> None:
    flat = grid.layers["cells"].ravel()
    order = np.argsort(-flat, kind="stable")[: input.preprocess.most]
    out["strength"][:], out["place"][:] = 0, -1
    out["strength"][: len(order)] = flat[order] / input.preprocess.scale
    out["place"][: len(order)] = order
    out["picture"][:] = grid.layers["cells"] > 0


def from_array(array: np.ndarray, hints: Hints) -> Sample:
    return Sample("echoes", array.astype(np.float32))


def check(sample: Sample, thresholds: float) -> Any:
    return "ok" if float(sample.data[:, 3].max()) >= thresholds else "dark"


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    return Sample("echoes", rng.random((40, 4)).astype(np.float32))


ECHOES = SensorKind(
    name="echoes",
    title="Echo sounder",
    layout="points",
    spec=EchoSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    normalize=normalize,
    from_array=from_array,
    check=check,
    health=0.01,
    example=example,
)
