"""Inference engines: one file per backend, all behind `Engine`."""

from perception.runtime.engines.base import Engine, TensorSpec
from perception.runtime.engines.registry import create_engine

__all__ = ["Engine", "TensorSpec", "create_engine"]
