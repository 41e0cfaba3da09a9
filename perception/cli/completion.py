"""`anysense completion`: a script with which a shell completes commands, options and names of bundles."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from perception.cli.arguments import give_json
from perception.cli.console import say
from perception.cli.parsing import Commands, add_command
from perception.extras import require

SHELLS = ("bash", "zsh", "fish")

_BUNDLES = ("bundle", "bundles", "reference")
"""Arguments that take a bundle."""


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "completion",
        "print a script with which the shell completes commands, options and bundles",
        more="Put the line into ~/.bashrc or ~/.zshrc; for fish, write the script to "
        "~/.config/fish/completions/anysense.fish.",
        example='eval "$(anysense completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    require("completion", "argcomplete")
    import argcomplete

    script = argcomplete.shellcode(["anysense"], shell=args.shell)  # type: ignore[no-untyped-call]
    for line in script.rstrip().splitlines():
        say(line)
    give_json(args, {"shell": args.shell, "script": script})
    return 0


def complete(build_parser: Callable[[str], argparse.ArgumentParser]) -> None:
    """Answer a shell that asks how a line may go on, and end the process; return where it does not ask.

    Only the module of the command on the line is imported, so that the answer comes soon.
    """
    try:
        import argcomplete
    except ImportError:  # the script was printed when it was there
        return
    words = os.environ.get("COMP_LINE", "").split()[1:]
    parser = build_parser(next((word for word in words if not word.startswith("-")), ""))
    _name_bundles(parser)
    argcomplete.autocomplete(parser)


def _name_bundles(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _name_bundles(child)
        elif action.dest in _BUNDLES:
            action.completer = _bundles  # type: ignore[attr-defined]


def _bundles(prefix: str, **_: Any) -> list[str]:
    """Names of bundles, and paths that go on as the prefix does."""
    from argcomplete.completers import FilesCompleter

    from perception.runtime.bundle import bundle_folders, bundles_in

    names = [name for name in bundles_in(bundle_folders()) if name.startswith(prefix)]
    return [*names, *FilesCompleter()(prefix)]  # type: ignore[no-untyped-call]
