"""Inference engines: one file per backend, all behind `Engine`."""

from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import BackendMissingError, Engine, TensorSpec
from perception.runtime.engines.registry import BACKENDS

__all__ = ["BACKENDS", "Backend", "BackendMissingError", "Engine", "TensorSpec"]
