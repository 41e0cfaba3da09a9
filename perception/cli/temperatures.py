"""`anysense bundle temperatures`: confidence that can be trusted, by subset of sensors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import (
    SEEN_NOTE,
    add_data_arguments,
    add_engine_arguments,
    add_fitting,
    engine_choices,
    give_json,
    open_data,
    output_file,
    recorded_command,
    seen_in_training,
)
from perception.cli.console import Table, note, say, step_progress
from perception.cli.parsing import Commands, add_command
from perception.errors import ConfigError

if TYPE_CHECKING:
    from perception.evaluation.confidence import CalibratedConfidence
    from perception.evaluation.evaluate import Scorer
    from perception.metrics.confidence import ConfidenceHistogram

AIM = 0.05
"""An expected calibration error above this is pointed out."""


def add_action(actions: Commands) -> None:
    """Register the action."""
    parser = add_command(
        actions,
        "temperatures",
        "fit the confidence of each subset of sensors on some of the scenes, judge it on the others",
        more="Writes a new bundle with the same graphs, whose labels, boxes and scores are the same; boxes "
        "get a confidence beside their scores.",
        example="anysense bundle temperatures indoor-rgbd --data nyuv2:DIR --split val --out OUT",
    )
    parser.add_argument("bundle", help="folder, zip or name of a bundle")
    add_data_arguments(parser, required=True)
    add_fitting(
        parser,
        "frames",
        "fit to all, and judge each of N parts of the scenes by what was fitted to the "
        "others (default: fit to one half, judge the other)",
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="whose confidence (may be repeated; default: of every task that has one)",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also draw reliability diagrams (.png)"
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run, device="cpu")


def run(args: argparse.Namespace) -> int:
    """Fit, judge, write the new bundle, print a table."""
    from export.bundle_folder import check_target
    from export.calibrated import write_calibrated
    from perception.evaluation.confidence import calibrate_confidence
    from perception.runtime.bundle import find_bundle
    from perception.runtime.pipeline import Pipeline

    if args.picture is not None and args.picture.suffix.lower() != ".png":
        raise ConfigError("must end in .png", where=f"--picture {args.picture}")
    output_file(args.picture)
    folder = find_bundle(args.bundle)
    check_target(args.out, folder)
    recording = open_data(args)
    pipeline = Pipeline.load(folder, args.device, **engine_choices(args))
    with step_progress() as show:
        found = calibrate_confidence(
            pipeline,
            recording,
            tasks=args.task,
            block=args.block,
            folds=args.folds,
            version=args.version,
            on_step=show,
        )
    notes = [_dealt_out(found), *_notes(args, found)]
    how = f"in {args.folds} parts" if args.folds else "half of the scenes"
    words = [recording.info.name, args.split, args.only, args.labels, how]
    name = " ".join(w for w in words if w)
    about = {"command": recorded_command(), "backend": found.backend, "notes": notes}
    write_calibrated(pipeline.bundle, found, args.out, name, about)
    _print(found, f"{found.manifest.name} on {args.data}, split {args.split}")
    for line in notes:
        note(line)
    give_json(args, _content(args, found, notes))
    if args.picture is not None:
        _draw(found, args.picture)
    say(
        f"wrote {args.out / 'bundle.yaml'}, version {found.manifest.version}; its graphs are as they were"
    )
    return 0


def _dealt_out(found: CalibratedConfidence) -> str:
    fit, judge = found.fitted, found.judged
    begin = f"fitted to {len(fit.recording)} frames of {fit.scenes} scenes, "
    if found.folds:
        return f"{begin}judged in {found.folds} parts, each by what was fitted to the others"
    return f"{begin}judged by {len(judge.recording)} of {judge.scenes} others"


def _notes(args: argparse.Namespace, found: CalibratedConfidence) -> list[str]:
    from export.calibrated import subset_rows
    from perception.tasks.registry import TASKS

    notes = [
        f"{task} has no temperatures: its scores stay as they are"
        for task in found.manifest.tasks
        if TASKS[task].trust and TASKS[task].temperature_fit is None
    ]
    if seen_in_training(found.manifest.training, found.judged.recording, args.split):
        notes.append(SEEN_NOTE)
    rows = subset_rows(found)
    for task, error in [(t, TASKS[t].trust[0]) for t in found.temperatures if TASKS[t].trust]:
        beyond = [s for s, row in rows.items() if row.get(error, 0) > AIM]
        if beyond:
            notes.append(f"{error} is above {100 * AIM:g} with {', '.join(beyond)}")
        counted = {s: _histograms(found.after[s]).get(task) for s in beyond}
        often = {s: h.reliability().as_large_by_chance() for s, h in counted.items() if h}
        if often:
            shares = ", ".join(f"{s} {100 * share:.0f} %" for s, share in often.items())
            notes.append(f"how often chance alone would make {error} as large: {shares}")
    for task in found.temperatures:
        few = {s: own[task] for s, x in found.after.items() if task in (own := _histograms(x))}
        chance = {s: h.reliability().by_chance() for s, h in few.items()}
        if too_few := [f"{s} ({100 * c:.1f})" for s, c in chance.items() if c > AIM / 2]:
            notes.append(
                f"{task}: so few answers would have an error by chance alone with {', '.join(too_few)}"
            )
    return notes


def _print(found: CalibratedConfidence, title: str) -> None:
    from export.calibrated import subset_rows, trust_scores

    rows = subset_rows(found)
    names = trust_scores(found.temperatures)  # the others did not change
    fitted = {k for own in found.temperatures.values() for one in own.values() for k in one.numbers}
    keys = dict.fromkeys(k for row in rows.values() for k in row)
    heat = [k for k in keys if k.endswith(tuple(fitted))]
    table = Table("subset", title=title)
    for column in (*heat, "judged", *(f"{n}{end}" for n in names for end in (" before", " after"))):
        table.add_column(column, justify="right")
    for subset, row in rows.items():
        cells = [f"{row[k]:.3f}" if k in row else "-" for k in heat]
        cells.append(str(row["judged"]))
        for n in names:
            for key in (f"{n}_before", n):
                cells.append("-" if row.get(key) is None else f"{100 * row[key]:.2f}")
        table.add_row(subset, *cells)
    table.show()


def _content(
    args: argparse.Namespace, found: CalibratedConfidence, notes: list[str]
) -> dict[str, Any]:
    from export.calibrated import subset_rows

    return {
        "bundle": found.manifest.name,
        "bundle_version": found.manifest.version,
        "data": found.judged.recording.info.name,
        "simulated": found.judged.recording.info.simulated,
        "split": args.split,
        "only": args.only,
        "labels": args.labels,
        "backend": found.backend,
        "notes": notes,
        "folds": found.folds,
        "fitted": {"frames": len(found.fitted.recording), "scenes": found.fitted.scenes},
        "judged": {"frames": len(found.judged.recording), "scenes": found.judged.scenes},
        "subsets": subset_rows(found),
        "reliability": {
            when: {subset: _bins(scorer) for subset, scorer in scorers.items()}
            for when, scorers in (("before", found.before), ("after", found.after))
        },
    }


def _histograms(scorer: Scorer) -> dict[str, ConfidenceHistogram]:
    """By task, what was counted."""
    counted = {task: meter.confidence for task, meter in scorer.meters.items()}
    return {task: found for task, found in counted.items() if found is not None and len(found)}


def _bins(scorer: Scorer) -> dict[str, Any]:
    found = {task: histogram.reliability() for task, histogram in _histograms(scorer).items()}
    return {
        task: {
            "by_chance": bins.by_chance(),
            "as_large_by_chance": bins.as_large_by_chance(),
            "adaptive_ece": _histograms(scorer)[task].adaptive_ece(),
            "count": bins.count.tolist(),
            "confidence": [None if v != v else v for v in bins.confidence.tolist()],
            "accuracy": [None if v != v else v for v in bins.accuracy.tolist()],
        }
        for task, bins in found.items()
    }


def _draw(found: CalibratedConfidence, path: Path) -> None:
    from perception.files.writing import write_image
    from perception.viz.reliability import reliability_diagrams

    def titled(scorers: Mapping[str, Scorer]) -> dict[str, ConfidenceHistogram]:
        rows = {
            s: {t: h for t, h in _histograms(x).items() if t in found.temperatures}
            for s, x in scorers.items()
        }
        several = len(found.temperatures) > 1
        return {f"{s} {t}" if several else s: h for s, own in rows.items() for t, h in own.items()}

    picture = reliability_diagrams(titled(found.before), titled(found.after))
    write_image(path, picture, error=ConfigError)
