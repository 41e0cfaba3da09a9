"""Graphs of a bundle besides its encoders and fuser: one for everything, or for exactly one subset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.compose import FUSER, compose, load_graph
from export.onnx_files import graph_problems
from perception.errors import BundleError, ConfigError, ParityError
from perception.files.writing import writing
from perception.frame import MODALITIES, Modality, subset_name, subsets_of
from perception.runtime.bundle import Bundle, sha256_of, write_manifest
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import probe_inputs, relative_error
from perception.runtime.manifest import GraphFile, Graphs

SINGLE_FILE = "single.onnx"

_WORDS = ("all", "modular", "single")

# Largest relative error of a composed graph against the separate ones.  Rounding to 8 or 16 bits may
# fall differently where a backend fuses across what was the border of two graphs.
_LIMITS = {"fp32": 1e-3}
_LOOSE = 0.05


@dataclass(frozen=True)
class GraphChoice:
    """Which graphs of a bundle are meant.

    Attributes:
        modular: the encoders and the fuser.
        single: one graph of everything, with the input `presence`.
        subsets: those that have a graph of their own.
    """

    modular: bool = True
    single: bool = False
    subsets: tuple[tuple[Modality, ...], ...] = ()

    @property
    def composed(self) -> bool:
        """Whether there is more than every bundle has."""
        return self.single or bool(self.subsets)

    def names(self) -> list[str]:
        """`single` and the subsets' names."""
        return [*(["single"] if self.single else []), *(subset_name(s) for s in self.subsets)]


def parse_choice(arguments: Sequence[str], modalities: Sequence[Modality]) -> GraphChoice:
    """What `--subset` asks for.

    Args:
        arguments: each `all`, `modular`, `single`, or modalities joined by commas (or `+`).
        modalities: those of the bundle.

    Raises:
        ConfigError: a word is unknown, or the bundle lacks a modality.
    """
    if "all" in arguments:
        return GraphChoice(True, True, tuple(subsets_of(modalities)))
    subsets: list[tuple[Modality, ...]] = []
    for argument in arguments:
        if argument in _WORDS:
            continue
        wanted = [w.strip() for w in argument.replace("+", ",").split(",")]
        for word in wanted:
            if word not in modalities:
                unknown = word not in MODALITIES
                raise ConfigError(
                    f"unknown '{word}'" if unknown else f"the bundle has no {word}",
                    where="--subset",
                    hint=f"{', '.join(_WORDS)}, or of {','.join(modalities)}",
                )
        subsets.append(tuple(m for m in MODALITIES if m in wanted))
    return GraphChoice(
        not arguments or "modular" in arguments,
        "single" in arguments,
        tuple(dict.fromkeys(subsets)),
    )


def subset_file(subset: Iterable[Modality]) -> str:
    """Name of a subset's graph file."""
    return f"subset_{'_'.join(subset)}.onnx"


def write_composed(folder: Path, graphs: Graphs, choice: GraphChoice) -> Graphs:
    """Write the graphs of `choice` that are not there, from the encoders and fuser in `folder`.

    Args:
        folder: a bundle's folder.
        graphs: what the bundle has.
        choice: which.

    Returns:
        What the bundle has then.

    Raises:
        BundleError: a file of that name is something else, or cannot be written.
        EngineError: a graph is none, or has no fixed sizes, or cannot be joined to the others.
    """
    single = choice.single and graphs.single is None
    subsets = [s for s in choice.subsets if subset_name(s) not in graphs.subsets]
    if not single and not subsets:
        return graphs
    files = {**{str(m): g.file for m, g in graphs.encoders.items()}, FUSER: graphs.fuser.file}
    models = {name: load_graph(folder / file) for name, file in files.items()}
    taken = {*files.values(), *(g.file for g in graphs.subsets.values())}

    def write(file: str, subset: tuple[Modality, ...] | None) -> GraphFile:
        if file in taken:
            raise BundleError(f"its {file} is another graph", where=str(folder))
        with graph_problems(folder, "the graphs cannot be joined"):
            model = compose(models, subset)
        with writing(folder / file, error=BundleError) as partial:
            onnx.save(model, partial)
        return GraphFile(file=file)

    whole = write(SINGLE_FILE, None) if single else graphs.single
    own = {subset_name(s): write(subset_file(s), s) for s in subsets}
    return graphs.model_copy(update={"single": whole, "subsets": {**graphs.subsets, **own}})


