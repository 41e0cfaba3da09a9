"""Multi-level gradient calibration: tasks are balanced at the shared part, modalities in their branches.

Huang et al., "FULLER: Unified Multi-modality Multi-task 3D Object Detection via Multi-level Gradient
Calibration", ICCV 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perception.errors import ConfigError
from perception.models.interface import FusionModel, ModelOutput
from perception.training.dataset import Batch
from perception.training.methods.base import TrainingMethod
from perception.training.methods.gradients import (
    gradient_norm,
    last_weights,
    norm_of,
    scale_encoder_gradients,
)
from perception.training.objectives import Tensors, total

LIMIT = 10.0


class GradientCalibration(TrainingMethod):
    """Equal gradient norms of the tasks, then of the modality branches.

    Tasks: the norm of each task's gradient at the last weights of the part that all tasks share is
    brought to the geometric mean of all norms, by weights that follow a running mean.  Branches: of
    what then arrives, the gradient of each modality's encoder is brought to the geometric mean of
    the encoders', so that the modality which the tasks like better does not starve the others.

    Logged: `fuller/weight_<task>`, `fuller/branch_<m>`.

    Args:
        model: the model that is trained.
        shared: name of the part that all tasks share; default: the model's `shared_part`.
        tasks, branches: whether to calibrate these.
        momentum: of the running means.
    """

    divides = True

    def __init__(
        self,
        model: FusionModel,
        shared: str | None = None,
        tasks: bool = True,
        branches: bool = True,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(model)
        part = shared or model.shared_part
        if tasks:
            if part not in dict(model.named_modules()) or not part:
                raise ConfigError(f"the model has no part '{part}'", where="method.options.shared")
            self.shared = last_weights(model, part)
        if not 0 < momentum <= 1:
            raise ConfigError("must be in 0..1", where="method.options.momentum")
        self.tasks, self.branches, self.momentum = tasks, branches, momentum

    def backward(
        self, terms: Tensors, inputs: Tensors, output: ModelOutput, batch: Batch
    ) -> Tensor:
        """Weigh the tasks, go backward, scale the branches."""
        shown = total(terms).detach()
        competing = [t for t in self.model.tasks if t in terms]
        if self.tasks and len(competing) > 1:
            norms = {
                t: norm_of(
                    torch.autograd.grad(
                        terms[t], self.shared, retain_graph=True, allow_unused=True
                    )[0]
                )
                for t in competing
            }
            weights = self._balance(norms, "weight")
            terms = {k: v * weights.get(k, 1.0) for k, v in terms.items()}
        total(terms).backward()  # type: ignore[no-untyped-call]
        if self.branches and len(inputs) > 1:
            of = self.model.encoder_of
            norms = {m: gradient_norm(self.model.encoders[of[m]].parameters()) for m in inputs}
            scale_encoder_gradients(self.model, self._balance(norms, "branch"))
        return shown

    def _balance(self, norms: dict[str, float], kind: str) -> dict[str, float]:
        """Factors that bring the running means of `norms` to their geometric mean."""
        usable = {k: v for k, v in norms.items() if v > 0 and math.isfinite(v)}
        if len(usable) < 2:
            return {}
        smooth = {}
        for name, norm in usable.items():
            key = f"{kind}_{name}"
            before = self.state.get(key, math.log(norm))
            self.state[key] = smooth[name] = before + self.momentum * (math.log(norm) - before)
        center = sum(smooth.values()) / len(smooth)
        factors = {
            name: min(LIMIT, max(1 / LIMIT, math.exp(center - value)))
            for name, value in smooth.items()
        }
        for name, factor in factors.items():
            self.log(f"fuller/{kind}_{name}", factor)
        return factors
