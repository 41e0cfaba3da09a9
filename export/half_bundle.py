"""Float16: a bundle of float16 graphs, and which layers of a graph should stay in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from export.bundle_folder import check_target
from export.calibration_frames import Progress, inputs_of, require_sensors
from export.half_graph import computing_nodes, simulate_half, to_half
from export.int8 import Finish, write_changed
from export.onnx_files import graph_problems
from export.sensitivity import Choice, Sensitivity, names_in
from perception.data.base import Recording
from perception.errors import ConfigError, EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs

MIXED_HALF_ERROR = 0.003
"""Largest relative error of plans whose float32 layers are chosen by measurement."""

_FRAMES = 3  # of a recording: what matters is the range of values, which varies little


def write_half(
    bundle: Bundle,
    out: Path,
    max_error: float = 0.02,
    recording: Recording | None = None,
    threads: int | None = None,
    progress: Progress = lambda what, done, total: None,
    finish: Finish = lambda folder: None,
) -> Choice:
    """Write a bundle whose graphs compute in float16, with float32 inputs and outputs.

    Where rounding every layer to float16 makes a larger error than `max_error`, as few layers as
    possible go on computing in float32, those first that cost most.

    Args:
        bundle: a float32 bundle.
        out: folder to write; a bundle that is there is replaced at the end, and only then.
        max_error: largest relative error of an output (root mean square over root mean square), with
            all sensors or with any one alone.
        recording: real frames to measure on; None for a made-up one.
        threads: CPU threads for the measurement, None for all.
        progress: called with what is being done, how far it is, and how far it will be.
        finish: see `Finish`.

    Returns:
        The choice; its `layers` are empty where float16 throughout is within the limit.

    Raises:
        ConfigError: the bundle is not float32, or `out` or the recording does not fit.
        BundleError: `out` cannot be written.
        EngineError: a graph cannot be changed, or not within the limit.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise ConfigError(
            f"is {manifest.precision} already; a float32 bundle is needed", where=str(bundle.path)
        )
    check_target(out, bundle.path)
    choice, measure = _choose(bundle, recording, _FRAMES, max_error, threads, progress)
    halves = {}
    for graph, model in measure.models.items():
        with graph_problems(bundle.path):
            halves[graph] = to_half(model, names_in(choice.kept, graph))
    if measure.error(halves) == float("inf"):
        raise EngineError("an output is not finite in float16", where=str(bundle.path))
    described: dict[str, Any] = {
        "form": "float16 arithmetic, float32 inputs and outputs",
        "error": float(f"{choice.error:.3g}"),
        "max_error": max_error,
    }
    if choice.kept:
        described["kept_float"] = {n: float(f"{choice.layers[n]:.3g}") for n in choice.kept}
    write_changed(bundle, halves, out, "fp16", described, finish)
    return choice


def choose_float_layers(
    bundle: Bundle,
    recording: Recording,
    frames: int,
    max_error: float,
    threads: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Choice:
    """Find the layers that must stay in float32 when the rest computes in float16.

    Args:
        bundle: a float32 bundle.
        recording: real frames; one may lack a sensor, but each sensor must be in some.
        frames: how many of them to measure on, where there are as many.
        max_error: largest relative error of the whole.
        threads: CPU threads, None for all.
        progress: called with what is being done, how far it is, and how far it will be.

    Raises:
        ConfigError: the bundle or the recording does not fit.
        EngineError: every layer would have to stay.

    Returns:
        The choice; its `layers` are empty where float16 throughout is within the limit.
    """
    return _choose(bundle, recording, frames, max_error, threads, progress)[0]


def half_error(bundle: Bundle, threads: int | None = None) -> float:
    """Relative error of a float32 bundle on a made-up frame when every layer rounds to float16."""
    measure = Sensitivity(bundle, [probe_inputs(bundle.manifest.inputs)], threads)
    return measure.error({g: _rounded(m, computing_nodes(m)) for g, m in measure.models.items()})


def _choose(
    bundle: Bundle,
    recording: Recording | None,
    frames: int,
    max_error: float,
    threads: int | None,
    progress: Progress,
) -> tuple[Choice, Sensitivity]:
    contract = bundle.manifest.inputs
    if recording is None:
        inputs = iter([probe_inputs(contract)])
    else:
        require_sensors(recording, contract)
        if frames < 1 or not len(recording):
            raise ConfigError("has no frame to measure on", where="--calib-data")
        count = min(frames, len(recording))
        picked = [i * len(recording) // count for i in range(count)]
        found = inputs_of(recording, contract, picked, progress=progress)
        inputs = (tensors for _, tensors in found)
    measure = Sensitivity(bundle, inputs, threads, progress)
    models = measure.models
    layers = [(g, name) for g, model in models.items() for name in computing_nodes(model)]

    def changed(graph: str, names: Sequence[str]) -> onnx.ModelProto:
        return _rounded(models[graph], names)

    return measure.choose(layers, changed, max_error, whole_first=True), measure


def _rounded(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    with graph_problems(model.graph.name):
        return simulate_half(model, names)
