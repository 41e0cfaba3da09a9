"""`anysense data`: check a recording, import or simulate one, say what is in one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli import data_import
from perception.cli.arguments import give_json
from perception.cli.console import Table, plain, say, tracked
from perception.cli.parsing import MAX_SEED, Commands, Size, add_command, add_group, real, whole
from perception.data.registry import READERS
from perception.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perception.data.check import Finding

_SHOWN_FINDINGS = 50


def add_parser(commands: Commands) -> None:
    """Register the command."""
    actions = add_group(
        commands,
        "data",
        "check, import, simulate or describe recordings",
        example="anysense data check recordings/drive",
    )
    check = add_command(
        actions,
        "check",
        "find mistakes in a recording",
        more="Exit status 2: there are errors; warnings alone are none.",
        example="anysense data check recordings/drive",
    )
    check.add_argument(
        "data", metavar="FOLDER|KIND:DIR", help="recording in the folder format, or of any kind"
    )
    check.add_argument(
        "--html",
        type=Path,
        metavar="FILE.html",
        help="also write a page: counts, samples with labels drawn on, and examples of what is wrong",
    )
    check.add_argument("--samples", type=whole(1, 1000), default=12, help="frames on the page")
    check.add_argument(
        "--pictures-beside",
        action="store_true",
        help="put the page's pictures into a folder beside it, not into it",
    )
    sim = add_command(
        actions,
        "make-sim",
        "simulate a recording with all four sensors",
        example="anysense data make-sim --out recordings/sim --kind scenes --frames 200",
    )
    sim.add_argument("--out", type=Path, required=True, help="folder to write")
    sim.add_argument(
        "--kind", choices=("drive", "scenes"), default="drive", help="one drive, or single places"
    )
    sim.add_argument("--frames", type=whole(1), default=90, help="how many")
    sim.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=7, help="another one, another world"
    )
    sim.add_argument(
        "--size", type=Size(whole(32, 8192)), default="320x240", help="WIDTHxHEIGHT in pixels"
    )
    sim.add_argument("--lidar", default="mixed", help="vlp16, hdl32, os1-64 or mixed")
    sim.add_argument(
        "--sensors",
        metavar="NAME=KIND,...",
        help="which, e.g. front=rgb,rear=rgb,lidar (default: one of each kind)",
    )
    sim.add_argument(
        "--yaw",
        metavar="NAME=DEG,...",
        help="where sensors look, to the left (default: ahead; 180 for one called rear)",
    )
    sim.add_argument("--labels-of", default="", metavar="NAME", help="the camera that is labeled")
    sim.add_argument(
        "--compact",
        action="store_true",
        help="a fifth of the bytes: JPEG, and steps as coarse as each sensor's noise",
    )
    info = add_command(
        actions, "info", "say what a recording holds", example="anysense data info folder:DIR"
    )
    info.add_argument("data", metavar="KIND:DIR", help=f"KIND is one of {', '.join(READERS)}")
    data_import.add_action(actions)
    for action in actions.choices.values():
        action.set_defaults(run=run)


def _named(text: str, option: str) -> dict[str, str]:
    """`NAME=VALUE,...`; a name alone is its value, too.

    Raises:
        ConfigError: a name is given twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name in found:
            raise ConfigError(f"'{name}' is given twice", where=option)
        found[name] = value or name
    return found


