"""`anysense bundles`: the bundles that are found by name, what they give, and what may be done with them."""

from __future__ import annotations

import argparse

from perception.cli.arguments import give_json
from perception.cli.console import Table, note, plain, say
from perception.cli.parsing import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "bundles",
        "list the bundles that are found by name",
        more="With what each takes and gives, size, score, and licences of code, weights and data.",
        example="anysense bundles list",
    )
    parser.add_argument("action", choices=("list",), nargs="?", default="list", help="list them")
    parser.set_defaults(run=run)


def add_list(actions: Commands) -> None:
    """Register the same as an action of `anysense bundle`, where many look for it."""
    text = "list those that are found by name, as `anysense bundles`"
    add_command(actions, "list", text, example="anysense bundle list").set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table; a bundle that cannot be read is in it, with the reason."""
    from perception.runtime.bundle import bundle_folders
    from perception.runtime.shelf import entries

    found = entries()
    give_json(args, {"bundles": [entry.to_dict() for entry in found]})
    if not found:
        say(f"no bundle in {', '.join(map(str, bundle_folders()))}")
        return 0
    table = Table("name", "sensors", "tasks", "MB", "score", "product?", "weights", "data")
    for one in found:
        if one.problem:
            table.add_row(one.name, plain("cannot be read", "red"))
            continue
        scores = ", ".join(f"{title} {100 * value:.1f}" for title, value in one.scores.items())
        sensors = (n if n == kind else f"{n} ({kind})" for n, kind in one.sensors.items())
        table.add_row(
            one.name,
            ", ".join(sensors),
            ", ".join(one.tasks),
            f"{one.size / 1e6:.1f}",
            f"{scores or '-'}{' (simulated)' if one.simulated and scores else ''}",
            plain("yes", "green") if one.may_ship else plain("no", "yellow"),
            one.weights,
            one.data,
        )
    table.show()
    for one in found:
        say(f"{one.name}: {one.path}")
        if one.problem:
            note(one.problem)
        if one.doubts:
            note(f"on openvino: {one.doubts}")
    code = found[0].code
    say(
        f"product?: whether weights and data may be part of one; the code is {code}. See docs/install.md"
    )
    return 0
