"""A kind as another distribution brings it: planar laser scanners, their echoes drawn on a grid ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.adapters.outgoing import header_of
from perception.errors import BlindError, InputError
from perception.frame import Sample
from perception.sensors.kind import Grid, Hints, KindSpec, Scale, SensorKind, TensorSpec

SCAN = "sensor_msgs/msg/LaserScan"


class LaserSpec(KindSpec):
    """`reach_m` of the grid ahead and to both sides."""

    reach_m: Scale = 20.0


def validate(sample: Sample) -> None:
    """(N, 4) float32: x, y, z in metres, strength of the echo."""
    if sample.data.ndim != 2 or sample.data.shape[1] != 4:
        raise InputError(f"{sample.data.shape} is no scan", where=sample.sensor)
    if not len(sample.data):
        raise BlindError("no echo", where=sample.sensor)


def resample(sample: Sample, input: Any) -> Grid:
    """`echo` (H, W) float32, the strongest of a cell."""
    height, width = input.view.height, input.view.width
    reach = input.preprocess.reach_m
    x, y = sample.data[:, 0] / reach, sample.data[:, 1] / reach
    seen = (x >= 0) & (x < 1) & (abs(y) < 1)
    rows = ((1 - x[seen]) * height).astype(int).clip(0, height - 1)
    columns = ((1 - y[seen]) / 2 * width).astype(int).clip(0, width - 1)
    echo = np.zeros((height, width), np.float32)
    np.maximum.at(echo, (rows, columns), sample.data[seen, 3])
    return Grid({"echo": echo})


def normalize(grid: Grid, input: Any, out: Any) -> None:
    out["image"][0] = grid.layers["echo"]


def from_array(array: np.ndarray, hints: Hints) -> Sample:
    points = np.asarray(array, np.float32)
    away = np.hypot(points[:, 0], points[:, 1])
    return Sample("laser", points[away >= hints.least_range_m], encoding="xyze")


def from_file(path: Path, hints: Hints) -> Sample:
    """A row for each echo, as text."""
    try:
        return from_array(np.loadtxt(path, ndmin=2).reshape(-1, 4), hints)
    except ValueError as error:
        raise InputError(f"no scan: {error}") from error


def to_file(sample: Sample, path: Path, hints: Hints) -> None:
    np.savetxt(path, sample.data, "%.9g")


def from_message(message: Any, hints: Hints) -> Sample:
    away = np.asarray(message.ranges, np.float32)
    angle = message.angle_min + np.arange(len(away)) * message.angle_increment
    strength = np.asarray(message.intensities, np.float32)
    table = [away * np.cos(angle), away * np.sin(angle), np.zeros_like(away), strength]
    return from_array(np.column_stack(table), hints)


def to_message(sample: Sample, types: Any) -> Any:
    x, y = sample.data[:, 0], sample.data[:, 1]
    angle = np.arctan2(y, x)
    step = float(angle[1] - angle[0]) if len(angle) > 1 else 1.0
    return types.make(
        SCAN,
        header=header_of(types, sample),
        angle_min=float(angle[0]),
        angle_max=float(angle[-1]),
        angle_increment=step,
        time_increment=0.0,
        scan_time=0.1,
        range_min=0.0,
        range_max=100.0,
        ranges=np.hypot(x, y).astype(np.float32),
        intensities=sample.data[:, 3].astype(np.float32),
    )


def remarks(path: Path) -> list[str]:
    return ["is long"] if len(Path(path).read_text().splitlines()) > 100 else []


LASER = SensorKind(
    name="laser",
    title="Laser scanner",
    spec=LaserSpec,
    tensors=lambda preprocess, view: {"image": TensorSpec((1, view.height, view.width))},
    validate=validate,
    resample=resample,
    normalize=normalize,
    layout="points",
    hints=("least_range_m", "unit"),
    units=("auto", "metres"),
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    remarks=remarks,
    ros_types=(SCAN,),
    suffixes=(".scan", ".txt"),
    file_unit="metres",
    to_file=to_file,
    to_message=to_message,
)


def scan(seed: int = 0, beams: int = 40) -> np.ndarray:
    """Echoes (N, 4) of even angles, 2 to 15 m away."""
    rng = np.random.default_rng(seed)
    angle, away = np.linspace(-1, 1, beams), rng.uniform(2, 15, beams)
    table = [away * np.cos(angle), away * np.sin(angle), np.zeros(beams), rng.random(beams)]
    return np.column_stack(table).astype(np.float32)
