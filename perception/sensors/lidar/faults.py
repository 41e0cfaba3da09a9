"""What goes wrong with a LiDAR's returns: in a cloud (N, C >= 3), or projected onto a grid.

A fault sees `Returns`, whichever layer they come from, and draws by row of the cloud: on the grid the
return of a pixel fares as the same point does in the cloud.  What differs is that a point which is gone
from the cloud uncovers those behind it in its pixel, and on the grid leaves the pixel empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return, scale_intensity
from perception.sensors.faults import (
    MASKED,
    RANDOM_MISSING,
    ContentFault,
    ContentFaults,
    Float,
    Layer,
    Rng,
    Severity,
    always,
    streams,
    training_mask,
)
from perception.sensors.kind import Grid

DONG = "Dong et al., CVPR 2023"

BEAM_LOSS = Severity(
    (0.2, 0.35, 0.5, 0.65, 0.8),
    "share of the beams",
    "beams that give no return, the same ones from cloud to cloud",
    f"{DONG}: beam missing; up to 0.75: range of the augmentation in training",
    "near",
    still=True,
    training=(0.2, 0.75),
)
DROPOUT = replace(
    MASKED,
    amounts=(0.1, 0.2, 0.35, 0.5, 0.7),
    unit="share of points",
    text="single points that are not there",
    source=f"{DONG}: density decrease",
    layers="near",
    still=False,
)
MISSING_POINTS = replace(
    RANDOM_MISSING,
    unit="share of points",
    text="points that are not there, other ones in every cloud",
    source="Liao et al., CVPR Workshops 2025: random-missing modality, r = 0.1, 0.3 and 0.5 at severities "
    "1, 3, 5; of a cloud, single points",
)
RANGE_NOISE = Severity(
    (0.02, 0.05, 0.1, 0.2, 0.4),
    "m, standard deviation along the ray",
    "Gaussian noise of the range",
    f"{DONG}: Gaussian noise; 0.02 m is a usual data sheet's",
    "distribution",
    training=(0.05, 0.05),
    scenario="noise",
)
INTENSITY_GAIN = Severity(
    (0.8, 0.6, 0.45, 0.3, 0.15),
    "factor on intensity",
    "weaker intensities, as of an aging laser or a dirty window",
    "range of the augmentation in training, and beyond",
    still=True,
    training=(0.7, 1.3),
)
FOG = Severity(
    (0.005, 0.01, 0.02, 0.03, 0.06),
    "1/m: extinction; 0.06 is 50 m of visibility",
    "returns weakened below the threshold are lost, some come back from the fog itself",
    "Hahner et al., ICCV 2021 (extinctions), simplified: a threshold and a share of echoes",
    "distribution",
)
RAIN = Severity(
    (2, 5, 10, 20, 40),
    "mm/h",
    "weak returns are lost, the others' ranges get noisy",
    "Goodin et al., Electronics 2019",
    "distribution",
)

BEAM_DEG = 0.4
"""A beam, where nothing tells them apart, is a band of elevation this high."""

_HIGHEST_BAND = int(90 / BEAM_DEG) + 1
_FAR_M, _DARK = 60.0, 0.1
"""A LiDAR that sees something of this reflectivity up to this range sets its threshold there."""
_UNKNOWN_INTENSITY = np.float32(0.3)
_WORST_MARGIN = np.float32(1.5)  # what has been returned was above the threshold
_ECHOES = 0.25  # of what fog swallows: the share that comes back from the fog


@dataclass(frozen=True)
class Returns:
    """Returns of a cloud, (N,) each.

    Attributes:
        range_m: distance from the sensor.
        up: sine of the elevation above the sensor's horizon.
        intensity: 0..1, or None where the sensor gives none.
        row: in the cloud.
        kept: whether it is still there.
    """

    range_m: Float
    up: Float
    intensity: Float | None
    row: NDArray[np.int64]
    kept: NDArray[np.bool_]

    def drawn(self, draw: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
        """One value a return of what is drawn for each row of the cloud, in their order."""
        return draw(int(self.row.max(initial=-1)) + 1)[self.row]


def bands(up: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the band of elevation, from sines of the elevation; 0 lies just above the horizon."""
    angles = np.degrees(np.arcsin(up.clip(-1, 1)))
    return np.floor(angles / BEAM_DEG).astype(np.int64)


def dead_bands(up: NDArray[Any], share: float, rng: Rng) -> NDArray[np.bool_]:
    """Which returns are of beams that are gone: it follows from the generator and the elevation alone."""
    dead = rng.random(2 * _HIGHEST_BAND + 1) < share
    return dead[bands(np.nan_to_num(up)) + _HIGHEST_BAND]


def fewer_beams(up: NDArray[Any], rng: Rng) -> NDArray[np.bool_]:
    """Which returns a LiDAR with 2 to 32 times fewer beams would have, every one as often (training)."""
    present, beam = np.unique(bands(np.nan_to_num(up)), return_inverse=True)
    step = int(2 ** rng.integers(1, 6))
    return (
        (beam + rng.integers(step)) % step == 0 if len(present) >= step else np.ones(len(up), bool)
    )


