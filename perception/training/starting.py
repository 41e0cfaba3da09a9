"""Starting from other runs and bundles, and freezing parts of a model for its first epochs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perception.errors import BundleError, ConfigError, meant, names_hint
from perception.models.interface import FusionModel
from perception.models.layers import normalized
from perception.models.registry import build_model
from perception.runtime.bundle import Bundle, bundle_folders, bundles_in, find_bundle
from perception.runtime.records import MANIFEST
from perception.tasks.spec import TaskSpec
from perception.training.checkpoint import load_checkpoint
from perception.training.config import FreezeSpec, ModelSpec
from perception.training.from_bundle import model_of_bundle, settle

_MOST_PARTS = 12


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


def start(
    model: FusionModel, spec: ModelSpec, samples: Callable[[], list[dict[str, Any]]]
) -> list[str]:
    """Start from everything that `spec.start_from` lists, runs and bundles; later ones win.

    Args:
        model: changed in place.
        spec: what the model was built from.
        samples: gives inputs of some training batches, on the model's device, by name.

    Returns:
        What is to be said of it.

    Raises:
        AnySenseError: see `start_from` and `start_from_bundle`.
    """
    notes: list[str] = []
    for name in spec.start_from:
        if (bundle := bundle_of(name)) is None:
            start_from(model, [name])
        else:
            notes += start_from_bundle(model, spec, bundle, name, samples)
    return notes


def bundle_of(name: str, where: str = "") -> Path | None:
    """The bundle of that name or path; None where it is a run's.

    Args:
        name: a name or a path.
        where: the field that names it, for messages; by default that of a start.

    Raises:
        ConfigError: it is a name, and nothing has it.
    """
    path = Path(name)
    if path.exists():
        found = path.suffix == ".zip" or (path / MANIFEST).is_file()
        return path if found else None
    try:
        return find_bundle(name)
    except BundleError as error:
        if path.name != name or path.suffix:
            return None
        hint = f"{meant(name, bundles_in(bundle_folders()))} give a run folder, a checkpoint, or a bundle"
        raise ConfigError(
            "no such run, and no bundle of that name",
            where=where or f"model.start_from: {name}",
            hint=f"{hint} by name or path".lstrip(),
        ) from error


def start_from_bundle(
    model: FusionModel,
    spec: ModelSpec,
    path: Path,
    name: str,
    samples: Callable[[], list[dict[str, Any]]],
) -> list[str]:
    """Take over a bundle's weights: encoders of inputs of the same name, else of the same kind, and the rest.

    What depends on the classes of a task whose classes differ, and what the bundle has no like of, stays as
    it is.

    Args:
        model, spec, samples: see `start`.
        path: the bundle.
        name: as the configuration has it.

    Raises:
        BundleError: it is damaged.
        ConfigError: it is of another model, or nothing fits.
    """
    where = f"model.start_from: {name}"
    bundle = Bundle.open(path)
    source = model_of_bundle(bundle, spec, where)
    given, own = source.state_dict(), model.state_dict()
    encoders = _encoders(model, source)
    others = _of_classes(model, source, spec)
    kept: dict[str, Tensor] = {}
    for key, value in own.items():
        if _foreign(key, model, encoders) or _within(key, model.training_parts):
            continue
        theirs = key if key in given else _renamed(key, encoders)
        if theirs in given and theirs not in others and given[theirs].shape == value.shape:
            kept[key] = given[theirs]
    if not any(value.ndim > 1 for value in kept.values()):
        raise ConfigError("has no weights that fit the model", where=where)
    model.load_state_dict(kept, strict=False)
    pairs = [p for p in normalized(model) if f"{p[1]}.running_var" in kept]
    known = [n for n in model.modalities if model.encoder_of[n] in encoders]
    settle(model, pairs, _subsets(samples(), known))
    new = [k for k in own if k not in kept and not k.endswith("num_batches_tracked")]
    manifest, licence = bundle.manifest, bundle.manifest.licence.weights
    notes = [f"starts from the bundle {manifest.name} (its weights: {licence})"]
    notes.append(f"kept: {_summary(kept, own)}")
    notes.append(f"made anew: {_summary(new, own) or 'nothing'}")
    notes += [
        f"preprocessing of {n} is not the bundle's, whose weights expect their own"
        for n in known
        if n in manifest.inputs and manifest.inputs[n].preprocess != model.inputs[n].preprocess
    ]
    return notes


def _encoders(model: FusionModel, source: FusionModel) -> dict[str, str]:
    """By encoder of the model that of the bundle: of its name and kind, else the only one of its kind."""

    def kinds(of: FusionModel) -> dict[str, str]:
        return {of.encoder_of[n]: of.kinds[n] for n in of.modalities}

    theirs, found = kinds(source), {}
    for encoder, kind in kinds(model).items():
        alike = [name for name, other in theirs.items() if other == kind]
        if encoder in alike or len(alike) == 1:
            found[encoder] = encoder if encoder in alike else alike[0]
    return found


def _renamed(key: str, encoders: Mapping[str, str]) -> str:
    return ".".join(encoders.get(part, part) for part in key.split("."))


def _foreign(key: str, model: FusionModel, encoders: Mapping[str, str]) -> bool:
    """Whether a tensor is of an encoder that the bundle has none for, though maybe one of its name."""
    parts = key.split(".")
    return parts[0] == "encoders" and parts[1] in model.encoders and parts[1] not in encoders


def _of_classes(model: FusionModel, source: FusionModel, spec: ModelSpec) -> set[str]:
    """Names of what depends on the classes of tasks whose classes are not the same in both."""
    grown: dict[str, TaskSpec] = {}
    for task, own in source.tasks.items():
        wanted = [c.name for c in model.tasks[task].labels] if task in model.tasks else []
        if own.labels and wanted and wanted != [c.name for c in own.labels]:
            last = own.labels[-1]
            more = last.model_copy(update={"id": last.id + 1, "name": f"{last.name} again"})
            grown[task] = own.model_copy(update={"classes": (*own.labels, more)})
    if not grown:
        return set()
    tasks = {**source.tasks, **grown}
    other = build_model(
        spec.name, source.inputs, tasks, pretrained=False, options=spec.options
    ).state_dict()
    given = source.state_dict()
    return {k for k, v in given.items() if k not in other or other[k].shape != v.shape}


def _subsets(samples: list[dict[str, Any]], known: Sequence[str]) -> list[dict[str, Any]]:
    """All known inputs of each sample together, and each of them alone."""
    found: list[dict[str, Any]] = []
    for inputs in samples:
        there = {n: inputs[n] for n in known if n in inputs}
        alone = [{n: x} for n, x in there.items()] if len(there) > 1 else []
        found += [each for each in (there, *alone) if each]
    return found


def _within(key: str, parts: Collection[str]) -> bool:
    return any(key.startswith(f"{part}.") for part in parts)


def _summary(names: Collection[str], every: Collection[str]) -> str:
    """Names of parts, as far up as all in them is named."""
    chosen = {n for n in every if n in names}
    counted = [n for n in every if not n.endswith("num_batches_tracked")]
    parts: dict[str, None] = {}
    for name in counted:
        if name not in chosen:
            continue
        pieces = name.split(".")
        for length in range(1, len(pieces) + 1):
            part = ".".join(pieces[:length])
            inside = [n for n in counted if n == part or n.startswith(f"{part}.")]
            if all(n in chosen for n in inside):
                parts.setdefault(part)
                break
    listed = list(parts)
    more = f" and {len(listed) - _MOST_PARTS} more" if len(listed) > _MOST_PARTS else ""
    return ", ".join(listed[:_MOST_PARTS]) + more


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
                    hint=names_hint(name, [n for n, _ in model.named_children()]),
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
