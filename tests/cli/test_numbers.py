"""Numbers on the command line: every one has bounds, and what is out of them is one line."""

from __future__ import annotations

import argparse
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.cli.main import COMMANDS, build_parser, main
from perception.cli.parsing import Number, Real, Size, Whole, positive, real, whole

Place = tuple[tuple[str, ...], argparse.ArgumentParser, argparse.Action]


def _places(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every argument of every command, with the words that lead to its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _places(child, (*words, name))
        else:
            yield words, parser, action


PLACES = list(_places(build_parser()))
NUMBERS = [(w, p, a) for w, p, a in PLACES if isinstance(a.type, Number | Size)]
NO_NUMBERS = (
    "nan", "-nan", "inf", "-inf", "infinity", "1e400", "-1e400", "", " ",
    "1_000", "\u0661", "\u00b2", "0x10", "1,5",
    "many", "--", "None", "True", "1 2", "1\n2", "\udcff", "\x1b[31m", "9" * 5000,
)  # fmt: skip
MAYBE = (
    "-1",
    "0",
    "-0",
    "0.5",
    "1e3",
    "99999999999",
    "+1",
    "007",
    "1e-400",
    ".",
    "-",
    "e",
    "1e",
    "3",
)


@functools.cache
def _parser(command: str) -> argparse.ArgumentParser:
    return build_parser(command)


def _name(place: Place) -> str:
    words, _, action = place
    return " ".join((*words, *action.option_strings[:1]))


def _line(place: Place, value: str) -> list[str]:
    """A command line with the argument, and placeholders for what its command requires."""
    words, parser, chosen = place
    line = list(words)
    for action in parser._actions:
        if action is chosen:
            continue
        count = action.nargs if isinstance(action.nargs, int) else 1
        if not action.option_strings:
            line += ["x"] * count
        elif action.required:
            line += [action.option_strings[0], *["x"] * count]
    option = chosen.option_strings[0]
    count = chosen.nargs if isinstance(chosen.nargs, int) else 1
    return [*line, option, *[value] * count] if count > 1 else [*line, f"{option}={value}"]


def test_every_argument_is_text_or_a_number_with_bounds() -> None:
    plain = (None, str, Path)
    strange = {
        _name(p): p[2].type
        for p in PLACES
        if p[2].type not in plain
        and getattr(p[2].type, "__annotations__", {}).get("return") != "str"
    }
    assert all(isinstance(kind, Number | Size) for kind in strange.values()), strange
    assert {p[0][0] for p in NUMBERS} >= set(COMMANDS) - {
        "bundle",
        "bundles",
        "calibrate",
        "doctor",
        "metrics",
        "completion",
    }
    for place in NUMBERS:
        default, kind = place[2].default, place[2].type
        for value in default if isinstance(default, tuple | list) else [default]:
            assert value is None or isinstance(value, str) or kind.within(value), _name(place)


@pytest.mark.parametrize("place", NUMBERS, ids=_name)
def test_what_is_no_number_within_bounds_is_one_line(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words, _, action = place
    option = action.option_strings[0]
    for text in (*NO_NUMBERS, *MAYBE):
        line = _line(place, text)
        try:
            parsed = getattr(_parser(words[0]).parse_args(line), action.dest)
        except SystemExit as stop:
            assert stop.code == 2
            capsys.readouterr()
            assert main(line) == 2
            said = capsys.readouterr()
            assert said.out == ""
            # Of two numbers for one option the second may be taken for another argument.
            assert re.fullmatch(rf"anysense: error: .*{option}.*\n", said.err), (text, said.err)
            if action.nargs is None and text.isprintable() and len(text) < 40:
                wanted = "is not WIDTHxHEIGHT" if isinstance(action.type, Size) else "must be"
                told = wanted in said.err and f"'{text}'" in said.err
                assert told or text in ("--", "0x10")
            continue
        assert text not in NO_NUMBERS, text
        for value in parsed if isinstance(parsed, list) else [parsed]:
            assert action.type.within(value) and math.isfinite(value)
            assert value == float(text) and isinstance(value, int | float)


@pytest.mark.parametrize("place", NUMBERS, ids=_name)
def test_bounds_themselves(place: Place) -> None:
    words, _, action = place
    kind = action.type.side if isinstance(action.type, Size) else action.type
    step = 1 if isinstance(kind, Whole) else 1e-9
    inside = [kind.least if kind.least_too else kind.least + step]
    inside += [kind.most if kind.most_too else kind.most - step]
    outside = [kind.least - step if kind.least_too else kind.least]
    outside += [kind.most * 1.001 + 1 if kind.most_too else kind.most]
    outside = [math.ceil(v) if isinstance(kind, Whole) else v for v in outside]

    def parsed(value: float) -> object:
        text = str(value)
        text = f"{text}x{text}" if isinstance(action.type, Size) else text
        found = getattr(_parser(words[0]).parse_args(_line(place, text)), action.dest)
        return found[0] if isinstance(found, list | tuple) else found

    for value in inside:
        assert parsed(value) == value
    for value in outside:
        with pytest.raises(SystemExit) as stop:
            parsed(value)
        assert stop.value.code == 2


KINDS = (whole(0), whole(3, 16), real(0), real(0, 1, most_too=False), positive(), real(-2, 2))


@given(st.sampled_from(KINDS), st.one_of(st.text(), st.integers().map(str), st.floats().map(repr)))
def test_any_text_is_a_number_within_bounds_or_refused(kind: Whole | Real, text: str) -> None:
    try:
        value = kind(text)
    except argparse.ArgumentTypeError as error:
        assert kind.bounds in str(error)
        with_point = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text, re.ASCII)
        if with_point and (isinstance(kind, Real) or text.lstrip("-").isdecimal()):
            assert not kind.within(float(text))
    else:
        assert kind.within(value) and value == float(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "the following arguments are required: COMMAND (anysense --help)"),
        (["bench"], "the following arguments are required: BUNDLE (anysense bench --help)"),
        (["data", "check", "a", "b"], "unrecognized arguments: b (anysense data check --help)"),
        (["data", "info", "x", "--\x1b[31m\n"], r"unrecognized arguments: --\x1b[31m"),
        (["bench", "b", "--threads"], "--threads: expected one argument"),
        (["run", "--bundle", "b", "--out=--"], "--out: expected one argument"),
        (["bench", "b", "--threads", "0"], "--threads: must be at least 1, and at most 1024"),
        (["view", "--bundle", "b", "--data", "d", "--port", "65536"], "at most 65535"),
        (["search", "r", "--held-out", "1"], "--held-out: must be 0 or more, and below 1"),
        (["export", "b", "--max-error", "-1"], "--max-error: must be positive, and at most 1e+09"),
        (["export", "b", "--workspace", "0"], "--workspace: must be at least 1"),
        (["replay", "b", "--deadline-ms", "0"], "--deadline-ms: must be positive, at least 0.001"),
        (["run", "--depth-scale", "0"], "--depth-scale: must be positive, and at most 1e+09"),
    ],
)
def test_refusals_are_one_line(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("anysense: error: ") and error.count("\n") == 1 and said in error
