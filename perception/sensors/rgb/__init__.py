"""Color cameras."""

from functools import partial

from perception.sensors.drawing import draw_picture
from perception.sensors.images import warped
from perception.sensors.kind import SensorKind
from perception.sensors.rgb.decode import ROS_TYPES, from_array, from_file, from_message, remarks
from perception.sensors.rgb.faults import FAULTS, apply, augment
from perception.sensors.rgb.preprocess import (
    RgbSpec,
    check,
    example,
    normalize,
    register,
    resample,
    tensors,
    validate,
)
from perception.sensors.rgb.recordings import SUFFIXES, inspect, to_file, to_message

__all__ = ["RGB", "RgbSpec"]

RGB = SensorKind(
    name="rgb",
    title="RGB",
    colors=True,
    spec=RgbSpec,
    tensors=tensors,
    validate=validate,
    resample=resample,
    register=register,
    normalize=normalize,
    on_device="perception.runtime.engines.byte_graph:ON_DEVICE",
    draw=draw_picture,
    warp=partial(warped, nearest=False, fill=114),
    apply=apply,
    faults=FAULTS,
    augment=augment,
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    remarks=remarks,
    ros_types=ROS_TYPES,
    check=check,
    example=example,
    suffixes=SUFFIXES,
    files="picture",
    to_file=to_file,
    to_message=to_message,
    inspect=inspect,
    frame_words=("cam", "color", "colour", "optical"),
)
