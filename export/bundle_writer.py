"""Writing a bundle: graphs, manifest with checksums, and proof of parity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export.bundle_folder import check_target, replacing_bundle
from export.bundle_graphs import GraphChoice, write_composed
from export.folding import fold_batch_norm, round_weights_to_half
from export.graphs import graph_specs, modular_graphs
from export.onnx_writer import OPSET, write_onnx
from export.parity import ParityRow, check_parity
from perception.data.base import RecordingInfo
from perception.errors import ConfigError
from perception.frame import subset_name, subsets_of
from perception.models.complexity import count_gmac, count_parameters
from perception.models.efficientnet_lite import LITE0
from perception.models.heads import half_of
from perception.models.interface import FusionModel
from perception.preprocess.contract import PreprocessContract
from perception.runtime.bundle import sha256_of, write_bundle
from perception.runtime.engines.probe import probe_inputs
from perception.runtime.manifest import (
    SCHEMA_VERSION,
    Licence,
    check_manifest,
    check_name,
)
from perception.runtime.records import BundleRecords
from perception.runtime.wiring import Wiring
from perception.training.building import build_from_config, recording_info
from perception.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from perception.training.config import TrainConfig
from perception.training.origins import origins_in, weights_licence


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        single: also write `single.onnx`, everything in one graph.
        subsets: those that get a graph of their own besides.
        dynamic: let height and width vary.
        half_storage: store weights as float16 (arithmetic stays float32).
        version: version of the bundle.
        name: name of the bundle; None takes the configuration's.
        licence: under what the weights may be used; what they started from is added, where it allows less.
        command: the command that trained the checkpoint, for the manifest.
    """

    single: bool = False
    subsets: tuple[tuple[str, ...], ...] = ()
    dynamic: bool = False
    half_storage: bool = True
    version: str = "1"
    name: str | None = None
    licence: str = Licence().weights
    command: str = ""


def random_images(contract: PreprocessContract, seed: int = 0) -> dict[str, Any]:
    """Random network inputs, reproducible, for every input of the contract.

    Returns:
        By input (1, C, H, W), or tensors by name, those of its kind's example.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = {}
    for name, given in probe_inputs(contract, seed).items():
        if isinstance(given, dict):
            found[name] = {n: torch.from_numpy(x) for n, x in given.items()}
        else:
            found[name] = torch.randn(contract.input_shape(name), generator=generator)
    return found


def model_from_checkpoint(checkpoint: Checkpoint) -> FusionModel:
    """The trained model with its averaged (EMA) weights, in evaluation mode."""
    info = recording_info(checkpoint.progress)
    model = build_from_config(checkpoint.config, info, pretrained=False)
    load_weights(model, checkpoint.ema, "the checkpoint")
    assert isinstance(model, FusionModel)
    return model.eval()


def export_bundle(path: Path, out: Path, options: ExportOptions) -> list[ParityRow]:
    """Export a checkpoint (file or run folder) to the bundle folder `out`.

    A bundle that is there is replaced at the end, and only then.

    Returns:
        The parity of every form and subset.

    Raises:
        ConfigError, BundleError: `out` does not fit or cannot be written, or the name cannot be a
            bundle's.
        DataError: the checkpoint cannot be read.
        EngineError: the model cannot be expressed in standard ONNX.
        ParityError: the graphs differ from PyTorch by more than the tolerance.
    """
    check_target(out)
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    if options.dynamic and config.preprocess.birdseye is not None:
        raise ConfigError("a grid on the ground has one size", where="--dynamic")
    check_name(options.name or config.name, str(path))
    model = model_from_checkpoint(checkpoint)
    folded = fold_batch_norm(model)
    assert isinstance(folded, FusionModel)
    if options.half_storage:
        round_weights_to_half(folded)
    images = random_images(config.preprocess)
    wiring = Wiring.of(model.encoder_of)
    graphs = modular_graphs(wiring, opset=OPSET, dynamic=options.dynamic)
    with replacing_bundle(out) as folder:
        for spec in graph_specs(folded, images):
            write_onnx(
                spec, folder / spec.file, dynamic=options.dynamic, half_storage=options.half_storage
            )
        choice = GraphChoice(True, options.single, options.subsets)
        graphs = write_composed(folder, graphs, wiring, choice)
        rows = check_parity(folded, folder, images, graphs)
        manifest = _manifest(checkpoint, model, images, options)
        manifest["graphs"] = graphs.model_dump()
        manifest["files"] = {p.name: sha256_of(p) for p in sorted(folder.glob("*.onnx"))}
        parity = {f"{r.form} {r.subset}": float(f"{r.max_abs:.2e}") for r in rows}
        records = BundleRecords(accuracy=_validation(checkpoint), parity=parity)
        write_bundle(folder, check_manifest(manifest, str(path)), records)
    return rows


@torch.no_grad()
def _manifest(
    checkpoint: Checkpoint,
    model: FusionModel,
    images: dict[str, Any],
    options: ExportOptions,
) -> dict[str, Any]:
    config, info = checkpoint.config, recording_info(checkpoint.progress)
    licence = weights_licence(options.licence, origins_in(checkpoint.progress))
    tasks = {
        task: half_of(task).exported(model.tasks.get(task), value).model_dump(mode="json")
        for task, value in model(images).values.items()
    }
    return {
        "schema": SCHEMA_VERSION,
        "name": options.name or config.name,
        "version": options.version,
        "description": config.description,
        "licence": {"weights": licence, "data": info.licence},
        "simulated": info.simulated,
        "inputs": config.preprocess.model_dump(mode="json"),
        "tasks": tasks,
        "training": _training(config, info, checkpoint, options),
        "model": {
            "name": config.model.name,
            "parameters": count_parameters(model),
            "gmac": {
                subset_name(s): round(count_gmac(model, {n: images[n] for n in s}), 3)
                for s in subsets_of(config.preprocess.names)
            },
        },
    }


def _training(
    config: TrainConfig, info: RecordingInfo, checkpoint: Checkpoint, options: ExportOptions
) -> dict[str, Any]:
    optional = {
        "averaged": checkpoint.progress.get("averaged"),
        "subsets": _weighted_subsets(config),
    }
    return {
        "data": info.name + (" (simulated)" if info.simulated else ""),
        "command": options.command
        or checkpoint.progress.get("command")
        or f"anysense train configs/{config.name}.yaml",
        "epochs": checkpoint.progress["epoch"],
        "start": _start(checkpoint),
        "method": config.method.name,
        "full_set_probability": config.full_set_probability,
    } | {key: value for key, value in optional.items() if value}


def _weighted_subsets(config: TrainConfig) -> dict[str, Any]:
    """Shares and weights of subsets, where the configuration gives some."""
    return {k: v for k, v in config.subsets.model_dump().items() if v}


def _start(checkpoint: Checkpoint) -> str:
    """What the weights were before training."""
    config = checkpoint.config
    if config.model.start_from:
        names = ", ".join(Path(run).name for run in config.model.start_from)
        return names if origins_in(checkpoint.progress) else f"runs {names}"
    backbone = str(config.model.options.get("backbone", LITE0)).capitalize()
    return f"ImageNet (EfficientNet-{backbone})" if config.model.pretrained else "random"


def _validation(checkpoint: Checkpoint) -> dict[str, Any]:
    scores = checkpoint.progress.get("scores")
    if not scores:
        return {}
    return {f"{recording_info(checkpoint.progress).name} val, PyTorch": {"subsets": scores}}
