"""Building TensorRT plans into a bundle's `engines/` folder.

TensorRT for RTX builds ahead of time for chosen compute capabilities, with no GPU; full TensorRT builds
for the GPU that it runs on.  Networks are strongly typed where the version can: the precision is that of
the graph, which is converted before.  Only DLA under TensorRT 10 knows no strongly typed networks:
there the builder may choose float16 for itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import onnx

from export.bundle_graphs import GraphChoice, graph_files
from export.compose import load_graph
from export.half_graph import to_half
from export.onnx_files import graph_problems, load_model
from perception.errors import BundleError, ConfigError, EngineError, names_hint
from perception.files.writing import write_bytes
from perception.runtime.bundle import Bundle, GraphSource
from perception.runtime.engines.base import BackendMissingError
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.cuda_memory import cuda_memory
from perception.runtime.engines.onnxruntime import check_loads
from perception.runtime.engines.plans import (
    FOLDER,
    PlanFile,
    PlanHeader,
    keep_built,
    locked,
    plans_for,
)
from perception.runtime.engines.tensorrt import INSTALL, MODULES
from perception.runtime.onnx_file import describe
from perception.runtime.wiring import FUSER

Progress = Callable[[str, str, float], None]
"""Called with the graph, what the builder is doing, and the share of it that is done."""

Told = Callable[[str, float], None]
"""The same for one graph."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        kind: which TensorRT.
        precision: of the arithmetic, for a float bundle; an INT8 bundle says itself what is int8,
            and the rest is of this precision.  `mixed` is float16 but for `keep_float`.
        compute_capabilities: GPUs to build for, such as `8.6`; TensorRT for RTX only, where none
            means the GPU that is here.
        workspace_mib: most scratch memory a layer may use; None leaves it to TensorRT.
        timing_cache: file that is read before and written after (full TensorRT; that for RTX times
            nothing when it builds).
        version_compatible: plans that later TensorRT versions load as well (full TensorRT).
        hardware_compatible: plans for all GPUs since Ampere (full TensorRT).
        dla: number of the DLA core to build for, on Jetson (full TensorRT); None for the GPU.
        device: number of the GPU to build for, where it is built for one that is here.
        rebuild: build even where a good plan is there.
        keep_float: layers that stay in float32, as `GRAPH/NAME`.
    """

    kind: str
    precision: Literal["fp32", "fp16", "mixed"] = "fp16"
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None
    device: int = 0
    rebuild: bool = False
    keep_float: tuple[str, ...] = ()

    def keeping(self, layers: Sequence[str]) -> BuildOptions:
        """The same with these layers in float32."""
        return replace(self, keep_float=tuple(layers))


@dataclass(frozen=True)
class Built:
    """A plan, and whether it was built now or was there."""

    path: Path
    header: PlanHeader
    reused: bool


def build_plans(
    bundle: Bundle,
    options: BuildOptions,
    progress: Progress = lambda graph, what, share: None,
    choice: GraphChoice | None = None,
) -> list[Built]:
    """Build plans for graphs of a bundle folder.

    Args:
        bundle: an opened folder.
        options: how.
        progress: see `Progress`; what the builder is doing comes with an estimate of the time that
            all that is left will take, once there is something to estimate it from.
        choice: the graphs, all of which the bundle has; None for encoders and fuser.

    Raises:
        BackendMissingError: TensorRT is not installed, or full TensorRT finds no GPU.
        ConfigError: an option does not fit.
        BundleError: the bundle is a zip.
        EngineError: TensorRT cannot take or build a graph.
    """
    trt = check_options(bundle, options)
    files = graph_files(bundle, choice or GraphChoice())
    estimate = _Estimate(bundle, options.kind, files)
    built = []
    for file in files:

        def told(what: str, share: float, file: str = file) -> None:
            progress(file, what + estimate.left(file, share), share)

        start = time.monotonic()
        plan = _one(trt, bundle, file, options, told)
        built.append(plan)
        estimate.done(file, time.monotonic() - start, plan.reused)
    return built


class _Estimate:
    """How long all that is left to build will take, from earlier plans and from those done now."""

    def __init__(self, bundle: Bundle, kind: str, files: Sequence[str]) -> None:
        self.sizes = {f: bundle.size(f) for f in files}
        self.known: dict[str, float] = {}
        self.rates: list[float] = []
        self.waiting = list(files)
        for file in files:
            for plan in plans_for(bundle.source(file), kind):
                try:
                    self.known[file] = plan.header().seconds
                except EngineError:
                    continue  # damaged: it says nothing
                break

    def done(self, file: str, seconds: float, reused: bool) -> None:
        self.waiting.remove(file)
        if not reused:
            self.rates.append(seconds / self.sizes[file])

    def left(self, file: str, share: float) -> str:
        """Such as ` (plan 2 of 3, about 12 s left)`."""
        count = len(self.sizes)
        place = f"plan {count - len(self.waiting) + 1} of {count}"
        rate = sum(self.rates) / len(self.rates) if self.rates else None
        seconds = 0.0
        for other in self.waiting:
            known = self.known.get(other)
            if known is None and rate is None:
                return f" ({place})"
            takes = known if known is not None else (rate or 0.0) * self.sizes[other]
            seconds += takes * (1 - share if other == file else 1)
        return f" ({place}, about {seconds:.0f} s left)"


def check_options(bundle: Bundle, options: BuildOptions) -> Any:
    """Refuse what cannot be built, before any work is done.

    Returns:
        TensorRT's module.

    Raises:
        BackendMissingError, ConfigError, BundleError: as `build_plans`.
    """
    if not bundle.is_folder:
        raise BundleError("is a zip; plans can be kept in a folder only", where=str(bundle.path))
    trt = load_module(options.kind)
    _check_options(trt, bundle, options)
    return trt


def load_module(kind: str) -> Any:
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


def _check_options(trt: Any, bundle: Bundle, options: BuildOptions) -> None:
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
    if bundle.manifest.graphs.dynamic:
        raise ConfigError(
            "sizes vary in this bundle; plans are built for fixed ones",
            where=str(bundle.path),
            hint="export the run without --dynamic",
        )
    driver = examine_driver()
    if driver.problem and (full or not options.compute_capabilities):
        hint = "" if full else "name GPUs to build for with --compute-capability"
        raise BackendMissingError(driver.problem, where=options.kind, hint=hint)
    if driver.gpus and not options.compute_capabilities:
        if not 0 <= options.device < len(driver.gpus):
            raise ConfigError(f"there are {len(driver.gpus)} GPUs here", where="--device")
        here = driver.gpus[options.device]
        if not full and here.compute_capability not in _capabilities(trt):
            raise BackendMissingError(
                f"TensorRT for RTX has no target for {here.name} ({here.compute_capability})",
                hint="--engine tensorrt",
            )
        if options.hardware_compatible and driver.gpus[options.device].integrated:
            raise ConfigError("is not for Jetson, whose GPU is part of the chip", where=_HARDWARE)
    for wanted in options.compute_capabilities:
        _capability(trt, wanted)
    precision = bundle.manifest.precision
    if precision == "fp16" and options.precision != "fp16":
        raise ConfigError(
            f"the bundle is fp16, not {options.precision}",
            where="--precision",
            hint="build from the float32 bundle",
        )
    if precision in ("int8", "mixed") and options.precision == "mixed" and options.keep_float:
        raise ConfigError("the bundle says itself what is int8", where="--precision mixed")
    if options.dla is not None:
        _check_dla(trt, precision, options)


_HARDWARE = "--hardware-compatible"


def _check_dla(trt: Any, precision: str, options: BuildOptions) -> None:
    cores = int(trt.Builder(_logger(trt)).num_DLA_cores)
    if not 0 <= options.dla < cores:  # type: ignore[operator]
        raise ConfigError(
            f"this TensorRT ({trt.__version__}) sees {cores} DLA cores here", where="--dla"
        )
    if options.precision != "fp16":
        raise ConfigError("DLA computes in fp16, or int8", where="--dla", hint="--precision fp16")
    if _major(trt) == 10 and precision in ("int8", "mixed"):
        raise ConfigError(
            "under TensorRT 10 DLA takes no graphs that are quantized explicitly",
            where="--dla",
            hint="build the float32 bundle with --precision fp16",
        )


def _capability(trt: Any, wanted: str) -> Any:
    known = _capabilities(trt)
    if wanted not in known:
        raise ConfigError(
            f"TensorRT for RTX has no target '{wanted}'",
            where="--compute-capability",
            hint=names_hint(wanted, known),
        )
    return known[wanted]


def _capabilities(trt: Any) -> dict[str, Any]:
    """The builder's targets by compute capability, such as `8.6`."""
    members = trt.ComputeCapability.__members__.items()
    return {f"{n[2:-1]}.{n[-1]}": v for n, v in members if n.startswith("SM")}


