"""Models by name: how a configuration chooses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from perception.errors import ConfigError
from perception.models.anyfuse import AnyFuse

MODELS: dict[str, Callable[..., nn.Module]] = {"anyfuse": AnyFuse}


def build_model(
    name: str,
    modalities: tuple[str, ...],
    seg_classes: int,
    det_classes: int,
    *,
    pretrained: bool,
    options: dict[str, Any],
) -> nn.Module:
    """Build a model.

    Raises:
        ConfigError: unknown name or option.
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
    except TypeError as error:
        raise ConfigError(f"model '{name}': {error}", where="model.options") from error