def _beam_loss(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    return replace(returns, kept=returns.kept & ~dead_bands(returns.up, amount, rng))


def _dropout(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    return replace(returns, kept=returns.kept & (returns.drawn(rng.random) >= amount))


def _range_noise(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    noise = returns.drawn(rng.standard_normal) * amount
    return _moved(returns, returns.range_m + noise.astype(np.float32))


def _moved(returns: Returns, range_m: Float) -> Returns:
    """A return never comes to lie behind the sensor."""
    return replace(returns, range_m=np.maximum(range_m, returns.range_m * np.float32(0.05)))


def _intensity_gain(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    if returns.intensity is None:
        return returns
    return replace(returns, intensity=returns.intensity * np.float32(amount))


def _lost(returns: Returns, extinction: float) -> NDArray[np.bool_]:
    """What falls below the sensor's threshold when light dies by `extinction` (1/m) there and back."""
    intensity = returns.intensity
    strength = _UNKNOWN_INTENSITY if intensity is None else np.maximum(intensity, np.float32(0.02))
    threshold = np.float32(_DARK / _FAR_M**2)
    with np.errstate(all="ignore"):
        margin = np.maximum(strength / returns.range_m**2 / threshold, _WORST_MARGIN)
        lost: NDArray[np.bool_] = margin * np.exp(-2 * extinction * returns.range_m) < 1
    return lost


def _fog(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    which, where_to = streams(rng, 2)
    lost = returns.kept & _lost(returns, amount)
    echo = lost & (returns.drawn(which.random) < _ECHOES)
    near = returns.drawn(where_to.standard_exponential).astype(np.float32) / np.float32(2 * amount)
    range_m = np.where(echo, np.minimum(near + 1, returns.range_m), returns.range_m)
    intensity = returns.intensity
    if intensity is not None:
        weaker = intensity * np.exp(-2 * np.float32(amount) * returns.range_m)
        intensity = np.where(echo, np.float32(0.02), weaker).astype(np.float32)
    return replace(
        returns, range_m=range_m, intensity=intensity, kept=returns.kept & (~lost | echo)
    )


def _rain(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    extinction = 0.01 * amount**0.6
    kept = returns.kept & ~_lost(returns, extinction)
    spread = np.float32(0.02 * (1 - np.exp(-amount)) ** 2)
    noise = returns.drawn(rng.standard_normal).astype(np.float32) * spread
    intensity = returns.intensity
    if intensity is not None:
        intensity = intensity * np.exp(-2 * np.float32(extinction) * returns.range_m)
    moved = _moved(returns, returns.range_m * (1 + noise))
    return replace(moved, intensity=intensity, kept=kept)


def _nothing(returns: Returns, amount: float, where: None, rng: Rng) -> Returns:
    return replace(returns, kept=np.zeros_like(returns.kept))


FAULTS = ContentFaults(
    {
        "beam_loss": ContentFault(BEAM_LOSS, _beam_loss),
        "dropout": ContentFault(DROPOUT, _dropout),
        "random_missing": ContentFault(MISSING_POINTS, _dropout),
        "range_noise": ContentFault(RANGE_NOISE, _range_noise),
        "intensity_gain": ContentFault(INTENSITY_GAIN, _intensity_gain),
        "fog": ContentFault(FOG, _fog),
        "rain": ContentFault(RAIN, _rain),
        "dark": ContentFault(always("an empty cloud"), _nothing),
    }
)


def apply(fault: str, value: Any, layer: Layer, severity: int, rng: Rng) -> Any:
    """`SensorKind.apply`: of a cloud, or of the layers that `resample` gives."""
    amount = FAULTS[fault].at(severity)
    change = partial(FAULTS.run, fault, amount=amount, where=None, rng=rng)
    return _on_cloud(value, change) if layer == "sample" else _on_grid(value, change)


def _on_cloud(sample: Sample, change: Callable[[Returns], Returns]) -> Sample:
    """Points that are lost leave the cloud, as do those that were no returns."""
    points = sample.data
    if points.ndim != 2 or points.shape[1] < 3 or not len(points):
        return sample
    row = np.flatnonzero(is_return(points))
    xyz = points[row, :3].astype(np.float32)
    range_m = np.sqrt(np.square(xyz).sum(axis=1, dtype=np.float32))
    known = points[row, 3] if points.shape[1] > 3 else None
    intensity = None if known is None else scale_intensity(known)
    was = Returns(range_m, xyz[:, 2] / range_m, intensity, row, np.ones(len(row), bool))
    now = change(was)
    out = points[row]
    if now.range_m is not was.range_m:
        out[:, :3] = xyz * (now.range_m / range_m)[:, None]
    if known is not None and intensity is not None and now.intensity is not intensity:
        # In the sensor's own counts, where it gives counts.
        top = float(np.max(intensity, initial=0.0))
        most = float(np.max(known, initial=0.0, where=np.isfinite(known)))
        unit = most / top if top > 0 else 1.0
        assert now.intensity is not None
        out[:, 3] = now.intensity * unit
    times = None if sample.times is None else sample.times[row[now.kept]]
    return replace(sample, data=np.ascontiguousarray(out[now.kept]), times=times)


def _on_points(grid: Grid, change: Callable[[Sample], Sample]) -> Grid:
    """The same of points on the ground grid, which lie in the base frame."""
    pose, points = grid.own, grid.layers["points"]
    out = np.array(points, np.float32)
    out[:, :3] = pose.inverse().apply(out[:, :3])
    out = np.array(change(Sample("lidar", out)).data)
    out[:, :3] = pose.apply(out[:, :3])
    return replace(grid, layers={**grid.layers, "points": out})


def _on_grid(grid: Grid, change: Callable[[Returns], Returns]) -> Grid:
    if "points" in grid.layers:
        return _on_points(grid, lambda sample: _on_cloud(sample, change))
    layers = dict(grid.layers)
    valid = layers["valid"] > 0
    if not valid.any():
        return grid
    range_m, height_m = layers["range_m"][valid], layers["height_m"][valid]
    mount = np.float32(0 if grid.own is None else grid.own.sensor_height_m)
    row = np.arange(len(range_m)) if grid.own is None else grid.own.index[valid].astype(np.int64)
    up = (height_m - mount) / range_m
    was = Returns(range_m, up, layers["intensity"][valid], row, np.ones(len(row), bool))
    now = change(was)
    assert now.intensity is not None
    found = {
        "range_m": now.range_m,
        "intensity": now.intensity,
        "height_m": up * now.range_m + mount if now.range_m is not was.range_m else height_m,
        "valid": now.kept,
    }
    for name, values in found.items():
        layers[name] = layers[name].copy()
        layers[name][valid] = np.where(now.kept, values, 0)
    return replace(grid, layers=layers)


def augment(grid: Grid, chances: Mapping[str, float], rng: Rng) -> Grid:
    """Random corruption in training: beams, noise and lost pixels."""
    if "points" in grid.layers:
        return _on_points(grid, lambda sample: _augmented(sample, chances, rng))
    if _is_drawn("fewer_beams", chances, rng):
        grid = _on_grid(grid, lambda was: replace(was, kept=fewer_beams(was.up, rng)))
    layers = {name: layer.copy() for name, layer in grid.layers.items()}
    range_m, intensity, valid = (layers[name] for name in ("range_m", "intensity", "valid"))
    if rng.random() < chances["beam_reduction"]:
        _clear(layers, _dropped_beams(range_m, layers["height_m"], rng))
    if rng.random() < chances["noise"]:
        range_m += rng.normal(0, RANGE_NOISE.training[0], range_m.shape) * valid
        intensity *= np.float32(rng.uniform(*INTENSITY_GAIN.training))
    if rng.random() < chances["pixel_dropout"]:
        _clear(layers, training_mask(range_m.shape, rng))
    return replace(grid, layers=layers)


def _is_drawn(name: str, chances: Mapping[str, float], rng: Rng) -> bool:
    """Whether it happens; nothing is drawn for what never does, so that what others draw stays."""
    return chances.get(name, 0) > 0 and rng.random() < chances[name]


def _augmented(sample: Sample, chances: Mapping[str, float], rng: Rng) -> Sample:
    """`augment` of a cloud."""

    def change(was: Returns) -> Returns:
        kept, range_m, intensity = was.kept, was.range_m, was.intensity
        if rng.random() < chances["beam_reduction"]:
            kept = kept & ~dead_bands(was.up, rng.uniform(*BEAM_LOSS.training), rng)
        if _is_drawn("fewer_beams", chances, rng):
            kept = kept & fewer_beams(was.up, rng)
        if rng.random() < chances["noise"]:
            noise = rng.normal(0, RANGE_NOISE.training[0], range_m.shape)
            range_m = np.maximum(range_m + noise, 0.1).astype(np.float32)
            gain = np.float32(rng.uniform(*INTENSITY_GAIN.training))
            intensity = None if intensity is None else intensity * gain
        if rng.random() < chances["pixel_dropout"]:
            kept = kept & ~(rng.random(kept.shape) < rng.uniform(*DROPOUT.training))
        return replace(was, kept=kept, range_m=range_m, intensity=intensity)

    return _on_cloud(sample, change)


def _clear(layers: Mapping[str, NDArray[Any]], where: NDArray[np.bool_]) -> None:
    for layer in layers.values():
        layer[where] = 0


def _dropped_beams(range_m: Float, height_m: Float, rng: Rng) -> NDArray[np.bool_]:
    """Pixels of a random share of the beams."""
    with np.errstate(divide="ignore", invalid="ignore"):
        beam = bands(np.nan_to_num(height_m / range_m))
    beam -= beam.min()
    return (rng.random(int(beam.max()) + 1) < rng.uniform(*BEAM_LOSS.training))[beam]
