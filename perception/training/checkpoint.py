"""Checkpoints as safetensors: weights, EMA, optimizer state and progress; nothing is pickled."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic_core import PydanticSerializationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from perception.errors import ConfigError, DataError
from perception.files.fields import check_fields
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_HEADER_BYTES, check_bytes
from perception.files.writing import writing
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


def config_text(config: TrainConfig) -> str:
    """A configuration as checkpoints keep it.

    Raises:
        ConfigError: a path in it is no text.
    """
    try:
        return config.model_dump_json()
    except PydanticSerializationError as error:
        raise ConfigError(
            "a path in the configuration is no UTF-8, and a checkpoint cannot keep it",
            hint="rename the folder",
        ) from error


def save_checkpoint(
    path: Path,
    config: TrainConfig,
    model: nn.Module,
    ema: dict[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint; an interrupted write leaves the previous one in place.

    Raises:
        DataError: it cannot be written.
    """
    tensors = {f"ema.{k}": v for k, v in _owned(ema).items()}
    if optimizer is not None:
        tensors |= {f"model.{k}": v for k, v in _owned(model.state_dict()).items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{k}": torch.as_tensor(v).cpu() for k, v in state.items()
            }
    metadata = {"config": config_text(config), "progress": json.dumps(progress)}
    with writing(path) as partial:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
        except SafetensorError as error:
            raise DataError(f"cannot be written: {error}", where=str(path)) from error
        partial.chmod(mode)  # the library's own files can be read by their owner alone


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or the best (else the last) one of a run folder.

    Raises:
        DataError: it is missing, damaged or too large, no AnySense checkpoint, or holds weights that are
            not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / n for n in (BEST, LAST) if (path / n).is_file()), path / BEST)
    if not path.exists():
        raise DataError("no such checkpoint", where=str(path))
    _check_header(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if not {"config", "progress"} <= metadata.keys():
                raise DataError(
                    "no AnySense checkpoint: holds tensors, but no configuration", where=str(path)
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DataError(f"damaged or no checkpoint: {error}", where=str(path)) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    content = _json(metadata["config"], "configuration", path)
    config = check_fields(TrainConfig, content, where=f"{path}: configuration")
    progress = _json(metadata["progress"], "progress", path)
    if not isinstance(progress, dict):
        raise DataError("damaged: its progress has no fields", where=str(path))
    spoiled = next(
        (k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()), None
    )
    if spoiled is not None:
        raise DataError(f"'{spoiled}' holds numbers that are not finite", where=str(path))

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    return Checkpoint(config, part("model."), part("ema."), part("optimizer."), progress)


def _check_header(path: Path) -> None:
    """Refuse what is no file of tensors, or claims more than it should, before any of it is read."""
    if not path.is_file():
        raise DataError("is no regular file", where=str(path))
    size = path.stat().st_size
    check_bytes(size, MAX_ARCHIVE_BYTES, where=str(path), error=DataError)
    with path.open("rb") as file:
        start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length + 8 > size:
        raise DataError("damaged or no checkpoint: is cut off", where=str(path))
    check_bytes(length, MAX_HEADER_BYTES, where=f"{path}: header", error=DataError)


def _json(text: str, what: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"damaged: its {what} is no JSON", where=str(path)) from error


def load_weights(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Give a model all of its weights.

    Args:
        model: changed in place.
        state: of `Checkpoint.ema` or `.weights`.
        where: the checkpoint, for the message.

    Raises:
        DataError: they are those of another model.
    """
    own = model.state_dict()
    fault = next((f"has no '{k}'" for k in own if k not in state), "")
    fault = fault or next((f"has '{k}' besides" for k in state if k not in own), "")
    for key, value in state.items() if not fault else ():
        if value.shape != own[key].shape:
            fault = f"'{key}' is {tuple(value.shape)}, not {tuple(own[key].shape)}"
            break
    if fault:
        raise DataError(f"holds the weights of another model: {fault}", where=where)
    model.load_state_dict(state)


def restore_optimizer(
    optimizer: torch.optim.Optimizer, flat: dict[str, Tensor], where: str = "optimizer"
) -> None:
    """Give `optimizer` the state that `save_checkpoint` stored.

    Raises:
        DataError: it is the state of another optimizer.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        place = int(index) if index.isascii() and index.isdigit() and len(index) < 9 else -1
        fits = 0 <= place < len(parameters) and value.shape in (parameters[place].shape, ())
        if not fits or name not in ("step", "exp_avg", "exp_avg_sq"):
            raise DataError(f"'optimizer.{key}' is not of this model", where=where)
        state.setdefault(place, {})[name] = value
    own = optimizer.state_dict()
    own["state"] = state
    optimizer.load_state_dict(own)
