"""The loss terms of one batch, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.training.config import LossSpec
from perception.training.dataset import Batch

Tensors = dict[str, Tensor]


def loss_terms(
    model: FusionModel,
    output: ModelOutput,
    batch: Batch,
    spec: LossSpec,
    prepared: Mapping[str, Any],
) -> Tensors:
    """Weighted terms: one per task, by its name, what `spec` asks for besides, `auxiliary`, and the model's.

    A task of which the batch holds no truth has no term; nor has `auxiliary` then.

    Args:
        model: gave `output`.
        output: of the forward pass in training mode.
        batch: the truth, on any device.
        spec: weights of the terms.
        prepared: by task, see `TrainingTask.prepare`.
    """
    truths = truths_for(output, batch)
    terms = task_terms(output, truths, spec, prepared)
    for task, truth in truths.items():
        terms |= half_of(task).further_losses(output.values[task], truth, spec)
    if output.aux and model.aux_task in truths:
        half, truth = half_of(model.aux_task), truths[model.aux_task]
        extra = [half.auxiliary_loss(logits, truth) for logits in output.aux.values()]
        terms["auxiliary"] = spec.auxiliary * torch.stack(extra).mean()
    return terms | model.losses(output, truths)


def alone_terms(
    outputs: Sequence[ModelOutput], batch: Batch, spec: LossSpec, prepared: Mapping[str, Any]
) -> Tensors:
    """`alone_<task>`: the mean loss of answers to single inputs, weighted as `spec` says.

    Args:
        outputs: one for each input of the step.
        batch, spec, prepared: see `loss_terms`.
    """
    each = [task_terms(o, truths_for(o, batch), spec, prepared) for o in outputs]
    return {
        f"alone_{task}": spec.alone * torch.stack([terms[task] for terms in each]).mean()
        for task in each[0]
    }


def task_terms(
    output: ModelOutput,
    truths: Mapping[str, Any],
    spec: LossSpec,
    prepared: Mapping[str, Any],
) -> Tensors:
    """The weighted terms of the tasks alone; see `loss_terms`."""
    return {
        task: spec.weight(task) * half_of(task).loss(output.values[task], truth, prepared.get(task))
        for task, truth in truths.items()
    }


def truths_for(output: ModelOutput, batch: Batch) -> dict[str, Any]:
    """By task that was answered and that the batch holds truth of, that truth, where the answer is."""
    found = {}
    for task, value in output.values.items():
        if task in batch.truths and half_of(task).known(batch.truths[task]):
            found[task] = _on(tree_leaves(value)[0].device, batch.truths[task])
    return found


def _on(device: torch.device, truths: Any) -> Any:
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, truths)


def total(terms: Tensors) -> Tensor:
    """The sum of all terms."""
    return torch.stack([term.float() for term in terms.values()]).sum()
