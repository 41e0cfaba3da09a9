"""The preprocessing contract and the code that carries it out."""

from perception.preprocess.contract import CHANNELS, GridSpec, PreprocessContract
from perception.preprocess.grid import GridMap
from perception.preprocess.sample import preprocess_sample, source_size

__all__ = [
    "CHANNELS",
    "GridMap",
    "GridSpec",
    "PreprocessContract",
    "preprocess_sample",
    "source_size",
]
