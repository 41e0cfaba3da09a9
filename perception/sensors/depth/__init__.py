"""Depth cameras."""

from functools import partial

import numpy as np

from perception.geometry.measured import depth_points
from perception.sensors.depth.decode import ROS_TYPES, from_array, from_file, from_message, remarks
from perception.sensors.depth.faults import FAULTS, apply, augment
from perception.sensors.depth.picture import draw, scale
from perception.sensors.depth.preprocess import (
    DepthSpec,
    check,
    distances,
    example,
    normalize,
    refuse_blind,
    register,
    resample,
    tensors,
    validate,
)
from perception.sensors.depth.recordings import SUFFIXES, inspect, judge, to_file, to_message
from perception.sensors.images import warped
from perception.sensors.kind import SensorKind

__all__ = ["DEPTH", "DepthSpec"]

DEPTH = SensorKind(
    name="depth",
    title="Depth",
    spec=DepthSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    views=("image", "birdseye"),
    register=register,
    distances=distances,
    normalize=normalize,
    refuse_blind=refuse_blind,
    points=depth_points,
    draw=draw,
    scale=scale,
    warp=partial(warped, fill=np.nan),
    apply=apply,
    faults=FAULTS,
    augment=augment,
    hints=("scale", "m_per_count8"),
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    remarks=remarks,
    ros_types=ROS_TYPES,
    check=check,
    example=example,
    suffixes=SUFFIXES,
    files="16 bit PNG in mm, metres as .npy/.tiff, or 8 bit where the bundle says its scale",
    to_file=to_file,
    to_message=to_message,
    inspect=inspect,
    frame_words=("tof",),
    judge=judge,
)
