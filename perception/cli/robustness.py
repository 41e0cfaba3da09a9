"""`anysense robustness`: what is left of a bundle's accuracy when its sensors fail."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import (
    SEEN_NOTE,
    add_data_arguments,
    add_engine_arguments,
    command_line,
    engine_choices,
    give_json,
    open_data,
    output_file,
    seen_in_training,
)
from perception.cli.console import Table, note, say, step_progress
from perception.cli.parsing import MAX_SEED, Commands, add_command, whole
from perception.errors import ConfigError

if TYPE_CHECKING:
    from perception.data.base import Recording
    from perception.evaluation.robustness import RobustnessOptions
    from perception.evaluation.robustness_report import Fault, Robustness
    from perception.runtime.pipeline import Pipeline


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "robustness",
        "what is left of a bundle's accuracy when its sensors fail",
        more="Every judged subset of sensors, sensors that are missing (EMM), partly missing (RMM) or noisy "
        "(NM) with the definitions of Liao et al. (CVPR Workshops 2025), and every fault of one sensor at "
        "severities 1 to 5. Scores are in percent.",
        example="anysense robustness indoor-rgbd --data nyuv2:DIR --split val --frames 40 --html page.html\n"
        "anysense robustness road-rgbt --data msrs:DIR --split val --method leave-out,feed --json out.json\n"
        "anysense robustness mine --data folder:DIR --against indoor-rgbd --corruptions fog,rain",
    )
    parser.add_argument("bundle", help="folder, zip or name of a bundle")
    add_data_arguments(parser, required=True, limit=("--frames", "--limit"))
    parser.add_argument(
        "--against",
        metavar="BUNDLE",
        help="another bundle, on the same frames with the same faults",
    )
    parser.add_argument(
        "--method",
        default="leave-out",
        metavar="A,B",
        help="what is done with a sensor that has failed: leave-out (what the runtime does: one whose "
        "content is found dead, saturated or frozen takes no part), feed (it is fed all the same), or both",
    )
    parser.add_argument(
        "--corruptions",
        metavar="A,B",
        help="faults of single sensors (default: all that they can have)",
    )
    parser.add_argument(
        "--severities", default="1,2,3,4,5", metavar="A,B", help="of these faults, from 1 to 5"
    )
    parser.add_argument(
        "--stills",
        action="store_true",
        help="the frames are no sequence: no time skew, none frozen",
    )
    parser.add_argument(
        "--tables",
        metavar="A,B",
        help="scenarios (all of the above), space (of bundles that find boxes in space: no LiDAR, no camera, "
        "each camera lost, few beams, part of the view, cameras turned, a late LiDAR with odometry and "
        "without), or both (default: those that the bundle can have)",
    )
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=0, help="of what is random in the faults"
    )
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="also write a page")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="also draw the radar chart"
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print tables, write the JSON, the page and the picture."""
    from perception.cli.robustness_space import print_space
    from perception.evaluation.robustness import SPACE, measure_all
    from perception.evaluation.space import finds_in_space
    from perception.viz.robustness_page import write_robustness_page

    options = _options(args)
    for path, suffix, option in (
        (args.html, ".html", "--html"),
        (args.picture, ".png", "--picture"),
    ):
        if path is not None and path.suffix.lower() != suffix:
            raise ConfigError(f"must end in {suffix}", where=f"{option} {path}")
        output_file(path)
    recording = open_data(args, every=True)
    bundles = [args.bundle, *([args.against] if args.against else [])]
    pipelines = [_loaded(args, bundle) for bundle in bundles]
    asked = args.tables is not None and SPACE in options.tables
    if asked and not finds_in_space(pipelines[0].manifest):
        raise ConfigError(
            f"{pipelines[0].manifest.name} finds no boxes in space on a grid on the ground",
            where="--tables space",
        )
    with step_progress() as show:
        runs = measure_all(pipelines, recording, options, show)
    notes = _notes(args, runs, pipelines, recording)
    told = [run for run in runs if run.plan.scenarios]
    for score in dict.fromkeys(score for found in told for score in found.titles):
        _print([r for r in told if score in r.titles], score, args)
    in_space = [run for run in runs if run.plan.space]
    if in_space:
        print_space(in_space, _what(runs[0], args))
    for line in notes:
        note(line)
    give_json(args, _content(args, runs, notes))
    if args.html is not None:
        write_robustness_page(runs, args.html, command_line())
        say(f"wrote {args.html}")
    if args.picture is not None:
        _draw(runs, args.picture)
    return 0


def _loaded(args: argparse.Namespace, bundle: str) -> Pipeline:
    from perception.runtime.pipeline import Pipeline

    return Pipeline.load(bundle, args.device, **engine_choices(args))


def _words(text: str | None, option: str) -> tuple[str, ...]:
    """The entries of a list with commas, each once.

    Raises:
        ConfigError: there is none.
    """
    found = tuple(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))
    if text is not None and not found:
        raise ConfigError("names nothing", where=option)
    return found


def _options(args: argparse.Namespace) -> RobustnessOptions:
    from perception.evaluation.robustness import TABLES, RobustnessOptions
    from perception.sensors.faults import SEVERITIES

    severities = _words(args.severities, "--severities")
    for word in severities:
        if word not in map(str, SEVERITIES):
            raise ConfigError(f"'{word[:20]}' is none of 1 to 5", where="--severities")
    return RobustnessOptions(
        frames=args.limit,
        corruptions=None if args.corruptions is None else _words(args.corruptions, "--corruptions"),
        severities=tuple(sorted(map(int, severities))),
        seed=args.seed,
        methods=_words(args.method, "--method"),
        stills=args.stills,
        tables=tuple(TABLES) if args.tables is None else _words(args.tables, "--tables"),
    )


