"""From a float32 bundle to one that computes in integers where a measurement says that it costs little.

See `export.sensitivity` for how the layers that stay in float are found.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from export.calibration_ranges import Histogram, Method
from export.compose import FUSER
from export.onnx_writer import store_half
from export.qdq import Layer, layers_of, quantize
from export.sensitivity import (
    Choice,
    Progress,
    Sensitivity,
    Tensors,
    fuser_feeds,
    names_in,
    network_inputs,
)
from perception.data.base import Recording
from perception.errors import ConfigError
from perception.frame import subsets_of
from perception.runtime.bundle import Bundle, sha256_of, write_manifest
from perception.runtime.engines.base import Engine, Tensor


@dataclass(frozen=True)
class Int8Options:
    """How to quantize.

    Attributes:
        frames: how many frames to calibrate on, evenly spread over the recording.
        method: how thresholds are read off the histograms.
        max_error: largest relative error of an output (root mean square over root mean square) on
            frames that were not calibrated on, with all sensors or with any one alone.
        layer_error: a layer that costs more than this alone stays in float in any case; None for no
            such rule.
        check_frames: how many frames that error, and each layer's sensitivity, is measured on.
        threads: CPU threads, None for all.
        only: the layers that may be quantized, by name of the module that they were exported from;
            None for all of them.
    """

    frames: int = 24
    method: Method = "mse"
    max_error: float = 0.06
    layer_error: float | None = None
    check_frames: int = 3
    threads: int | None = None
    only: frozenset[str] | None = None

    @property
    def precision(self) -> Literal["int8", "mixed"]:
        """What the bundle is then called."""
        return "int8" if self.layer_error is None else "mixed"


def pick_frames(recording: Recording, calibrate: int, check: int) -> tuple[list[int], list[int]]:
    """Indices of frames to calibrate on and of others to check on, evenly spread.

    Frames that were not calibrated on show the error that new frames will have.

    Raises:
        ConfigError: there are too few.
    """
    total = calibrate + check
    if calibrate < 1 or len(recording) < total:
        raise ConfigError(
            f"{len(recording)} frames are too few to calibrate on {calibrate} and check on {check}",
            where="--calib-data",
        )
    picked = [i * len(recording) // total for i in range(total)]
    checked = picked[:: max(1, total // check)][:check]
    return [i for i in picked if i not in checked], checked


class Quantizer:
    """Quantizes one bundle.

    Args:
        bundle: a float32 bundle.
        recording: real frames with all of the bundle's sensors.
        options: see there.
        progress: called with what is being done, how far it is, and how far it will be.

    Raises:
        ConfigError: the bundle is not float32, or the recording lacks a sensor or is too short.
    """

    def __init__(
        self,
        bundle: Bundle,
        recording: Recording,
        options: Int8Options,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.options, self.recording = options, recording
        self.calibrated, checked = pick_frames(recording, options.frames, options.check_frames)
        self.measure = Sensitivity(bundle, recording, checked, options.threads, progress)

    def run(self, out: Path) -> Choice:
        """Calibrate, measure, choose and write the bundle `out`.

        Raises:
            ConfigError: no layer may be quantized.
            EngineError: a graph cannot be run once it is quantized, or no layer can be quantized.
        """
        if not self.layers():
            raise ConfigError(
                "none of its layers may be quantized", where=str(self.measure.bundle.path)
            )
        thresholds = self._calibrate()
        models = self.measure.models
        layers = [(g, layer.name) for g, layer in self.layers()]
        choice = self.measure.choose(
            layers,
            lambda graph, names: quantize(models[graph], thresholds[graph], names),
            self.options.max_error,
            self.options.layer_error,
        )
        self._write(out, thresholds, choice)
        return choice

    def layers(self) -> list[tuple[str, Layer]]:
        """All layers that can be quantized, with the graph that each is in."""
        models, only = self.measure.models, self.options.only
        return [
            (g, layer)
            for g, model in models.items()
            for layer in layers_of(model)
            if only is None or layer.module in only
        ]

    def _calibrate(self) -> dict[str, dict[str, float]]:
        """Thresholds by graph and activation tensor."""
        histograms: dict[str, dict[str, Histogram]] = {}
        engines: dict[str, Engine] = {}
        names: dict[str, list[str]] = {}
        for graph, model in self.measure.models.items():
            wanted = list(dict.fromkeys(layer.activation for layer in layers_of(model)))
            inputs = {i.name for i in model.graph.input}
            histograms[graph] = {name: Histogram() for name in wanted}
            names[graph] = [o.name for o in model.graph.output]
            engines[graph] = self.measure.engine(
                _with_outputs(model, [n for n in wanted if n not in inputs])
            )
        subsets = subsets_of(self.measure.contract.modalities)
        for index, frame in enumerate(self.calibrated):
            self.measure.progress("calibrating", index, len(self.calibrated))
            inputs_now = network_inputs(self.recording.frame(frame), self.measure.contract)
            features: Tensors = {}
            for modality, image in inputs_now.items():
                found = engines[modality].run({modality: image})
                features |= {n: found[n] for n in names[modality]}
                _count(histograms[modality], {**found, modality: image})
            # Fused maps differ from subset to subset: the full set and the others take turns.
            others = subsets[1:] or subsets
            for subset in {subsets[0], others[index % len(others)]}:
                feeds = fuser_feeds(features, subset)
                _count(histograms[FUSER], {**engines[FUSER].run(feeds), **feeds})
        method = self.options.method
        return {
            g: {n: h.threshold(method) for n, h in found.items()} for g, found in histograms.items()
        }

    def _write(
        self, out: Path, thresholds: Mapping[str, Mapping[str, float]], choice: Choice
    ) -> None:
        models = {}
        kept = set(choice.kept)
        chosen = [n for n in choice.layers if n not in kept]
        for graph, model in self.measure.models.items():
            models[graph] = quantize(model, thresholds[graph], names_in(chosen, graph))
        described = {
            "form": "QDQ, int8 symmetric, weights per channel",
            "calibration": self.recording.info.name
            + (" (simulated)" if self.recording.info.simulated else ""),
            "frames": len(self.calibrated),
            "method": self.options.method,
            "layers": len(choice.layers),
            "kept_float": {n: float(f"{choice.layers[n]:.3g}") for n in choice.kept},
            "error": float(f"{choice.error:.3g}"),
            "error_of_all_layers": float(f"{choice.error_all:.3g}"),
            "max_error": self.options.max_error,
        }
        if self.options.layer_error is not None:
            described["layer_error"] = self.options.layer_error
        write_changed(self.measure.bundle, models, out, self.options.precision, described)


def write_changed(
    source: Bundle,
    models: Mapping[str, onnx.ModelProto],
    out: Path,
    precision: Literal["fp16", "int8", "mixed"],
    described: Mapping[str, Any],
) -> None:
    """Write a bundle with the same graphs in another precision.

    Args:
        source: the float32 bundle.
        models: the changed graphs, by modality and `fuser`.
        out: folder to write; graphs and plans in it are replaced.
        precision: what the new bundle is called.
        described: what was done, for the manifest.

    Raises:
        EngineError: the folder is the source's.
    """
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.onnx"):
        stale.unlink()
    shutil.rmtree(out / "engines", ignore_errors=True)
    manifest = source.manifest.model_copy(deep=True)
    graphs = manifest.graphs
    files: dict[str, str] = {m: g.file for m, g in graphs.encoders.items()}
    files[FUSER] = graphs.fuser.file
    for graph, model in models.items():
        store_half(model.graph)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, out / files[graph])
    graphs.single, graphs.subsets = None, {}
    manifest.precision = precision
    manifest.backends, manifest.parity = {}, {}
    manifest.accuracy = {"of": "the float32 bundle", **manifest.accuracy}
    origin = "".join(h for _, h in sorted(source.manifest.files.items()))
    manifest.quantization = {
        **described,
        "source": hashlib.sha256(origin.encode()).hexdigest(),
    }
    manifest.files = {p.name: sha256_of(p) for p in sorted(out.glob("*.onnx"))}
    write_manifest(out, manifest)


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