def _one(trt: Any, bundle: Bundle, file: str, options: BuildOptions, progress: Told) -> Built:
    source = bundle.source(file)
    header = _header(trt, bundle, source, options)
    folder = bundle.path / FOLDER
    with locked(folder, header.file):
        there = PlanFile(bundle.files, f"{FOLDER}/{header.file}")
        if bundle.files.has(there.name) and not options.rebuild:
            try:
                if there.built_here() is not None:  # a stranger's is built anew
                    return Built(folder / header.file, there.fits(source.sha256), reused=True)
            except EngineError:
                pass  # damaged: this is the time to build it again
        start = time.monotonic()
        plan = _build(trt, bundle, source, options, progress)
        header = header.model_copy(update={"seconds": round(time.monotonic() - start, 2)})
        written = keep_built(folder, header, plan, host_code=options.version_compatible)
    return Built(written, there.fits(source.sha256), reused=False)


def _header(trt: Any, bundle: Bundle, source: GraphSource, options: BuildOptions) -> PlanHeader:
    info = describe(source.read_bytes(), where=str(source))
    shapes = {v.name: tuple(d or -1 for d in v.shape or ()) for v in info.inputs}
    capabilities, gpu, cuda = options.compute_capabilities, "", ""
    if not capabilities:
        driver = examine_driver()
        here = driver.gpus[options.device]
        capabilities, gpu, cuda = (here.compute_capability,), here.name, driver.cuda
    told = {
        "rest": options.precision,
        "workspace_mib": str(options.workspace_mib or ""),
        "version_compatible": str(options.version_compatible or ""),
        "hardware_compatible": str(options.hardware_compatible or ""),
        "dla": "" if options.dla is None else str(options.dla),
        "keep_float": _digest(options.keep_float),
    }
    own = bundle.manifest.precision
    return PlanHeader(
        kind=options.kind,
        graph=source.name,
        onnx_sha256=source.sha256,
        precision=options.precision if own == "fp32" else own,
        shapes=shapes,
        builder=trt.__version__,
        compute_capabilities=tuple(sorted(capabilities, key=float)),
        gpu=gpu,
        driver=cuda,
        options={k: v for k, v in told.items() if v},
    )


