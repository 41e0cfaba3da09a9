"""What kinds share whose inputs come to lie on the ground grid: pillars of points, tables of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from perception.errors import CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.grid import BirdseyeSpec, ViewSpec
from perception.geometry.lifting import RAY_VALUES, TABLE_STRIDE, lift_of, places
from perception.geometry.pillars import FIELDS, fill_pillars, on_ground
from perception.geometry.transforms import RigidTransform
from perception.sensors.kind import Grid, KindSpec, Tensors, TensorSpec

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec

_POINTS = "points"
_LIFT = ("table", "ranges", "rays")


class Fallen(Mapping[str, NDArray[Any]]):
    """The layer `points` of a cloud on the ground, and their cells for who goes straight on to pillars.

    Attributes:
        points: see `geometry.pillars.on_ground`.
        cells: of these.
        read: whether somebody may have changed the layer, so that the cells count no longer.
    """

    def __init__(self, points: NDArray[np.float32], cells: NDArray[np.int32]) -> None:
        self.points, self.cells, self.read = points, cells, False

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name != _POINTS:
            raise KeyError(name)
        self.read = True
        return self.points

    def __iter__(self) -> Iterator[str]:
        return iter((_POINTS,))

    def __len__(self) -> int:
        return 1


class PillarSpec(KindSpec):
    """Of points on the ground grid: how many pillars there are at most, and points in one."""

    max_pillars: int = Field(6000, ge=1, le=200_000)
    max_points: int = Field(12, ge=1, le=256)

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without them where they are the usual ones, so that versions that know none read it."""
        usual = {n: f.default for n, f in PillarSpec.model_fields.items()}
        content: dict[str, Any] = handler(self)
        return {k: v for k, v in content.items() if k not in usual or v != usual[k]}


def pillar_tensors(spec: PillarSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`pillars` (P, M, 8) and `cells` (P,) int32; see `geometry.pillars.fill_pillars`."""
    return {
        "pillars": TensorSpec((spec.max_pillars, spec.max_points, len(FIELDS))),
        "cells": TensorSpec((spec.max_pillars,), "int32"),
    }


def lift_tensors(view: ViewSpec) -> dict[str, TensorSpec]:
    """`table`, `ranges` and `rays` of a picture that is lifted onto the ground, see `Lift`; else nothing."""
    if view.birdseye is None:
        return {}
    rows, columns = view.birdseye.shape
    down, across = view.height // TABLE_STRIDE, view.width // TABLE_STRIDE
    return {
        "table": TensorSpec((len(view.birdseye.heights), rows, columns), "int32"),
        "ranges": TensorSpec((rows, columns)),
        "rays": TensorSpec((RAY_VALUES, down, across)),
    }


def place_of(sample: Sample) -> RigidTransform:
    """Where the sample's sensor sits on the vehicle.

    Raises:
        CalibrationError: nobody knows.
    """
    if sample.pose is None:
        raise CalibrationError(
            "its place on the vehicle is not known",
            where=sample.sensor,
            hint="a rig file with its pose and a base, or TF to the base frame",
        )
    return sample.pose


def points_on_ground(sample: Sample, points: NDArray[Any], view: ViewSpec) -> Grid:
    """Points (N, C >= 3) of a sensor's frame as the layer `points`, (M, 4) in the base frame.

    Raises:
        CalibrationError: it is not known where the sensor sits.
    """
    pose = place_of(sample)
    return Grid(Fallen(*on_ground(points, pose, _ground(view))), own=pose)


def fill(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """The layer `points` to `pillars` and `cells`."""
    layers, ground, cells = grid.layers, _ground(input.view), None
    if isinstance(layers, Fallen) and not layers.read:
        points, cells = layers.points, layers.cells
    else:
        points = np.ascontiguousarray(layers[_POINTS], np.float32)
    fill_pillars(points, ground, out["pillars"], out["cells"], cells)


def refuse_empty(out: Tensors, sensor: str) -> None:
    """Refuse an input without a point.

    Raises:
        InputError: it is one.
    """
    if not out["pillars"][0, 0, -1] > 0:
        raise InputError(
            "no point lies on the ground grid",
            where=sensor,
            hint="check its pose on the vehicle, and the grid's ranges",
        )


def lifted(grid: Grid, sample: Sample, input: InputSpec) -> Grid:
    """A picture's grid with the layers of its `Lift` where it is lifted onto the ground.

    Raises:
        CalibrationError: it is not known where the camera sits, or how it sees.
        InputError: it sees nothing of the grid.
    """
    view = input.view
    if view.birdseye is None:
        return grid
    pose = place_of(sample)
    if sample.camera is None:
        raise CalibrationError(
            "its intrinsics are not known", where=sample.sensor, hint="camera_info, or a rig file"
        )
    lift = lift_of(view, sample.camera, pose)
    if lift.table.min() == places(view):
        raise InputError(
            "sees nothing of the ground grid", where=sample.sensor, hint="check its pose"
        )
    return replace(grid, layers={**grid.layers, **{name: getattr(lift, name) for name in _LIFT}})


def fill_lift(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """The layers of the `Lift` as they are, of a picture that is lifted onto the ground."""
    if input.view.birdseye is not None:
        for name in _LIFT:
            out[name][...] = grid.layers[name]


def _ground(view: ViewSpec) -> BirdseyeSpec:
    assert view.birdseye is not None
    return view.birdseye
