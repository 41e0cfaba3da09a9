"""Models by name: how a configuration chooses one."""

from __future__ import annotations

from typing import Any

from perception.errors import AnySenseError, ConfigError
from perception.models.anyfuse import AnyFuse
from perception.models.interface import FusionModel, Inputs
from perception.models.zoo.adapnet import AdapNet
from perception.models.zoo.any2seg import Any2Seg
from perception.models.zoo.blocked import BlockedAnyFuse
from perception.models.zoo.featenhancer import EnhancedAnyFuse
from perception.models.zoo.multimae import MultiMAE
from perception.models.zoo.multimodn import MultiModN
from perception.models.zoo.recurrent import RecurrentMixer
from perception.models.zoo.segmif import SegMiF
from perception.models.zoo.ssma import SSMA
from perception.models.zoo.tokens import SharedTokens

MODELS: dict[str, type[FusionModel]] = {
    "anyfuse": AnyFuse,
    "adapnet++": AdapNet,
    "ssma": SSMA,
    "multimodn": MultiModN,
    "featenhancer": EnhancedAnyFuse,
    "segmif": SegMiF,
    "any2seg": Any2Seg,
    "tokens": SharedTokens,
    "multimae": MultiMAE,
    "mixer": RecurrentMixer,
    "blocked": BlockedAnyFuse,
}


def build_model(
    name: str,
    modalities: Inputs,
    seg_classes: int,
    det_classes: int,
    *,
    pretrained: bool,
    options: dict[str, Any],
) -> FusionModel:
    """Build a model.

    Raises:
        ConfigError: unknown name or option, or the model does not take these modalities or tasks.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model '{name}'", hint=", ".join(MODELS))
    try:
        return MODELS[name](
            modalities,
            seg_classes=seg_classes,
            det_classes=det_classes,
            pretrained=pretrained,
            **options,
        )
    except AnySenseError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        # Options of any type reach layers whose own errors say little: a negative width, for example.
        raise ConfigError(f"model '{name}': {error}", where="model.options") from error
