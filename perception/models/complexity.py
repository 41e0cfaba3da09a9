"""Parameters and multiply-accumulate operations of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def count_parameters(model: nn.Module, *, without: tuple[str, ...] = ("aux_heads",)) -> int:
    """Trainable parameters used at inference: those of training-only parts are left out."""
    return sum(p.numel() for n, p in model.named_parameters() if n.split(".")[0] not in without)


@torch.no_grad()
def count_gmac(model: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Billions of multiply-accumulates of convolutions and linear layers in one forward pass."""
    total = 0

    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * kernel * module.in_channels // module.groups
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    counted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(hook) for m in counted]
    run: Callable[..., Any] = model.eval()
    try:
        run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total / 1e9
