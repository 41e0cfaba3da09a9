"""The arguments of `anysense export`, and which of them go together."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import add_engine_limits
from perception.cli.parsing import positive, real, whole
from perception.errors import ConfigError, names_hint

GRAPH_ENGINES = ("onnx", "openvino")
"""What `--engine` takes besides the backends that run what is built for them."""

PRECISIONS = ("fp32", "fp16", "int8", "mixed")

INT8_ERROR, MIXED_ERROR, MIXED_LAYER_ERROR, HALF_ERROR = 0.06, 0.04, 0.01, 0.02

_SUBSET_HELP = """\
which graphs, each a word of its own:
  modular    the encoders and the fuser: what AnySense runs, for any sensors (default)
  single     one graph of everything, whose input 'presence' says which sensors are there
  rgb,depth  one graph for exactly these sensors, with nothing in it for the others
  all        all of these, with a graph for every subset that is judged
Every bundle has the modular graphs; the others are for Triton, Isaac ROS and the like. A bundle is never
changed: one that gets more graphs is another one, and goes to --out."""

_PRECISION_HELP = """\
  fp32   float32 arithmetic
  fp16   float16 arithmetic within --max-error, float32 inputs and outputs
  int8   as many layers in 8 bit integers as --max-error allows
  mixed  onnx, openvino: int8 where a layer loses little by itself, float elsewhere
         tensorrt, tensorrt-rtx: fp16, but fp32 for the layers that were measured to need it
Default: that of the source; with tensorrt and tensorrt-rtx fp16."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All arguments of the command."""
    parser.add_argument(
        "source", type=Path, help="training run, checkpoint, or folder or name of a bundle"
    )
    parser.add_argument("--out", type=Path, help="bundle folder to write")
    parser.add_argument("--subset", nargs="+", default=[], metavar="WHICH", help=_SUBSET_HELP)
    parser.add_argument(
        "--engine",
        type=_engine,
        default="onnx",
        metavar="ENGINE",
        help="what to build for: onnx, openvino, tensorrt, tensorrt-rtx",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help=_PRECISION_HELP)
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="cpu, or the GPU to build for, such as cuda:1 (tensorrt, tensorrt-rtx; default: cuda:0)",
    )
    add_engine_limits(parser)
    parser.add_argument(
        "--serve",
        choices=("triton", "isaac-ros"),
        help="write the graphs of --subset (default: single) into --out for another runtime",
    )
    parser.add_argument(
        "--uint8-rgb",
        action="store_true",
        help="with --serve triton: the graph takes RGB as bytes (1, H, W, 3) and normalizes it itself",
    )
    parser.add_argument(
        "--ends",
        choices=("logits", "labels"),
        default="logits",
        help="what the graphs end in: logits, which AnySense decodes on the CPU, or labels, confidence and\n"
        "energy, for runtimes on GPUs that shall hand over less (default: logits, faster on CPUs)",
    )
    graphs = parser.add_argument_group("from a run or checkpoint")
    graphs.add_argument("--single", action="store_true", help="the same as --subset modular single")
    graphs.add_argument("--dynamic", action="store_true", help="let height and width vary")
    graphs.add_argument(
        "--weights",
        choices=("float16", "float32"),
        help="how weights are stored (default: float16); arithmetic is float32 either way",
    )
    graphs.add_argument("--name", help="name of the bundle (default: the configuration's)")
    graphs.add_argument("--version", help="version of the bundle (default: 1)")
    graphs.add_argument("--licence", help="under what the weights may be used (default: unknown)")
    _add_measuring(parser)
    _add_plans(parser)
    _add_report(parser)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("--precision fp16, int8, mixed")
    group.add_argument(
        "--calib-data",
        metavar="KIND:DIR",
        help="recording to calibrate on; fp16 measures on a made-up frame without one",
    )
    group.add_argument(
        "--calib-split", default="all", choices=("all", "train", "val"), help="part of it"
    )
    group.add_argument(
        "--calib-frames",
        type=whole(1),
        help="frames (default: 24, or what a short recording can spare)",
    )
    group.add_argument(
        "--calib-method",
        choices=("percentile", "entropy", "mse", "max"),
        default="mse",
        help="how ranges are chosen; mse is the least squared error",
    )
    group.add_argument(
        "--max-error",
        type=positive(),
        help="largest relative error of an output; layers stay float until it holds\n"
        f"(default: int8 {INT8_ERROR}, mixed {MIXED_ERROR}, fp16 {HALF_ERROR}, "
        "mixed with tensorrt 0.003)",
    )
    group.add_argument(
        "--layer-error",
        type=positive(),
        help="mixed: largest relative error that a layer may make by itself in int8\n"
        f"(default: {MIXED_LAYER_ERROR})",
    )
    group.add_argument(
        "--judge-frames",
        type=whole(0),
        default=20,
        help="labeled frames to judge the result on, so that auto may use it; 0: none",
    )


