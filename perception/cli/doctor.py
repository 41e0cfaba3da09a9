"""`anysense doctor`: what this machine can run, what is missing, and the command to get it."""

from __future__ import annotations

import argparse

from perception.cli.arguments import give_json
from perception.cli.console import Table, plain, say
from perception.cli.parsing import Commands, add_command

_STYLES = {"ok": "green", "missing": "dim", "broken": "red"}


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "doctor",
        "what this machine can run, and what it lacks",
        more="What is missing comes with the command that brings it; it is no error.",
        example="anysense doctor",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and tell; what is missing is no error."""
    from perception.runtime import doctor

    checks = doctor.examine()
    content = doctor.report(checks)
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
    give_json(args, content)
    return 0
