"""LiDARs."""

from perception.sensors.drawing import draw_projected, scale_of_projected
from perception.sensors.images import warped
from perception.sensors.kind import SensorKind
from perception.sensors.lidar.decode import ROS_TYPES, from_array, from_file, from_message
from perception.sensors.lidar.faults import FAULTS, apply, augment
from perception.sensors.lidar.preprocess import (
    LidarSpec,
    check,
    example,
    normalize,
    refuse_blind,
    resample,
    tensors,
    validate,
)
from perception.sensors.lidar.recordings import SUFFIXES, inspect, to_file, to_message

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
    views=("projection", "birdseye"),
    refuse_blind=refuse_blind,
    draw=draw_projected,
    scale=scale_of_projected,
    warp=warped,
    apply=apply,
    faults=FAULTS,
    augment=augment,
    hints=("least_range_m", "columns"),
    from_array=from_array,
    from_message=from_message,
    from_file=from_file,
    ros_types=ROS_TYPES,
    check=check,
    example=example,
    suffixes=SUFFIXES,
    files=".npy, .npz, .pcd, .bin, .pcd.bin",
    to_file=to_file,
    to_message=to_message,
    inspect=inspect,
    frame_words=(
        "laser",
        "velodyne",
        "vlp",
        "vls",
        "hdl",
        "ouster",
        "pandar",
        "hesai",
        "livox",
        "mid360",
        "helios",
        "bpearl",
        "robosense",
        "rslidar",
    ),
)
