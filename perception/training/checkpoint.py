"""Checkpoints as safetensors: weights, EMA, optimizer state and progress; nothing is pickled."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from perception.errors import DataError
from perception.training.config import TrainConfig

LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass
class Checkpoint:
    """A checkpoint file's content."""

    config: TrainConfig
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    progress: dict[str, Any]


def _owned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # Shared parameters are stored once per name: safetensors refuses aliased memory.
    return {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}


def save_checkpoint(
    path: Path,
    config: TrainConfig,
    model: nn.Module,
    ema: dict[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint; an interrupted write leaves the previous one in place."""
    tensors = {f"ema.{k}": v for k, v in _owned(ema).items()}
    if optimizer is not None:
        tensors |= {f"model.{k}": v for k, v in _owned(model.state_dict()).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{k}": torch.as_tensor(v).cpu() for k, v in state.items()
            }
    metadata = {"config": config.model_dump_json(), "progress": json.dumps(progress)}
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or the best (else the last) one of a run folder.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / n for n in (BEST, LAST) if (path / n).is_file()), path / BEST)
    if not path.is_file():
        raise DataError("no such checkpoint", where=str(path))
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = TrainConfig.model_validate_json(metadata["config"])
        progress = json.loads(metadata["progress"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError("damaged or no AnySense checkpoint", where=str(path)) from error

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    return Checkpoint(config, part("model."), part("ema."), part("optimizer."), progress)


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Give `optimizer` the state that `save_checkpoint` stored."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    own = optimizer.state_dict()
    own["state"] = state
    optimizer.load_state_dict(own)
