"""`anysense eval`: accuracy of a bundle on a recording, for every subset of modalities."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from perception.cli.arguments import (
    CONSOLE,
    SEEN_NOTE,
    add_data_arguments,
    add_engine_arguments,
    command_line,
    open_data,
    output_file,
    say,
    seen_in_training,
    write_json,
)
from perception.errors import ConfigError
from perception.frame import Modality, as_modality, subsets_of


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("eval", help="accuracy of a bundle on a recording, by subset")
    parser.add_argument("bundle", help="folder, zip or name of a bundle")
    add_data_arguments(parser, required=True)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--all-subsets", action="store_true", help="every subset of modalities")
    group.add_argument("--subset", help="one subset, e.g. rgb,depth (default: all modalities)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument(
        "--record", action="store_true", help="also write the numbers into the bundle's bundle.yaml"
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def _subsets(args: argparse.Namespace, usable: tuple[Modality, ...]) -> list[tuple[Modality, ...]]:
    if args.all_subsets:
        return subsets_of(usable)
    if not args.subset:
        return [usable]
    wanted = [as_modality(m.strip()) for m in args.subset.replace("+", ",").split(",")]
    missing = [m for m in wanted if m not in usable]
    if missing:
        raise ConfigError(
            f"{missing[0]} is not in both bundle and data", where="--subset", hint=", ".join(usable)
        )
    return [tuple(m for m in usable if m in wanted)]


def run(args: argparse.Namespace) -> int:
    """Evaluate, print a table, write the JSON."""
    from rich.progress import Progress

    from perception.metrics.evaluate import LOW_SCORE, Scorer, evaluate_subsets
    from perception.runtime.bundle import find_bundle, record_accuracy
    from perception.runtime.pipeline import Pipeline

    output_file(args.json)
    folder = find_bundle(args.bundle)
    if args.record and not folder.is_dir():
        raise ConfigError("--record needs a bundle folder, not a zip", where=str(folder))
    recording = open_data(args)
    pipeline = Pipeline.load(args.bundle, args.device, threads=args.threads)
    pipeline.manifest.detection.score_threshold = LOW_SCORE
    # Made here, too, so that what cannot be compared is refused before any work is done.
    lacking = Scorer(pipeline, recording).lacking
    usable = tuple(m for m in pipeline.modalities if m in recording.info.modalities)
    if not usable:
        raise ConfigError(f"the bundle takes none of the modalities of {args.data}")
    subsets = _subsets(args, usable)
    with Progress(console=CONSOLE, transient=True) as progress:
        task = progress.add_task("evaluating", total=len(subsets) * len(recording))
        table = evaluate_subsets(pipeline, recording, subsets, lambda: progress.advance(task))
    notes = [f"the bundle does not know {', '.join(lacking)}: scored as 0"] if lacking else []
    if seen_in_training(pipeline.manifest.training, recording, args.split):
        notes.append(SEEN_NOTE)
    _print(table, args, pipeline.manifest.name, recording.info.simulated)
    for note in notes:
        say(f"note: {note}", style="yellow")
    content = {
        "bundle": pipeline.manifest.name,
        "bundle_version": pipeline.manifest.version,
        "data": recording.info.name,
        "simulated": recording.info.simulated,
        "split": args.split,
        "only": args.only,
        "labels": args.labels,
        "backend": pipeline.backend,
        "command": command_line(),
        "notes": notes,
        "subsets": table,
    }
    if args.json:
        write_json(args.json, content)
    if args.record:
        record_accuracy(folder, *_record(content))
    return 0


def _record(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and content of the manifest's entry: what was measured, on what, by which command."""
    words = [content["data"], content["split"], content["only"], content["labels"]]
    # Where results went on this machine is of no use to a reader of the bundle.
    command = re.sub(r" --(json|threads)[ =]\S+| --record", "", content["command"])
    kept = {k: content[k] for k in ("backend", "notes") if content[k]}
    subsets = {
        name: {k: round(v, 4) for k, v in row.items() if isinstance(v, int | float)}
        for name, row in content["subsets"].items()
    }
    return " ".join(w for w in words if w), {"command": command, **kept, "subsets": subsets}


def _print(table: dict[str, Any], args: argparse.Namespace, name: str, simulated: bool) -> None:
    from rich.table import Table

    skipped = ("per_class", "frames", "answered")
    columns = [k for k in next(iter(table.values())) if k not in skipped]
    note = " (simulated data)" if simulated else ""
    out = Table(title=f"{name} on {args.data}, split {args.split}{note}")
    out.add_column("subset")
    for column in ("frames", "answered", *columns):
        out.add_column(column, justify="right")
    for subset, row in table.items():
        cells = ["-" if row.get(c) is None else f"{100 * row[c]:.1f}" for c in columns]
        out.add_row(subset, str(row["frames"]), str(row["answered"]), *cells)
    CONSOLE.print(out)
