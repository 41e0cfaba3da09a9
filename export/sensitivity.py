"""How much of a bundle's outputs each layer costs in lower precision, measured on real frames.

A layer is changed alone, and the error that this makes at the network's outputs is its sensitivity.
Then as few layers as possible keep their precision, the most sensitive first, so that the error of the
whole stays within a limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.compose import FUSER, load_graph
from perception.data.base import Recording
from perception.errors import ConfigError, EngineError
from perception.frame import MODALITIES, Frame, Modality
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import relative_error

Tensors = dict[str, Tensor]
Models = Mapping[str, onnx.ModelProto]
Progress = Callable[[str, int, int], None]


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
    """A frame to measure on: inputs, float features, float outputs by subset."""

    inputs: Tensors
    features: Tensors
    wanted: dict[tuple[Modality, ...], Tensors]


def network_inputs(frame: Frame, contract: PreprocessContract) -> Tensors:
    """Preprocessed inputs (1, C, H, W) by modality."""
    inputs: Tensors = {}
    for modality in contract.modalities:
        buffer: NDArray[np.float32] = np.empty(contract.input_shape(modality), np.float32)
        preprocess_sample(frame[modality], contract, buffer)
        inputs[modality] = buffer
    return inputs


def fuser_feeds(features: Mapping[str, Tensor], subset: Sequence[Modality]) -> Tensors:
    """The fuser's inputs for a subset; features of the others may hold anything."""
    presence = np.array([m in subset for m in MODALITIES], np.float32)
    return {"presence": presence, **features}


class Sensitivity:
    """Measures changed graphs of one bundle against its own.

    Args:
        bundle: a float32 bundle.
        recording: real frames with all of the bundle's sensors.
        frames: indices of the frames to measure on.
        threads: CPU threads, None for all.
        progress: called with what is being done, how far it is, and how far it will be.

    Attributes:
        models: the graphs as `load_graph` gives them, by modality, and `fuser`.
        files: their files.

    Raises:
        ConfigError: the bundle is not float32, or the recording lacks a sensor.
    """

    def __init__(
        self,
        bundle: Bundle,
        recording: Recording,
        frames: Sequence[int],
        threads: int | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        manifest = bundle.manifest
        lacking = [m for m in manifest.modalities if m not in recording.info.modalities]
        if lacking:
            raise ConfigError(f"has no {lacking[0]}, which the bundle takes", where="--calib-data")
        if manifest.precision != "fp32":
            raise ConfigError(
                f"is {manifest.precision} already; a float32 bundle is needed",
                where=str(bundle.path),
            )
        self.bundle, self.recording = bundle, recording
        self.contract, self.threads, self.progress = manifest.inputs, threads, progress
        self.files: dict[str, str] = {m: g.file for m, g in manifest.graphs.encoders.items()}
        self.files[FUSER] = manifest.graphs.fuser.file
        paths = {graph: bundle.file(file) for graph, file in self.files.items()}
        self.models = {graph: load_graph(path) for graph, path in paths.items()}
        self._float = {g: OnnxRuntimeEngine(p, "cpu", threads) for g, p in paths.items()}
        self._folder = tempfile.TemporaryDirectory(prefix="anysense-export-")
        self._frames, self._checks = list(frames), list[_Check]()

    def engine(self, model: onnx.ModelProto) -> Engine:
        """A graph, ready to run."""
        path = Path(self._folder.name) / "graph.onnx"
        onnx.save(model, path)
        return OnnxRuntimeEngine(path, "cpu", self.threads)

    def error(self, models: Models, only: str | None = None) -> float:
        """Mean relative error at the outputs of the worst subset, with some graphs replaced.

        Args:
            models: the replaced graphs.
            only: judge only subsets with this modality.
        """
        engines = {graph: self.engine(model) for graph, model in models.items()}
        fuser = engines.get(FUSER, self._float[FUSER])
        subsets = [s for s in self._judged_subsets() if only is None or only in s]
        errors: dict[tuple[Modality, ...], list[float]] = {s: [] for s in subsets}
        for check in self._measured():
            features = dict(check.features)
            for modality, image in check.inputs.items():
                if modality in engines:
                    features |= engines[modality].run({modality: image})
            for subset in subsets:
                found = fuser.run(fuser_feeds(features, subset))
                errors[subset].append(relative_error(found, check.wanted[subset]))
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
            self._checks = [self._check(i) for i in self._frames]
        return self._checks

    def _check(self, index: int) -> _Check:
        inputs = network_inputs(self.recording.frame(index), self.contract)
        features: Tensors = {}
        for modality, image in inputs.items():
            features |= self._float[modality].run({modality: image})
        wanted = {
            subset: self._float[FUSER].run(fuser_feeds(features, subset))
            for subset in self._judged_subsets()
        }
        return _Check(inputs, features, wanted)

    def _judged_subsets(self) -> list[tuple[Modality, ...]]:
        """All sensors together and each one alone, where its errors have nothing to hide behind."""
        everything = self.contract.modalities
        return list(dict.fromkeys([everything, *((m,) for m in everything)]))


def names_in(names: Sequence[str], graph: str) -> list[str]:
    """Names of one graph's layers among `GRAPH/NAME`."""
    return [n.split("/", 1)[1] for n in names if n.startswith(f"{graph}/")]
