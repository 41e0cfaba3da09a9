"""The `anysense` command: parses arguments, runs one command, turns errors into one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from perception.errors import AnySenseError

COMMANDS = ("run", "eval", "demo", "bench", "train", "export", "data", "bundle")
"""Modules of this package with `add_parser`, in the order of the help text."""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from perception import __version__

    parser = argparse.ArgumentParser(
        prog="anysense",
        description="Multi-sensor perception that keeps working when sensors do not.",
    )
    parser.add_argument("--version", action="version", version=f"anysense {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"perception.cli.{name}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except AnySenseError as error:
        print(f"anysense: error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("anysense: interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