def _digest(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16] if names else ""


def typed_graph(bundle: Bundle, source: GraphSource, options: BuildOptions) -> onnx.ModelProto:
    """The graph with the types that the network shall have."""
    if options.precision == "fp32" or bundle.manifest.precision == "fp16":
        return load_model(source)
    model = load_graph(source)
    graphs, kept = bundle.manifest.graphs, [n.split("/", 1) for n in options.keep_float]
    owners = {g.file: name for name, g in graphs.encoders.items()} | {graphs.fuser.file: FUSER}
    if source.name in owners:
        keep = {name for graph, name in kept if graph == owners[source.name]}
    else:  # in a graph that was composed nodes bear the name of their input as well
        inputs = {**bundle.manifest.inputs.encoders, FUSER: FUSER}
        keep = {f"{n}/{name}" for graph, name in kept for n, own in inputs.items() if own == graph}
    with graph_problems(source):
        return to_half(model, keep)


def _build(
    trt: Any, bundle: Bundle, source: GraphSource, options: BuildOptions, progress: Told
) -> bytes:
    check_loads(source.read_bytes(), where=str(source))  # TensorRT's parser looks less closely
    if options.device and not options.compute_capabilities:
        with cuda_memory(options.device).current():
            return _build_here(trt, bundle, source, options, progress)
    return _build_here(trt, bundle, source, options, progress)


def _build_here(
    trt: Any, bundle: Bundle, source: GraphSource, options: BuildOptions, progress: Told
) -> bytes:
    logger = _logger(trt)
    builder = trt.Builder(logger)
    weak = options.dla is not None and _major(trt) == 10
    # TensorRT for RTX, and TensorRT from 11 on, know no other networks than strongly typed ones.
    said = options.kind == "tensorrt" and _major(trt) == 10 and not weak
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED if said else None
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if options.dla is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    model = load_model(source) if weak else typed_graph(bundle, source, options)
    if not parser.parse(model.SerializeToString()):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(f"TensorRT cannot take it: {_line(reason)}", where=str(source))
    config = builder.create_builder_config()
    _configure(trt, config, options, progress)
    if weak:
        config.set_flag(trt.BuilderFlag.FP16)
    cache = _timing_cache(config, options)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT cannot build it: {logger.last or 'no reason given'}", where=str(source)
        )
    if cache is not None and options.timing_cache is not None:
        _keep_timings(config, options.timing_cache)
    return bytes(plan)


def _keep_timings(config: Any, path: Path) -> None:
    """Write the timing cache, with what another process has added to the file in the meantime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent, path.name):
        cache = config.get_timing_cache()
        if path.is_file():
            other = config.create_timing_cache(path.read_bytes())
            if other is not None:
                cache.combine(other, ignore_mismatch=False)
        write_bytes(path, bytes(cache.serialize()), error=EngineError)


def _configure(trt: Any, config: Any, options: BuildOptions, progress: Told) -> None:
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


def _monitor(trt: Any, progress: Told) -> Any:
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
