"""`make mutate`: it makes the changes that it says, finds a file's tests, and its list is up to date."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from benchmark_modules import load_benchmark

ROOT = Path(__file__).parents[2]
mutate = load_benchmark("mutate")

SOURCE = """\
LIMIT = 3
FLAG = True

def judge(a, b):
    if a < b and not a == 2.5:
        return a + b * 2 - b * 2
    total = 0
    total += a
    return a in [b] or b is None
"""


def test_every_operator_and_number_is_changed_once() -> None:
    found = mutate.changes_of(SOURCE)
    told = sorted((c.line, c.what) for c in found)
    assert told == [
        (1, "3 -> 4"),
        (5, "2.5 -> 3.5"),
        (5, "And -> Or"),
        (5, "Eq -> NotEq"),
        (5, "Lt -> LtE"),
        (5, "not -> bool"),
        (6, "2 -> 3"),
        (6, "2 -> 3 (2)"),
        (6, "Add -> Sub"),
        (6, "Mult -> Div"),
        (6, "Mult -> Div (2)"),
        (6, "Sub -> Add"),
        (7, "0 -> 1"),
        (8, "Add -> Sub"),
        (9, "In -> NotIn"),
        (9, "Is -> IsNot"),
        (9, "Or -> And"),
    ]
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for change in found:
        lines = mutate.changed(SOURCE, change.place).splitlines()
        different = [i for i, (a, b) in enumerate(zip(plain, lines, strict=True)) if a != b]
        assert len(different) == 1, change
        assert SOURCE.splitlines()[change.line - 1].strip() == change.text


def test_a_files_tests_are_those_named_after_it_or_its_folders() -> None:
    named, folder = mutate.tests_of("perception/runtime/collector.py")
    assert "tests/runtime/test_collector.py" in named and folder == "tests/runtime"
    assert mutate.tests_of("perception/cli/record.py") == ([], "tests/cli")
    assert mutate.tests_of("export/parity.py") == ([], "tests/export")
    assert mutate.tests_of("perception/frame.py") == ([], "tests")


def test_changes_that_change_nothing_are_listed_with_a_reason_and_exist() -> None:
    content = yaml.safe_load((ROOT / mutate.EQUIVALENT).read_text(encoding="utf-8"))
    for file, rows in content.items():
        known = {c.key for c in mutate.changes_of((ROOT / file).read_text(encoding="utf-8"))}
        for row in rows:
            assert set(row) == {"line", "change", "why"} and len(row["why"]) > 15, row
            assert (row["line"], row["change"]) in known, f"{file}: {row['line']}: {row['change']}"
        keys = [(row["line"], row["change"]) for row in rows]
        assert len(keys) == len(set(keys))
    assert mutate.known_equivalents(ROOT / mutate.EQUIVALENT).keys() == content.keys()
    assert mutate.known_equivalents(ROOT / "tests/none.yaml") == {}


@pytest.mark.slow
def test_what_is_not_noticed_fails_and_leaves_the_tree_alone(tmp_path: Path) -> None:
    file = "perception/geometry/grid.py"
    before = (ROOT / file).read_bytes()
    blind = tmp_path / "test_blind.py"
    blind.write_text("def test_nothing():\n    pass\n")
    command = [sys.executable, str(ROOT / "benchmarks/mutate.py"), file, "--count", "1"]
    done = subprocess.run([*command, "--tests", str(blind)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{file}: 0 of 1 noticed" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{file}: 1 of 1 noticed" in done.stdout
    assert (ROOT / file).read_bytes() == before
