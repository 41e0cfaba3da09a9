"""Parsers of commands: what every one has, refusals of one line, and the types of arguments that are numbers.

Every number that a command takes has bounds, so that none is found too large, negative or no number at
all only where it is used.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from perception.cli.console import end_with
from perception.errors import meant, names_hint

MAX_COUNT = 10**6
"""Frames, epochs, rounds and the like that a command can be asked for."""

MAX_SEED = 2**32 - 1
"""What every generator of random numbers takes."""

MAX_THREADS = 1024
"""CPU threads of one operator."""

STDOUT = Path("-")
"""What `--json` gives where it names no file."""

_LONGEST_SHOWN = 40
_REFUSED = 2

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction


def add_command(
    commands: Commands, name: str, text: str, *, more: str = "", example: str
) -> argparse.ArgumentParser:
    """Register a command with what every command has: a description, an example, `-q`, `-v` and `--json`.

    Args:
        commands: of the parser above it.
        name: to type.
        text: what it does, in one line, for the list of commands.
        more: what else its help says of it.
        example: a command line that does something; more of them on lines of their own.
    """
    parser = _add(commands, name, text, more, example)
    group = parser.add_argument_group("output")
    add_verbosity(group)
    group.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=STDOUT,
        metavar="FILE",
        help="print what is reported as JSON instead of text, or write it to a file beside the text",
    )
    return parser


def add_group(
    commands: Commands, name: str, text: str, *, more: str = "", example: str
) -> Commands:
    """Register a command that has commands of its own; as `add_command`. Gives what takes these."""
    parser = _add(commands, name, text, more, example)
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def _add(
    commands: Commands, name: str, text: str, more: str, example: str
) -> argparse.ArgumentParser:
    lines = "\n".join(f"  {line.strip()}" for line in example.strip().splitlines())
    described = f"{text[0].upper()}{text[1:].rstrip('.')}. {more}".strip()
    return commands.add_parser(name, help=text, description=described, epilog=f"example:\n{lines}")


def add_verbosity(parser: argparse._ActionsContainer) -> None:
    """`-q` and `-v`, which may stand before the command and after it."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="print errors only"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="also print what is decided on the way; -vv everything, with tracebacks",
    )


def add_threads(
    parser: argparse.ArgumentParser, default: int | None = None, more: str = ""
) -> None:
    """`--threads`, how many of the CPU's; `more` is what its help says besides."""
    text = f"CPU threads {more}".rstrip()
    parser.add_argument("--threads", type=whole(1, MAX_THREADS), default=default, help=text)


def add_trust(parser: argparse._ActionsContainer) -> None:
    """`--require-signature` and `--trust-store`, of commands that open bundles; `main` sees to them."""
    parser.add_argument(
        "--require-signature",
        action="store_true",
        default=argparse.SUPPRESS,
        help="refuse bundles that no trusted key signed",
    )
    parser.add_argument(
        "--trust-store",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="the same, with the public keys that are trusted from this folder (default: $ANYSENSE_TRUST, "
        "else ~/.config/anysense/trust)",
    )


