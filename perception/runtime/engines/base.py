"""What every inference backend offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]


@dataclass(frozen=True)
class TensorSpec:
    """Name and shape of an input or output; a dimension that varies is None."""

    name: str
    shape: tuple[int | None, ...]


class Engine(ABC):
    """One loaded graph.

    Attributes:
        backend: name of what runs it, such as `onnxruntime-cpu`.
        inputs, outputs: the graph's tensors, all float32.
        runs: how often it has run.
    """

    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runs: int = 0

    @abstractmethod
    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once.

        Args:
            feeds: every input by name, C-contiguous float32.

        Returns:
            Every output by name.  The arrays are the caller's to keep.

        Raises:
            EngineError: an input is missing or has another shape, or the backend failed.
        """
