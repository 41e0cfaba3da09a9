"""OpenVINO: the fast backend for CPUs, in the precision that the CPU is best at or in float32."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines import openvino_guard, openvino_int8
from perception.runtime.engines.backend import Backend, Graph
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    Tensor,
    TensorSpec,
    first_line,
    not_loaded,
)
from perception.runtime.onnx_file import TensorInfo, describe, dtype_name
from perception.runtime.time_limit import (
    GRACE_S,
    Call,
    Overrun,
    left,
    limited,
    load_timeout_s,
)

_LONGEST_S = 1e6
INSTALL = "pip install 'anysense[openvino]'"

_CAPABILITY = {"bf16": "BF16", "f16": "FP16"}


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError("OpenVINO is not installed", hint=INSTALL) from error
    return openvino.Core()


def native_precision() -> str:
    """The arithmetic that OpenVINO takes on this CPU unless told otherwise: bf16, f16 or f32.

    Raises:
        BackendMissingError: OpenVINO is not installed.
    """
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    listed = (p for p, name in _CAPABILITY.items() if name in capabilities)
    return next((p for p in listed if _computes(p)), "f32")


@cache
def _computes(precision: str) -> bool:
    """Whether OpenVINO's kernels here compute in a precision that the CPU has.

    Where they are limited (`ONEDNN_MAX_CPU_ISA`, an emulated CPU) it is listed all the same: graphs then
    cannot be loaded, or give NaN.
    """
    import openvino
    from openvino import opset13 as ops

    # As many channels as fill the widest registers; every weight and value is exact in 8 bits.
    weight = np.tile(np.array([[1, -2, 3], [0.5, 4, -1], [2, 0, 1]], np.float32), (32, 32, 1, 1))
    image = ops.parameter([1, 32, 8, 8], np.float32)
    maps = ops.convolution(image, ops.constant(weight), [1, 1], [0, 0], [0, 0], [1, 1])
    rows = ops.reshape(maps, ops.constant(np.array([32, 36])), False)
    ones = ops.constant(np.ones((36, 32), np.float32))
    model = openvino.Model([ops.matmul(rows, ones, False, False)], [image], "precision")
    try:
        compiled = _core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        (found,) = compiled([np.ones((1, 32, 8, 8), np.float32)]).values()
    except Exception:  # of any type
        return False
    wanted = 32 * weight[0, 0].sum() * 36
    return bool(np.all(np.abs(found - wanted) <= 0.01 * wanted))


@cache
def integers_overflow() -> bool:
    """Whether layers in int8 go wrong on this CPU: sums of two products are cut off at 16 bits.

    So it is on x86 without a dot product of bytes (AVX-VNNI, AVX-512 VNNI, AMX).

    Raises:
        BackendMissingError: OpenVINO is not installed.
        EngineError: it cannot run such a layer at all.
    """
    content, image, wanted = openvino_int8.full_range()
    core = _core()
    try:
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        (found,) = core.compile_model(core.read_model(content), "CPU", options)([image]).values()
    except Exception as error:  # of any type
        raise EngineError(f"cannot run a layer in int8: {_reason(error)}") from error
    return bool(np.abs(found - wanted).max() > 0.01 * np.abs(wanted).max())


class OpenVinoEngine(Engine):
    """A graph compiled by OpenVINO for the CPU.

    Args:
        graph: the ONNX graph; float or with QuantizeLinear/DequantizeLinear pairs.
        precision: arithmetic of what is not quantized: `f32`, `bf16`, `f16`, or `native` for what
            the CPU is fastest at.
        threads: CPU threads; None for all cores.

    Raises:
        BackendMissingError: OpenVINO is not installed, or the CPU lacks the precision.
        EngineError: the graph cannot be loaded.
        BundleError: the graph is one of a bundle, and is damaged.
    """

    def __init__(
        self, graph: Path | GraphSource, precision: str = "native", threads: int | None = None
    ) -> None:
        source = GraphSource.of(graph)
        self.where, self.first_timeout_s = str(source), load_timeout_s()
        core = _core()
        native = native_precision()
        wanted = native if precision == "native" else precision
        if wanted not in ("f32", native):
            raise BackendMissingError(f"this CPU has no {wanted} arithmetic", where=str(source))
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": wanted,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Several engines run side by side, one per sensor: each pinned to the same cores, they
            # would wait for one another while other cores idle.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        content = source.read_bytes()
        openvino_guard.check(content, where=str(source), trusted=source.trust_plans)
        self.doubts = openvino_int8.told(openvino_int8.wrong_layers(content, where=str(source)))
        try:
            self._compiled = limited(
                lambda: core.compile_model(core.read_model(content), "CPU", options),
                load_timeout_s(),
            )
            self._request = self._compiled.create_infer_request()
        except Overrun as overrun:
            raise not_loaded(overrun, str(source)) from None
        except Exception as error:  # OpenVINO raises RuntimeError and types of its own
            raise EngineError(f"cannot be loaded: {_reason(error)}", where=str(source)) from error
        taken = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        self.backend = f"openvino-{taken.get_type_name()}"
        declared = describe(content, where=str(source), error=EngineError)
        self._fed, self.inputs = _inputs(self._compiled.inputs, declared.inputs, str(source))
        self.outputs = _outputs(self._compiled.outputs, declared.outputs, str(source))
        self._binds = all(None not in s.shape for s in self.outputs) and _apart(self._compiled)
        self._lock = threading.Lock()
        self._held: tuple[Any, ...] = ()

    waits = True

    def _wait(self) -> None:
        """Run the request, no longer than allowed."""
        if (allowed := self.allowed_s()) is None:
            self._request.infer()
            return
        self._request.start_async()
        if self._request.wait_for(max(1, round(1e3 * min(allowed, _LONGEST_S)))):
            return
        self._request.cancel()
        call = _Left(self._request, self._held)
        if not _ended(self._request, GRACE_S):  # within a loop it does not listen
            left(call)
        raise Overrun(call, allowed)

    def context(self) -> Engine:
        other = copy.copy(self)
        other._request, other._lock = self._compiled.create_infer_request(), threading.Lock()
        other._held, other.runs, other._stuck = (), 0, None
        return other

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from openvino import Tensor as Wrapped

        # OpenVINO shares memory only with arrays that it could write to, though it never does.
        arrays = [np.require(feeds[name], requirements=("C", "W")) for name in self._fed]
        results: list[Tensor] = []
        with self._lock:
            try:
                for index, array in enumerate(arrays):
                    self._request.set_input_tensor(index, Wrapped(array, shared_memory=True))
                if self._binds:
                    # The graph writes into arrays that are already the caller's: no copy.
                    results = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]  # type: ignore[arg-type]
                    for index, array in enumerate(results):
                        self._request.set_output_tensor(index, Wrapped(array, shared_memory=True))
                self._held = (arrays, results)  # the request does not own the memory it points to
                self._wait()
                if not self._binds:
                    results = [
                        self._request.get_output_tensor(i).data.copy()
                        for i in range(len(self.outputs))
                    ]
            except Overrun:
                raise
            except Exception as error:
                raise EngineError(f"{self.backend} failed: {_reason(error)}") from error
        return {spec.name: value for spec, value in zip(self.outputs, results, strict=True)}


class _Left(Call):
    """A request that did not end when it was asked to, with the memory that it writes to."""

    def __init__(self, request: Any, held: tuple[Any, ...]) -> None:
        self._request, self._held = request, held
        super().__init__(lambda: None)

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Whether it has by now."""
        return _ended(self._request, 0)

    @ended.setter
    def ended(self, ended: bool) -> None:
        """Only the request knows."""


