"""ONNX Runtime: the default backend, on the CPU or CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from perception.errors import EngineError
from perception.runtime.engines.base import Engine, Tensor, TensorSpec

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session.

    Args:
        path: the ONNX file.
        device: `cpu` or `cuda`.
        threads: threads within an operator; None leaves it to ONNX Runtime (all cores).

    Raises:
        EngineError: the provider is not installed, or the graph cannot be loaded.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        provider = _PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime has no {provider}",
                where=str(path),
                hint="install onnxruntime-gpu",
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Between frames the threads sleep rather than spin: a robot has other work for its cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises types of its own without a public base
            raise EngineError(f"cannot be loaded: {_first_line(error)}", where=str(path)) from error
        self.backend = f"onnxruntime-{device}"
        self.inputs = tuple(_spec(v) for v in self._session.get_inputs())
        self.outputs = tuple(_spec(v) for v in self._session.get_outputs())
        self._names = [o.name for o in self.outputs]

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.runs += 1
        try:
            values = self._session.run(self._names, feeds)
        except Exception as error:
            raise EngineError(f"{self.backend} failed: {_first_line(error)}") from error
        return dict(zip(self._names, values, strict=True))


def _spec(value: ort.NodeArg) -> TensorSpec:
    return TensorSpec(value.name, tuple(d if isinstance(d, int) else None for d in value.shape))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
