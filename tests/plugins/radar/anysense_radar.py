"""Automotive radars: points with radial speed and radar cross-section, projected into a camera.

A sample is (N, 5) float32: x, y, z in metres in the radar's frame (x forward, y left, z up), radial speed
in m/s (negative comes closer), radar cross-section in dBsm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from perception.adapters.messages import CLOUD, fields_of
from perception.adapters.outgoing import Types, cloud_message
from perception.errors import BlindError, CalibrationError, EncodingError, InputError
from perception.files.arrays import read_npy
from perception.frame import Sample, is_return
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec
from perception.sensors.kind import (
    Grid,
    Hints,
    KindSpec,
    Scale,
    SensorKind,
    TensorSpec,
    size_of_camera,
)

COLUMNS = ("x", "y", "z", "doppler", "rcs")
LAYERS = ("nearness", "speed_mps", "rcs_dbsm", "hit")


class RadarSpec(KindSpec):
    """Nearness, radial speed, cross-section and hit; a return covers `spread_px` around its pixel."""

    max_range_m: Scale = 50.0
    max_speed_mps: Scale = 20.0
    max_rcs_dbsm: Scale = 30.0
    spread_px: int = Field(2, ge=0, le=16)


@dataclass(frozen=True)
class RadarHealth:
    """A radar with fewer returns than `min_points` is blind."""

    min_points: int = 1


def from_array(array: np.ndarray, hints: Hints) -> Sample:
    """(N, 3) to (N, 5); what is missing is 0, and what is no return is dropped."""
    if array.ndim != 2 or not 3 <= array.shape[1] <= 5 or array.dtype.kind != "f":
        raise InputError(f"{array.dtype} {array.shape}, expected floats (N, 3 to 5)")
    points = np.zeros((len(array), 5), np.float32)
    with np.errstate(over="ignore"):
        points[:, : array.shape[1]] = array
    points[:, 3:] = np.nan_to_num(points[:, 3:], posinf=0.0, neginf=0.0)
    return Sample("radar", points[is_return(points, hints.least_range_m)], encoding="xyzvr")


def from_message(message: Any, hints: Hints) -> Sample:
    """A PointCloud2 with the fields of `COLUMNS`."""
    return from_array(fields_of(message, COLUMNS), hints)


def from_file(path: Path, hints: Hints) -> Sample:
    """An array in NumPy's format, with the suffix `.radar`."""
    return from_array(read_npy(path, error=EncodingError), hints)


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    """What `from_file` reads."""
    with open(path, "wb") as file:
        np.save(file, sample.data.astype(np.float32))


def to_message(sample: Sample, types: Types) -> Any:
    return cloud_message(types, sample, sample.data, COLUMNS)


