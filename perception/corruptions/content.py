"""One sample, spoilt: the faults of its kind's own, and those that every sensor can have."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.corruptions.delivery import DELIVERY
from perception.errors import ConfigError, names_hint
from perception.frame import Sample
from perception.geometry.transforms import RigidTransform
from perception.sensors.faults import Rng, Scenario, Severity, check_severity
from perception.sensors.kind import Grid
from perception.sensors.registry import kind_of

Seed = int | tuple[int, ...]


class _Shared(NamedTuple):
    severity: Severity
    function: Callable[[Sample, float, Rng], Sample]


def _turned(sample: Sample, amount: float, rng: Rng) -> Sample:
    """Extrinsics, and the place on a vehicle, by a rotation of `amount` degrees about a random axis through
    the sensor."""
    if sample.extrinsics is None and sample.pose is None:
        return sample
    axis = rng.standard_normal(3)
    axis /= max(float(np.linalg.norm(axis)), 1e-12)
    half = np.radians(amount) / 2
    quaternion = [*(axis * np.sin(half)), np.cos(half)]
    error = RigidTransform.from_quaternion_xyzw(quaternion, np.zeros(3))

    def turned(place: RigidTransform | None) -> RigidTransform | None:
        return None if place is None else place @ error

    return replace(sample, extrinsics=turned(sample.extrinsics), pose=turned(sample.pose))


def _skewed(sample: Sample, amount: float, rng: Rng) -> Sample:
    if sample.stamp_ns is None:
        return sample
    return replace(sample, stamp_ns=sample.stamp_ns + round(amount * 1e9))


def _misaligned(sample: Sample, amount: float, rng: Rng) -> Sample:
    """A picture moved by whole pixels, or the picture that points are projected into."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = amount * np.cos(angle), amount * np.sin(angle)
    if kind_of(sample.kind).has_picture:
        return replace(sample, data=_moved(sample.data, round(x), round(y)))
    camera = sample.camera
    if camera is None:
        return sample
    return replace(sample, camera=replace(camera, cx=camera.cx + x, cy=camera.cy + y))


def _moved(values: NDArray[Any], x: int, y: int) -> NDArray[Any]:
    """Moved right and down; what comes in repeats the border."""
    if values.ndim < 2 or not values.size:
        return values
    rows = (np.arange(values.shape[0]) - y).clip(0, values.shape[0] - 1)
    columns = (np.arange(values.shape[1]) - x).clip(0, values.shape[1] - 1)
    return values[rows][:, columns]


SHARED: Mapping[str, _Shared] = {
    "extrinsics": _Shared(
        Severity(
            (0.5, 1.0, 1.5, 2.0, 3.0),
            "degrees",
            "extrinsics turned about a random axis",
            "Dong et al., CVPR 2023: spatial misalignment",
            "sample",
            still=True,
        ),
        _turned,
    ),
    "time_skew": _Shared(
        Severity(
            (0.03, 0.06, 0.1, 0.2, 0.3),
            "s",
            "the stamp is later than the measurement",
            "Dong et al., CVPR 2023: temporal misalignment",
            "sample",
        ),
        _skewed,
    ),
    "misalignment": _Shared(
        Severity(
            (2, 4, 6, 10, 16),
            "pixels of the picture",
            "the picture lies beside where its calibration says",
            "registration errors of multispectral rigs; up to 5 in training",
            "sample",
            still=True,
        ),
        _misaligned,
    ),
}
"""Faults that every kind can have."""


def faults_of(kind: str) -> tuple[str, ...]:
    """The content faults of a kind: its own, then those that all have.

    Raises:
        ConfigError: there is no such kind.
    """
    own = kind_of(kind)
    names = tuple(own.faults) if own.apply is not None else ()
    return (*names, *(name for name in SHARED if name not in names))


def severity_of(kind: str, fault: str) -> Severity | None:
    """How much of a fault there is by severity; None where a plug-in does not say.

    Raises:
        ConfigError: there is no such kind, or it has no such fault.
    """
    check_fault(kind, fault)
    faults = kind_of(kind).faults
    if fault in faults:
        return faults[fault] if isinstance(faults, Mapping) else None
    return SHARED[fault].severity


def scenario_fault(kind: str, scenario: Scenario) -> str | None:
    """The fault of a kind that stands for a scenario, see `Severity.scenario`; None where it has none.

    Raises:
        ConfigError: there is no such kind.
    """
    found = {name: severity_of(kind, name) for name in faults_of(kind)}
    return next((n for n, s in found.items() if s is not None and s.scenario == scenario), None)


def check_fault(kind: str, fault: str, severity: int = 3) -> None:
    """Refuse what `corrupt` would refuse.

    Raises:
        ConfigError: an unknown kind or fault, or a severity that is none of 1 to 5.
    """
    known = faults_of(kind)
    if fault not in known:
        hint = names_hint(fault, known)
        if fault in DELIVERY:
            hint = (
                "it befalls messages on their way, not a sample alone: FaultSchedule, FaultInjector"
            )
        raise ConfigError(f"{kind} has no fault '{str(fault)[:40]}'", where="fault", hint=hint)
    check_severity(severity)


def generator(fault: str, seed: Seed) -> Rng:
    """What a fault draws from: that of one fault says nothing of another's."""
    seeds = seed if isinstance(seed, tuple) else (seed,)
    return np.random.default_rng((*seeds, zlib.crc32(fault.encode())))


def corrupt(sample: Sample, fault: str, severity: int = 3, seed: Seed = 0) -> Sample:
    """A sample of a sensor that has a fault.

    Args:
        sample: what the sensor would have given; it is not changed.
        fault: one of `faults_of(sample.kind)`.
        severity: 1 (hardly seen) to 5.
        seed: the same seed spoils the same places, the more of them the higher the severity.

    Returns:
        A sample of the same kind, dtype and units; of a cloud, points may be missing.

    Raises:
        ConfigError: an unknown fault, or a severity that is none of 1 to 5.
    """
    check_fault(sample.kind, fault, severity)
    own, rng = kind_of(sample.kind), generator(fault, seed)
    if own.apply is not None and fault in own.faults:
        spoilt: Sample = own.apply(fault, sample, "sample", severity, rng)
        return spoilt
    shared = SHARED[fault]
    return shared.function(sample, shared.severity.at(severity), rng)


def corrupt_grid(kind: str, grid: Grid, fault: str, severity: int = 3, seed: Seed = 0) -> Grid:
    """The same of values on the grid of an input, not yet normalized; see `Severity.layers`.

    Raises:
        ConfigError: the kind has no such fault of its own, or the severity is none of 1 to 5.
    """
    own = kind_of(kind)
    check_fault(kind, fault, severity)
    if own.apply is None or fault not in own.faults:
        raise ConfigError(f"{fault} is a fault of samples, not of grids", where="fault")
    spoilt: Grid = own.apply(fault, grid, "grid", severity, generator(fault, seed))
    return spoilt
