"""Codecs: from what sensors and files deliver to arrays.  They know nothing of kinds, and no ROS."""

from perception.adapters.image import RawImage, decode_colors, decode_compressed
from perception.adapters.pointcloud import PointField, decode_pointcloud2, points_from_array

__all__ = [
    "PointField",
    "RawImage",
    "decode_colors",
    "decode_compressed",
    "decode_pointcloud2",
    "points_from_array",
]