def tensors(spec: RadarSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    return {"image": TensorSpec((len(LAYERS), view.height, view.width))}


def validate(sample: Sample) -> None:
    points = sample.data
    if points.ndim != 2 or points.shape[1] != 5 or points.dtype.kind != "f":
        raise InputError(
            f"{points.dtype} {points.shape}, expected float (N, 5)", where=sample.sensor
        )
    if not is_return(points).any():
        raise BlindError("no return", where=sample.sensor)
    if sample.camera is None or sample.extrinsics is None:
        raise CalibrationError(
            "needs a camera and extrinsics to it", where=sample.sensor, hint="give a rig file"
        )


def resample(sample: Sample, input: InputSpec) -> Grid:
    """The returns, the nearest last, painted as squares around their pixels."""
    spec, height, width = input.preprocess, input.view.height, input.view.width
    camera = sample.camera.scaled(*GridMap.fit(size_of_camera(sample), input.view).scale)
    layers = np.zeros((len(LAYERS), height, width), np.float32)
    points = sample.data[is_return(sample.data)].astype(np.float32)
    away = np.linalg.norm(points[:, :3], axis=1)
    uv, valid = camera.project(sample.extrinsics.apply(points[:, :3]))
    for row in np.argsort(-away, kind="stable"):
        if not valid[row] or away[row] > spec.max_range_m:
            continue
        u, v = uv[row]
        if not (-0.5 < u < width - 0.5 and -0.5 < v < height - 0.5):
            continue
        x, y, spread = round(float(u)), round(float(v)), spec.spread_px
        near = 1 - away[row] / spec.max_range_m
        values = (near, points[row, 3], points[row, 4], 1.0)
        rows = slice(max(0, y - spread), y + spread + 1)
        columns = slice(max(0, x - spread), x + spread + 1)
        layers[:, rows, columns] = np.array(values, np.float32)[:, None, None]
    return Grid(dict(zip(LAYERS, layers, strict=True)))


def normalize(grid: Grid, input: InputSpec, out: Mapping[str, np.ndarray]) -> None:
    spec, image = input.preprocess, out["image"]
    image[0] = grid.layers["nearness"]
    image[1] = (grid.layers["speed_mps"] / spec.max_speed_mps).clip(-1, 1)
    image[2] = (grid.layers["rcs_dbsm"] / spec.max_rcs_dbsm).clip(-1, 1)
    image[3] = grid.layers["hit"]


def refuse_blind(out: Mapping[str, np.ndarray], input: InputSpec, sensor: str) -> None:
    if not out["image"][3].any():
        raise InputError("no return falls into the camera's picture", where=sensor)


def check(sample: Sample, thresholds: RadarHealth) -> str:
    return "ok" if is_return(sample.data).sum() >= thresholds.min_points else "dark"


def draw(sample: Sample) -> np.ndarray:
    """From above, 50 m ahead and 25 m to each side; red comes closer, blue goes away."""
    picture = np.zeros((200, 200, 3), np.uint8)
    for x, y, _, speed, _ in sample.data:
        color = (255, 80, 80) if speed < 0 else (80, 80, 255)
        cv2.circle(picture, (round(100 - 4 * float(y)), round(200 - 4 * float(x))), 2, color, -1)
    return picture


def warp(grid: Grid, geometry: Any) -> Grid:
    layers = {n: geometry.warp(layer, True, 0.0) for n, layer in grid.layers.items()}
    return replace(grid, layers=layers, own=None)


def apply(fault: str, value: Any, layer: str, severity: int, rng: np.random.Generator) -> Any:
    """`dark`: no returns.  `dropout`: some returns are gone.  `interference`: speeds are noise."""
    share = {"dark": 1.0, "dropout": 0.15 * severity, "interference": 0.0}[fault]
    if layer == "sample":
        points = value.data[rng.random(len(value.data)) >= share].copy()
        if fault == "interference":
            points[:, 3] += rng.normal(0.0, severity, len(points))
        return replace(value, data=points)
    kept = rng.random(value.size) >= share
    layers = {name: own * kept for name, own in value.layers.items()}
    if fault == "interference":
        noise = rng.normal(0.0, severity, value.size) * (layers["hit"] > 0)
        layers["speed_mps"] = (layers["speed_mps"] + noise).astype(np.float32)
    return replace(value, layers=layers)


def augment(grid: Grid, chances: Mapping[str, float], rng: np.random.Generator) -> Grid:
    if rng.random() < chances["pixel_dropout"]:
        return apply("dropout", grid, "grid", int(rng.integers(1, 4)), rng)
    return grid


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    height, width = size
    low, high = [3, -3, -1, -5, -10], [40, 3, 1, 5, 25]
    data = rng.uniform(low, high, (60, 5)).astype(np.float32)
    camera = CameraModel(width, height, width, width, width / 2, height / 2)
    ahead = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
    return Sample("radar", data, camera=camera, extrinsics=ahead)


RADAR = SensorKind(
    name="radar",
    title="Radar",
    spec=RadarSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    normalize=normalize,
    refuse_blind=refuse_blind,
    layout="points",
    views=("projection",),
    hints=("least_range_m",),
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    ros_types=(CLOUD,),
    suffixes=(".radar",),
    check=check,
    health=RadarHealth(),
    to_file=to_file,
    to_message=to_message,
    draw=draw,
    warp=warp,
    apply=apply,
    faults=("dark", "dropout", "interference"),
    augment=augment,
    example=example,
)