def _degrees(text: str) -> dict[str, float]:
    try:
        return {n: real(-360, 360)(value) for n, value in _named(text, "--yaw").items()}
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error), where="--yaw") from error


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    actions = {"check": _check, "make-sim": _make_sim, "info": _info, "import": data_import.run}
    return actions[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from perception.cli.arguments import output_file
    from perception.data.check import check_folder, check_recording
    from perception.data.registry import kind_name, open_recording, parse_data_argument
    from perception.importers.registry import formats

    output_file(args.html)

    kind, root = "folder", Path(args.data)
    named, colon, _ = args.data.partition(":")
    if not root.exists() and kind_name(named) in READERS:
        kind, root = parse_data_argument(args.data)
    elif not root.exists() and colon and kind_name(named) in formats():
        hint = f"anysense data import {args.data} --out FOLDER, then check that"
        raise ConfigError(f"{kind_name(named)} is imported first", where=args.data, hint=hint)
    findings = (
        check_folder(root, lambda items: tracked(items, "checking"))
        if kind == "folder"
        else check_recording(open_recording(kind, root), lambda items: tracked(items, "checking"))
    )
    errors = [f for f in findings if f.severity == "error"]
    if findings:
        table = Table("severity", "where", "finding")
        worst_first = sorted(findings, key=lambda f: f.severity != "error")
        for finding in worst_first[:_SHOWN_FINDINGS]:
            color = "red" if finding.severity == "error" else "yellow"
            table.add_row(plain(finding.severity, color), finding.where, finding.message)
        table.show()
        if len(findings) > _SHOWN_FINDINGS:
            say(f"... and {len(findings) - _SHOWN_FINDINGS} more")
    if args.html is not None:
        _write_page(args, kind, root, findings)
    warnings = len(findings) - len(errors)
    numbers = ((len(errors), "error"), (warnings, "warning"))
    told = ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in numbers)
    say(f"{args.data}: {told}")
    give_json(
        args,
        {
            "data": args.data,
            "errors": len(errors),
            "warnings": warnings,
            "findings": [asdict(finding) for finding in findings],
        },
    )
    return 2 if errors else 0


def _write_page(
    args: argparse.Namespace, kind: str, root: Path, findings: Sequence[Finding]
) -> None:
    import warnings

    from perception.cli.arguments import command_line
    from perception.data.check import open_leniently
    from perception.data.registry import open_recording, splits_of
    from perception.viz.recording_page import write_page

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the readers: they are among the findings
        recording = open_leniently(root)[0] if kind == "folder" else open_recording(kind, root)
        write_page(
            recording,
            findings,
            args.html,
            splits=splits_of(kind, root),
            samples=args.samples,
            beside=args.pictures_beside,
            command=command_line(),
            progress=lambda items: tracked(items, "counting"),
        )
    say(f"wrote {args.html}")


def _make_sim(args: argparse.Namespace) -> int:
    from perception.sim.generate import make_recording

    options: dict[str, Any] = {"labels_of": args.labels_of, "size": args.size[::-1]}
    options["compact"] = args.compact
    options["yaw_deg"] = _degrees(args.yaw) if args.yaw else None
    options["sensors"] = _named(args.sensors, "--sensors") if args.sensors else None
    make_recording(args.out, args.kind, args.frames, args.seed, lidar=args.lidar, **options)
    say(f"wrote {args.frames} simulated frames to {args.out}")
    give_json(
        args, {"out": str(args.out), "frames": args.frames, "seed": args.seed, "kind": args.kind}
    )
    return 0


def _info(args: argparse.Namespace) -> int:
    from collections import Counter

    from perception.data.base import first_reference
    from perception.data.registry import open_recording, parse_data_argument

    kind, root = parse_data_argument(args.data)
    recording = open_recording(kind, root)
    info = recording.info
    tags = Counter(tag for i in range(len(recording)) for tag in recording.tags(i))
    say(f"{info.name}{' (simulated)' if info.simulated else ''}", "bold")
    sensors = [name if name == kind else f"{name} ({kind})" for name, kind in info.sensors.items()]
    say(f"frames {len(recording)}; sensors {', '.join(sensors)}")
    if info.labels_of != first_reference(info.sensors):
        say(f"labels are in the pixels of {info.labels_of}")
    for name, classes in (("semantic", info.seg_classes), ("box", info.det_classes)):
        if classes:
            say(f"{len(classes)} {name} classes: {', '.join(c.name for c in classes)}")
    if tags:
        say("tags " + ", ".join(f"{k} {v}" for k, v in sorted(tags.items())))
    say(f"licence: {info.licence}")
    give_json(
        args,
        {
            "name": info.name,
            "simulated": info.simulated,
            "frames": len(recording),
            "sensors": dict(info.sensors),
            "labels_of": info.labels_of,
            "semantic_classes": [c.name for c in info.seg_classes],
            "box_classes": [c.name for c in info.det_classes],
            "tags": dict(sorted(tags.items())),
            "licence": info.licence,
        },
    )
    return 0
