"""The `anysense` command: parses arguments, runs one command, turns errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from perception.cli import together
from perception.cli.arguments import output_file
from perception.cli.console import (
    end_with,
    flush_output,
    give_up_output,
    output_as,
    output_flushes,
    prepare_streams,
    reader_is_gone,
    shown_warnings,
    wants_tracebacks,
)
from perception.cli.parsing import STDOUT, Commands, Parser, add_verbosity
from perception.errors import AnySenseError, MissingDependencyError
from perception.extras import explain
from perception.files.made import empty_folders_removed
from perception.files.stderr import native_lines_caught
from perception.files.stopping import Stopped, stoppable
from perception.plugins import blamed
from perception.runtime.trust import demanded

COMMANDS = (
    "run",
    "eval",
    "robustness",
    "metrics",
    "demo",
    "bench",
    "train",
    "pretrain",
    "distill",
    "average",
    "adapt",
    "search",
    "bench-zoo",
    "export",
    "models",
    "data",
    "calibrate",
    "bundle",
    "bundles",
    "record",
    "replay",
    "batch",
    "view",
    "doctor",
    "completion",
)
"""Modules of this package with `add_parser`, in the order of the help text."""

EXIT_ERROR = 2
EXIT_INTERNAL = 70
"""A fault of the program itself, or no memory left; sysexits.h has it as EX_SOFTWARE."""

EXIT_INTERRUPTED = 130
TRACEBACK_VARIABLE = "ANYSENSE_TRACEBACK"
_COMPLETING = "_ARGCOMPLETE"
_LONGEST_TEXT = 300

_EPILOG = """\
What a command takes, with an example: --help after its name.

example:
  anysense demo
  anysense doctor"""


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        chosen: the command that will run; only its module is imported, so that one which cannot
            be imported here breaks no other; none for a word that is no command.  None imports all,
            for the help text.

    Raises:
        MissingDependencyError: the chosen command cannot be imported.
    """
    from perception import __version__

    parser: argparse.ArgumentParser = Parser(
        prog="anysense",
        description="Multi-sensor perception that keeps working when sensors do not.",
        epilog=_EPILOG,
    )
    add_verbosity(parser)
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
            commands.add_parser(name, help=f"not available here: {error}".replace("%", "%%"))
    return parser


def _register(name: str, commands: Commands) -> None:
    try:
        module = import_module(f"perception.cli.{name.replace('-', '_')}")
    except ImportError as error:
        raise MissingDependencyError(f"cannot be loaded: {error}", where=name) from error
    module.add_parser(commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    status = _guarded(argv)
    together.leave()
    limits = sys.modules.get("perception.runtime.time_limit")
    if argv is None and limits is not None and limits.stuck_calls():
        os._exit(status)  # C++ would abort the process beside a thread that does not end
    return status


def _guarded(argv: Sequence[str] | None) -> int:
    """Run one command: the last place where anything is caught."""
    if _COMPLETING in os.environ:
        from perception.cli.completion import complete

        complete(build_parser)
    prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            with stoppable(), shown_warnings(), native_lines_caught(), empty_folders_removed():
                return _run(arguments)
        finally:
            flush_output()
    except AnySenseError as error:
        return _fail(str(error))
    except ImportError as error:
        line = explain(error)
        return _broken(error) if line is None else _fail(line)
    except BrokenPipeError as error:
        if reader_is_gone():  # as in a pipe into `head`
            give_up_output()
            return 0
        return _fail(f"{error.strerror}")
    except OSError as error:
        # A full disk, a folder where a file should be, no permission: the user's to mend, not ours.
        if not output_flushes():
            give_up_output()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        end_with("interrupted")
        return EXIT_INTERRUPTED
    except Stopped as stop:
        end_with(f"stopped: {stop}")
        return stop.status
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # panics of Rust extensions are no `Exception`
        plugin = None if isinstance(error, MemoryError) else blamed(error)
        return _broken(error) if plugin is None else _fail(str(plugin))


def _run(arguments: list[str]) -> int:
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = build_parser(chosen).parse_args(arguments)
    except SystemExit as stop:
        if not stop.code:  # after --help and --version
            raise
        return EXIT_ERROR
    told = getattr(args, "json", None)
    if told not in (None, STDOUT):
        output_file(told)
    if args.command not in together.COMMANDS:
        together.require_alone(f"anysense {args.command}")
    quiet = getattr(args, "quiet", False) or together.follows()
    verbose = getattr(args, "verbose", 0)
    signed = getattr(args, "require_signature", False), getattr(args, "trust_store", None)
    with output_as(quiet=quiet, verbose=verbose, json=told == STDOUT), demanded(*signed):
        try:
            status: int = args.run(args)
        except BaseException as error:
            if wants_tracebacks():
                traceback.print_exception(error)
            raise
    return status


def _fail(line: str) -> int:
    end_with(f"error: {line}")
    return EXIT_ERROR


def _broken(error: BaseException) -> int:
    """Say in one line what no part of the program expected."""
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        end_with("error: not enough memory")
        return EXIT_INTERNAL
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]
    end_with(
        f"internal error: {text} at {Path(place.filename).name}:{place.lineno} "
        f"({TRACEBACK_VARIABLE}=1 shows the traceback; please report it)"
    )
    return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
