"""`anysense bench`: latency of bundles by subset, as ratios from one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from perception.cli.arguments import (
    add_engine_arguments,
    backend_names,
    engine_choices,
    give_json,
)
from perception.cli.console import Table, counted, note, say
from perception.cli.parsing import Commands, add_command, whole
from perception.errors import ConfigError
from perception.runtime.engines.base import doubts_line
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.pipeline import Pipeline


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "bench",
        "latency by subset: overhead, savings, percentiles",
        more="Subsets, bundles and backends are timed in turn, frame by frame, so that a busy machine "
        "slows all of them alike.",
        example="anysense bench sim-rgbdtl --backends onnxruntime,openvino --json bench.json",
    )
    add_bench_arguments(parser)
    parser.set_defaults(run=run)


def add_bench_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The arguments of the command.

    Args:
        parser: takes them.
        default: bundle to time when none is named; None makes naming one a duty.
    """
    parser.add_argument(
        "bundles",
        nargs="+" if default is None else "*",
        default=[default] if default is not None else None,
        metavar="BUNDLE",
        help="one bundle, or two to compare",
    )
    parser.add_argument("--frames", type=whole(1), default=40, help="frames per subset")
    parser.add_argument("--warmup", type=whole(0), default=5, help="untimed frames before")
    parser.add_argument(
        "--backends",
        metavar="A,B",
        help="time one bundle on these backends, beside ONNX Runtime on the CPU",
    )
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON."""
    from perception.runtime.benchmark import measure

    if len(args.bundles) > 2:
        raise ConfigError("at most two bundles can be compared")
    pipelines = _by_backend(args) if args.backends else _by_bundle(args)
    with counted("timing", args.frames + args.warmup) as advance:
        found = measure(pipelines, args.frames, args.warmup, advance)
    content: dict[str, Any] = {
        "frames": args.frames,
        "warmup": args.warmup,
        "threads": args.threads,
    }
    described = {label: _described(pipelines[label]) | found[label] for label in found}
    content["backends" if args.backends else "bundles"] = described
    for label, entry in described.items():
        _print(label, entry)
    content["notes"] = _notes(pipelines)
    for line in content["notes"]:
        note(line)
    if args.backends:
        content["bundle"] = args.bundles[0]
        content["baseline"] = REFERENCE
        content["speedup"] = {n: _speedup(found[REFERENCE], found[n]) for n in found}
        for name, factors in content["speedup"].items():
            text = ", ".join(f"{subset} {factor:.2f}" for subset, factor in factors.items())
            say(f"{name}: times as fast as {REFERENCE}: {text}")
    elif len(found) == 2:
        content["speedup"] = _speedup(*found.values())
        for subset, factor in content["speedup"].items():
            say(f"{subset}: the second bundle is {factor:.2f} times as fast as the first")
    give_json(args, content)
    return 0


def _by_backend(args: argparse.Namespace) -> dict[str, Pipeline]:
    """One bundle on several backends; the reference is always among them."""
    if len(args.bundles) != 1:
        raise ConfigError("takes one bundle", where="--backends")
    names = backend_names(args.backends)
    names = [REFERENCE, *(name for name in names if name != REFERENCE)]
    return {n: Pipeline.load(args.bundles[0], n, **engine_choices(args)) for n in names}


def _by_bundle(args: argparse.Namespace) -> dict[str, Pipeline]:
    """One or two bundles; `--device A,B` gives each its own."""
    devices = args.device.split(",")
    if len(devices) == 1:
        devices = devices * len(args.bundles)
    if len(devices) != len(args.bundles):
        raise ConfigError(
            f"{len(devices)} devices for {len(args.bundles)} bundle(s)", where="--device"
        )
    return {
        _label(args.bundles, index): Pipeline.load(name, device, **engine_choices(args))
        for index, (name, device) in enumerate(zip(args.bundles, devices, strict=True))
    }


def _label(names: list[str], index: int) -> str:
    """The bundle's argument; numbered where one bundle is compared with itself."""
    return names[index] if names.count(names[index]) == 1 else f"{names[index]} ({index + 1})"


def _described(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.manifest.name,
        "backend": pipeline.backend,
        "precision": pipeline.manifest.precision,
        "grid": pipeline.manifest.inputs.grid.model_dump(),
        "doubts": doubts_line({name: own.doubts for name, own in pipeline.engines.items()}),
    }


def _notes(pipelines: Mapping[str, Pipeline]) -> list[str]:
    """What this CPU does to integers, where a bundle in int8 was timed on OpenVINO."""
    whole = [p for p in pipelines.values() if p.manifest.precision in ("int8", "mixed")]
    if not any("openvino" in p.backend for p in whole):
        return []
    from perception.runtime.engines.openvino import integers_overflow

    line = (
        "this CPU has no dot product of bytes (AVX-VNNI, AVX-512 VNNI, AMX): OpenVINO adds products of int8 "
        "in 16 bits, which overflow, and gives other numbers than onnxruntime"
    )
    return [line] if integers_overflow() else []


def _speedup(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Median latency of the first over the second, for the subsets that both have."""
    return {
        subset: row["total_ms"]["p50"] / second["subsets"][subset]["total_ms"]["p50"]
        for subset, row in first["subsets"].items()
        if subset in second["subsets"]
    }


def _print(label: str, found: dict[str, Any]) -> None:
    grid = found["grid"]
    title = f"{label} at {grid['width']}x{grid['height']} on {found['backend']}"
    table = Table(title=title)
    table.add_column("subset", no_wrap=True)
    for column in ("total p50 ms", "p99", "engine p50 ms", "overhead / engine", "frames/s"):
        table.add_column(column, justify="right")
    for name, row in found["subsets"].items():
        table.add_row(
            name,
            f"{row['total_ms']['p50']:.1f}",
            f"{row['total_ms']['p99']:.1f}",
            f"{row['engine_ms']['p50']:.1f}",
            f"{100 * row['overhead_over_engine']:.1f} %",
            f"{row['frames_per_second']:.1f}",
        )
    table.show()
    for sensor, share in found["saving_when_lost"].items():
        say(f"without {sensor}: {100 * share:.0f} % less latency")
