"""Latency of sub-networks, predicted from measured tables.

Every block is timed alone, at each size, input shape and precision that it may have, by the backend that
will run it.  A network's prediction comes from the sums over its blocks in float and over those with
layers in int8: a linear fit to a few whole networks, really exported and timed, takes account of what
lies between blocks and of what a backend saves when blocks follow each other.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor
from torch import Tensor, nn

from export.folding import fold_batch_norm
from export.graphs import GraphSpec, graph_specs
from export.onnx_writer import write_onnx
from export.qdq import layers_of, quantize
from perception.errors import ConfigError
from perception.files.folders import scratch_folder
from perception.files.text import read_json
from perception.files.writing import write_text
from perception.models.anyfuse import AnyFuse
from perception.models.elastic import blank
from perception.runtime.engines.base import Engine
from perception.runtime.engines.registry import BACKENDS
from perception.search.space import Candidate, SearchSpace, precisions_of, units_of, watched

Shape = tuple[int, ...]
Progress = Callable[[str, int, int], None]

_ANOTHER = "use another --out"

_THRESHOLD = 6.0  # of activations in graphs that are only timed: it changes no instruction


def quantized_for_timing(model: onnx.ModelProto, modules: Sequence[str]) -> onnx.ModelProto:
    """A graph with the layers of these modules in int8, as fast as a calibrated one but useless else."""
    layers = layers_of(model)
    chosen = [layer.name for layer in layers if layer.module in set(modules)]
    thresholds = dict.fromkeys((layer.activation for layer in layers), _THRESHOLD)
    return quantize(model, thresholds, chosen)


def time_engines(engines: Sequence[Engine], seconds: float) -> float:
    """Milliseconds for running all engines once: the lowest tenth, which other work disturbs least."""
    rng = np.random.default_rng(0)
    feeds = [
        {i.name: rng.standard_normal(i.shape, np.float32) for i in engine.inputs}  # type: ignore[arg-type]
        for engine in engines
    ]
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 12 or (time.perf_counter() < stop and len(times) < 400):
        start = time.perf_counter()
        for engine, feed in zip(engines, feeds, strict=True):
            engine.run(feed)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.percentile(times[2:], 10))


@torch.no_grad()
def block_calls(model: AnyFuse, images: Mapping[str, Tensor]) -> dict[str, list[Shape]]:
    """By block, the input shape of each of its calls in one forward pass, counted on shapes alone."""
    calls: dict[str, list[Shape]] = defaultdict(list)
    with watched(units_of(model), lambda name, x: calls[name].append(tuple(x.shape))):
        model.eval()({m: x.to("meta") for m, x in images.items()})
    return dict(calls)


def signature(unit: nn.Module, shape: Shape, precision: Sequence[str]) -> str:
    """What a block's latency depends on: its layers, their sizes, the input and what is in int8."""
    parts = [type(unit).__name__]
    for name, module in unit.named_modules():
        if isinstance(module, nn.Conv2d):
            size = "x".join(str(n) for n in module.weight.shape)
            bits = 8 if name in precision else 32
            parts.append(f"{size}/{module.stride[0]}/{module.dilation[0]}:{bits}")
    return f"{' '.join(parts)} @ {'x'.join(str(n) for n in shape)}"


