"""Training methods by name."""

from __future__ import annotations

import inspect
from typing import Any

from perception.errors import AnySenseError, ConfigError, names_hint
from perception.models.interface import FusionModel
from perception.plugins import Registry
from perception.training.config import MethodSpec
from perception.training.distributed import here
from perception.training.methods.base import TrainingMethod


def _check(name: str, method: Any) -> None:
    if not (isinstance(method, type) and issubclass(method, TrainingMethod)):
        raise TypeError("is no subclass of TrainingMethod")


METHODS: Registry[type[TrainingMethod]] = Registry(
    "methods",
    "method",
    {
        "plain": TrainingMethod,
        "agm": "perception.training.methods.agm:AdaptiveGradientModulation",
        "fuller": "perception.training.methods.fuller:GradientCalibration",
        "distill": "perception.training.methods.distill:Distillation",
        "sandwich": "perception.training.methods.sandwich:Sandwich",
    },
    _check,
)


def build_method(spec: MethodSpec, model: FusionModel) -> TrainingMethod:
    """The method that a configuration names.

    Raises:
        ConfigError: unknown name or option, or several processes train and it is not made for that.
    """
    method = METHODS.named(spec.name, "method.name")
    takes = dict(list(inspect.signature(method).parameters.items())[1:])
    if all(p.kind is not p.VAR_KEYWORD for p in takes.values()):
        for name in spec.options:
            if name not in takes:
                raise ConfigError(
                    f"{METHODS.place(spec.name)} has no option '{name[:40]}'",
                    where="method.options",
                    hint=names_hint(name, takes) if takes else "it has none",
                )
    if here().several and not vars(method).get("divides", False):
        raise ConfigError(
            f"{METHODS.place(spec.name)} cannot be used by several processes",
            where="method.name",
            hint="start it without torchrun",
        )
    try:
        return method(model, **spec.options)
    except AnySenseError:
        raise
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"{METHODS.place(spec.name)}: {error}", where="method.options") from error


__all__ = ["METHODS", "TrainingMethod", "build_method"]
