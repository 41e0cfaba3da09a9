"""Telling that memory does not suffice, on a GPU or not, from a fault of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from perception.errors import ConfigError

_CPU = "can't allocate memory"
"""What PyTorch says where there is no more; it raises nothing but a RuntimeError."""


@contextmanager
def within_memory(what: str, where: str, hint: str) -> Iterator[None]:
    """Turn what PyTorch and Python raise when memory runs out into one line.

    Args:
        what: was being done, such as "one training step".
        where: the field or option that decides how much it takes.
        hint: what to change.

    Raises:
        ConfigError: memory does not hold it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if isinstance(error, RuntimeError) and not on_gpu and _CPU not in str(error):
            raise
        owner = "the GPU's memory" if on_gpu else "memory"
        raise ConfigError(f"{owner} does not hold {what}", where=where, hint=hint) from error
