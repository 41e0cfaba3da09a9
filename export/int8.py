"""From a float32 bundle to one that computes in integers where a measurement says that it costs little.

See `export.sensitivity` for how the layers that stay in float are found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from export.bundle_folder import check_target, replacing_bundle
from export.calibration_frames import Progress, inputs_of, pick_frames, require_sensors
from export.calibration_ranges import Histogram, Method
from export.half_storage import store_half
from export.onnx_files import graph_problems
from export.qdq import Layer, layers_of, quantize
from export.sensitivity import Choice, Sensitivity, fuser_feeds, names_in
from perception.data.base import Recording
from perception.errors import ConfigError
from perception.frame import subsets_of
from perception.runtime.bundle import Bundle, sha256_of, write_bundle
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.modular import Tensors
from perception.runtime.records import BundleRecords
from perception.runtime.wiring import FUSER

Finish = Callable[[Path], None]
"""Called with the folder of a new bundle, complete, before it takes its place; may add to it."""


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


class Quantizer:
    """Quantizes one bundle.

    Args:
        bundle: a float32 bundle.
        recording: real frames; one may lack a sensor, but each sensor must be in some.
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
        require_sensors(recording, bundle.manifest.inputs)
        self.options, self.recording = options, recording
        self.calibrated, self._checked = pick_frames(
            recording, options.frames, options.check_frames
        )
        self.measure = Sensitivity(bundle, self._frames_to_check(), options.threads, progress)

    def _frames_to_check(self) -> Iterator[Tensors]:
        # Read after calibration, so that `calibrated` holds all that were calibrated on.
        contract, progress = self.measure.contract, self.measure.progress
        for _, inputs in inputs_of(
            self.recording, contract, self._checked, self.calibrated, progress
        ):
            yield inputs

    def run(self, out: Path, finish: Finish = lambda folder: None) -> Choice:
        """Calibrate, measure, choose and write the bundle `out`.

        Args:
            out: its folder; a bundle that is there is replaced at the end, and only then.
            finish: see `Finish`.

        Raises:
            ConfigError: no layer may be quantized, no frame has a sensor, or `out` does not fit.
            BundleError: `out` cannot be written.
            EngineError: a graph cannot be run once it is quantized, or no layer can be quantized.
        """
        check_target(out, self.measure.bundle.path)
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
        self._write(out, thresholds, choice, finish)
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
        contract, progress = self.measure.contract, self.measure.progress
        wiring = self.measure.wiring
        picked, self.calibrated = self.calibrated, []
        for index, (frame, images) in enumerate(
            inputs_of(self.recording, contract, picked, progress=progress)
        ):
            progress("calibrating", index, max(len(picked), index + 1))
            self.calibrated.append(frame)
            features = self.measure.blanks(images)
            for name, image in images.items():
                encoder, feeds = wiring.encoders[name], wiring.feeds(name, image)
                found = engines[encoder].run(feeds)
                features[name] = wiring.features(name, {n: found[n] for n in names[encoder]})
                _count(histograms[encoder], {**found, **feeds})
            # Fused maps differ from subset to subset: the full set and the others take turns.
            subsets = subsets_of(images)
            others = subsets[1:] or subsets
            for subset in {subsets[0], others[index % len(others)]}:
                feeds = fuser_feeds(wiring, features, subset)
                _count(histograms[FUSER], {**engines[FUSER].run(feeds), **feeds})
        method = self.options.method
        return {
            g: {n: h.threshold(method) for n, h in found.items()} for g, found in histograms.items()
        }

    def _write(
        self,
        out: Path,
        thresholds: Mapping[str, Mapping[str, float]],
        choice: Choice,
        finish: Finish,
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
        precision = self.options.precision
        write_changed(self.measure.bundle, models, out, precision, described, finish)


def write_changed(
    source: Bundle,
    models: Mapping[str, onnx.ModelProto],
    out: Path,
    precision: Literal["fp16", "int8", "mixed"],
    described: Mapping[str, Any],
    finish: Finish = lambda folder: None,
) -> None:
    """Write a bundle with the same graphs in another precision; all of it or nothing.

    Args:
        source: the float32 bundle.
        models: the changed graphs, by encoder, and `fuser`.
        out: folder to write; a bundle that is there is replaced.
        precision: what the new bundle is called.
        described: what was done, for the manifest.
        finish: see `Finish`.

    Raises:
        ConfigError, BundleError: see `export.bundle_folder.replacing_bundle`.
        EngineError: a changed graph breaks ONNX's rules.
    """
    graphs = source.manifest.graphs
    files = {name: g.file for name, g in graphs.encoders.items()}
    files[FUSER] = graphs.fuser.file
    for graph, model in models.items():
        store_half(model.graph)
        with graph_problems(source.source(files[graph])):
            onnx.checker.check_model(model, full_check=True)
    origin = "".join(h for _, h in sorted(source.manifest.files.items()))
    changed = {
        "graphs": graphs.model_copy(update={"single": None, "subsets": {}}),
        "precision": precision,
        "quantization": {**described, "source": hashlib.sha256(origin.encode()).hexdigest()},
    }
    with replacing_bundle(out, source.path) as folder:
        for graph, model in models.items():
            path = folder / files[graph]
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(model, path)
        changed["files"] = {name: sha256_of(folder / name) for name in sorted(files.values())}
        known = source.records.accuracy
        records = BundleRecords(accuracy={"of": "the float32 bundle", **known} if known else {})
        write_bundle(folder, source.manifest.model_copy(update=changed), records)
        finish(folder)


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
