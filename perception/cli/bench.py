"""`anysense bench`: latency of bundles by subset, as ratios from one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.cli.arguments import CONSOLE, add_engine_arguments, command_line, write_json
from perception.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("bench", help="latency by subset: overhead, savings, percentiles")
    parser.add_argument(
        "bundles", nargs="+", metavar="BUNDLE", help="one bundle, or two to compare"
    )
    parser.add_argument("--frames", type=int, default=40, help="frames per subset (default: 40)")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON."""
    from rich.progress import Progress

    from perception.runtime.benchmark import measure
    from perception.runtime.pipeline import Pipeline

    if args.frames < 1 or args.warmup < 0:
        raise ConfigError("--frames must be positive, --warmup not negative")
    if len(args.bundles) > 2:
        raise ConfigError("at most two bundles can be compared")
    results: dict[str, Any] = {}
    with Progress(console=CONSOLE, transient=True) as progress:
        task = progress.add_task("timing", total=len(args.bundles) * (args.frames + args.warmup))
        for name in args.bundles:
            pipeline = Pipeline.load(name, args.device, threads=args.threads)
            found = measure(pipeline, args.frames, args.warmup, lambda: progress.advance(task))
            results[name] = {
                "name": pipeline.manifest.name,
                "backend": pipeline.backend,
                "grid": pipeline.manifest.inputs.grid.model_dump(),
                **found,
            }
            _print(results[name])
    content: dict[str, Any] = {"command": command_line(), "bundles": results}
    if len(results) == 2:
        first, second = (next(iter(r["subsets"].values())) for r in results.values())
        content["speedup"] = first["total_ms"]["p50"] / second["total_ms"]["p50"]
        CONSOLE.print(f"speedup of the second over the first: {content['speedup']:.2f}")
    if args.json:
        write_json(args.json, content)
    return 0


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    grid = found["grid"]
    table = Table(
        title=f"{found['name']} at {grid['width']}x{grid['height']} on {found['backend']}"
    )
    table.add_column("subset")
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
    CONSOLE.print(table)
    for modality, share in found["saving_when_lost"].items():
        CONSOLE.print(f"without {modality}: {100 * share:.0f} % less latency")
