"""Parsers whose refusals are one line, and the types of arguments that are numbers.

Every number that a command takes has bounds, so that none is found too large, negative or no number at
all only where it is used.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from perception.cli.console import complain

MAX_COUNT = 10**6
"""Frames, epochs, rounds and the like that a command can be asked for."""

MAX_SEED = 2**32 - 1
"""What every generator of random numbers takes."""

MAX_THREADS = 1024
"""CPU threads of one operator."""

_LONGEST_SHOWN = 40
_REFUSED = 2


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what it refuses; those of its commands do so, too."""

    def error(self, message: str) -> NoReturn:
        """Say it on stderr and exit with status 2."""
        argument, others = re.subn("^argument ", "", message)
        hint = "" if others else f" ({self.prog} --help)"
        complain(f"error: {argument}{hint}")
        self.exit(_REFUSED)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None:  # without stdout that of the standard library prints help on stderr
            super()._print_message(message, file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of the standard library, which takes `--option=--` for an option of no value at all."""
        for word in sys.argv[1:] if args is None else args:
            if re.fullmatch("--[^=]+=--", word):
                self.error(f"argument {word[:-3]}: expected one argument")
        return super().parse_known_args(args, namespace)


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
