"""`anysense data`: check a recording, import or simulate one, say what is in one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli import data_import, data_sim
from perception.cli.arguments import give_json
from perception.cli.console import Table, plain, say, tracked
from perception.cli.parsing import Commands, add_command, add_group, whole
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
    data_sim.add_action(actions)
    info = add_command(
        actions, "info", "say what a recording holds", example="anysense data info folder:DIR"
    )
    info.add_argument("data", metavar="KIND:DIR", help=f"KIND is one of {', '.join(READERS)}")
    data_import.add_action(actions)
    for action in actions.choices.values():
        action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    actions = {"check": _check, "make-sim": data_sim.run, "info": _info, "import": data_import.run}
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


def _info(args: argparse.Namespace) -> int:
    from collections import Counter

    from perception.data.base import first_reference
    from perception.data.objects import object_counts
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
    objects = object_counts(recording)
    for name, own in objects.items():
        if own["boxes"]:
            less, usual, more = own["distance_m"]
            distance = f"{usual:g} m away (80 %: {less:g} to {more:g} m)"
            say(f"{name}: {own['boxes']} boxes in space (and {own['ignored']} ignored), {distance}")
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
            "objects": objects,
            "licence": info.licence,
        },
    )
    return 0