def _add_plans(parser: argparse.ArgumentParser) -> None:
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
    group.add_argument(
        "--workspace", type=whole(1), metavar="MIB", help="most scratch memory of a layer, in MiB"
    )
    group.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="tensorrt: read before, written after"
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="tensorrt: plans that later versions load as well",
    )
    group.add_argument(
        "--hardware-compatible",
        action="store_true",
        help="tensorrt: plans for all desktop and data centre GPUs since Ampere",
    )
    group.add_argument(
        "--dla",
        type=whole(0, 15),
        metavar="CORE",
        help="tensorrt: build for this DLA core (Jetson)",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("--report")
    group.add_argument("--report", type=Path, metavar="DIR", help="write report.html and .json")
    group.add_argument("--data", metavar="KIND:DIR", help="labeled recording for accuracy")
    group.add_argument("--split", default="all", choices=("all", "train", "val"), help="part of it")
    group.add_argument("--limit", type=whole(1, 10**9), help="only this many frames, evenly spread")
    group.add_argument(
        "--backends", metavar="A,B", help="backends to report (default: those for CPUs here)"
    )
    group.add_argument(
        "--reference", type=Path, metavar="BUNDLE", help="float32 bundle to hold it against"
    )
    group.add_argument(
        "--tolerance",
        type=real(-100, 100),
        default=1.0,
        help="points that may be lost, or must be gained where negative",
    )
    group.add_argument("--bench-frames", type=whole(1), default=10, help="frames timed per subset")


def _engine(text: str) -> str:
    if text not in GRAPH_ENGINES and not has_plans(text):
        from perception.runtime.engines.registry import with_plans

        hint = names_hint(text, (*GRAPH_ENGINES, *with_plans()))
        raise argparse.ArgumentTypeError(f"'{text}' is unknown ({hint})")
    return text


def has_plans(engine: str) -> bool:
    """Whether something is built for this engine that is kept in the bundle."""
    if engine in GRAPH_ENGINES:
        return False
    from perception.runtime.engines.registry import with_plans

    return engine in with_plans()


def makes_bundle(engine: str, precision: str | None, source: str = "fp32") -> bool:
    """Whether the precision changes the graphs, so that there is a new bundle.

    Args:
        engine, precision: as given.
        source: precision of the source.
    """
    if has_plans(engine):
        return precision == "int8" and source == "fp32"
    return precision in ("fp16", "int8", "mixed")


def check_arguments(args: argparse.Namespace, source: str | None) -> None:
    """Refuse what does not go together, before any work is done.

    Args:
        args: the arguments.
        source: precision of the bundle that is the source; None for a run or checkpoint.

    Raises:
        ConfigError: says in one line what does not fit.
    """
    plans = has_plans(args.engine)
    changes = makes_bundle(args.engine, args.precision, source or "fp32")
    if changes and source not in (None, "fp32"):
        raise ConfigError(
            f"is {source} already; --precision {args.precision} needs the float32 bundle",
            where=str(args.source),
        )
    if not plans and args.precision == "fp32" and source not in (None, "fp32"):
        raise ConfigError(f"is {source}, and stays so", where=str(args.source))
    if plans and source == "fp16" and args.precision not in (None, "fp16"):
        raise ConfigError(
            f"is fp16; --precision {args.precision} needs the float32 bundle",
            where=str(args.source),
        )
    if plans and source in ("int8", "mixed") and args.precision == "mixed" != source:
        raise ConfigError(
            "says itself what is int8; --precision fp16 or fp32 is for the rest",
            where=str(args.source),
        )
    if changes and args.out is None:
        raise ConfigError(f"--precision {args.precision} needs --out")
    _check_measuring(args, source)
    for name in ("compute_capability", "build_only", "rebuild", "workspace", "timing_cache",
                 "version_compatible", "hardware_compatible", "dla"):  # fmt: skip
        value = getattr(args, name)  # --dla 0 is a value
        if not plans and value is not None and value is not False and value != []:
            raise ConfigError(
                "is for --engine tensorrt and tensorrt-rtx", where=f"--{name.replace('_', '-')}"
            )
    if args.uint8_rgb and args.serve != "triton":
        raise ConfigError("is for --serve triton", where="--uint8-rgb")
    gpu_number(args)
    if args.single and args.subset:
        raise ConfigError("is the same as --subset modular single; give one", where="--single")


def _check_measuring(args: argparse.Namespace, source: str | None) -> None:
    measured = args.precision in ("int8", "mixed") and source in (None, "fp32")
    if measured and not args.calib_data:
        raise ConfigError(f"--precision {args.precision} needs --calib-data KIND:DIR")
    halves = args.precision == "fp16" and not has_plans(args.engine)
    if args.calib_data and not measured and not halves:
        raise ConfigError("is for --precision int8, mixed and fp16", where="--calib-data")
    if args.layer_error is not None and (args.precision != "mixed" or has_plans(args.engine)):
        raise ConfigError("is for --precision mixed with onnx and openvino", where="--layer-error")


def gpu_number(args: argparse.Namespace) -> int:
    """The GPU that `--device` names; 0 where none is named.

    Raises:
        ConfigError: it is no device, or not one for the engine.
    """
    if args.device is None:
        return 0
    kind, _, number = args.device.partition(":")
    if kind not in ("cpu", "cuda") or (kind == "cpu" and number) or not (number or "0").isdecimal():
        raise ConfigError(f"unknown device '{args.device}'", where="--device", hint="cpu, cuda:0")
    plans = has_plans(args.engine)
    if plans and kind == "cpu" and not args.compute_capability:
        raise ConfigError(
            "plans run on GPUs", where="--device", hint="cuda:0, or --compute-capability"
        )
    if not plans and kind == "cuda":
        raise ConfigError(
            f"{args.engine} graphs are not built for a GPU; choose where they run with "
            "`anysense run --device`",
            where="--device",
        )
    return int(number or 0)