def graph_files(bundle: Bundle, choice: GraphChoice) -> list[str]:
    """Files of the graphs of `choice`, all of which the bundle has."""
    graphs = bundle.manifest.graphs
    files = []
    if choice.modular:
        files += [*(g.file for g in graphs.encoders.values()), graphs.fuser.file]
    if choice.single and graphs.single is not None:
        files.append(graphs.single.file)
    return files + [graphs.subsets[subset_name(s)].file for s in choice.subsets]


def add_graphs(bundle: Bundle, choice: GraphChoice, threads: int | None = None) -> dict[str, float]:
    """Add graphs to a bundle folder, and hold each against the separate graphs.

    Args:
        bundle: an opened folder; it gets another manifest, which is written.
        choice: what it shall have.
        threads: CPU threads for the comparison, None for all.

    Returns:
        By name of the graph, its relative error on a made-up frame.

    Raises:
        BundleError: the bundle is a zip.
        EngineError: see `write_composed`.
        ParityError: a graph computes something else than the separate ones.
    """
    if not bundle.is_folder:
        raise BundleError("is a zip; graphs are added to a folder only", where=str(bundle.path))
    manifest = bundle.manifest
    before = set(manifest.graph_files())
    possible = {*([SINGLE_FILE] if choice.single else []), *map(subset_file, choice.subsets)}
    possible -= before
    try:
        graphs = write_composed(bundle.path, manifest.graphs, choice)
        changed = manifest.model_copy(update={"graphs": graphs})
        new = [file for file in changed.graph_files() if file not in before]
        files = {**manifest.files, **{f: sha256_of(bundle.path / f) for f in new}}
        changed = changed.model_copy(update={"files": files})
        errors = _errors(Bundle(bundle.files, changed), choice, threads)
        for name, error in errors.items():
            if not error <= _LIMITS.get(manifest.precision, _LOOSE):
                raise ParityError(
                    f"the graph {name} differs from encoders and fuser by {error:.1e}",
                    where=str(bundle.path),
                )
        if new:
            write_manifest(bundle.path, changed)
    except BaseException:
        for file in possible:
            (bundle.path / file).unlink(missing_ok=True)
        raise
    bundle.manifest = changed
    return errors


def _errors(bundle: Bundle, choice: GraphChoice, threads: int | None) -> dict[str, float]:
    graphs, contract = bundle.manifest.graphs, bundle.manifest.inputs

    def load(file: str) -> Engine:
        return OnnxRuntimeEngine(bundle.source(file), "cpu", threads)

    images = probe_inputs(contract)
    features: dict[str, dict[str, Tensor]] = {
        m: load(graph.file).run({m: images[m]}) for m, graph in graphs.encoders.items()
    }
    fuser = load(graphs.fuser.file)

    def wanted(subset: Sequence[str]) -> dict[str, Tensor]:
        feeds = {"presence": _presence(subset)}
        for modality, found in features.items():
            there = modality in subset
            feeds |= {n: v if there else np.full_like(v, np.nan) for n, v in found.items()}
        return fuser.run(feeds)

    errors = {}
    if choice.single and graphs.single is not None:
        engine = load(graphs.single.file)
        errors["single"] = max(
            relative_error(
                engine.run(
                    {
                        "presence": _presence(subset),
                        **{m: x if m in subset else x * np.nan for m, x in images.items()},
                    }
                ),
                wanted(subset),
            )
            for subset in subsets_of(contract.modalities)
        )
    for subset in choice.subsets:
        engine = load(graphs.subsets[subset_name(subset)].file)
        found = engine.run({m: images[m] for m in subset})
        errors[subset_name(subset)] = relative_error(found, wanted(subset))
    return errors


def _presence(subset: Sequence[str]) -> Tensor:
    return np.array([m in subset for m in MODALITIES], np.float32)
