"""`anysense export --precision`: a bundle in another precision, measured, judged and timed."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import thin_out
from perception.cli.console import Table, note, say, step_progress, warn
from perception.cli.export_arguments import (
    HALF_ERROR,
    INT8_ERROR,
    MIXED_ERROR,
    MIXED_LAYER_ERROR,
)
from perception.errors import ConfigError, DataError, EngineError

if TYPE_CHECKING:
    from export.sensitivity import Choice
    from perception.data.base import Recording
    from perception.runtime.bundle import Bundle

Finish = Callable[[Path], None]


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle rather than a checkpoint."""
    return (path / "bundle.yaml").is_file() or (path.is_file() and path.suffix.lower() == ".zip")


def megabytes(folder: Path) -> float:
    """Size of the files in a folder."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file()) / 1e6


def cpu_backends() -> list[str]:
    """The backends for CPUs that are installed."""
    from perception.runtime.engines.registry import BACKENDS

    return [n for n in ("onnxruntime-cpu", "openvino") if BACKENDS[n].installed]


def change(args: argparse.Namespace, bundle: Bundle, finish: Finish) -> Bundle:
    """The bundle in another precision, in `--out`.

    Args:
        args: of the command.
        bundle: a float32 bundle.
        finish: adds to the new bundle before it is in its place.
    """
    from export.speed import compare_speed, record_speed, slower
    from perception.runtime.bundle import Bundle

    speed, untimed = dict[str, float](), dict[str, EngineError]()

    def timed(folder: Path) -> None:
        finish(folder)
        with step_progress() as show:
            new = Bundle.open(folder, verify=False)
            names = cpu_backends()
            found = compare_speed(new, bundle, names, args.threads, show, untimed.__setitem__)
        speed.update(found)
        record_speed(folder, speed, args.threads)

    if args.precision == "fp16":
        _halve(args, bundle, timed)
    else:
        _quantize(args, bundle, timed)
    warnings = slower(args.precision, speed)
    args.found |= {"precision": args.precision, "times_as_fast_as_float32": speed}
    for name, factor in speed.items():
        if name in warnings:
            warn(warnings[name])
        else:
            say(f"{name}: {factor:.2f} times as fast as float32 here")
    for name, error in untimed.items():
        note(f"not timed on {name}: {error}")
    return Bundle.open(args.out)


def calibration(args: argparse.Namespace) -> Recording:
    """The recording of `--calib-data`."""
    from perception.data.registry import open_recording, parse_data_argument

    kind, root = parse_data_argument(args.calib_data)
    return open_recording(kind, root, split=args.calib_split)


def _halve(args: argparse.Namespace, bundle: Bundle, finish: Finish) -> None:
    from export.half_bundle import write_half

    recording = calibration(args) if args.calib_data else None
    limit = args.max_error or HALF_ERROR
    with step_progress() as show:
        choice = write_half(bundle, args.out, limit, recording, args.threads, show, finish)
    _say_float(choice)
    say(
        f"wrote {args.out} ({megabytes(args.out):.1f} MB); "
        f"relative error of float16 {choice.error:.1e}"
    )


def _say_float(choice: Choice) -> None:
    if choice.layers:
        say(
            f"{len(choice.kept)} of {len(choice.layers)} layers stay in float32; relative error "
            f"{choice.error:.1e}, with none of them {choice.error_all:.1e}"
        )


def _quantize(args: argparse.Namespace, bundle: Bundle, finish: Finish) -> None:
    from export.calibration_frames import usual_frames
    from export.int8 import Int8Options, Quantizer

    recording = calibration(args)
    mixed = args.precision == "mixed"
    options = Int8Options(
        args.calib_frames or usual_frames(len(recording)),
        args.calib_method,
        args.max_error or (MIXED_ERROR if mixed else INT8_ERROR),
        (args.layer_error or MIXED_LAYER_ERROR) if mixed else None,
        threads=args.threads,
        only=_int8_policy(args.source),
    )
    with step_progress() as show:
        quantizer = Quantizer(bundle, recording, options, show)
        choice = quantizer.run(args.out, finish)
    order = sorted(choice.layers, key=lambda n: -choice.layers[n])
    table = Table("layer", "error when quantized alone", "is")
    for name in order[: max(8, len(choice.kept) + 3)]:
        kept = "float" if name in choice.kept else "int8"
        table.add_row(name, f"{choice.layers[name]:.4f}", kept)
    table.show()
    say(
        f"{len(choice.layers) - len(choice.kept)} of {len(choice.layers)} layers in int8; "
        f"relative error {choice.error:.3f}, with all of them {choice.error_all:.3f}"
    )
    if args.calib_frames is None and options.frames < usual_frames(10**6):
        frames = (
            "1 frame" if len(quantizer.calibrated) == 1 else f"{len(quantizer.calibrated)} frames"
        )
        note(
            f"calibrated on {frames}, all that the recording can spare; "
            f"{usual_frames(10**6)} are usual"
        )
    say(f"wrote {args.out} ({megabytes(args.out):.1f} MB)")
    if args.judge_frames:
        _judge(args, bundle, recording)


def _int8_policy(source: Path) -> frozenset[str] | None:
    """The layers that a run lets be quantized; None for all of them."""
    if is_bundle(source):
        return None
    from perception.training.checkpoint import load_checkpoint

    layers = load_checkpoint(source).config.model.int8
    return None if layers is None else frozenset(layers)


def _judge(args: argparse.Namespace, source: Bundle, recording: Recording) -> None:
    """Score the INT8 bundle on the CPU's backends against its source, and record the outcome."""
    from perception.evaluation.backends import judge_backends, record_backends

    thin_out(recording, args.judge_frames, "--judge-frames")
    names, subsets = cpu_backends(), source.manifest.subsets
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


def float_layers(args: argparse.Namespace, bundle: Bundle) -> list[str]:
    """The layers of plans that were measured to need float32, where the rest is float16."""
    from export.half_bundle import MIXED_HALF_ERROR, choose_float_layers

    limit = args.max_error or MIXED_HALF_ERROR
    with step_progress() as show:
        # Three frames, as for INT8: what matters is the range of values, which varies little.
        choice = choose_float_layers(bundle, calibration(args), 3, limit, args.threads, show)
    if not choice.layers:
        say(f"no layer needs float32: float16 throughout makes an error of {choice.error:.1e}")
    _say_float(choice)
    return choice.kept


def check_float16(args: argparse.Namespace, bundle: Bundle) -> None:
    """Refuse plans in float16 throughout where that costs more than `--max-error`.

    Raises:
        EngineError: says how much it costs, and what to do.
    """
    from export.half_bundle import half_error

    limit, error = args.max_error or HALF_ERROR, half_error(bundle, args.threads)
    if not error <= limit:
        raise EngineError(
            f"float16 throughout makes a relative error of {error:.2g}, {limit:g} is allowed",
            where=str(bundle.path),
            hint="--precision mixed --calib-data KIND:DIR keeps what needs it in float32; or --max-error",
        )
