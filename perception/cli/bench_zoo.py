"""`anysense bench-zoo`: accuracy by subset and cost of several bundles on one recording, as a table."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from perception.cli.arguments import (
    SEEN_NOTE,
    add_data_arguments,
    add_engine_arguments,
    command_line,
    engine_choices,
    give_json,
    open_data,
    output_file,
    output_folder,
    seen_in_training,
)
from perception.cli.console import counted, note, say
from perception.cli.parsing import Commands, add_command, whole
from perception.errors import ConfigError
from perception.files.writing import write_text
from perception.frame import subset_name


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "bench-zoo",
        "a table of several bundles: accuracy and cost",
        example="anysense bench-zoo bundles/a bundles/b --data folder:DIR --split val --out table.md",
    )
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="bundles to compare")
    add_data_arguments(parser, required=True)
    parser.add_argument("--frames", type=whole(1), default=20, help="timed frames")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and time every bundle; print the table, write it where asked."""
    from perception.evaluation import evaluate
    from perception.evaluation.zoo_table import ZooRow, make_rows, to_markdown
    from perception.runtime.benchmark import measure
    from perception.runtime.pipeline import Pipeline

    output_file(args.out)
    recording = open_data(args)
    pipelines = {b: Pipeline.load(b, args.device, **engine_choices(args)) for b in args.bundles}
    for name, pipeline in pipelines.items():
        evaluate.Scorer(pipeline, recording)  # refuses what cannot be compared, before any work
        if not recording.info.shared(pipeline.kinds):
            raise ConfigError(f"takes none of the sensors of {args.data}", where=name)
    with counted("timing", args.frames + 3) as advance:
        times = measure(pipelines, args.frames, 3, advance)
    rows: list[ZooRow] = []
    for name, pipeline in pipelines.items():
        subsets = evaluate.judged_subsets(pipeline.manifest, recording.info)
        pipeline.min_score = evaluate.LOW_SCORE
        with counted(name, len(subsets) * len(recording)) as advance:
            scores = evaluate.evaluate_subsets(pipeline, recording, subsets, advance)
        full = times[name]["subsets"][subset_name(pipeline.sensors)]
        published = _published(pipeline.manifest.model.get("name", ""))
        rows += make_rows(pipeline.manifest, scores, full["total_ms"]["p50"], published)
    simulated = ", simulated" if recording.info.simulated else ""
    caption = (
        f"On {recording.info.name}{simulated}, split {args.split}, {len(recording)} frames; "
        f"`{command_line()}`."
    )
    table = to_markdown(rows, caption)
    for line in table.splitlines():
        say(line)
    if any(
        seen_in_training(p.manifest.training, recording, args.split) for p in pipelines.values()
    ):
        note(SEEN_NOTE)
    if args.out:
        output_folder(args.out.parent)
        write_text(args.out, table, error=ConfigError)
    give_json(args, {"rows": [asdict(r) for r in rows]})
    return 0


def _published(model: str) -> str:
    """The publication's number of a model; empty without PyTorch, which models need."""
    from perception.models.registry import MODELS

    try:
        return MODELS[model].card.published_result if model in MODELS else ""
    except ImportError:
        return ""
