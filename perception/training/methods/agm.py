"""Adaptive gradient modulation: a modality that runs ahead of the others learns more slowly.

Li, Li, Hu, Lei, Li, Zhou, "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation",
ICCV 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from perception.errors import ConfigError
from perception.models.heads import half_of
from perception.models.interface import Features, FusionModel, ModelOutput
from perception.training.config import LossSpec
from perception.training.dataset import Batch
from perception.training.distributed import here
from perception.training.methods.base import TrainingMethod
from perception.training.methods.gradients import kept_statistics, scale_encoder_gradients
from perception.training.objectives import Tensors, task_terms, truths_for


class AdaptiveGradientModulation(TrainingMethod):
    """Scale each encoder's gradient by how far its modality's own response is ahead.

    The response of a modality is its Shapley value in the joint output: the mean, over orders in
    which the modalities may join, of what the output changes when it joins; exact for two, from one
    random order for more.  With s the response's mean log-likelihood, r = exp(s - mean of the others'
    s), and t the running mean of r, the encoder's gradient is multiplied by exp(-alpha (r - t)).

    Logged: `agm/response_<m>`, s; `agm/factor_<m>`; and, where the model has a unimodal auxiliary
    head, `agm/competition_<m>`: how many nats worse the response in the joint output is than that
    head, which learns from the same features without competition.

    Args:
        model: the model that is trained.
        alpha: strength; 0 changes nothing.
        momentum: of the running mean t.
    """

    divides = True

    def __init__(self, model: FusionModel, alpha: float = 1.0, momentum: float = 0.02) -> None:
        super().__init__(model)
        if alpha < 0 or not 0 < momentum <= 1:
            raise ConfigError(
                "alpha must not be negative, momentum in 0..1", where="method.options"
            )
        self.alpha, self.momentum = alpha, momentum
        self._generator = torch.Generator().manual_seed(0)

    def backward(
        self, terms: Tensors, inputs: Tensors, output: ModelOutput, batch: Batch
    ) -> Tensor:
        """Plain backward, then modulation where two or more modalities took part.

        A batch without truth tells nothing of who is ahead.
        """
        loss = super().backward(terms, inputs, output, batch)
        if len(inputs) > 1 and any(task in terms for task in self.model.tasks):
            scores = self.responses(inputs, batch)
            self._log_competition(scores, output, batch)
            scale_encoder_gradients(self.model, self.factors(scores))
        return loss

    def factors(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The factor of each modality from its response; updates the running means."""
        factors = {}
        for modality, score in scores.items():
            others = [s for m, s in scores.items() if m != modality]
            ratio = math.exp(max(-5.0, min(5.0, score - sum(others) / len(others))))
            key = f"reference_{modality}"
            reference = self.state.get(key, ratio)
            self.state[key] = reference + self.momentum * (ratio - reference)
            exponent = -self.alpha * (ratio - reference)
            factors[modality] = math.exp(max(-3.0, min(3.0, exponent)))
            self.log(f"agm/response_{modality}", score)
            self.log(f"agm/factor_{modality}", factors[modality])
        return factors

    @torch.no_grad()
    def responses(self, inputs: Mapping[str, Tensor], batch: Batch) -> dict[str, float]:
        """Mean log-likelihood (minus the tasks' loss) of each modality's Shapley value."""
        names = list(inputs)
        with kept_statistics(self.model):
            features = {m: self.model.encode(m, x) for m, x in inputs.items()}
            values: dict[tuple[str, ...], ModelOutput] = {}
            changes: dict[str, list[ModelOutput]] = {m: [] for m in names}
            for order in self._orders(names):
                for place, modality in enumerate(order):
                    with_it = self._value(features, order[: place + 1], values, batch)
                    before = self._value(features, order[:place], values, batch) if place else None
                    changes[modality].append(self._difference(with_it, before))
        return {m: -self._task_loss(self._mean(outputs), batch) for m, outputs in changes.items()}

    def _orders(self, names: list[str]) -> list[list[str]]:
        if len(names) == 2:
            return [names, names[::-1]]
        drawn = torch.randperm(len(names), generator=self._generator).tolist()
        return [[names[i] for i in drawn]]

    def _value(
        self,
        features: Mapping[str, Features],
        subset: list[str],
        known: dict[tuple[str, ...], ModelOutput],
        batch: Batch,
    ) -> ModelOutput:
        key = tuple(m for m in features if m in subset)
        if key not in known:
            output = self.model.fuse({m: features[m] for m in key})
            known[key] = here().whole(output, batch.frames)
        return known[key]

    def _task_loss(self, output: ModelOutput, batch: Batch) -> float:
        terms = task_terms(output, truths_for(output, batch), LossSpec(), {})
        return sum(float(v) for v in terms.values())

    def _log_competition(
        self, scores: Mapping[str, float], output: ModelOutput, batch: Batch
    ) -> None:
        task = self.model.aux_task
        truths = truths_for(output, batch)
        if task not in truths:
            return
        for modality in scores.keys() & output.aux.keys():
            alone = half_of(task).auxiliary_loss(output.aux[modality].detach(), truths[task])
            self.log(f"agm/competition_{modality}", -float(alone) - scores[modality])

    def _difference(self, a: ModelOutput, b: ModelOutput | None) -> ModelOutput:
        return a if b is None else self._mixed([b, a], [-1.0, 1.0])

    def _mean(self, outputs: list[ModelOutput]) -> ModelOutput:
        return self._mixed(outputs, [1 / len(outputs)] * len(outputs))

    def _mixed(self, outputs: list[ModelOutput], factors: list[float]) -> ModelOutput:
        return ModelOutput(
            {t: half_of(t).mix([o.values[t] for o in outputs], factors) for t in self.model.tasks}
        )
