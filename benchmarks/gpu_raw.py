"""A bundle's graphs in bare ONNX Runtime sessions, encoders and fuser one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime as ort

from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs
from perception.runtime.wiring import FUSER, PRESENCE

OPTIONS = {
    "as it is": {},
    "NHWC": {"prefer_nhwc": "1"},
    "heuristic convolutions": {"cudnn_conv_algo_search": "HEURISTIC"},
    "no TF32": {"use_tf32": "0"},
}


def chains(bundle: Bundle, backend: str, every: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to run the graphs, by name.

    Args:
        bundle: the bundle.
        backend: `onnxruntime-cuda`, or another, for which the CPU stands.
        every: with all options; otherwise as they are.
    """
    if backend != "onnxruntime-cuda":
        yield "session.run", _plain(bundle, ["CPUExecutionProvider"])
        return
    yield "session.run, arrays in between", _plain(bundle, [("CUDAExecutionProvider", {})])
    for name, options in OPTIONS.items():
        if not every and name != "as it is":
            continue
        for way in (
            ("bound", "bound, one CUDA graph of all")
            if every
            else ("bound, one CUDA graph of all",)
        ):
            yield f"{name}, {way}", _lazily(bundle, options, way)


def _lazily(bundle: Bundle, options: dict[str, str], way: str) -> Callable[[], object]:
    made: list[_Bound] = []

    def work() -> None:
        if not made:
            made.append(_Bound(bundle, options, way))
        made[0].run()

    return work


def _sessions(bundle: Bundle, providers: list[Any]) -> dict[str, ort.InferenceSession]:
    graphs = bundle.manifest.graphs
    files = {**{n: g.file for n, g in graphs.encoders.items()}, FUSER: graphs.fuser.file}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return {
        n: ort.InferenceSession(bundle.source(f).read_bytes(), options, providers=providers)
        for n, f in files.items()
    }


def _plain(bundle: Bundle, providers: list[Any]) -> Callable[[], object]:
    sessions, wiring = _sessions(bundle, providers), bundle.manifest.wiring
    images = probe_inputs(bundle.manifest.inputs)

    def work() -> None:
        feeds: dict[str, Any] = {PRESENCE: wiring.present(images)}
        for name, image in images.items():
            session = sessions[wiring.encoders[name]]
            values = session.run(None, wiring.feeds(name, image))
            given = dict(zip([o.name for o in session.get_outputs()], values, strict=True))
            feeds |= wiring.features(name, given)
        sessions[FUSER].run(None, feeds)

    return work


class _Bound:
    """All tensors on the GPU, bound once; one stream for all sessions."""

    def __init__(self, bundle: Bundle, options: dict[str, str], way: str) -> None:
        from perception.runtime.engines.cuda_memory import cuda_memory

        self.memory, self.way = cuda_memory(0), way
        with self.memory.current():
            self._stream, self.handle = self.memory.stream()
        told = {"user_compute_stream": str(self.handle), **options}
        if "ORT's" in way:
            told["enable_cuda_graph"] = "1"
        sessions = _sessions(bundle, [("CUDAExecutionProvider", told)])
        wiring, images = bundle.manifest.wiring, probe_inputs(bundle.manifest.inputs)
        self.values: dict[str, Any] = {}
        self.bindings: list[tuple[Any, Any]] = []
        for name, image in images.items():
            session = sessions[wiring.encoders[name]]
            binding = session.io_binding()
            for key, array in wiring.feeds(name, image).items():
                self._bind(binding.bind_ortvalue_input, key, f"{name} {key}", array)
            for output in session.get_outputs():
                zeros = np.zeros(output.shape, np.float32)
                feature = wiring.feature(name, output.name)
                self._bind(binding.bind_ortvalue_output, output.name, feature, zeros)
            self.bindings.append((session, binding))
        fuser = sessions[FUSER]
        binding = fuser.io_binding()
        for spec in fuser.get_inputs():
            array = (
                wiring.present(images)
                if spec.name == PRESENCE
                else np.zeros(spec.shape, np.float32)
            )
            self._bind(binding.bind_ortvalue_input, spec.name, spec.name, array)
        for spec in fuser.get_outputs():
            zeros = np.zeros(spec.shape, np.float32)
            self._bind(binding.bind_ortvalue_output, spec.name, spec.name, zeros)
        self.bindings.append((fuser, binding))
        self.told = ort.RunOptions()
        self.told.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self.graph: Any = None
        self.runs = 0

    def _bind(self, bind: Callable[..., object], name: str, key: str, array: Any) -> None:
        if key not in self.values:
            self.values[key] = ort.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(array), "cuda", 0
            )
        bind(name, self.values[key])

    def _queue(self) -> None:
        for session, binding in self.bindings:
            session.run_with_iobinding(binding, self.told)

    def run(self) -> None:
        """All graphs once, until they are done."""
        from perception.runtime.engines import cuda_driver_calls as driver

        with self.memory.current():
            if "one CUDA graph" in self.way and self.runs == 3:
                self.graph = driver.Graph(self.handle, self._queue)
            if self.graph is not None:
                self.graph.launch(self.handle)
            else:
                self._queue()
            driver.wait(self.handle)
        self.runs += 1
