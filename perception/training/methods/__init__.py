"""Training methods by name."""

from __future__ import annotations

from perception.errors import AnySenseError, ConfigError
from perception.models.interface import FusionModel
from perception.training.config import MethodSpec
from perception.training.methods.agm import AdaptiveGradientModulation
from perception.training.methods.base import TrainingMethod
from perception.training.methods.distill import Distillation
from perception.training.methods.fuller import GradientCalibration
from perception.training.methods.sandwich import Sandwich

METHODS: dict[str, type[TrainingMethod]] = {
    "plain": TrainingMethod,
    "agm": AdaptiveGradientModulation,
    "fuller": GradientCalibration,
    "distill": Distillation,
    "sandwich": Sandwich,
}


def build_method(spec: MethodSpec, model: FusionModel) -> TrainingMethod:
    """The method that a configuration names.

    Raises:
        ConfigError: unknown name or option.
    """
    if spec.name not in METHODS:
        raise ConfigError(
            f"unknown method '{spec.name}'", where="method.name", hint=", ".join(METHODS)
        )
    try:
        return METHODS[spec.name](model, **spec.options)
    except AnySenseError:
        raise
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"method '{spec.name}': {error}", where="method.options") from error


__all__ = ["METHODS", "TrainingMethod", "build_method"]