def _ended(request: Any, patience_s: float) -> bool:
    try:
        return bool(request.wait_for(round(1e3 * patience_s)))
    except Exception:  # it was cancelled, or has failed
        return True


def _inputs(
    ports: Sequence[Any], declared: Sequence[TensorInfo], where: str
) -> tuple[list[str], tuple[TensorSpec, ...]]:
    """The name of the graph's input that each port takes, and all inputs of the graph.

    OpenVINO drops inputs that nothing needs, and where an operator does nothing it names the tensor before it
    as the one behind it; the order stays.
    """
    names = [d.name for d in declared]
    found = [next((n for n in names if n in port.get_names()), None) for port in ports]
    left = [n for n in names if n not in found]
    if None in found and found.count(None) != len(left):
        raise EngineError("has inputs that OpenVINO renames", where=where)
    fed = [left.pop(0) if name is None else name for name in found]
    shapes = {name: _shape(port) for name, port in zip(fed, ports, strict=True)}
    return fed, tuple(
        TensorSpec(d.name, shapes.get(d.name, d.shape or ()), dtype_name(d.dtype)) for d in declared
    )


def _outputs(
    ports: Sequence[Any], declared: Sequence[TensorInfo], where: str
) -> tuple[TensorSpec, ...]:
    """A tensor may have several names, that of a weight among them; the order of outputs stays."""
    if len(ports) != len(declared):
        raise EngineError("has outputs that OpenVINO leaves out", where=where)
    pairs = zip(declared, ports, strict=True)
    return tuple(TensorSpec(d.name, _shape(p), dtype_name(d.dtype)) for d, p in pairs)


def _apart(compiled: Any) -> bool:
    """Whether no output has the name of an input.

    Where it has, OpenVINO takes an array that is set for the output for the input's: it leaves the output
    unwritten, and writes to the input.
    """
    given = {name for port in compiled.inputs for name in port.get_names()}
    return not any(given & port.get_names() for port in compiled.outputs)


def _shape(port: Any) -> tuple[int | None, ...]:
    return tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())


def _reason(error: Exception) -> str:
    # The lines at the top only say in which of OpenVINO's source files it was noticed.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [x for x in lines if not x.startswith(("Exception from", "Check '"))]
    return telling[0] if telling else first_line(error)


def _backend(precision: str, *, rank: int | None = None, exact: bool = False) -> Backend:
    def load(graph: Graph, threads: int | None, device: int) -> Engine:
        return OpenVinoEngine(graph, precision, threads)

    return Backend(load, "openvino", INSTALL, rank=rank, exact=exact)


NATIVE = _backend("native", rank=10)
BFLOAT16 = _backend("bf16")
FLOAT16 = _backend("f16")
FLOAT32 = _backend("f32", rank=20, exact=True)
