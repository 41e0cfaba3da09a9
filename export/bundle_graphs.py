"""Graphs of a bundle besides its encoders and fuser: one for everything, or for exactly one subset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.bundle_folder import copy_files, replacing_bundle
from export.compose import compose, load_graph
from export.ends import end_in_labels
from export.onnx_files import graph_problems
from perception.errors import BundleError, ConfigError, ParityError, names_hint
from perception.files.writing import writing
from perception.frame import KINDS, in_order, subset_name, subsets_of
from perception.runtime.bundle import Bundle, sha256_of, write_bundle
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import probe_inputs, relative_error
from perception.runtime.manifest import GraphFile, Graphs
from perception.runtime.modular import run_forms
from perception.runtime.wiring import FUSER, Wiring

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
    subsets: tuple[tuple[str, ...], ...] = ()

    @property
    def composed(self) -> bool:
        """Whether there is more than every bundle has."""
        return self.single or bool(self.subsets)

    def names(self) -> list[str]:
        """`single` and the subsets' names."""
        return [*(["single"] if self.single else []), *(subset_name(s) for s in self.subsets)]

    def lacking(self, graphs: Graphs) -> list[str]:
        """Those of `names` that a bundle has not."""
        there = {*graphs.subsets, *(["single"] if graphs.single is not None else [])}
        return [name for name in self.names() if name not in there]


def parse_choice(
    arguments: Sequence[str], names: Sequence[str], judged: Sequence[tuple[str, ...]] = ()
) -> GraphChoice:
    """What `--subset` asks for.

    Args:
        arguments: each `all`, `modular`, `single`, or inputs joined by commas (or `+`).
        names: the bundle's inputs.
        judged: what `all` means; none for `subsets_of`.

    Raises:
        ConfigError: a word is unknown, or the bundle lacks an input.
    """
    if "all" in arguments:
        return GraphChoice(True, True, tuple(judged or subsets_of(names)))
    subsets: list[tuple[str, ...]] = []
    for argument in arguments:
        if argument in _WORDS:
            continue
        wanted = [w.strip() for w in argument.replace("+", ",").split(",")]
        for word in wanted:
            if word not in names:
                unknown = word not in KINDS
                raise ConfigError(
                    f"unknown '{word}'" if unknown else f"the bundle has no {word}",
                    where="--subset",
                    hint=names_hint(word, [*_WORDS, *names]),
                )
        subsets.append(tuple(n for n in in_order(names) if n in wanted))
    return GraphChoice(
        not arguments or "modular" in arguments,
        "single" in arguments,
        tuple(dict.fromkeys(subsets)),
    )


def subset_suffix(subset: Collection[str]) -> str:
    """What a subset's files end with: `_rgb_depth` where sensors are called as their kinds, `.left.right`.

    A dot is in no name, as `_` may be: no two subsets have one ending.
    """
    mark = "_" if set(subset) <= set(KINDS) else "."
    return mark + mark.join(subset)


def subset_file(subset: Collection[str]) -> str:
    """Name of a subset's graph file."""
    return f"subset{subset_suffix(subset)}.onnx"


def write_composed(folder: Path, graphs: Graphs, wiring: Wiring, choice: GraphChoice) -> Graphs:
    """Write the graphs of `choice` that are not there, from the encoders and fuser in `folder`.

    Args:
        folder: a bundle's folder.
        graphs: what the bundle has.
        wiring: how they are joined.
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
    files = {**{name: g.file for name, g in graphs.encoders.items()}, FUSER: graphs.fuser.file}
    models = {name: load_graph(folder / file) for name, file in files.items()}
    taken = {*files.values(), *(g.file for g in graphs.subsets.values())}

    def write(file: str, subset: tuple[str, ...] | None) -> GraphFile:
        if file in taken:
            raise BundleError(f"its {file} is another graph", where=str(folder))
        with graph_problems(folder, "the graphs cannot be joined"):
            model = compose(models, wiring, subset)
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


def with_graphs(
    source: Bundle,
    out: Path,
    choice: GraphChoice,
    threads: int | None = None,
    labels: bool = False,
) -> dict[str, float]:
    """Make a bundle that has further graphs, or other ends; see `add_graphs`.

    Args:
        source: the bundle; what was measured of it goes over.
        out: folder of the new one; a bundle that is there is replaced at the end, and only then.
        choice: what it shall have.
        threads: CPU threads for the comparison, None for all.
        labels: let its graphs end in labels, see `end_in_labels`.
    """
    with replacing_bundle(out, source.path) as folder:
        copy_files(source, folder)
        if labels:
            end_in_labels(folder, threads)
        return add_graphs(folder, choice, threads)


def add_graphs(folder: Path, choice: GraphChoice, threads: int | None = None) -> dict[str, float]:
    """Add graphs to a new bundle before it is in its place, and hold each against the separate graphs.

    Returns:
        By name of the graph, its relative error on a made-up frame.

    Raises:
        BundleError, EngineError: see `write_composed`.
        ParityError: a graph computes something else than the separate ones.
    """
    bundle = Bundle.open(folder, verify=False)
    manifest = bundle.manifest
    graphs = write_composed(folder, manifest.graphs, manifest.wiring, choice)
    files = {
        g.file: sha256_of(folder / g.file) for g in [graphs.single, *graphs.subsets.values()] if g
    }
    changed = manifest.model_copy(update={"graphs": graphs, "files": {**manifest.files, **files}})
    write_bundle(folder, changed, bundle.records)
    return compare_graphs(Bundle(bundle.files, changed), choice, threads)


def compare_graphs(
    bundle: Bundle, choice: GraphChoice, threads: int | None = None
) -> dict[str, float]:
    """Hold the composed graphs of a choice, all of which the bundle has, against the separate ones.

    Returns, Raises:
        See `add_graphs`.
    """
    manifest, own = bundle.manifest, set(choice.names())
    graphs = manifest.graphs.model_copy(
        update={
            "single": manifest.graphs.single if choice.single else None,
            "subsets": {n: g for n, g in manifest.graphs.subsets.items() if n in own},
        }
    )

    def load(file: str) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(bundle.source(file), "cpu", threads)

    errors = dict.fromkeys(choice.names(), 0.0)
    subsets = dict.fromkeys([*manifest.subsets, *choice.subsets])
    images = probe_inputs(manifest.inputs)
    for subset, forms in run_forms(graphs, manifest.wiring, load, images, subsets):
        wanted = forms.pop("modular")
        for form, found in forms.items():
            name = form if form == "single" else subset_name(subset)
            errors[name] = max(errors[name], relative_error(found, wanted))
    for name, error in errors.items():
        if not error <= _LIMITS.get(manifest.precision, _LOOSE):
            raise ParityError(
                f"the graph {name} differs from encoders and fuser by {error:.1e}",
                where=str(bundle.path),
            )
    return errors