class LatencyTables:
    """Milliseconds of blocks by signature, kept in a file.

    Args:
        path: JSON file, read if it is there; one of another backend or number of threads is refused.
        backend: name of a backend of `perception.runtime.engines.registry`.
        threads: CPU threads, None for all.
        seconds: how long each block is timed.

    Raises:
        ConfigError: the file is no latency table, or one of other settings.
    """

    def __init__(
        self, path: Path, backend: str, threads: int | None, seconds: float = 0.15
    ) -> None:
        self.path, self.backend, self.threads, self.seconds = path, backend, threads, seconds
        self.blocks: dict[str, float] = {}
        if path.exists():
            self.blocks = self._read()

    def _read(self) -> dict[str, float]:
        content = read_json(self.path, error=ConfigError)
        blocks = content.get("blocks") if isinstance(content, dict) else None
        if not isinstance(blocks, dict) or not all(
            isinstance(v, int | float) and 0 <= v < float("inf") for v in blocks.values()
        ):
            raise ConfigError("is no latency table", where=str(self.path), hint=_ANOTHER)
        for name in ("backend", "threads"):
            if content.get(name) != getattr(self, name):
                told = f"was measured with {name} {content.get(name)}, not {getattr(self, name)}"
                raise ConfigError(told, where=str(self.path), hint=_ANOTHER)
        return blocks

    def measure(self, wanted: Sequence[tuple[nn.Module, Shape]], progress: Progress) -> None:
        """Time those of the blocks, on `meta` or not, that the file lacks, in all their precisions."""
        missing: dict[str, tuple[nn.Module, Shape]] = {}
        for unit, shape in wanted:
            keys = [signature(unit, shape, p) for p in precisions_of(unit)]
            if any(key not in self.blocks for key in keys):
                missing.setdefault(keys[0], (unit, shape))
        if not missing:
            return
        progress("exporting blocks", 0, len(missing))
        graphs = _export_blocks(list(missing.values()))
        for index, ((unit, shape), graph) in enumerate(zip(missing.values(), graphs, strict=True)):
            progress("timing blocks", index, len(missing))
            for precision in precisions_of(unit):
                inner = [f"units.{index}.{name}".rstrip(".") for name in precision]
                engine = self.load([quantized_for_timing(graph, inner)])
                self.blocks[signature(unit, shape, precision)] = time_engines(engine, self.seconds)
            self._save()

    def load(self, graphs: Sequence[onnx.ModelProto]) -> list[Engine]:
        """Engines of graphs, on the tables' backend."""
        with scratch_folder("search") as folder:
            engines = []
            for index, graph in enumerate(graphs):
                path = folder / f"{index}.onnx"
                onnx.save(graph, path)
                engines.append(BACKENDS[self.backend].load(path, self.threads, 0))
        return engines

    def _save(self) -> None:
        content = {"backend": self.backend, "threads": self.threads, "blocks": self.blocks}
        write_text(self.path, json.dumps(content, indent=1), error=ConfigError)


class _Blocks(nn.Module):
    """Blocks that have nothing to do with each other, to export them in one go."""

    def __init__(self, units: Sequence[nn.Module]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(unit(x) for unit, x in zip(self.units, inputs, strict=True))


def _export_blocks(wanted: Sequence[tuple[nn.Module, Shape]]) -> list[onnx.ModelProto]:
    """One graph for each block; weights are drawn at random where a block has none."""
    units = []
    for unit, _ in wanted:
        if next(unit.parameters()).is_meta:
            unit.to_empty(device="cpu")
            for tensor in (*unit.parameters(), *unit.buffers()):
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.01, 0.1)
        units.append(fold_batch_norm(unit))
    names = [f"block{i}" for i in range(len(units))]
    inputs = {f"in_{n}": torch.randn(shape) for n, (_, shape) in zip(names, wanted, strict=True)}
    with scratch_folder("search") as folder:
        path = folder / "blocks.onnx"
        spec = GraphSpec(path.name, _Blocks(units), inputs, [f"out_{n}" for n in names])
        write_onnx(spec, path, half_storage=False)
        extractor = Extractor(onnx.load(path))
    return [extractor.extract_model([f"in_{n}"], [f"out_{n}"]) for n in names]


