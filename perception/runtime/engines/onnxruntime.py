"""ONNX Runtime: the reference backend, on the CPU, CUDA or through TensorRT."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from perception.errors import EngineError
from perception.files.private import private_folder
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.backend import Backend, Graph
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    SpecialForms,
    Tensor,
    TensorSpec,
    first_line,
    not_loaded,
)
from perception.runtime.engines.cuda_driver import gpu
from perception.runtime.engines.measured import cache_folder
from perception.runtime.engines.probe import TINY_GRAPH
from perception.runtime.engines.quiet import silenced
from perception.runtime.time_limit import Overrun, limited, load_timeout_s, underway

_LOG = logging.getLogger("anysense.engines")

GPU_INSTALL = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def provider_options(provider: str, source: GraphSource, number: int = 0) -> dict[str, str]:
    """What a provider is told besides its name."""
    if provider == "CUDAExecutionProvider":
        return {"device_id": str(number), "use_tf32": "1" if source.tf32 else "0"}
    if provider != "TensorrtExecutionProvider":
        return {}
    # It builds when it loads, which takes minutes: once, not at every start.  It knows a graph by names
    # alone, so each graph has a folder of its own: another one's weights would be taken otherwise.
    try:
        folder = str(cache_folder() / "onnxruntime-tensorrt" / source.sha256[:32])
        private = private_folder(folder)
    except RuntimeError:  # no home: it is built at every start
        private = False
    if not private:  # what others put there would be run
        return {"device_id": str(number)}
    return {
        "device_id": str(number),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session.

    Args:
        graph: the ONNX graph.
        device: `cpu`, `cuda` or `tensorrt` (ONNX Runtime's TensorRT provider).
        threads: threads within an operator; None leaves it to ONNX Runtime (all cores).
        number: of the GPU.

    Raises:
        BackendMissingError: the provider is not installed, or finds no such device.
        EngineError: the graph cannot be loaded.
        BundleError: the graph is one of a bundle, and is damaged.
    """

    def __init__(
        self,
        graph: Path | GraphSource,
        device: str = "cpu",
        threads: int | None = None,
        number: int = 0,
    ) -> None:
        source = GraphSource.of(graph)
        self.where = where = str(source)
        self.first_timeout_s = load_timeout_s() if device == "cpu" else None
        check_provider(device, number, where)
        told = {p: provider_options(p, source, number) for p in _PROVIDERS[device]}
        self._start(source.read_bytes(), where, device, threads, told)

    def _start(
        self,
        content: bytes,
        where: str,
        device: str,
        threads: int | None,
        told: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._device, self._threads = device, threads
        self._session = open_session(content, where, device, threads, told)
        self.backend = f"onnxruntime-{device}"
        self.inputs, self.outputs = tensors_of(self._session)
        self._names = [o.name for o in self.outputs]

    listens = True  # between two operators, those within a loop included
    _forms: SpecialForms | None = None

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        call, options, forms = underway(), None, self._forms
        if call is not None:
            options = ort.RunOptions()
            options.log_severity_level = 4  # as of the session
            call.interrupt = partial(setattr, options, "terminate", True)
        if forms is None:
            return self._compute(feeds, options)
        if isinstance(special := forms.find(feeds), OnnxRuntimeEngine):
            try:
                return special._compute({s.name: feeds[s.name] for s in special.inputs}, options)
            except Exception:  # of types of ONNX Runtime's own
                if options is not None and options.terminate:
                    raise
                forms.refuse(feeds)
        outputs = self._compute(feeds, options)
        forms.note(feeds, outputs, self._alike)
        return outputs

    def _compute(
        self, feeds: Mapping[str, Tensor], options: ort.RunOptions | None
    ) -> dict[str, Tensor]:
        values = self._session.run(self._names, feeds, options)
        return dict(zip(self._names, values, strict=True))

    def specialize(self, forms: SpecialForms) -> None:
        if self._device == "cpu":  # on a GPU nobody has seen yet what it does
            self._forms = forms

    def _alike(self, content: bytes, where: str) -> Engine:
        other = OnnxRuntimeEngine.__new__(OnnxRuntimeEngine)
        other.where, other.first_timeout_s = where, self.first_timeout_s
        other._start(content, where, self._device, self._threads, {})
        return other


def open_session(
    content: bytes,
    where: str,
    device: str,
    threads: int | None,
    told: Mapping[str, Mapping[str, str]],
) -> ort.InferenceSession:
    """A session on exactly this provider.

    Args:
        content: the graph with all its weights.
        where: what it is called in errors.
        device, threads: as for `OnnxRuntimeEngine`.
        told: options by provider.

    Raises:
        BackendMissingError: the provider did not start.
        EngineError: the graph cannot be loaded.
    """
    providers = _PROVIDERS[device]
    try:
        session = _session(
            content,
            _session_options(threads, shared=device == "cpu"),
            [(p, dict(told.get(p, {}))) for p in providers],
        )
    except Overrun as overrun:
        raise not_loaded(overrun, where) from None
    except Exception as error:  # ONNX Runtime raises types of its own without a public base
        raise EngineError(f"cannot be loaded: {_reason(error)}", where=where) from error
    if providers[0] not in session.get_providers():
        # ONNX Runtime itself goes on with the CPU where a GPU provider cannot start.
        raise BackendMissingError(f"{providers[0]} did not start here", where=where)
    return session


def check_provider(device: str, number: int, where: str) -> None:
    """Refuse a device on which nothing can run, before anything is loaded.

    Raises:
        BackendMissingError: the provider is not installed, or finds no such device.
    """
    provider = _PROVIDERS[device][0]
    if provider not in ort.get_available_providers():
        raise BackendMissingError(
            f"this ONNX Runtime has no {provider}", where=where, hint=GPU_INSTALL
        )
    if device != "cpu":
        # What goes wrong comes as an exception; the providers would write it to stderr as well.
        ort.set_default_logger_severity(4)
        if not _starts(provider):
            raise BackendMissingError(f"{provider} did not start here", where=where)
        gpu(number, where)


def tensors_of(
    session: ort.InferenceSession,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """A session's inputs and outputs."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return tuple(map(_spec, inputs)), tuple(map(_spec, outputs))


def check_loads(content: bytes, *, where: str) -> dict[str, tuple[int | None, ...]]:
    """Refuse a graph that ONNX Runtime would not load, for the sake of readers that check less.

    Names, operators, types and shapes are checked; nothing is optimized or run.

    Returns:
        The shapes of the outputs by name; a dimension that varies is None.

    Raises:
        EngineError: the graph is damaged, or breaks ONNX's rules.
    """
    options = _session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Otherwise shapes that contradict one another are a warning.
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    try:
        session = _session(content, options, [("CPUExecutionProvider", {})])
    except Overrun as overrun:
        raise not_loaded(overrun, where) from None
    except Exception as error:  # ONNX Runtime raises types of its own without a public base
        raise EngineError(f"cannot be loaded: {_reason(error)}", where=where) from error
    return {spec.name: spec.shape for spec in map(_spec, session.get_outputs())}


@cache
def _shares_memory() -> bool:
    """Have one pool of memory in this process for what sessions on the CPU compute in; whether there is one.

    A bundle's graphs run one after the other, and each would keep a pool as large as it ever needed.
    """
    try:
        place = ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        )
        ort.create_and_register_allocator(place, None)
    except Exception as problem:  # of types of ONNX Runtime's own: there is one, of the program's
        _LOG.info("sessions share no memory of ours: %s", first_line(problem))
        return False
    return True


def _session_options(threads: int | None, *, shared: bool = False) -> ort.SessionOptions:
    options = ort.SessionOptions()
    if shared and _shares_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = (
        4  # errors come as exceptions: it need not write them to stderr too
    )
    # Between frames the threads sleep rather than spin: a robot has other work for its cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _session(
    content: bytes, options: ort.SessionOptions, providers: list[tuple[str, dict[str, str]]]
) -> ort.InferenceSession:
    # Falling back is the caller's business; ONNX Runtime's own prints a banner.
    def load() -> ort.InferenceSession:
        if (call := underway()) is not None:
            call.interrupt = partial(options.set_load_cancellation_flag, True)
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0)

    # Constants are computed when a graph is loaded; on a GPU engines may be built, for minutes.
    on_cpu = providers[0][0] == "CPUExecutionProvider"
    return limited(load, load_timeout_s() if on_cpu else None)


@cache
def _starts(provider: str) -> bool:
    """Whether a GPU provider runs here: tried once, on one operator, with its log kept quiet.

    A provider whose libraries are missing says so on stderr in lines of its own, whatever it is told.
    """
    with silenced():
        try:
            session = _session(TINY_GRAPH, _session_options(1), [(provider, {})])
        except Exception:  # its types have no public base
            return False
    return provider in session.get_providers()


_SAYS = (
    (r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", "IR version"),
    (r"Opset (\d+) is under development.*?till opset (\d+)", "opset"),
)
_SOURCE_PLACE = re.compile(
    r"(\[ONNXRuntimeError\] : \d+ : \w+ : )|(/\S*onnxruntime\S*\.(cc|h):\d+ )"
)


def _reason(error: Exception) -> str:
    text = str(error)
    for pattern, what in _SAYS:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return (
                f"it is of ONNX {what} {found[1]}, and this ONNX Runtime ({ort.__version__}) reads "
                f"up to {found[2]}: pip install -U onnxruntime"
            )
    return _SOURCE_PLACE.sub("", first_line(error))


def _spec(value: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, shape, {"float": "float32", "double": "float64"}.get(kind, kind))


def backend(device: str, install: str = GPU_INSTALL, **about: Any) -> Backend:
    """The record of ONNX Runtime on `cpu`, `cuda` or `tensorrt`."""

    def load(graph: Graph, threads: int | None, number: int) -> Engine:
        return OnnxRuntimeEngine(graph, device, threads, number)

    return Backend(load, "onnxruntime", install, **about)


CPU = backend("cpu", "pip install onnxruntime", rank=30, aliases=("onnxruntime",))
TENSORRT = backend("tensorrt", kind="gpu", rank=30)
