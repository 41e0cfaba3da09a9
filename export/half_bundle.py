"""Float16: a bundle of float16 graphs, and which layers of a graph should stay in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from export.compose import FUSER, load_graph
from export.half_graph import computing_nodes, simulate_half, to_half
from export.int8 import write_changed
from export.sensitivity import Choice, Progress, Sensitivity
from perception.data.base import Recording
from perception.errors import ConfigError, EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all

HALF_ERROR = 0.003
"""Largest relative error that float16 may make when the layers that stay in float32 are chosen."""


def write_half(bundle: Bundle, out: Path, threads: int | None = None) -> float:
    """Write a bundle whose graphs compute in float16, with float32 inputs and outputs.

    Args:
        bundle: a float32 bundle.
        out: folder to write.
        threads: CPU threads for the comparison, None for all.

    Returns:
        Relative error on a made-up frame, when every layer rounds to float16.

    Raises:
        ConfigError: the bundle is not float32.
        EngineError: an output is not finite in float16.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise ConfigError(
            f"is {manifest.precision} already; a float32 bundle is needed", where=str(bundle.path)
        )
    files: dict[str, str] = {m: g.file for m, g in manifest.graphs.encoders.items()}
    files[FUSER] = manifest.graphs.fuser.file
    models = {g: to_half(load_graph(bundle.file(f))) for g, f in files.items()}
    described = {"form": "float16 arithmetic, float32 inputs and outputs"}
    write_changed(bundle, models, out, "fp16", described)

    folder = tempfile.TemporaryDirectory(prefix="anysense-export-")
    exact, rounded = dict[str, Engine](), dict[str, Engine]()
    for graph, file in files.items():
        exact[graph] = OnnxRuntimeEngine(bundle.path / file, "cpu", threads)
        model = load_graph(bundle.path / file)
        path = Path(folder.name) / file
        onnx.save(simulate_half(model, computing_nodes(model)), path)
        rounded[graph] = OnnxRuntimeEngine(path, "cpu", threads)
    inputs = probe_inputs(manifest.inputs)
    error = relative_error(run_all(rounded, inputs), run_all(exact, inputs))
    if error == float("inf"):
        raise EngineError(
            "an output is not finite in float16",
            where=str(out),
            hint="--engine tensorrt --precision mixed keeps what needs it in float32",
        )
    return error


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
        recording: real frames with all of the bundle's sensors.
        frames: how many of them to measure on.
        max_error: largest relative error of the whole.
        threads: CPU threads, None for all.
        progress: called with what is being done, how far it is, and how far it will be.

    Raises:
        ConfigError: the bundle or the recording does not fit.
        EngineError: every layer would have to stay.

    Returns:
        The choice; its `layers` are empty where float16 throughout is within the limit.
    """
    if frames < 1 or len(recording) < frames:
        raise ConfigError(f"{len(recording)} frames, {frames} are needed", where="--calib-data")
    picked = [i * len(recording) // frames for i in range(frames)]
    measure = Sensitivity(bundle, recording, picked, threads, progress)
    models = measure.models

    def changed(graph: str, names: Sequence[str]) -> onnx.ModelProto:
        return simulate_half(models[graph], names)

    layers = [(g, name) for g, model in models.items() for name in computing_nodes(model)]
    return measure.choose(layers, changed, max_error, whole_first=True)
