"""`anysense doctor`: what this machine can run, what is missing, and the command to get it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perception.cli.arguments import output_file, write_json
from perception.cli.console import Table, plain, say

_STYLES = {"ok": "green", "missing": "dim", "broken": "red"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("doctor", help="what this machine can run, and what it lacks")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print the findings as JSON, or write them to a file",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and tell; what is missing is no error."""
    from perception.runtime.doctor import examine, report

    if args.json not in (None, "-"):
        output_file(Path(args.json))
    checks = examine()
    content = report(checks)
    if args.json == "-":
        print(json.dumps(content, indent=2))  # noqa: T201
        return 0
    if args.json:
        write_json(Path(args.json), content)
    table = Table("", "what", "state", "detail", "to get it")
    group = ""
    for check in checks:
        if group and check.group != group:
            table.add_section()
        table.add_row(
            "" if check.group == group else check.group,
            check.name,
            plain(check.status, _STYLES[check.status]),
            check.detail,
            check.fix,
        )
        group = check.group
    table.show()
    say(f"--device can be: auto, cpu, {', '.join(content['usable_backends'])}")
    return 0
