"""`anysense eval`: accuracy of a bundle on a recording, by subset of sensors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import (
    SEEN_NOTE,
    add_data_arguments,
    add_engine_arguments,
    backend_names,
    command_line,
    engine_choices,
    give_json,
    open_data,
    output_file,
    recorded_command,
    seen_in_training,
)
from perception.cli.console import Table, counted, note, say
from perception.cli.parsing import Commands, add_command, real
from perception.data.base import Recording
from perception.errors import ConfigError, names_hint
from perception.runtime.manifest import BundleManifest

if TYPE_CHECKING:
    from perception.runtime.pipeline import Pipeline


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "eval",
        "accuracy of a bundle on a recording, by subset",
        more="Scores are in percent; every subset is judged on the frames that have all of its sensors.",
        example="anysense eval indoor-rgbd --data nyuv2:DIR --split val --all-subsets",
    )
    parser.add_argument("bundle", help="folder, zip or name of a bundle")
    add_data_arguments(parser, required=True)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--all-subsets", action="store_true", help="every subset that is judged of the bundle"
    )
    group.add_argument("--subset", help="one subset of sensors, e.g. rgb,depth (default: all)")
    parser.add_argument(
        "--record",
        action="store_true",
        help="also write the numbers into the bundle's records.yaml",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE.html",
        help="also write a page: the scores, and some frames with the truth and what was found",
    )
    add_engine_arguments(parser)
    parser.add_argument(
        "--backends",
        metavar="A,B",
        help="compare these with ONNX Runtime float32, all subsets; with --record, auto may then "
        "choose those that lose no more than the tolerance",
    )
    parser.add_argument(
        "--reference", metavar="BUNDLE", help="with --backends: float32 bundle to compare with"
    )
    parser.add_argument(
        "--tolerance",
        type=real(-100, 100),
        default=1.0,
        help="points a backend may lose, or must gain where negative",
    )
    parser.set_defaults(run=run)


def _subsets(
    args: argparse.Namespace, manifest: BundleManifest, recording: Recording, *, every: bool
) -> list[tuple[str, ...]]:
    """The subsets that are asked for, of the sensors that both bundle and data have."""
    from perception.evaluation.evaluate import judged_subsets

    usable = recording.info.shared(manifest.inputs.kinds)
    if not usable:
        takes = ", ".join(manifest.inputs.names)
        raise ConfigError(f"the bundle takes none of the sensors of {args.data}", hint=takes)
    if not args.subset:
        return judged_subsets(manifest, recording.info) if every else [usable]
    wanted = [name.strip() for name in args.subset.replace("+", ",").split(",")]
    missing = [name for name in wanted if name not in usable]
    if missing:
        raise ConfigError(
            f"'{missing[0]}' is not in both bundle and data",
            where="--subset",
            hint=names_hint(missing[0], usable),
        )
    return [tuple(name for name in usable if name in wanted)]


def run(args: argparse.Namespace) -> int:
    """Evaluate, print a table, write the JSON."""
    from perception.evaluation.evaluate import LOW_SCORE, Scorer, evaluate_subsets
    from perception.runtime.bundle import find_bundle, record
    from perception.runtime.pipeline import Pipeline

    if args.reference and not args.backends:
        raise ConfigError("--reference needs --backends")
    _check_page(args)
    folder = find_bundle(args.bundle)
    if args.record and not folder.is_dir():
        raise ConfigError("--record needs a bundle folder, not a zip", where=str(folder))
    recording = open_data(args)
    if args.backends:
        return _run_backends(args, recording)
    pipeline = Pipeline.load(args.bundle, args.device, **engine_choices(args), min_score=LOW_SCORE)
    # Made here, too, so that what cannot be compared is refused before any work is done.
    lacking = Scorer(pipeline, recording).lacking
    subsets = _subsets(args, pipeline.manifest, recording, every=args.all_subsets)
    with counted("evaluating", len(subsets) * len(recording)) as advance:
        table = evaluate_subsets(pipeline, recording, subsets, advance)
    notes = [f"the bundle does not know {', '.join(lacking)}: scored as 0"] if lacking else []
    notes += _gaps(table, len(recording), recording.info.labels_of)
    if seen_in_training(pipeline.manifest.training, recording, args.split):
        notes.append(SEEN_NOTE)
    _print(table, args, pipeline.manifest.name, recording.info.simulated)
    for line in notes:
        note(line)
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
    give_json(args, content)
    if args.record:
        record(folder, accuracy=_record(content))
    if args.html is not None:
        _write_page(args, pipeline, recording, subsets, content)
    return 0


def _check_page(args: argparse.Namespace) -> None:
    """Refuse a page that cannot be written, before long work."""
    if args.html is None:
        return
    if args.backends:
        raise ConfigError("shows one backend, --backends compares several", where="--html")
    if args.html.suffix.lower() != ".html":
        raise ConfigError("must end in .html", where=f"--html {args.html}")
    output_file(args.html)


def _write_page(
    args: argparse.Namespace,
    pipeline: Pipeline,
    recording: Recording,
    subsets: list[tuple[str, ...]],
    content: dict[str, Any],
) -> None:
    from perception.viz.eval_page import shown_frames, write_eval_page

    pipeline.min_score = None
    frames = list(shown_frames(pipeline, recording, subsets))
    told = {"notes": content["notes"], "command": content["command"]}
    write_eval_page(pipeline, recording, content["subsets"], frames, args.html, **told)
    say(f"wrote {args.html}")


def _gaps(table: dict[str, Any], frames: int, labels_of: str) -> list[str]:
    """What is to be said where not all frames could be judged for all subsets."""
    notes = []
    if any(row["frames"] < frames for row in table.values()):
        notes.append(
            f"some of the {frames} frames lack a sensor: a subset is judged on those that have all of its"
        )
    if not any(row["judged"] for row in table.values()):
        notes.append("no frame has truth: nothing is judged")
    elif any(row["judged"] < row["frames"] for row in table.values()):
        notes.append("some frames have no truth in the view of a subset: they are not judged")
    for subset, row in table.items():
        if moved := row.get("moved", {}):
            names = ", ".join(moved)
            notes.append(
                f"{subset}: truth belongs to {labels_of}, and is brought to the pixels of {names} by the "
                "calibration; what only one of them sees does not count"
            )
        if far := ", ".join(f"{n} frames of {s}" for s, n in row.get("far", {}).items()):
            notes.append(f"{subset}: {far} (of {row['frames']}) are far from training")
    return notes


def _run_backends(args: argparse.Namespace, recording: Recording) -> int:
    from perception.evaluation.backends import judge_backends, record_backends
    from perception.runtime.bundle import Bundle, find_bundle

    names = backend_names(args.backends)
    manifest = Bundle.open(find_bundle(args.bundle), verify=False).manifest
    subsets = _subsets(args, manifest, recording, every=True)
    if args.record and not set(manifest.subsets) <= set(subsets):
        raise ConfigError("a record needs every subset of the bundle's sensors", where="--record")
    same = args.reference is None
    rounds = 1 + sum(not (same and name == "onnxruntime-cpu") for name in names)
    with counted("evaluating", rounds * len(subsets) * len(recording)) as advance:
        reference, judged = judge_backends(
            args.bundle,
            recording,
            names,
            subsets,
            reference_bundle=args.reference,
            tolerance=args.tolerance,
            **engine_choices(args),
            on_result=advance,
        )
    _print(reference, args, f"{manifest.name}, onnxruntime-cpu", recording.info.simulated)
    for line in _gaps(reference, len(recording), recording.info.labels_of):
        note(line)
    for judgement in judged.values():
        record = judgement.record
        say(
            f"{judgement.backend}: loses at most {max(record.lost, 0):.2f} points on "
            f"{record.frames} frames ({'within' if record.passed else 'beyond'} {record.tolerance:g})"
        )
    if args.record:
        say(f"recorded in {record_backends(args.bundle, judged) / 'records.yaml'}")
    content = {
        "bundle": manifest.name,
        "data": recording.info.name,
        "simulated": recording.info.simulated,
        "split": args.split,
        "subsets": reference,
        "backends": {
            name: {"backend": j.backend, "subsets": j.scores, **j.record.model_dump()}
            for name, j in judged.items()
        },
    }
    give_json(args, content)
    return 0


def _record(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entry of `records.yaml` by its name: what was measured, on what, by which command."""
    words = [content["data"], content["split"], content["only"], content["labels"]]
    kept = {k: content[k] for k in ("backend", "notes") if content[k]}
    subsets = {
        name: {k: round(v, 4) for k, v in row.items() if isinstance(v, int | float)}
        for name, row in content["subsets"].items()
    }
    return {
        " ".join(w for w in words if w): {"command": recorded_command(), **kept, "subsets": subsets}
    }


def _print(table: dict[str, Any], args: argparse.Namespace, name: str, simulated: bool) -> None:
    note = " (simulated data)" if simulated else ""
    show_scores(f"{name} on {args.data}, split {args.split}{note}", table)


def show_scores(title: str, table: Mapping[str, Mapping[str, Any]], *more: str) -> None:
    """Print scores by subset, in percent.

    Args:
        title: of the table.
        table: by subset, see `Scorer.scores`.
        more: further numbers of frames or recordings that it holds.
    """
    from perception.evaluation.evaluate import COUNTS, NO_SCORES

    counts = (*more, *COUNTS)
    every = dict.fromkeys(key for row in table.values() for key in row)
    columns = [key for key in every if key not in (*more, *NO_SCORES)]
    out = Table(title=f"{title}, scores in %")
    out.add_column("subset", no_wrap=True)
    for column in (*counts, *columns):
        out.add_column(column, justify="right")
    for subset, row in table.items():
        cells = ["-" if row.get(c) is None else f"{100 * row[c]:.1f}" for c in columns]
        out.add_row(subset, *(str(row[c]) for c in counts), *cells)
    out.show()
