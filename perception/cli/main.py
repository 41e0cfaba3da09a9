"""The `anysense` command: parses arguments, runs one command, turns errors into one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from perception.cli.extras import explain
from perception.errors import AnySenseError, MissingDependencyError

COMMANDS = (
    "run",
    "eval",
    "demo",
    "bench",
    "train",
    "pretrain",
    "distill",
    "adapt",
    "search",
    "bench-zoo",
    "export",
    "models",
    "data",
    "bundle",
    "record",
    "replay",
    "view",
    "doctor",
)
"""Modules of this package with `add_parser`, in the order of the help text."""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

_Commands = argparse._SubParsersAction


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        chosen: the command that will run; only its module is imported, so that one which cannot
            be imported here breaks no other.  None imports all, for the help text.

    Raises:
        MissingDependencyError: the chosen command cannot be imported.
    """
    from perception import __version__

    parser = argparse.ArgumentParser(
        prog="anysense",
        description="Multi-sensor perception that keeps working when sensors do not.",
    )
    parser.add_argument("--version", action="version", version=f"anysense {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        if chosen is not None and name != chosen:
            commands.add_parser(name)
            continue
        try:
            _register(name, commands)
        except MissingDependencyError as error:
            if chosen is not None:
                raise
            commands.add_parser(name, help=f"not available here: {error}")
    return parser


def _register(name: str, commands: _Commands[argparse.ArgumentParser]) -> None:
    try:
        module = import_module(f"perception.cli.{name.replace('-', '_')}")
    except ImportError as error:
        raise MissingDependencyError(f"cannot be loaded: {error}", where=name) from error
    module.add_parser(commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        args = build_parser(chosen).parse_args(arguments)
        status: int = args.run(args)
    except AnySenseError as error:
        return _fail(str(error))
    except ImportError as error:
        line = explain(error)
        if line is None:
            raise
        return _fail(line)
    except BrokenPipeError:
        return 0
    except OSError as error:
        # A full disk, a folder where a file should be, no permission: the user's to mend, not ours.
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("anysense: interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    return status


def _fail(line: str) -> int:
    print(f"anysense: error: {line}", file=sys.stderr)  # noqa: T201
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
