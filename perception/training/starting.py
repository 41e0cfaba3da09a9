"""Starting from other runs, and freezing parts of a model for its first epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from perception.errors import ConfigError
from perception.models.interface import FusionModel
from perception.training.checkpoint import load_checkpoint
from perception.training.config import FreezeSpec


def start_from(model: nn.Module, runs: Sequence[str]) -> int:
    """Take over averaged weights of other runs wherever name and shape agree.

    Later runs win.  The experts of SSMA come from one run each, because each of these has only the
    encoder of its own modality; a pre-trained model gives its encoders to a fine-tuned one.

    Args:
        model: changed in place.
        runs: checkpoint files or run folders.

    Returns:
        How many tensors of the model were set.

    Raises:
        DataError: a checkpoint cannot be read.
        ConfigError: a run has nothing that fits.
    """
    own = model.state_dict()
    taken: set[str] = set()
    for run in runs:
        given = load_checkpoint(Path(run)).ema
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if not any(v.ndim > 1 for v in fitting.values()):
            raise ConfigError("has no weights that fit the model", where=f"model.start_from: {run}")
        model.load_state_dict(fitting, strict=False)
        taken |= fitting.keys()
    return len(taken)


def freeze(model: nn.Module, specs: Sequence[FreezeSpec], epoch: int) -> list[str]:
    """Freeze the parts that `specs` name for this epoch, and thaw all others.

    A part is a module, or a group of `FusionModel.parameter_groups`.

    A frozen part gets no gradient, and its normalizations keep their running statistics.  Call it
    after `model.train()`.

    Returns:
        The names of the frozen parts.

    Raises:
        ConfigError: a name is no part of the model.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    frozen = []
    for spec in specs:
        for name in spec.parts:
            modules = _part(model, name)
            if not modules:
                raise ConfigError(
                    f"the model has no part '{name}'",
                    where="model.freeze",
                    hint=", ".join(n for n, _ in model.named_children()),
                )
            if epoch < spec.epochs:
                for module in modules:
                    module.requires_grad_(False).eval()
                frozen.append(name)
    if frozen and not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("everything is frozen", where="model.freeze")
    return frozen


def _part(model: nn.Module, name: str) -> list[nn.Module]:
    """The module of that name; else those whose own parameters all belong to the group of that name."""
    if name in (modules := dict(model.named_modules())):
        return [modules[name]]
    groups = model.parameter_groups() if isinstance(model, FusionModel) else {}
    wanted = {id(p) for group, own in groups.items() if group == name for p in own.values()}
    return [
        module
        for module in modules.values()
        if (own := {id(p) for p in module.parameters(recurse=False)}) and own <= wanted
    ]
