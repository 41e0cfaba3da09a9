"""Readers of recordings: one file per data set, all behind `Recording`."""

from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.data.registry import open_recording, parse_data_argument

__all__ = [
    "Boxes",
    "ClassInfo",
    "Recording",
    "RecordingInfo",
    "Truth",
    "open_recording",
    "parse_data_argument",
]
