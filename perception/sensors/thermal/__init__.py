"""Thermal cameras."""

from perception.sensors.kind import SensorKind
from perception.sensors.thermal.faults import FAULTS, apply, augment
from perception.sensors.thermal.picture import draw
from perception.sensors.thermal.preprocess import (
    ThermalRule,
    ThermalSpec,
    normalize,
    resample,
    tensors,
    validate,
)

__all__ = ["THERMAL", "ThermalRule", "ThermalSpec"]

THERMAL = SensorKind(
    name="thermal",
    title="Thermal",
    spec=ThermalSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    normalize=normalize,
    units=("counts8", "counts16", "kelvin"),
    draw=draw,
    apply=apply,
    faults=FAULTS,
    augment=augment,
)
