"""Why a loss is not finite."""

from __future__ import annotations

import numpy as np
import torch

from perception.errors import ConfigError
from perception.training.config import TrainConfig, in_words
from perception.training.dataset import Batch, FusionDataset, network_inputs, tensors_of


def not_finite(
    data: FusionDataset, config: TrainConfig, batch: Batch, epoch: int, step: int
) -> ConfigError:
    """What went into the step, or else the weights.

    Args:
        data: the training frames.
        config: of the run.
        batch: of the step.
        epoch, step: counted from 0.
    """
    for name, values in batch.inputs.items():
        if not all(torch.isfinite(x).all() for x in tensors_of(values)):
            frame = next((f for f in range(len(data)) if _spoiled(data, f, name)), -1)
            place = f", frame {data.recording.ids[frame]}" if frame >= 0 else ""
            return ConfigError(
                f"the network input of {name} is not finite",
                where=f"{in_words(config.data.source)}{place}",
                hint="look at the values of the sample, and at preprocess",
            )
    return ConfigError(
        f"the loss is not finite any more in epoch {epoch + 1}, step {step + 1}",
        hint="lower optimizer.lr",
    )


def _spoiled(data: FusionDataset, frame: int, name: str) -> bool:
    values = network_inputs(data.raw(frame), data.contract).get(name)
    return values is not None and not all(np.isfinite(x).all() for x in tensors_of(values))