class _HelpFormatter(argparse.HelpFormatter):
    """Shows every default; lines that are broken or indented by hand stay as they are."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, value = action.help or "", action.default
        nothing = value in (None, argparse.SUPPRESS, "") or isinstance(value, bool)
        if nothing or value in ([], ()) or "default:" in text:
            return text
        several = isinstance(value, list | tuple)
        shown = " ".join(map(str, value)) if several else str(value)
        escaped = shown.replace("%", "%%")
        return f"{text} (default: {escaped})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        if "\n" in text:
            return text.splitlines()
        return super()._split_lines(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what it refuses; those of its commands do so, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": _HelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Say it on stderr and exit with status 2."""
        argument, others = re.subn("^argument ", "", message)
        hint = "" if others or message.endswith("?)") else f" ({self.prog} --help)"
        end_with(f"error: {argument}{hint}")
        self.exit(_REFUSED)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is not among the choices, and say which of them is meant."""
        choices = action.choices
        if choices is not None and value not in choices:
            hint = names_hint(value, [str(choice) for choice in choices])
            raise argparse.ArgumentError(action, f"'{_cut(str(value))}' is unknown ({hint})")

    def _unknown_option(self, words: Sequence[str]) -> str | None:
        """The first word that is an option, but none of this parser's; those of its commands are not seen."""
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return None
            name = word.partition("=")[0]
            known = any(option.startswith(name) for option in self._option_string_actions)
            if name.startswith("--") and " " not in word and not known:
                return name
        return None

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None:  # without stdout that of the standard library prints help on stderr
            super()._print_message(message, file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of the standard library, which takes `--option=--` for an option of no value at all."""
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if re.fullmatch("--[^=]+=--", word):
                self.error(f"argument {word[:-3]}: expected one argument")
        if (name := self._unknown_option(words)) is not None:
            # Before anything else: an option that is misspelled is often missed as well.
            question = meant(name, list(self._option_string_actions))
            self.error(f"unrecognized arguments: {name}{question and f' ({question})'}")
        found, others = super().parse_known_args(words, namespace)
        if others and self._subparsers is None:  # here, where the help is that of the command
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return found, others


def _cut(text: str) -> str:
    """An argument as errors show it."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class Number:
    """Bounds of a number on the command line: plain decimal digits, in ASCII.

    Args:
        least, most: the smallest and the largest that is taken.
        least_too, most_too: whether these are taken themselves.
    """

    least: float
    most: float
    least_too: bool = True
    most_too: bool = True

    @property
    def bounds(self) -> str:
        """What a number must be, in words."""
        if not self.least:
            low = "0 or more" if self.least_too else "positive"
        else:
            low = f"at least {self.least:g}" if self.least_too else f"above {self.least:g}"
            low = f"positive, {low}" if 0 < self.least < 1 else low
        high = f"at most {self._shown(self.most)}" if self.most_too else f"below {self.most:g}"
        return f"{low}, and {high}"

    @staticmethod
    def _shown(value: float) -> str:
        return str(value) if isinstance(value, int) else f"{value:g}"

    def within(self, value: float) -> bool:
        """Whether the value is within the bounds; NaN never is."""
        above = self.least <= value if self.least_too else self.least < value
        return above and (value <= self.most if self.most_too else value < self.most)

    def refusal(self, text: str, kind: str) -> argparse.ArgumentTypeError:
        """The error for an argument."""
        shown = _cut(text)
        return argparse.ArgumentTypeError(f"must be {self.bounds}: {kind}, not '{shown}'")


class Whole(Number):
    """A whole number; as a type of `add_argument` it gives an int."""

    def __call__(self, text: str) -> int:
        # More digits than any bound has: Python itself refuses to read some thousands of them.
        if re.fullmatch(r"[+-]?[0-9]{1,30}", text) and self.within(int(text)):
            return int(text)
        raise self.refusal(text, "a whole number")


class Real(Number):
    """A number; as a type of `add_argument` it gives a finite float."""

    def __call__(self, text: str) -> float:
        if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            value = float(text)
            if math.isfinite(value) and self.within(value):
                return value
        raise self.refusal(text, "a number")


def whole(least: int, most: int = MAX_COUNT) -> Whole:
    """The type of a whole number."""
    return Whole(least, most)


def real(least: float, most: float = 1e9, *, least_too: bool = True, most_too: bool = True) -> Real:
    """The type of a number."""
    return Real(least, most, least_too, most_too)


def positive(most: float = 1e9) -> Real:
    """The type of a number above 0."""
    return Real(0, most, least_too=False)


class Size:
    """The type of WIDTHxHEIGHT in pixels; gives (width, height).

    Args:
        side: the bounds of both.
    """

    def __init__(self, side: Whole) -> None:
        self.side = side

    def __call__(self, text: str) -> tuple[int, int]:
        parts = text.split("x")
        if len(parts) != 2:
            shown = _cut(text)
            raise argparse.ArgumentTypeError(f"'{shown}' is not WIDTHxHEIGHT")
        return self.side(parts[0]), self.side(parts[1])
