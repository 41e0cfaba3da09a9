"""Thermal cameras."""

from perception.sensors.kind import SensorKind
from perception.sensors.thermal.decode import (
    ROS_TYPES,
    UNITS,
    from_array,
    from_file,
    from_message,
    remarks,
)
from perception.sensors.thermal.faults import FAULTS, apply, augment
from perception.sensors.thermal.picture import draw, scale
from perception.sensors.thermal.preprocess import (
    ThermalRule,
    ThermalSpec,
    check,
    example,
    normalize,
    register,
    resample,
    tensors,
    validate,
    warp,
)
from perception.sensors.thermal.recordings import FILE_UNIT, SUFFIXES, inspect, to_file, to_message

__all__ = ["THERMAL", "ThermalRule", "ThermalSpec"]

THERMAL = SensorKind(
    name="thermal",
    title="Thermal",
    spec=ThermalSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    register=register,
    normalize=normalize,
    draw=draw,
    scale=scale,
    warp=warp,
    apply=apply,
    faults=FAULTS,
    augment=augment,
    units=UNITS,
    hints=("unit",),
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    remarks=remarks,
    ros_types=ROS_TYPES,
    check=check,
    example=example,
    suffixes=SUFFIXES,
    files="8 or 16 bit picture, or .npy",
    file_unit=FILE_UNIT,
    to_file=to_file,
    to_message=to_message,
    inspect=inspect,
    frame_words=("lwir", "flir", "boson", "lepton", "optris"),
)
