"""Models by name: how a configuration chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perception.errors import AnySenseError, ConfigError
from perception.plugins import Registry

if TYPE_CHECKING:
    from perception.models.interface import FusionModel, Inputs
    from perception.tasks.spec import TaskSpec


def _check(name: str, model: Any) -> None:
    from perception.models.interface import FusionModel, ModelCard

    if not (isinstance(model, type) and issubclass(model, FusionModel)):
        raise TypeError("is no subclass of FusionModel")
    if not isinstance(getattr(model, "card", None), ModelCard):
        raise TypeError("has no card, which is a ModelCard")
    features = getattr(model, "feature_names", ())
    if isinstance(features, str) or not features:
        raise TypeError("has no feature_names, a tuple of what encode gives")


MODELS: Registry[type[FusionModel]] = Registry(
    "models",
    "model",
    {
        "anyfuse": "perception.models.anyfuse:AnyFuse",
        "pillarbev": "perception.models.pillarbev:PillarBEV",
        "adapnet++": "perception.models.zoo.adapnet:AdapNet",
        "ssma": "perception.models.zoo.ssma:SSMA",
        "multimodn": "perception.models.zoo.multimodn:MultiModN",
        "featenhancer": "perception.models.zoo.featenhancer:EnhancedAnyFuse",
        "segmif": "perception.models.zoo.segmif:SegMiF",
        "any2seg": "perception.models.zoo.any2seg:Any2Seg",
        "tokens": "perception.models.zoo.tokens:SharedTokens",
        "multimae": "perception.models.zoo.multimae:MultiMAE",
        "mixer": "perception.models.zoo.recurrent:RecurrentMixer",
        "blocked": "perception.models.zoo.blocked:BlockedAnyFuse",
    },
    _check,
)


def build_model(
    name: str,
    inputs: Inputs,
    tasks: Mapping[str, TaskSpec],
    *,
    pretrained: bool,
    options: dict[str, Any],
) -> FusionModel:
    """Build a model.

    Raises:
        ConfigError: unknown name or option, or the model does not take these modalities or tasks.
    """
    kind = MODELS.named(name, "model.name")
    try:
        model = kind(inputs, tasks, pretrained=pretrained, **options)
    except AnySenseError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        # Options of any type reach layers whose own errors say little: a negative width, for example.
        raise ConfigError(
            f"{MODELS.place(name)}: {str(error) or type(error).__name__}", where="model.options"
        ) from error
    model.made_as = name, dict(options)
    return model