def _notes(
    args: argparse.Namespace,
    runs: Sequence[Robustness],
    pipelines: Sequence[Pipeline],
    recording: Recording,
) -> list[str]:
    first, notes = runs[0], []
    by_reason: dict[str, list[str]] = {}
    for what, why in first.plan.lacking.items():
        by_reason.setdefault(why, []).append(what)
    notes += [f"not measured: {', '.join(what)}: {why}" for why, what in by_reason.items()]
    for found in {r.bundle: r for r in runs}.values():
        if found.lacking:
            notes.append(f"{found.bundle} does not know {', '.join(found.lacking)}: scored as 0")
    for pipeline in pipelines:
        if seen_in_training(pipeline.manifest.training, recording, args.split):
            notes.append(SEEN_NOTE)
            break
    notes += _gaps(runs)
    names = [set(r.titles) for r in runs]
    if any(own != names[0] for own in names):
        notes.append("the bundles are not judged by the same scores: each is shown by its own")
    return notes


def _gaps(runs: Sequence[Robustness]) -> list[str]:
    """Which faults not all frames could show."""
    fewer: dict[int, list[str]] = {}
    for sensor, faults in runs[0].faults(next(iter(runs[0].titles))).items():
        for fault, row in faults.items():
            if row.frames < runs[0].frames:
                fewer.setdefault(row.frames, []).append(f"{sensor} {fault}")
    return [
        f"on {count} frames only, those that have what it takes: {', '.join(names)}"
        for count, names in sorted(fewer.items())
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _print(runs: Sequence[Robustness], score: str, args: argparse.Namespace) -> None:
    """One table: the scenarios, the subsets, then every fault by severity."""
    from perception.metrics.robustness import retained_share
    from perception.sensors.faults import SEVERITIES
    from perception.viz.robustness_page import labels, scenario_rows, told_apart

    first, severities = runs[0], [s for s in map(str, SEVERITIES) if _tried(runs, s)]
    table = Table(title=f"{first.titles[score]} on {_what(first, args)}, in %")
    table.add_column("", no_wrap=True)
    if len(runs) > 1:
        table.add_column("run")
    for column in (*severities, "score", "of clean"):
        table.add_column(column, justify="right")
    tags = [[name] if len(runs) > 1 else [] for name in labels(runs)]
    scenarios = [{**scenario_rows(r, score), **_subsets(r, score)} for r in runs]
    for name in dict.fromkeys(key for column in scenarios for key in column):
        values = [column.get(name) for column in scenarios]
        shares = [retained_share(v, r.clean_full(score)) for v, r in zip(values, runs, strict=True)]
        alike = len(set(zip(values, shares, strict=True))) == 1 < len(runs)
        for value, share, tag in list(zip(values, shares, tags, strict=True))[
            : 1 if alike else None
        ]:
            shown = ["all"] if alike else tag
            table.add_row(name, *shown, *("" for _ in severities), _percent(value), _share(share))
    table.add_section()
    faults = [run.faults(score) for run in runs]
    for sensor in dict.fromkeys(sensor for own in faults for sensor in own):
        for fault in dict.fromkeys(fault for own in faults for fault in own.get(sensor, {})):
            rows = [own.get(sensor, {}).get(fault) for own in faults]
            for name, row in told_apart(rows, labels(runs)):
                cells = [*_levels(row, severities), _percent(row.mean), _share(row.retained)]
                tag = [name] if len(runs) > 1 else []
                table.add_row(f"{sensor} {fault}", *tag, *cells)
        table.add_section()
    table.show()


def _what(run: Robustness, args: argparse.Namespace) -> str:
    simulated = " (simulated data)" if run.simulated else ""
    return f"{args.data}, split {args.split}{simulated}, {run.frames} frames"


def _levels(row: Fault, severities: Sequence[str]) -> list[str]:
    from perception.evaluation.variants import ALWAYS

    if ALWAYS in row.levels:
        return ["" for _ in severities]
    return [_percent(row.levels.get(s)) for s in severities]


def _subsets(run: Robustness, score: str) -> dict[str, float | None]:
    return dict(list(run.subsets(score).items())[1:])  # that of all sensors is there already


def _tried(runs: Sequence[Robustness], severity: str) -> bool:
    return any(
        severity in levels
        for run in runs
        for faults in run.plan.faults.values()
        for levels in faults.values()
    )


def _content(
    args: argparse.Namespace, runs: Sequence[Robustness], notes: list[str]
) -> dict[str, Any]:
    about = {"split": args.split, "only": args.only, "labels": args.labels, "notes": notes}
    compared = [run.content() for run in runs[1:]]
    return {**runs[0].content(), **about, **({"compared": compared} if compared else {})}


def _draw(runs: Sequence[Robustness], path: Path) -> None:
    from perception.files.writing import write_image
    from perception.viz.robustness_page import draw_picture

    picture = draw_picture(runs)
    if picture is None:
        raise ConfigError("too little was tried for a radar chart", where=f"--picture {path}")
    write_image(path, picture, error=ConfigError)
    say(f"wrote {path}")
