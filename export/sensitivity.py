"""How much of a bundle's outputs each layer costs in lower precision, measured on real frames.

A layer is changed alone, and the error that this makes at the network's outputs is its sensitivity.
Then as few layers as possible keep their precision, the most sensitive first, so that the error of the
whole stays within a limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from export.calibration_frames import Progress
from export.compose import load_graph
from export.onnx_files import graph_problems
from perception.errors import ConfigError, EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine, NonFiniteError
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import relative_error
from perception.runtime.modular import Tensors, features_of
from perception.runtime.wiring import FUSER, PRESENCE, Wiring

Models = Mapping[str, onnx.ModelProto]


@dataclass
class Choice:
    """What was measured, and which layers keep their precision.

    Attributes:
        layers: by `GRAPH/NAME`, the relative error when it alone is changed.
        kept: names among them that are not changed, the most sensitive first.
        error: relative error of the whole.
        error_all: what it would be with every layer changed.
    """

    layers: dict[str, float] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    error: float = 0.0
    error_all: float = 0.0


@dataclass(frozen=True)
class _Check:
    """A frame to measure on: the inputs it has, float features by input, float outputs by subset."""

    inputs: Tensors
    features: dict[str, Tensors]
    wanted: dict[tuple[str, ...], Tensors]


def fuser_feeds(wiring: Wiring, features: Mapping[str, Tensors], subset: Sequence[str]) -> Tensors:
    """What the fuser takes for a subset; features of the others may hold anything."""
    all_of_them = {n: value for own in features.values() for n, value in own.items()}
    return {PRESENCE: wiring.present(subset), **all_of_them}


class Sensitivity:
    """Measures changed graphs of one bundle against its own.

    Args:
        bundle: a float32 bundle.
        frames: network inputs of the frames to measure on; read when they are first needed.  A frame
            may lack sensors, but some frame must have each.
        threads: CPU threads, None for all.
        progress: called with what is being done, how far it is, and how far it will be.

    Attributes:
        models: the graphs as `load_graph` gives them, by encoder, and `fuser`.
        files: their files.
        wiring: the bundle's.

    Raises:
        ConfigError: the bundle is not float32.
    """

    def __init__(
        self,
        bundle: Bundle,
        frames: Iterable[Tensors],
        threads: int | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        manifest = bundle.manifest
        if manifest.precision != "fp32":
            raise ConfigError(
                f"is {manifest.precision} already; a float32 bundle is needed",
                where=str(bundle.path),
            )
        self.bundle = bundle
        self.contract, self.threads, self.progress = manifest.inputs, threads, progress
        self.wiring = manifest.wiring
        self.files = {name: g.file for name, g in manifest.graphs.encoders.items()}
        self.files[FUSER] = manifest.graphs.fuser.file
        sources = {graph: bundle.source(file) for graph, file in self.files.items()}
        self.models = {graph: load_graph(source) for graph, source in sources.items()}
        self._float = {g: OnnxRuntimeEngine(s, "cpu", threads) for g, s in sources.items()}
        self._folder = tempfile.TemporaryDirectory(prefix="anysense-export-")
        self._frames, self._checks = frames, list[_Check]()
        self._blanks: dict[str, Tensors] = {}

    def engine(self, model: onnx.ModelProto) -> Engine:
        """A graph, ready to run."""
        path = Path(self._folder.name) / "graph.onnx"
        with graph_problems(self.bundle.path):
            onnx.save(model, path)
        return OnnxRuntimeEngine(path, "cpu", self.threads)

    def blanks(self, given: Collection[str]) -> dict[str, Tensors]:
        """Features of the inputs that a frame lacks: NaN, which the fuser must not look at."""
        lacking = [n for n in self.contract.names if n not in given]
        nothing = {
            n: np.zeros(self.contract.input_shape(n), np.float32)
            for n in lacking
            if n not in self._blanks
        }
        for name, found in features_of(self.wiring, self._float, nothing).items():
            self._blanks[name] = {n: np.full_like(v, np.nan) for n, v in found.items()}
        return {n: self._blanks[n] for n in lacking}

    def error(self, models: Models, only: str | None = None) -> float:
        """Mean relative error at the outputs of the worst subset, with some graphs replaced.

        Args:
            models: the replaced graphs.
            only: judge only subsets with an input of this encoder.

        Returns:
            Infinity when an output is not finite.
        """
        try:
            return self._error(models, only)
        except NonFiniteError:
            return float("inf")

    def _error(self, models: Models, only: str | None) -> float:
        engines = {graph: self.engine(model) for graph, model in models.items()}
        fuser, encoders = engines.get(FUSER, self._float[FUSER]), self.wiring.encoders
        errors: dict[tuple[str, ...], list[float]] = {}
        for check in self._measured():
            changed = {n: image for n, image in check.inputs.items() if encoders[n] in engines}
            features = check.features | features_of(self.wiring, engines, changed)
            for subset, wanted in check.wanted.items():
                if only is None or only in [encoders[n] for n in subset]:
                    found = fuser.run(fuser_feeds(self.wiring, features, subset))
                    errors.setdefault(subset, []).append(relative_error(found, wanted))
        return max(float(np.mean(values)) for values in errors.values())

    def choose(
        self,
        layers: Sequence[tuple[str, str]],
        changed: Callable[[str, Sequence[str]], onnx.ModelProto],
        limit: float,
        layer_limit: float | None = None,
        *,
        whole_first: bool = False,
    ) -> Choice:
        """Measure layers one by one, and find the fewest that must keep their precision.

        Args:
            layers: graph and name of each.
            changed: makes a graph in which the layers of these names are changed.
            limit: largest relative error of the whole.
            layer_limit: layers that cost more than this alone keep their precision in any case.
            whole_first: change all of them first; where that is within the limit, no layer is
                measured and `Choice.layers` is empty.

        Raises:
            EngineError: all of them would have to.
        """
        if whole_first:
            self.progress("measuring all layers together", 0, 1)
            names: dict[str, list[str]] = {}
            for graph, name in layers:
                names.setdefault(graph, []).append(name)
            whole = self.error({g: changed(g, own) for g, own in names.items()})
            if whole <= limit:
                return Choice(error=whole, error_all=whole)
        sensitivity = {}
        for index, (graph, name) in enumerate(layers):
            self.progress("measuring each layer", index, len(layers))
            only = None if graph == FUSER else graph
            sensitivity[f"{graph}/{name}"] = self.error({graph: changed(graph, [name])}, only)
        order = sorted(sensitivity, key=lambda n: -sensitivity[n])
        tried: dict[int, float] = {}

        def error_with(kept: int) -> float:
            if kept not in tried:
                self.progress("choosing layers", len(tried), len(order).bit_length() + 1)
                rest = order[kept:]
                tried[kept] = self.error(
                    {g: changed(g, names_in(rest, g)) for g in self.files if names_in(rest, g)}
                )
            return tried[kept]

        least = 0
        if layer_limit is not None:
            least = sum(sensitivity[n] > layer_limit for n in order)
        low, high = least, len(order)  # with none changed the error is 0
        if least < len(order) and error_with(least) <= limit:
            high = least
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if error_with(middle) > limit else (low, middle)
        if high == len(order):
            raise EngineError(
                f"no layer can be changed within an error of {limit:g}",
                where=str(self.bundle.path),
                hint="allow more with --max-error",
            )
        return Choice(sensitivity, order[:high], error_with(high), error_with(0))

    def _measured(self) -> list[_Check]:
        if not self._checks:
            self._checks = [self._check(inputs) for inputs in self._frames]
        return self._checks

    def _check(self, inputs: Tensors) -> _Check:
        features = self.blanks(inputs) | features_of(self.wiring, self._float, inputs)
        # All sensors together and each one alone, where its errors have nothing to hide behind.
        everything = tuple(n for n in self.contract.names if n in inputs)
        wanted = {
            subset: self._float[FUSER].run(fuser_feeds(self.wiring, features, subset))
            for subset in dict.fromkeys([everything, *((n,) for n in everything)])
        }
        return _Check(inputs, features, wanted)


def names_in(names: Sequence[str], graph: str) -> list[str]:
    """Names of one graph's layers among `GRAPH/NAME`."""
    return [n.split("/", 1)[1] for n in names if n.startswith(f"{graph}/")]
