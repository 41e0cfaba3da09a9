"""`anysense export`: a checkpoint to a bundle; a bundle to INT8, to TensorRT plans, to a report."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import (
    CONSOLE,
    backend_names,
    command_line,
    output_folder,
    say,
    thin_out,
)
from perception.cli.progress import step_progress
from perception.errors import ConfigError, DataError, MissingDependencyError, ParityError

if TYPE_CHECKING:
    from perception.data.base import Recording
    from perception.runtime.bundle import Bundle

EXIT_TOLERANCE = 3

_ENGINES = ("onnx", "openvino", "tensorrt", "tensorrt-rtx")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "export", help="export a checkpoint to a bundle; quantize, build or judge a bundle"
    )
    parser.add_argument("source", type=Path, help="checkpoint, run folder or bundle folder")
    parser.add_argument("--out", type=Path, help="bundle folder to write")
    parser.add_argument("--engine", choices=_ENGINES, default="onnx", help="what to build for")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="int8 quantizes the graphs; fp32 or fp16 is the arithmetic of TensorRT plans",
    )
    graphs = parser.add_argument_group("from a checkpoint")
    graphs.add_argument(
        "--single", action="store_true", help="also write one graph with everything"
    )
    graphs.add_argument("--dynamic", action="store_true", help="let height and width vary")
    graphs.add_argument(
        "--weights",
        choices=("float16", "float32"),
        default="float16",
        help="how weights are stored; arithmetic is float32 either way",
    )
    graphs.add_argument("--name", help="name of the bundle (default: the configuration's)")
    graphs.add_argument("--version", default="1", help="version of the bundle")
    _add_int8_arguments(parser)
    _add_plan_arguments(parser)
    _add_report_arguments(parser)
    parser.add_argument(
        "--serve",
        choices=("triton", "isaac-ros"),
        help="write the single graph of a bundle into --out for another runtime",
    )
    parser.add_argument("--threads", type=int, help="CPU threads within an operator (default: all)")
    parser.set_defaults(run=run)


def _add_int8_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("--precision int8")
    group.add_argument("--calib-data", metavar="KIND:DIR", help="recording to calibrate on")
    group.add_argument("--calib-split", default="all", choices=("all", "train", "val"))
    group.add_argument("--calib-frames", type=int, default=24, help="frames (default: 24)")
    group.add_argument(
        "--calib-method",
        choices=("percentile", "entropy", "mse", "max"),
        default="mse",
        help="how ranges are chosen (default: mse, the least squared error)",
    )
    group.add_argument(
        "--max-error",
        type=float,
        default=0.06,
        help="largest relative error of an output; layers stay float until it holds (default: 0.06)",
    )
    group.add_argument(
        "--judge-frames",
        type=int,
        default=20,
        help="labeled frames to judge the result on, so that auto may use it (default: 20; 0: none)",
    )


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("--report")
    group.add_argument("--report", type=Path, metavar="DIR", help="write report.html and .json")
    group.add_argument("--data", metavar="KIND:DIR", help="labeled recording for accuracy")
    group.add_argument("--split", default="all", choices=("all", "train", "val"))
    group.add_argument("--limit", type=int, help="only this many frames, evenly spread")
    group.add_argument(
        "--backends", metavar="A,B", help="backends to report (default: those for CPUs here)"
    )
    group.add_argument(
        "--reference", type=Path, metavar="BUNDLE", help="float32 bundle to hold it against"
    )
    group.add_argument(
        "--tolerance", type=float, default=1.0, help="points that may be lost (default: 1)"
    )
    group.add_argument(
        "--bench-frames", type=int, default=10, help="frames timed per subset (default: 10)"
    )


def _add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("--engine tensorrt, tensorrt-rtx")
    group.add_argument(
        "--compute-capability",
        nargs="+",
        default=[],
        metavar="X.Y",
        help="GPUs to build for, with tensorrt-rtx (default: the one that is here)",
    )
    group.add_argument(
        "--build-only", action="store_true", help="do not load what was built; needs no GPU"
    )
    group.add_argument("--rebuild", action="store_true", help="build even where a plan is there")
    group.add_argument("--workspace", type=int, metavar="MIB", help="scratch memory in MiB")
    group.add_argument("--timing-cache", type=Path, metavar="FILE", help="read and written")
    group.add_argument("--version-compatible", action="store_true")
    group.add_argument("--hardware-compatible", action="store_true")
    group.add_argument("--dla", type=int, metavar="CORE", help="build for this DLA core (Jetson)")


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for; exit 3 when a tolerance is broken."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "export needs onnx", hint="pip install 'anysense[train]'"
        ) from error
    if args.precision == "int8" and not args.calib_data:
        raise ConfigError("--precision int8 needs --calib-data KIND:DIR")
    if args.calib_data and args.precision != "int8":
        raise ConfigError("is for --precision int8", where="--calib-data")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise ConfigError("exists and is no folder", where=str(args.out))
    if args.serve:
        return _serve(args)
    try:
        bundle = _source(args)
        if args.precision == "int8":
            bundle = _quantize(args, bundle)
        if args.engine in ("tensorrt", "tensorrt-rtx"):
            _build(args, bundle)
        elif args.engine == "openvino":
            _load(bundle, "openvino", args.threads)
        if args.report is not None and not _report(args, bundle):
            return EXIT_TOLERANCE
    except ParityError as error:
        CONSOLE.print(f"anysense: error: {error}", style="red", highlight=False)
        return EXIT_TOLERANCE
    return 0


def _serve(args: argparse.Namespace) -> int:
    from export.serving import write_isaac_ros, write_triton
    from perception.runtime.bundle import Bundle, find_bundle

    if args.out is None:
        raise ConfigError("--serve needs --out")
    write = write_triton if args.serve == "triton" else write_isaac_ros
    bundle = Bundle.open(find_bundle(str(args.source)))
    say(f"wrote {write(bundle, output_folder(args.out))}")
    return 0


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle rather than a checkpoint."""
    return (path / "bundle.yaml").is_file() or path.suffix == ".zip"


