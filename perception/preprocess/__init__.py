"""The preprocessing contract and the code that carries it out."""

from perception.geometry.grid import GridMap, GridSpec
from perception.preprocess.contract import CHANNELS, PreprocessContract
from perception.preprocess.sample import preprocess_sample, source_size

__all__ = [
    "CHANNELS",
    "GridMap",
    "GridSpec",
    "PreprocessContract",
    "preprocess_sample",
    "source_size",
]
