"""Every `anysense …` and `make …` that is written somewhere can be typed, and every command is registered."""

from __future__ import annotations

import argparse
import re
import shlex
from itertools import product
from pathlib import Path

import pytest
import yaml

from perception.cli import main as entry

ROOT = Path(__file__).parents[2]
_WRITTEN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "configs/**/*.yaml")
_CODE = ("perception/**/*.py", "export/**/*.py", "calibration/**/*.py", "benchmarks/**/*.py")
_CODE += ("ros2_ws/src/**/*.py", "ros2_ws/*.py")
SOURCES = sorted({path for pattern in (*_WRITTEN, *_CODE) for path in ROOT.glob(pattern)})
_START = re.compile(r"^[#$\s]*(?:[\w./~-]*/)?anysense(?=\s)")
_INLINE = re.compile(r"`(?:[\w./~-]*/)?(anysense\s[^`]+)`")


def typed_commands(text: str) -> list[str]:
    """Commands that stand on lines of their own, with the lines that they go on over."""
    found: list[str] = []
    lines = re.sub(r"\\\n\s*[#]?\s*", " ", text).split("\n")
    for number, line in enumerate(lines):
        start = _START.match(line)
        # In running text a line may begin with the program's name, but not so far from the margin.
        if start is None or not re.match(r"(#\s{2,}|\s{4,}|\$ )", line):
            continue
        indent = len(line) - len(line.lstrip("# "))
        for more in lines[number + 1 :]:
            deeper = len(more) - len(more.lstrip("# ")) > indent
            if not deeper or _START.match(more):
                break
            line += " " + more.strip("# ")
        line = re.sub(r"\s+#.*|\s{2,}\(.*", "", line.strip("#$ "))
        found += [part for part in line.split(" && ") if _START.match(part)]
    return found


def mentioned_commands(text: str) -> list[str]:
    """Commands between backquotes, perhaps only a part of one."""
    return [" ".join(part.replace("\n#", "\n").split()) for part in _INLINE.findall(text)]


def readings(command: str) -> list[list[str]]:
    """The ways to fill a command in: what is optional is there, of alternatives each in turn."""
    plain = re.sub(r"[\[\]]", " ", _START.sub("", command)).replace("…", "...")
    words = [w for w in (w.removesuffix("...") for w in shlex.split(plain, posix=True)) if w]
    choices = [word.split("|") for word in words]
    return [list(words) for words in product(*choices)]


def lenient(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser without what it requires: for commands of which only a part is named."""
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                lenient(child)
        elif action.nargs != 0:
            action.nargs = "*" if action.nargs in ("+", "*") else "?"
    return parser


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return entry.build_parser()


@pytest.fixture(scope="module")
def partial_parser() -> argparse.ArgumentParser:
    return lenient(entry.build_parser())


def _refusal(
    parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]
) -> str | None:
    try:
        parser.parse_args(words)
    except SystemExit as stop:
        said = capsys.readouterr()
        return said.err.strip().splitlines()[-1] if stop.code else None
    return None


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


TYPED = [(_name(p), c) for p in SOURCES for c in typed_commands(p.read_text(encoding="utf-8"))]
MENTIONED = [
    (_name(p), c) for p in SOURCES for c in mentioned_commands(p.read_text(encoding="utf-8"))
]


def test_commands_are_found_where_they_are_known_to_be() -> None:
    pages = {page for page, _ in TYPED}
    assert {"README.md", "docs/jetson.md", "docs/zoo/multimae.md", "benchmarks/zoo.py"} <= pages
    assert ("docs/zoo/multimae.md", "anysense pretrain configs/zoo/multimae.yaml") in TYPED
    assert len(TYPED) > 80 and len(MENTIONED) > 60


@pytest.mark.parametrize(("page", "command"), TYPED)
def test_a_command_on_its_own_line_parses(
    page: str, command: str, parser: argparse.ArgumentParser, partial_parser, capsys
) -> None:  # type: ignore[no-untyped-def]
    abridged = re.search(r"(^|\s)(\.\.\.|…)(\s|$)", command) is not None
    for words in readings(command):
        assert _refusal(partial_parser if abridged else parser, words, capsys) is None, command


@pytest.mark.parametrize(("page", "command"), MENTIONED)
def test_a_command_in_running_text_has_only_what_exists(
    page: str, command: str, partial_parser: argparse.ArgumentParser, capsys
) -> None:  # type: ignore[no-untyped-def]
    for words in readings(command):
        assert _refusal(partial_parser, words, capsys) is None, command


def test_commands_that_bundles_and_demo_record_parse(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for path in ROOT.glob("bundles/*/*.yaml"):
        text = str(yaml.safe_load(path.read_text(encoding="utf-8")))
        found += re.findall(r"'command': '(anysense [^']+)'", text)
    assert len(found) > 4
    for command in found:
        for words in readings(command):
            assert _refusal(parser, words, capsys) is None, command


def test_what_is_wrong_would_be_noticed(
    parser: argparse.ArgumentParser,
    partial_parser: argparse.ArgumentParser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = """
    anysense pretend configs/a.yaml
    .venv/bin/anysense run --bundle B --rgb a.png --out O [--thermal-unit kelvin|furlongs]  # why
    anysense train configs/a.yaml --epochs \\
        many
    anysense bench B
        --frames 3 --colour
"""
    commands = typed_commands(text)
    assert len(commands) == 4 and commands[3] == "anysense bench B --frames 3 --colour"
    for command in commands:
        assert any(_refusal(parser, words, capsys) for words in readings(command)), command
    for command in mentioned_commands("`anysense bench --colour`, `anysense data chek`"):
        assert _refusal(partial_parser, readings(command)[0], capsys), command
    assert _refusal(parser, readings("anysense export RUN")[0], capsys) is None


def test_every_module_with_a_parser_is_a_command() -> None:
    modules = {
        path.stem.replace("_", "-")
        for path in (ROOT / "perception/cli").glob("*.py")
        if re.search(r"^def add_parser\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert modules == set(entry.COMMANDS)
    assert len(set(entry.COMMANDS)) == len(entry.COMMANDS)


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        entry.build_parser(name).parse_args([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: anysense {name}")


def test_configurations_in_commands_exist() -> None:
    for page, command in TYPED + MENTIONED:
        for path in re.findall(r"configs/[\w./-]+\.yaml", command):
            made_by_reader = page.startswith("docs/plugins/") or re.search(r"[A-Z]", path)
            assert made_by_reader or (ROOT / path).is_file(), f"{page}: {path}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {t for line in re.findall(r"^([\w .-]+):", makefile, re.M) for t in line.split()}
    found = 0
    for path in SOURCES:
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            for name in re.findall(r"(?:^    |`)make ([a-z][\w-]*)", text, re.MULTILINE):
                assert name in targets, f"{_name(path)}: make {name}"
                found += 1
    assert found > 8
