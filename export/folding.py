"""Folding batch normalization into convolutions, and rounding weights for storage."""

from __future__ import annotations

import copy

import torch
from torch import nn

from perception.errors import EngineError
from perception.models.layers import normalized


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode without batch normalization.

    Every convolution of `normalized` takes up the normalization; the norm becomes an identity.
    """
    folded = copy.deepcopy(model).eval()
    modules = dict(folded.named_modules())
    for conv, norm in normalized(folded):
        absorbing, absorbed = modules[conv], modules[norm]
        assert isinstance(absorbing, nn.Conv2d) and isinstance(absorbed, nn.BatchNorm2d)
        _absorb(absorbing, absorbed)
        parent, _, name = norm.rpartition(".")
        setattr(modules[parent], name, nn.Identity())
    return folded


@torch.no_grad()
def _absorb(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias
    # New parameters rather than in-place changes: convolutions may share one weight.
    conv.weight = nn.Parameter(conv.weight * gain[:, None, None, None])
    conv.bias = nn.Parameter((bias - norm.running_mean) * gain + norm.bias)


@torch.no_grad()
def round_weights_to_half(model: nn.Module) -> None:
    """Round all weight matrices and kernels to float16 values, in place, keeping float32 arithmetic.

    Raises:
        EngineError: a weight lies outside float16's range.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            rounded = parameter.half().float()
            if not torch.isfinite(rounded).all():
                raise EngineError("weight does not fit float16", where=name)
            parameter.copy_(rounded)
