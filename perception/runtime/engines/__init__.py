"""Inference engines: one file per backend, all behind `Engine`."""

from perception.runtime.engines.base import BackendMissingError, Engine, TensorSpec
from perception.runtime.engines.registry import BACKENDS, DEVICES

__all__ = ["BACKENDS", "DEVICES", "BackendMissingError", "Engine", "TensorSpec"]