def _source(args: argparse.Namespace) -> Bundle:
    """The float32 bundle to go on with: the source itself, or exported from it."""
    from perception.runtime.bundle import Bundle

    if is_bundle(args.source):
        for flag in ("single", "dynamic"):
            if getattr(args, flag):
                raise ConfigError("needs a checkpoint, not a bundle", where=f"--{flag}")
        if args.precision != "int8" and args.engine == "onnx" and args.report is None:
            raise ConfigError(
                "is a bundle already",
                where=str(args.source),
                hint="--precision int8, --engine, --report or a checkpoint",
            )
        if args.precision != "int8" and args.out is not None:
            raise ConfigError("plans are kept in the bundle itself", where="--out")
        if args.precision == "int8" and args.out is None:
            raise ConfigError("--precision int8 needs --out")
        if args.out is not None and args.out.resolve() == args.source.resolve():
            raise ConfigError("is the source", where="--out")
        return Bundle.open(args.source)
    if args.out is None:
        raise ConfigError("--out is needed for a checkpoint")
    return _export(args)


def _export(args: argparse.Namespace) -> Bundle:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a checkpoint needs PyTorch", hint="pip install 'anysense[train]'"
        ) from error
    from rich.table import Table

    from export.bundle_writer import ExportOptions, export_bundle
    from perception.runtime.bundle import Bundle

    options = ExportOptions(
        single=args.single,
        dynamic=args.dynamic,
        half_storage=args.weights == "float16",
        version=args.version,
        name=args.name,
    )
    # An INT8 bundle is made from the float32 one, which is kept beside it.
    out = args.out if args.precision != "int8" else args.out.with_name(f"{args.out.name}-fp32")
    with CONSOLE.status(f"exporting {args.source}"):
        rows = export_bundle(args.source, out, options)
    table = Table("graphs", "subset", "max |ONNX - PyTorch|")
    for row in rows:
        table.add_row(row.form, row.subset, f"{row.max_abs:.1e}")
    CONSOLE.print(table)
    say(f"wrote {out} ({_megabytes(out):.1f} MB)")
    return Bundle.open(out)


def _quantize(args: argparse.Namespace, bundle: Bundle) -> Bundle:
    from rich.table import Table

    from export.int8 import Int8Options, Quantizer
    from perception.data.registry import open_recording, parse_data_argument
    from perception.runtime.bundle import Bundle

    if not args.max_error > 0:
        raise ConfigError("must be positive", where="--max-error")
    kind, root = parse_data_argument(args.calib_data)
    recording = open_recording(kind, root, split=args.calib_split)
    options = Int8Options(
        args.calib_frames,
        args.calib_method,
        args.max_error,
        threads=args.threads,
        only=_int8_policy(args.source),
    )
    with step_progress() as show:
        report = Quantizer(bundle, recording, options, show).run(output_folder(args.out))
    order = sorted(report.layers, key=lambda n: -report.layers[n])
    table = Table("layer", "error when quantized alone", "is")
    for name in order[: max(8, len(report.kept_float) + 3)]:
        kept = "float" if name in report.kept_float else "int8"
        table.add_row(name, f"{report.layers[name]:.4f}", kept)
    CONSOLE.print(table)
    say(
        f"{len(report.layers) - len(report.kept_float)} of {len(report.layers)} layers in int8; "
        f"relative error {report.error:.3f}, with all of them {report.error_all:.3f}"
    )
    say(f"wrote {args.out} ({_megabytes(args.out):.1f} MB)")
    if args.judge_frames:
        _judge(args, bundle, recording)
    return Bundle.open(args.out)


