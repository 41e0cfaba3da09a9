"""Accuracy of candidates: slices of the super-network, with statistics of their own, in int8 or float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from export.folding import fold_batch_norm
from perception.errors import ConfigError
from perception.frame import subset_name, subsets_of
from perception.models.anyfuse import AnyFuse
from perception.models.elastic import extract
from perception.models.interface import Features, FusionModel, ModelOutput
from perception.search.quantization import fake_quantize
from perception.search.space import Decoded
from perception.tasks.registry import judged
from perception.training.dataset import FusionDataset, network_inputs
from perception.training.precision import Precision, autocast
from perception.training.validate import Meters

Inputs = dict[str, Tensor]

_BATCH = 8


def stack_inputs(data: FusionDataset, indices: Sequence[int]) -> list[Inputs]:
    """Network inputs of some frames, unaugmented, in batches; (N, C, H, W) float32 by modality."""
    batches: list[Inputs] = []
    for start in range(0, len(indices), _BATCH):
        frames = [
            network_inputs(data.raw(i), data.contract) for i in indices[start : start + _BATCH]
        ]
        batch: Inputs = {}
        for modality in data.contract.modalities:
            stacked = torch.from_numpy(np.stack([np.asarray(f[modality]) for f in frames]))
            batch[modality] = stacked.contiguous(memory_format=torch.channels_last)
        batches.append(batch)
    return batches


def forward_subsets(model: FusionModel, inputs: Inputs) -> Iterator[tuple[str, ModelOutput]]:
    """Outputs for every subset of the modalities; each encoder runs once."""
    features: dict[str, Features] = {m: model.encode(m, x) for m, x in inputs.items()}
    for subset in subsets_of(model.modalities):
        yield subset_name(subset), model.fuse({m: features[m] for m in subset})


@torch.no_grad()
def recalibrate(model: FusionModel, batches: Sequence[Inputs], precision: Precision) -> None:
    """Give a sub-network's normalizations the statistics of its own activations, over all subsets."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    # In the arithmetic of training, which is faster; the statistics themselves are kept in float32.
    with autocast(torch.device("cpu"), precision):
        for inputs in batches:
            for _ in forward_subsets(model, inputs):
                pass
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


class Judge:
    """Scores candidates of one super-network.

    Args:
        model: the super-network, with the weights to slice.
        train: frames for the normalizations' statistics and the ranges of activations; those that lack
            a sensor are passed over.
        val: labeled frames that have all sensors of the model.
        tasks: what is scored.
        statistics: how many training frames are used.
        ranges: how many of these for the ranges of activations.
        precision: the arithmetic of training.

    Raises:
        ConfigError: there are too few frames.
    """

    def __init__(
        self,
        model: AnyFuse,
        train: FusionDataset,
        val: FusionDataset,
        tasks: Sequence[str],
        statistics: int = 32,
        ranges: int = 6,
        precision: Precision = "bfloat16",
    ) -> None:
        if len(train) < _BATCH or not len(val):
            raise ConfigError(f"needs at least {_BATCH} training frames and one to validate on")
        self.model, self.val, self.tasks = model, val, list(tasks)
        self._judged = judged(tasks)
        self.precision = precision
        picked = _with_all_sensors(train, min(statistics, len(train)))
        count = len(picked)
        self._statistics = stack_inputs(train, picked)
        self._ranges = stack_inputs(train, picked[:: max(1, count // ranges)][:ranges])

    def network(self, candidate: Decoded) -> AnyFuse:
        """The sub-network in float, with statistics of its own."""
        small = extract(self.model, candidate.architecture)
        recalibrate(small, self._statistics, self.precision)
        return small

    def scores(
        self, network: AnyFuse, int8: Sequence[str], frames: Sequence[int]
    ) -> dict[str, float]:
        """mIoU or AP50 (the mean of both where there are both) by subset.

        Args:
            network: of `network`.
            int8: the layers to be simulated in int8.
            frames: indices into the validation frames.

        Raises:
            ConfigError: none of these frames has truth.
        """
        folded = fold_batch_norm(network)
        assert isinstance(folded, FusionModel)
        folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if int8:
            fake_quantize(folded, int8, self._passes(folded))
        return self._score(folded, frames)

    @torch.no_grad()
    def _passes(self, model: FusionModel) -> Iterator[None]:
        for inputs in self._ranges:
            for _ in forward_subsets(model, inputs):
                pass
            yield

    @torch.no_grad()
    def _score(self, model: FusionModel, frames: Sequence[int]) -> dict[str, float]:
        meters: dict[str, Meters] = {}
        for start in range(0, len(frames), _BATCH):
            chunk = frames[start : start + _BATCH]
            for inputs in stack_inputs(self.val, chunk):
                for name, output in forward_subsets(model, inputs):
                    meter = meters.setdefault(name, Meters(self.val, model.tasks))
                    for place, index in enumerate(chunk):
                        meter.add(index, _one(output, place))
        found: dict[str, float] = {}
        for name, meter in meters.items():
            known = [v for k, v in meter.scores().items() if k in self._judged and np.isfinite(v)]
            if not known:
                raise ConfigError(
                    f"none of {len(frames)} frames has truth to choose by",
                    where=self.val.recording.info.name,
                )
            found[name] = float(np.mean(known))
        return found


def _with_all_sensors(data: FusionDataset, count: int) -> list[int]:
    """Indices of up to `count` frames that have every sensor, spread evenly where all have."""
    spread = [i * len(data) // count for i in range(count)]
    found: list[int] = []
    for index in dict.fromkeys([*spread, *range(len(data))]):
        if len(found) < count and data.modalities(index) == data.contract.modalities:
            found.append(index)
    if len(found) < _BATCH:
        sensors = ", ".join(data.contract.modalities)
        raise ConfigError(f"needs at least {_BATCH} training frames that have all of {sensors}")
    return sorted(found)


def _one(output: ModelOutput, place: int) -> ModelOutput:
    part = slice(place, place + 1)
    return ModelOutput(tree_map(lambda x: x[part], output.values))
