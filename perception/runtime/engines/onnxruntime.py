"""ONNX Runtime: the reference backend, on the CPU, CUDA or through TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from perception.errors import EngineError
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    Tensor,
    TensorSpec,
    first_line,
)
from perception.runtime.engines.measured import cache_folder

GPU_INSTALL = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def _options(provider: str) -> dict[str, str]:
    """What a provider is told besides its name."""
    if provider != "TensorrtExecutionProvider":
        return {}
    # It builds when it loads, which takes minutes: once, not at every start.
    folder = str(cache_folder() / "onnxruntime-tensorrt")
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session.

    Args:
        path: the ONNX file.
        device: `cpu`, `cuda` or `tensorrt` (ONNX Runtime's TensorRT provider).
        threads: threads within an operator; None leaves it to ONNX Runtime (all cores).

    Raises:
        BackendMissingError: the provider is not installed, or finds no device.
        EngineError: the graph cannot be loaded.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        providers = _PROVIDERS[device]
        if providers[0] not in ort.get_available_providers():
            raise BackendMissingError(
                f"this ONNX Runtime has no {providers[0]}",
                where=str(path),
                hint=GPU_INSTALL,
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Between frames the threads sleep rather than spin: a robot has other work for its cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            told = [(name, _options(name)) for name in providers]
            self._session = ort.InferenceSession(str(path), options, providers=told)
        except Exception as error:  # ONNX Runtime raises types of its own without a public base
            raise EngineError(f"cannot be loaded: {first_line(error)}", where=str(path)) from error
        if providers[0] not in self._session.get_providers():
            # ONNX Runtime itself goes on with the CPU where a GPU provider cannot start.
            raise BackendMissingError(f"{providers[0]} did not start here", where=str(path))
        self.backend = f"onnxruntime-{device}"
        self.inputs = tuple(_spec(v) for v in self._session.get_inputs())
        self.outputs = tuple(_spec(v) for v in self._session.get_outputs())
        self._names = [o.name for o in self.outputs]

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = self._session.run(self._names, feeds)
        return dict(zip(self._names, values, strict=True))


def _spec(value: ort.NodeArg) -> TensorSpec:
    return TensorSpec(value.name, tuple(d if isinstance(d, int) else None for d in value.shape))