def _int8_policy(source: Path) -> frozenset[str] | None:
    """The layers that a run lets be quantized; None for all of them."""
    if is_bundle(source):
        return None
    from perception.training.checkpoint import load_checkpoint

    layers = load_checkpoint(source).config.model.int8
    return None if layers is None else frozenset(layers)


def _judge(args: argparse.Namespace, source: Bundle, recording: Recording) -> None:
    """Score the INT8 bundle on the CPU's backends against its source, and record the outcome."""
    from perception.frame import subsets_of
    from perception.metrics.backends import judge_backends, record_backends

    thin_out(recording, args.judge_frames, "--judge-frames")
    names, subsets = _cpu_backends(), subsets_of(source.manifest.modalities)
    total, step = len(recording) * len(subsets) * (1 + len(names)), itertools.count(1)
    try:
        with step_progress() as show:
            _, judged = judge_backends(
                args.out,
                recording,
                names,
                subsets,
                reference_bundle=source.path,
                threads=args.threads,
                on_result=lambda: show("judging", next(step), total),
            )
    except (ConfigError, DataError) as error:
        say(f"not judged: {error}", style="yellow")
        return
    record_backends(args.out, judged)
    for judgement in judged.values():
        record = judgement.record
        say(
            f"{judgement.backend}: loses at most {max(record.lost, 0):.2f} points on "
            f"{record.frames} frames ({'within' if record.passed else 'beyond'} {record.tolerance:g})"
        )


def _cpu_backends() -> list[str]:
    from perception.runtime.engines.registry import BACKENDS

    return [n for n in ("onnxruntime-cpu", "openvino") if BACKENDS[n].installed]


def _report(args: argparse.Namespace, bundle: Bundle) -> bool:
    """Write the report; False when it breaks a tolerance."""
    from rich.table import Table

    from export.report import ReportOptions, make_report, table_rows, write_report
    from perception.data.registry import open_recording, parse_data_argument

    if args.bench_frames < 1:
        raise ConfigError("must be at least 1", where="--bench-frames")
    output_folder(args.report)
    recording = None
    if args.data:
        kind, root = parse_data_argument(args.data)
        recording = open_recording(kind, root, split=args.split)
        if args.limit is not None:
            thin_out(recording, args.limit, "--limit")
    reference = args.reference
    if reference is None:
        reference = args.source if is_bundle(args.source) else bundle.path
    names = backend_names(args.backends) if args.backends else _cpu_backends()
    options = ReportOptions(tuple(names), args.tolerance, args.bench_frames, args.threads)
    with step_progress() as show:
        content = make_report(bundle.path, reference, recording, options, show)
    write_report(args.report, content, command_line())
    header, *rows = table_rows(content)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)
    for row in content["backends"].values():
        for reason in row["reasons"]:
            say(f"{row['backend']}: {reason}", style="red")
    say(f"wrote {args.report / 'report.html'}")
    return bool(content["passed"])


def _build(args: argparse.Namespace, bundle: Bundle) -> None:
    from export.engine_builder import BuildOptions, build_plans

    if args.workspace is not None and args.workspace < 1:
        raise ConfigError("must be at least 1", where="--workspace")
    options = BuildOptions(
        args.engine,
        "fp32" if args.precision == "fp32" else "fp16",
        tuple(dict.fromkeys(args.compute_capability)),
        args.workspace,
        args.timing_cache,
        args.version_compatible,
        args.hardware_compatible,
        args.dla,
        args.rebuild,
    )
    with step_progress() as show:
        built = build_plans(
            bundle,
            options,
            lambda graph, what, share: show(f"{graph}: {what}", round(100 * share), 100),
        )
    for plan in built:
        header = plan.header
        how = "there already" if plan.reused else f"built in {header.seconds:.1f} s"
        say(
            f"{plan.path} ({header.plan_bytes / 1e6:.1f} MB, {header.precision}, compute capability "
            f"{', '.join(header.compute_capabilities)}): {how}"
        )
    if not args.build_only:
        _load(bundle, args.engine, args.threads)


def _load(bundle: Bundle, backend: str, threads: int | None) -> None:
    from perception.runtime.engines.selection import load_engines

    engines = load_engines(bundle, backend, threads)
    say(f"{bundle.path} loads on {engines['fuser'].backend}")


def _megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file()) / 1e6
