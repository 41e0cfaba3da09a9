"""`anysense models`: the models that a configuration can name, with their cost."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.cli.arguments import command_line, output_file, write_json
from perception.cli.console import Table, note, say
from perception.cli.parsing import whole
from perception.errors import ConfigError
from perception.extras import require
from perception.plugins import PluginError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("models", help="list the models, their parameters and cost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the list here")
    parser.add_argument("--classes", type=whole(1, 255), default=40, help="classes (default: 40)")
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

    output_file(args.json)
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
    if args.json:
        content = {
            "command": command_line(),
            "size": list(args.size),
            "classes": args.classes,
            "models": rows,
        }
        write_json(args.json, content)
    return 0
