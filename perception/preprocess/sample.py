"""From a decoded sample to network inputs: check, resample onto the grid, normalize.

Training takes the same steps one by one, with augmentation between `on_grid` and `SensorKind.normalize`,
so that it never meets an input that serving would have made differently or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError, InputError
from perception.frame import Sample, check_array
from perception.preprocess.contract import InputSpec
from perception.sensors.kind import Grid, Tensors
from perception.sensors.names import OURS
from perception.sensors.registry import kind_of

Place = Callable[[Sample], Grid | None]
"""Brings a sample to the grid of another sensor's picture; see `on_grid`."""


def empty_tensors(input: InputSpec, batch: int | None = 1) -> dict[str, NDArray[Any]]:
    """Arrays for the network inputs of one input, not filled; `batch` None for no batch axis."""
    first = () if batch is None else (batch,)
    return {name: np.empty((*first, *t.shape), t.dtype) for name, t in input.tensors.items()}


def preprocess_sample(
    sample: Sample,
    input: InputSpec,
    out: Tensors | None = None,
    place: Place | None = None,
) -> Mapping[str, NDArray[Any]]:
    """Bring one sample to its network inputs.

    Args:
        sample: a decoded sample (see `Sample` for shapes and units).
        input: the bundle's input that it is for.
        out: optional buffers to fill, as `empty_tensors` makes them.
        place: see `on_grid`.

    Returns:
        Arrays (1, ...) by name, of the shapes and types of `input.tensors`.

    Raises:
        InputError: wrong kind, dtype, shape or unit, or nothing finite.
        CalibrationError: points without calibration, or calibration that does not fit the image.
    """
    out = empty_tensors(input) if out is None else out
    first = {name: array[0] for name, array in out.items()}
    kind = input.sensor
    kind.normalize(on_grid(sample, input, place), input, first)
    if input.kind not in OURS:  # ours never are
        _refuse_not_finite(first, sample.sensor)
    kind.refuse_blind(first, input, sample.sensor)
    return out


def _refuse_not_finite(tensors: Tensors, sensor: str) -> None:
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise InputError(f"the network's input '{name}' holds NaN or infinity", where=sensor)


def on_grid(sample: Sample, input: InputSpec, place: Place | None = None) -> Grid:
    """Check a sample and bring it to the input's grid, not yet normalized.

    Args:
        sample, input: see `preprocess_sample`.
        place: asked for a sample that has passed the check; gives its grid where that is of another
            sensor's picture, None where it is of its own.

    Raises:
        InputError, CalibrationError: see `preprocess_sample`.
    """
    if sample.kind != input.kind:
        raise InputError(f"is {sample.kind}, this input takes {input.kind}", where=sample.sensor)
    kind = input.sensor
    check_array(sample.data, sample.sensor, points=kind.layout == "points")
    kind.validate(sample)
    found = None if place is None else place(sample)
    return kind.resample(sample, input) if found is None else found


def source_size(sample: Sample, input: InputSpec | None = None) -> tuple[int, int]:
    """(height, width) of the image that results are given in for this sample.

    Args:
        sample: any.
        input: what it is for; its grid counts for a kind without a picture, and on the ground.

    Raises:
        CalibrationError: there is none, as for points without a camera.
    """
    if input is not None and input.view.type == "birdseye":
        return input.view.height, input.view.width
    size = kind_of(sample.kind).source_size(sample)
    if size is None and input is not None:
        return input.view.height, input.view.width
    if size is None:
        raise CalibrationError("no picture, and no camera of one", where=sample.sensor)
    return size
