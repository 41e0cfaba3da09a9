"""Building TensorRT plans into a bundle's `engines/` folder.

TensorRT for RTX builds ahead of time for chosen compute capabilities, with no GPU; full TensorRT builds
for the GPU that it runs on.  Networks are strongly typed where the version can: the precision is that of
the graph, which is converted before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import onnx

from export.half_graph import to_half
from perception.errors import BundleError, ConfigError, EngineError
from perception.runtime.bundle import Bundle, sha256_of
from perception.runtime.engines.base import BackendMissingError
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.plans import (
    FOLDER,
    PlanHeader,
    PlanKind,
    check_plan,
    locked,
    write_plan,
)
from perception.runtime.engines.tensorrt import INSTALL, MODULES

Progress = Callable[[str, str, float], None]
"""Called with the graph, what the builder is doing, and the share of it that is done."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        kind: which TensorRT.
        precision: of the arithmetic, for a float bundle; an INT8 bundle says itself what is int8,
            and the rest is of this precision.
        compute_capabilities: GPUs to build for, such as `8.6`; TensorRT for RTX only, where none
            means the GPU that is here.
        workspace_mib: most scratch memory a layer may use; None leaves it to TensorRT.
        timing_cache: file that is read before and written after (full TensorRT; that for RTX times
            nothing when it builds).
        version_compatible: plans that later TensorRT versions load as well (full TensorRT).
        hardware_compatible: plans for all GPUs since Ampere (full TensorRT).
        dla: number of the DLA core to build for, on Jetson (full TensorRT); None for the GPU.
        rebuild: build even where a good plan is there.
    """

    kind: PlanKind
    precision: Literal["fp32", "fp16"] = "fp16"
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None
    rebuild: bool = False


@dataclass(frozen=True)
class Built:
    """A plan, and whether it was built now or was there."""

    path: Path
    header: PlanHeader
    reused: bool


def build_plans(
    bundle: Bundle, options: BuildOptions, progress: Progress = lambda graph, what, share: None
) -> list[Built]:
    """Build a plan for every graph of a bundle folder.

    Raises:
        BackendMissingError: TensorRT is not installed, or full TensorRT finds no GPU.
        ConfigError: an option does not fit.
        BundleError: the bundle is a zip.
        EngineError: TensorRT cannot take or build a graph.
    """
    if not bundle.is_folder:
        raise BundleError("is a zip; plans can be kept in a folder only", where=str(bundle.path))
    trt = load_module(options.kind)
    _check_options(trt, options)
    graphs = bundle.manifest.graphs
    files = [*(g.file for g in graphs.encoders.values()), graphs.fuser.file]
    return [_one(trt, bundle, file, options, progress) for file in files]


def load_module(kind: PlanKind) -> Any:
    """TensorRT's Python module.

    Raises:
        BackendMissingError: it is not installed, or too old.
    """
    try:
        module = import_module(MODULES[kind])
    except ImportError as error:
        raise BackendMissingError(f"{kind} is not installed", hint=INSTALL[kind]) from error
    if kind == "tensorrt" and _major(module) < 10:
        # Before 10 there are no strongly typed networks, and precision would be a builder's guess.
        raise BackendMissingError(f"TensorRT {module.__version__} is too old", hint="10 or later")
    return module


def _major(trt: Any) -> int:
    return int(str(trt.__version__).split(".")[0])


def _check_options(trt: Any, options: BuildOptions) -> None:
    full = options.kind == "tensorrt"
    if full and options.compute_capabilities:
        raise ConfigError(
            "full TensorRT builds for the GPU that it runs on",
            where="--compute-capability",
            hint="--engine tensorrt-rtx builds for others",
        )
    for name in ("version_compatible", "hardware_compatible", "dla", "timing_cache"):
        value = getattr(options, name)
        if not full and value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError("is an option of full TensorRT", where=flag)
    driver = examine_driver()
    if driver.problem and (full or not options.compute_capabilities):
        hint = "" if full else "name GPUs to build for with --compute-capability"
        raise BackendMissingError(driver.problem, where=options.kind, hint=hint)
    for wanted in options.compute_capabilities:
        _capability(trt, wanted)


def _capability(trt: Any, wanted: str) -> Any:
    known = {n: v for n, v in trt.ComputeCapability.__members__.items() if n.startswith("SM")}
    name = f"SM{wanted.replace('.', '')}"
    if name not in known:
        text = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known)
        raise ConfigError(
            f"TensorRT for RTX has no target '{wanted}'",
            where="--compute-capability",
            hint=f"one of {text}",
        )
    return known[name]


def _one(trt: Any, bundle: Bundle, file: str, options: BuildOptions, progress: Progress) -> Built:
    path = bundle.file(file)
    header = _header(trt, bundle, path, options)
    folder = bundle.path / FOLDER
    with locked(folder, header.file):
        there = folder / header.file
        if there.is_file() and not options.rebuild:
            try:
                return Built(there, check_plan(there, header.onnx_sha256), reused=True)
            except EngineError:
                pass  # damaged: this is the time to build it again
        start = time.monotonic()
        plan = _build(trt, path, options, lambda what, share: progress(file, what, share))
        header = header.model_copy(update={"seconds": round(time.monotonic() - start, 2)})
        written = write_plan(folder, header, plan)
    return Built(written, check_plan(written, header.onnx_sha256), reused=False)


def _header(trt: Any, bundle: Bundle, path: Path, options: BuildOptions) -> PlanHeader:
    model = onnx.load(path, load_external_data=False)
    shapes = {
        v.name: tuple(d.dim_value or -1 for d in v.type.tensor_type.shape.dim)
        for v in model.graph.input
    }
    capabilities, gpu, cuda = options.compute_capabilities, "", ""
    if not capabilities:
        driver = examine_driver()
        first = driver.gpus[0]
        capabilities, gpu, cuda = (first.compute_capability,), first.name, driver.cuda
    told = {
        "rest": options.precision,
        "workspace_mib": str(options.workspace_mib or ""),
        "version_compatible": str(options.version_compatible or ""),
        "hardware_compatible": str(options.hardware_compatible or ""),
        "dla": "" if options.dla is None else str(options.dla),
    }
    int8 = bundle.manifest.precision == "int8"
    return PlanHeader(
        kind=options.kind,
        graph=path.name,
        onnx_sha256=sha256_of(path),
        precision="int8" if int8 else options.precision,
        shapes=shapes,
        builder=trt.__version__,
        compute_capabilities=tuple(sorted(capabilities, key=float)),
        gpu=gpu,
        driver=cuda,
        options={k: v for k, v in told.items() if v},
    )


def _build(
    trt: Any, path: Path, options: BuildOptions, progress: Callable[[str, float], None]
) -> bytes:
    logger = _logger(trt)
    builder = trt.Builder(logger)
    # TensorRT for RTX, and TensorRT from 11 on, know no other networks than strongly typed ones.
    said = options.kind == "tensorrt" and _major(trt) == 10
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED if said else None
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    model = onnx.load(path)
    if options.precision == "fp16":
        model = to_half(model)
    if not parser.parse(model.SerializeToString()):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(f"TensorRT cannot take it: {_line(reason)}", where=str(path))
    config = builder.create_builder_config()
    _configure(trt, config, options, progress)
    cache = _timing_cache(config, options)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT cannot build it: {logger.last or 'no reason given'}", where=str(path)
        )
    if cache is not None and options.timing_cache is not None:
        options.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        options.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _configure(
    trt: Any, config: Any, options: BuildOptions, progress: Callable[[str, float], None]
) -> None:
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, wanted in enumerate(options.compute_capabilities):
            if not config.set_compute_capability(_capability(trt, wanted), index):
                raise EngineError(f"TensorRT refused compute capability {wanted}")
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)


def _timing_cache(config: Any, options: BuildOptions) -> Any:
    if options.timing_cache is None:
        return None
    old = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
    cache = config.create_timing_cache(old)
    if cache is None and old:  # another version's, or damaged: as good as none
        cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache


def _monitor(trt: Any, progress: Callable[[str, float], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes on the steps of the builder's outermost phases."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps
            progress(name, 0.0)

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, (step + 1) / max(1, self.steps.get(name, 1)))
            return True

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

    return Monitor()


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the last error for our own one-line message, and prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = _line(message)

    return Logger()


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
