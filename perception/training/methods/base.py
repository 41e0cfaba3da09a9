"""Training methods: what may differ between one training step and another.

A method sees the loss terms before they are summed and may add to them, weigh them, or change the
gradients.  One is chosen by name in the configuration's `method`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from perception.data.base import RecordingInfo
from perception.models.interface import FusionModel, ModelOutput
from perception.training.dataset import Batch
from perception.training.objectives import Tensors, total
from perception.training.precision import Precision


class TrainingMethod:
    """Plain training: the sum of all terms is minimized.

    Args:
        model: the model that is trained.

    Attributes:
        precision: the run's arithmetic, for what a method computes besides the model's outputs.
        average: gives the moving average of the model's weights as they are now, by name; set by the trainer.
        teachers_named: bundles and runs, as the configuration has them, whose answers are learned from.
        divides: whether several processes may train by it.  Each then has its share of the inputs, but the
            outputs and the truth of the whole batch; a method that runs the model itself brings together what
            it gives (`Ranks.whole`), and one that looks at gradients takes their mean.  Each class says so
            itself.
    """

    precision: Precision = "bfloat16"
    average: Callable[[], Mapping[str, Tensor]] | None = None
    teachers_named: Sequence[str] = ()
    divides: ClassVar[bool] = True

    def __init__(self, model: FusionModel) -> None:
        self.model = model
        self.state: dict[str, float] = {}  # what a resumed run must take up again
        self._logged: dict[str, list[float]] = defaultdict(list)

    def check(self, info: RecordingInfo, tasks: Collection[str]) -> None:
        """Called once with what is known of the training data, and the tasks of the configuration.

        Raises:
            ConfigError: the method does not fit them.
        """

    def begin(self) -> None:
        """Called once, before the first step of a new run, when the model has its first weights."""

    def extra_terms(self, inputs: Tensors, output: ModelOutput, batch: Batch) -> Tensors:
        """Further loss terms of this batch.

        Args:
            inputs: the network inputs that the model was given.
            output: what it made of them.
            batch: all inputs, those that were withheld too, and the truth.
        """
        return {}

    def backward(
        self, terms: Tensors, inputs: Tensors, output: ModelOutput, batch: Batch
    ) -> Tensor:
        """Leave the gradients of the step in the parameters; returns the loss to be logged."""
        loss = total(terms)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def log(self, name: str, value: float) -> None:
        """Note a diagnostic; the run's log gets its mean over the epoch."""
        self._logged[name].append(value)

    def diagnostics(self) -> dict[str, float]:
        """Means of what was noted since the last call, for the run's log."""
        means = {k: float(np.mean(v)) for k, v in self._logged.items()}
        self._logged.clear()
        return means
