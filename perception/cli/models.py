"""`anysense models`: the models that a configuration can name, with their cost."""

from __future__ import annotations

import argparse
from typing import Any

from perception.cli.arguments import give_json
from perception.cli.console import Table, note, say
from perception.cli.parsing import Commands, add_command, whole
from perception.errors import ConfigError
from perception.extras import require
from perception.plugins import PluginError


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "models",
        "list the models, their parameters and cost",
        example="anysense models --size 480 640 --classes 40",
    )
    parser.add_argument("--classes", type=whole(1, 255), default=40, help="classes")
    parser.add_argument(
        "--size",
        type=whole(32, 8192),
        nargs=2,
        default=(480, 640),
        metavar=("H", "W"),
        help="input size",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, write the JSON."""
    require("counting", "torch")
    from perception.models.complexity import describe_models
    from perception.models.registry import MODELS

    if any(side % 32 for side in args.size):
        raise ConfigError("sides must be positive multiples of 32", where="--size")
    rows: list[dict[str, Any]] = []
    for name in MODELS:
        try:
            with MODELS.guarding(name):
                rows += describe_models({name: MODELS[name]}, args.classes, tuple(args.size))
        except PluginError as error:
            note(str(error))
    table = Table("name", "kind", "counted for", "takes", "tasks")
    for column in ("parameters M", "published M", "GMAC"):
        table.add_column(column, justify="right")
    for row in rows:
        published = row["published_parameters"]
        table.add_row(
            row["name"],
            row["kind"],
            "+".join(row["modalities"]),
            MODELS[row["name"]].card.takes,
            ", ".join(row["tasks"]),
            f"{row['parameters'] / 1e6:.2f}",
            "-" if published is None else f"{published:.2f}",
            f"{row['gmac']:.2f}",
        )
    table.show()
    say(f"at {args.size[1]}x{args.size[0]}, {args.classes} classes, default options")
    give_json(args, {"size": list(args.size), "classes": args.classes, "models": rows})
    return 0
