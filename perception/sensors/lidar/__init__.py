"""LiDARs."""

from perception.sensors.drawing import draw_projected
from perception.sensors.kind import SensorKind
from perception.sensors.lidar.faults import FAULTS, apply, augment
from perception.sensors.lidar.preprocess import (
    LidarSpec,
    normalize,
    refuse_blind,
    resample,
    tensors,
    validate,
)

__all__ = ["LIDAR", "LidarSpec"]

LIDAR = SensorKind(
    name="lidar",
    title="LiDAR",
    spec=LidarSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    normalize=normalize,
    layout="points",
    views=("projection",),
    refuse_blind=refuse_blind,
    draw=draw_projected,
    apply=apply,
    faults=FAULTS,
    augment=augment,
)
