"""From a float32 bundle to an INT8 one, with the layers that lose too much kept in float.

Which ones these are is measured: every layer is quantized alone, the error that this makes at the
network's outputs is its sensitivity, and layers are kept in float, the most sensitive first, until
the error of the whole is within the limit.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.calibration_ranges import Histogram, Method
from export.onnx_writer import store_half
from export.qdq import Layer, layers_of, quantize, unpack_half
from perception.data.base import Recording
from perception.errors import ConfigError, EngineError
from perception.frame import MODALITIES, Frame, Modality, subsets_of
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.runtime.bundle import Bundle, sha256_of, write_manifest
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import relative_error

Tensors = dict[str, Tensor]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Int8Options:
    """How to quantize.

    Attributes:
        frames: how many frames to calibrate on, evenly spread over the recording.
        method: how thresholds are read off the histograms.
        max_error: largest relative error of an output (root mean square over root mean square) on
            frames that were not calibrated on, with all sensors or with any one alone.
        check_frames: how many frames that error, and each layer's sensitivity, is measured on.
        threads: CPU threads, None for all.
        only: the layers that may be quantized, by name of the module that they were exported from;
            None for all of them.
    """

    frames: int = 24
    method: Method = "mse"
    max_error: float = 0.06
    check_frames: int = 3
    threads: int | None = None
    only: frozenset[str] | None = None


@dataclass
class Int8Report:
    """What was done.

    Attributes:
        layers: by graph and layer, the relative error when it alone is quantized.
        kept_float: names among them that were not quantized.
        error: relative error of the whole.
        error_all: what it would be with every layer quantized.
        frames: names of the recording's frames calibrated on.
    """

    layers: dict[str, float] = field(default_factory=dict)
    kept_float: list[str] = field(default_factory=list)
    error: float = 0.0
    error_all: float = 0.0
    frames: int = 0


@dataclass(frozen=True)
class _Check:
    """A frame that was not calibrated on: inputs, float features, float outputs by subset."""

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


class Quantizer:
    """Quantizes one bundle.

    Args:
        bundle: a float32 bundle.
        recording: real frames with all of the bundle's sensors.
        options: see there.
        progress: called with what is being done, how far it is, and how far it will be.

    Raises:
        ConfigError: the bundle is quantized already, or the recording lacks a sensor.
    """

    def __init__(
        self,
        bundle: Bundle,
        recording: Recording,
        options: Int8Options,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        manifest = bundle.manifest
        lacking = [m for m in manifest.modalities if m not in recording.info.modalities]
        if lacking:
            raise ConfigError(f"has no {lacking[0]}, which the bundle takes", where="--calib-data")
        if manifest.precision != "fp32":
            raise ConfigError("is quantized already", where=str(bundle.path))
        if options.frames < 1 or len(recording) < options.frames + options.check_frames:
            raise ConfigError(
                f"{len(recording)} frames are too few to calibrate on {options.frames} "
                f"and check on {options.check_frames}",
                where="--calib-data",
            )
        self.bundle, self.options, self.progress = bundle, options, progress
        self.contract = manifest.inputs
        self.graphs: dict[str, str] = {m: g.file for m, g in manifest.graphs.encoders.items()}
        self.graphs["fuser"] = manifest.graphs.fuser.file
        self.models = {g: _unpacked(bundle.file(f)) for g, f in self.graphs.items()}
        self._float: dict[str, Engine] = {
            g: OnnxRuntimeEngine(bundle.file(f), "cpu", options.threads)
            for g, f in self.graphs.items()
        }
        self.recording = recording
        # Some frames are never calibrated on, so that an error on them is that of new frames.
        total = options.frames + options.check_frames
        picked = [i * len(recording) // total for i in range(total)]
        self.checked = picked[:: max(1, total // options.check_frames)][: options.check_frames]
        self.calibrated = [i for i in picked if i not in self.checked]
        self._folder = tempfile.TemporaryDirectory(prefix="anysense-int8-")

    def run(self, out: Path) -> Int8Report:
        """Calibrate, measure, choose and write the bundle `out`.

        Raises:
            ConfigError: no layer may be quantized.
        EngineError: a graph cannot be run once it is quantized.
        """
        thresholds = self._calibrate()
        checks = [self._check_frame(i) for i in self.checked]
        if not self.layers():
            raise ConfigError("none of its layers may be quantized", where=str(self.bundle.path))
        sensitivity = self._sensitivities(thresholds, checks)
        report = Int8Report(layers=sensitivity, frames=len(self.calibrated))
        self._choose(report, thresholds, checks)
        self._write(out, thresholds, report)
        return report

    def layers(self) -> list[tuple[str, Layer]]:
        """All layers that can be quantized, with the graph that each is in."""
        only = self.options.only
        return [
            (g, layer)
            for g, model in self.models.items()
            for layer in layers_of(model)
            if only is None or layer.module in only
        ]

    def _engine(self, model: onnx.ModelProto) -> Engine:
        path = Path(self._folder.name) / "graph.onnx"
        onnx.save(model, path)
        return OnnxRuntimeEngine(path, "cpu", self.options.threads)

    def _calibrate(self) -> dict[str, dict[str, float]]:
        """Thresholds by graph and activation tensor."""
        histograms: dict[str, dict[str, Histogram]] = {}
        engines: dict[str, Engine] = {}
        names: dict[str, list[str]] = {}
        for graph, model in self.models.items():
            wanted = list(dict.fromkeys(layer.activation for layer in layers_of(model)))
            inputs = {i.name for i in model.graph.input}
            histograms[graph] = {name: Histogram() for name in wanted}
            names[graph] = [o.name for o in model.graph.output]
            engines[graph] = self._engine(
                _with_outputs(model, [n for n in wanted if n not in inputs])
            )
        subsets = subsets_of(self.contract.modalities)
        for index, frame in enumerate(self.calibrated):
            self.progress("calibrating", index, len(self.calibrated))
            inputs_now = network_inputs(self.recording.frame(frame), self.contract)
            features: Tensors = {}
            for modality, image in inputs_now.items():
                found = engines[modality].run({modality: image})
                features |= {n: found[n] for n in names[modality]}
                _count(histograms[modality], {**found, modality: image})
            # Fused maps differ from subset to subset: the full set and the others take turns.
            others = subsets[1:] or subsets
            for subset in {subsets[0], others[index % len(others)]}:
                feeds = self._fuser_feeds(features, subset)
                _count(histograms["fuser"], {**engines["fuser"].run(feeds), **feeds})
        method = self.options.method
        return {
            g: {n: h.threshold(method) for n, h in found.items()} for g, found in histograms.items()
        }

    def _fuser_feeds(self, features: Mapping[str, Tensor], subset: Sequence[Modality]) -> Tensors:
        presence = np.array([m in subset for m in MODALITIES], np.float32)
        return {"presence": presence, **features}

    def _check_frame(self, index: int) -> _Check:
        inputs = network_inputs(self.recording.frame(index), self.contract)
        features: Tensors = {}
        for modality, image in inputs.items():
            features |= self._float[modality].run({modality: image})
        wanted = {
            subset: self._float["fuser"].run(self._fuser_feeds(features, subset))
            for subset in self._judged_subsets()
        }
        return _Check(inputs, features, wanted)

    def _judged_subsets(self) -> list[tuple[Modality, ...]]:
        """All sensors together and each one alone, where its errors have nothing to hide behind."""
        everything = self.contract.modalities
        return list(dict.fromkeys([everything, *((m,) for m in everything)]))

    def _error(
        self, engines: Mapping[str, Engine], checks: Sequence[_Check], only: str | None = None
    ) -> float:
        """Mean relative error at the outputs of the worst subset, with some graphs replaced.

        Args:
            engines: the replaced graphs.
            checks: the frames.
            only: judge only subsets with this modality.
        """
        fuser = engines.get("fuser", self._float["fuser"])
        subsets = [s for s in self._judged_subsets() if only is None or only in s]
        errors: dict[tuple[Modality, ...], list[float]] = {s: [] for s in subsets}
        for check in checks:
            features = dict(check.features)
            for modality, image in check.inputs.items():
                if modality in engines:
                    features |= engines[modality].run({modality: image})
            for subset in subsets:
                found = fuser.run(self._fuser_feeds(features, subset))
                errors[subset].append(relative_error(found, check.wanted[subset]))
        return max(float(np.mean(values)) for values in errors.values())

    def _sensitivities(
        self, thresholds: Mapping[str, Mapping[str, float]], checks: Sequence[_Check]
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        layers = self.layers()
        for index, (graph, layer) in enumerate(layers):
            self.progress("measuring each layer", index, len(layers))
            engine = self._engine(quantize(self.models[graph], thresholds[graph], [layer.name]))
            only = None if graph == "fuser" else graph
            found[f"{graph}/{layer.name}"] = self._error({graph: engine}, checks, only)
        return found

    def _choose(
        self,
        report: Int8Report,
        thresholds: Mapping[str, Mapping[str, float]],
        checks: Sequence[_Check],
    ) -> None:
        """Find the fewest layers in float with which the whole stays within the limit."""
        order = sorted(report.layers, key=lambda n: -report.layers[n])
        tried: dict[int, float] = {}

        def error_with(count: int) -> float:
            if count not in tried:
                self.progress("choosing layers", len(tried), len(order).bit_length() + 1)
                models = self._quantized(thresholds, set(order[count:]))
                tried[count] = self._error({g: self._engine(m) for g, m in models.items()}, checks)
            return tried[count]

        limit = self.options.max_error
        report.error_all = error_with(0)
        low, high = 0, len(order)  # with all in float the error is 0
        if report.error_all <= limit:
            high = 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if error_with(middle) > limit else (low, middle)
        if high == len(order):
            raise EngineError(
                f"no layer can be quantized within an error of {limit:g}",
                where=str(self.bundle.path),
                hint="allow more with --max-error",
            )
        report.kept_float, report.error = order[:high], error_with(high)

    def _quantized(
        self, thresholds: Mapping[str, Mapping[str, float]], names: set[str]
    ) -> dict[str, onnx.ModelProto]:
        return {
            g: quantize(
                m, thresholds[g], [n.split("/", 1)[1] for n in names if n.startswith(f"{g}/")]
            )
            for g, m in self.models.items()
        }

    def _write(
        self, out: Path, thresholds: Mapping[str, Mapping[str, float]], report: Int8Report
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob("*.onnx"):
            stale.unlink()
        shutil.rmtree(out / "engines", ignore_errors=True)
        chosen = set(report.layers) - set(report.kept_float)
        manifest = self.bundle.manifest.model_copy(deep=True)
        for graph, model in self._quantized(thresholds, chosen).items():
            store_half(model.graph)
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, out / self.graphs[graph])
        manifest.graphs.single = None
        manifest.precision = "int8"
        manifest.backends = {}
        manifest.parity = {}
        manifest.accuracy = {"of": "the float32 bundle", **manifest.accuracy}
        manifest.quantization = self._described(report)
        manifest.files = {p.name: sha256_of(p) for p in sorted(out.glob("*.onnx"))}
        write_manifest(out, manifest)

    def _described(self, report: Int8Report) -> dict[str, Any]:
        info = self.recording.info
        source = "".join(h for _, h in sorted(self.bundle.manifest.files.items()))
        return {
            "form": "QDQ, int8 symmetric, weights per channel",
            "calibration": info.name + (" (simulated)" if info.simulated else ""),
            "frames": report.frames,
            "method": self.options.method,
            "layers": len(report.layers),
            "kept_float": {n: float(f"{report.layers[n]:.3g}") for n in report.kept_float},
            "error": float(f"{report.error:.3g}"),
            "error_of_all_layers": float(f"{report.error_all:.3g}"),
            "max_error": self.options.max_error,
            "source": hashlib.sha256(source.encode()).hexdigest(),
        }


def _unpacked(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx lets protobuf's own errors through
        raise EngineError("is no ONNX graph", where=str(path)) from error
    unpack_half(model)
    layers_of(model)  # names the nodes
    return model


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    own = {o.name for o in copy.graph.output}
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None)
        for n in names
        if n not in own
    )
    return copy


def _count(histograms: Mapping[str, Histogram], found: Mapping[str, Tensor]) -> None:
    for name, histogram in histograms.items():
        histogram.add(found[name])
