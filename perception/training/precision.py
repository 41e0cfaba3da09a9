"""The arithmetic of training: bfloat16 where it is safe, or float32 throughout."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["bfloat16", "float32"]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a model computes its outputs.

    Args:
        device: on which it computes.
        precision: `bfloat16` for the operations that PyTorch deems safe in it; `float32` for none.
    """
    # Entered for float32, too: it ends a bfloat16 context around it.
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
