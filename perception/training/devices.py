"""The device to train on."""

from __future__ import annotations

import torch

from perception.errors import ConfigError
from perception.training.config import CudaSpec
from perception.training.distributed import here, local_rank


def training_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device that is there.

    Of several processes that train together, each has a GPU of its host of its own.

    Raises:
        ConfigError: no such device here, or there are fewer than processes.
    """
    usable = torch.cuda.is_available()
    if here().several and usable and name in ("auto", "cuda"):
        name = f"cuda:{local_rank()}"
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"'{name}' is no device", where="--device", hint="cpu, cuda") from error
    if device.type == "cuda" and not usable:
        built = torch.backends.cuda.is_built()
        raise ConfigError(
            "there is no CUDA GPU here" if built else "this PyTorch was built without CUDA",
            where="--device",
            hint="--device cpu, or install PyTorch for CUDA, see anysense doctor",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        hint = "as many processes as there are GPUs" if here().several else ""
        raise ConfigError(f"there is no GPU {device.index} here", where="--device", hint=hint)
    return device


def set_up(device: torch.device, spec: CudaSpec) -> None:
    """Let a GPU compute as `spec` says; changes nothing on the CPU."""
    if device.type != "cuda":
        return
    if spec.cudnn_benchmark is not None:
        torch.backends.cudnn.benchmark = spec.cudnn_benchmark
    if spec.tf32 is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = spec.tf32
