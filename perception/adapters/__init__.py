"""From what sensors and files deliver to decoded arrays in SI units; no ROS import."""

from perception.adapters.depth import decode_depth, depth_from_array
from perception.adapters.image import RawImage, decode_compressed, decode_rgb
from perception.adapters.pointcloud import PointField, decode_pointcloud2, points_from_array
from perception.adapters.thermal import decode_thermal

__all__ = [
    "PointField",
    "RawImage",
    "decode_compressed",
    "decode_depth",
    "decode_pointcloud2",
    "decode_rgb",
    "decode_thermal",
    "depth_from_array",
    "points_from_array",
]