class LatencyModel:
    """Predicted milliseconds and stored bytes of candidates.

    Attributes:
        fit: what the sum of blocks in float, and of blocks with int8, are multiplied by, and a
            constant in milliseconds.
    """

    def __init__(self, space: SearchSpace, tables: LatencyTables) -> None:
        self.space, self.tables = space, tables
        self.fit = (1.0, 1.0, 0.0)
        self._ms: dict[str, list[list[float]]] = {}
        self._bytes: dict[str, list[list[float]]] = {}

    def prepare(self, model: AnyFuse, images: Mapping[str, Tensor], progress: Progress) -> None:
        """Measure what the tables lack for sub-networks of `model` on inputs like `images`."""
        calls: list[tuple[str, nn.Module, list[Shape]]] = []
        for level in range(self.space.most_levels):
            small = blank(model, self.space.at_level(level))
            shapes = block_calls(small, images)
            calls += [(n, unit, shapes.get(n, [])) for n, unit in units_of(small).items()]
        # Keys before measuring: giving a block weights takes it off the `meta` device.
        keys = [
            [[signature(unit, s, p) for s in shapes] for p in precisions_of(unit)]
            for _, unit, shapes in calls
        ]
        sizes = [[_stored(unit, p) for p in precisions_of(unit)] for _, unit, _ in calls]
        self.tables.measure([(unit, s) for _, unit, shapes in calls for s in shapes], progress)
        for (name, _, _), choices, size in zip(calls, keys, sizes, strict=True):
            found = [sum(self.tables.blocks[k] for k in shapes) for shapes in choices]
            self._ms.setdefault(name, []).append(found)
            self._bytes.setdefault(name, []).append(size)

    def table_sums(self, candidate: Candidate) -> tuple[float, float]:
        """Milliseconds of its blocks in float, and of those with layers in int8."""
        sums = [0.0, 0.0]
        for block, choice in self.space.decode(candidate).choices.items():
            sums[choice > 0] += self._ms[block][self.space.level(candidate, block)][choice]
        return sums[0], sums[1]

    def milliseconds(self, candidate: Candidate) -> float:
        """Predicted latency with all modalities present."""
        return float(np.dot(self.fit, (*self.table_sums(candidate), 1.0)))

    def stored_bytes(self, candidate: Candidate) -> float:
        """Size of its weights in a bundle."""
        choices = self.space.decode(candidate).choices
        return sum(
            self._bytes[block][self.space.level(candidate, block)][choice]
            for block, choice in choices.items()
        )

    def fit_to(self, sums: Sequence[tuple[float, float]], measured: Sequence[float]) -> None:
        """Set `fit` from the sums and measured milliseconds of whole networks.

        Least squares of relative errors, nothing below zero.  Where these networks cannot tell the
        factors apart, both are the same and there is no constant.
        """
        y = np.array(measured)
        design = np.column_stack([np.array(sums), np.ones(len(y))]) / y[:, None]
        found = non_negative(design, np.ones(len(y)))
        if np.linalg.matrix_rank(design) < 3 or min(found[:2]) <= 0:
            factor = float(y.sum() / np.sum(sums))
            found = np.array([factor, factor, 0.0])
        self.fit = (float(found[0]), float(found[1]), float(found[2]))


def non_negative(design: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares whose coefficients are not below zero.

    The best of all choices of which coefficients are zero, so for a handful of columns only.

    Args:
        design: (N, K).
        y: (N,).

    Returns:
        (K,) coefficients.
    """
    columns = design.shape[1]
    best, least = np.zeros(columns), float(y @ y)
    for kept in product((False, True), repeat=columns):
        if not any(kept):
            continue
        coefficients = np.zeros(columns)
        coefficients[list(kept)] = np.linalg.lstsq(design[:, kept], y, rcond=None)[0]
        rest = y - design @ coefficients
        if coefficients.min() >= 0 and rest @ rest < least:
            best, least = coefficients, float(rest @ rest)
    return best


def _stored(unit: nn.Module, precision: Sequence[str]) -> float:
    total = 0.0
    for name, module in unit.named_modules():
        if isinstance(module, nn.Conv2d):
            # Kernels in one byte or as float16; a bias, and with int8 a step, per channel in float32.
            in8 = name in precision
            total += module.weight.numel() * (1 if in8 else 2) + module.out_channels * (
                8 if in8 else 4
            )
    return total


@torch.no_grad()
def time_network(
    model: AnyFuse, int8: Sequence[str], images: dict[str, Tensor], tables: LatencyTables
) -> float:
    """Milliseconds of a whole network, really exported, with these convolutions in int8.

    Encoders of all modalities and the fuser run one after the other, as in the pipeline.
    """
    folded = fold_batch_norm(model)
    graphs: list[onnx.ModelProto] = []
    with scratch_folder("search") as folder:
        for spec in graph_specs(folded, images):
            path = folder / spec.file
            write_onnx(spec, path, half_storage=False)
            graphs.append(quantized_for_timing(onnx.load(path), int8))
    return time_engines(tables.load(graphs), 2.0)
