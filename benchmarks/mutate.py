"""Would the tests notice?  Changes one operator or number of a file at a time and runs the file's tests.

First those named after it, then the quick ones of their folder.

    make mutate FILES="perception/geometry/grid.py perception/runtime/policy.py"

Works on a copy of the repository.  A change that every test survives is printed: either a test is missing,
or the change changes nothing that anybody can see; these are listed, with the reason, in
`tests/equivalent_changes.yaml` and do not count.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = "tests/equivalent_changes.yaml"
_COPIED = ("perception", "export", "calibration", "benchmarks", "configs", "docs", "tests")
_LINKED = ("bundles", "data", "ros2_ws")
_QUICK = ("-m", "not slow")
_SLOW_TO_IMPORT = (
    *("numpy", "cv2", "pydantic", "rich", "onnx", "onnx.helper", "onnxruntime", "tifffile"),
    *("rosbags", "mcap", "hypothesis", "hypothesis.strategies", "hypothesis.extra.numpy"),
)

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {}
for _one, _other in (
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.And, ast.Or),
):
    _SWAPS |= {_one: _other, _other: _one}


@dataclass(frozen=True)
class Change:
    """One change of a file.

    Attributes:
        place: which of the file's changeable nodes, in the order of `ast.walk`.
        line: number of the line.
        text: of the line, stripped.
        what: such as `Lt -> LtE` or `8.0 -> 9.0`, with a number where the line has it several times.
    """

    place: int
    line: int
    text: str
    what: str

    @property
    def key(self) -> tuple[str, str]:
        """What the list of equivalent changes knows it by; line numbers move too often."""
        return self.text, self.what


def _changeable(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if len(node.ops) == 1 and type(node.ops[0]) in _SWAPS:
                yield node
        elif isinstance(node, ast.BinOp | ast.AugAssign):
            if type(node.op) in _SWAPS:
                yield node
        elif isinstance(node, ast.BoolOp):
            yield node
        elif isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Not):
                yield node
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node


def _describe(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return f"{node.value} -> {node.value + 1}"  # type: ignore[operator]
    if isinstance(node, ast.UnaryOp):
        return "not -> bool"
    before = type(node.ops[0] if isinstance(node, ast.Compare) else node.op)  # type: ignore[attr-defined]
    return f"{before.__name__} -> {_SWAPS[before].__name__}"


def changes_of(source: str) -> list[Change]:
    """All changes of a source text."""
    lines = source.splitlines()
    found: list[Change] = []
    for place, node in enumerate(_changeable(ast.parse(source))):
        text, what = lines[node.lineno - 1].strip(), _describe(node)  # type: ignore[attr-defined]
        before = sum(c.line == node.lineno and c.what.split(" (")[0] == what for c in found)  # type: ignore[attr-defined]
        what += f" ({before + 1})" if before else ""
        found.append(Change(place, node.lineno, text, what))  # type: ignore[attr-defined]
    return found


def changed(source: str, place: int) -> str:
    """The source with the change at `place`."""
    tree = ast.parse(source)
    node = list(_changeable(tree))[place]
    if isinstance(node, ast.Compare):
        node.ops[0] = _SWAPS[type(node.ops[0])]()  # type: ignore[assignment]
    elif isinstance(node, ast.Constant):
        node.value = node.value + 1  # type: ignore[operator]
    elif isinstance(node, ast.UnaryOp):
        # The node stays where it is and becomes `+bool(...)`.
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
    else:
        node.op = _SWAPS[type(node.op)]()  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def known_equivalents(path: Path) -> dict[str, set[tuple[str, str]]]:
    """By file, the keys of the changes that change nothing."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        file: {(row["line"], row["change"]) for row in rows}
        for file, rows in (content or {}).items()
    }


def tests_of(file: str) -> tuple[list[str], str]:
    """The tests named after a source file, and the folder of its package's, for what passes these."""
    parts = Path(file).with_suffix("").parts
    folder = Path("tests", *parts[1:-1]) if parts[0] == "perception" else Path("tests", *parts[:1])
    while not (ROOT / folder).is_dir() and folder != Path("tests"):
        folder = folder.parent
    named = sorted((ROOT / folder).glob(f"test_{parts[-1]}*.py"))
    return [str(path.relative_to(ROOT)) for path in named], str(folder)


class Copy:
    """A copy of the repository that can be changed.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in _COPIED:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        for name in _LINKED:
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, folder)

    def survives(self, tests: Sequence[str], limit_s: float) -> bool:
        """Whether all tests pass in time.

        They run in a fork of this process, which has imported what is the same for every change.
        """
        child = os.fork()
        if child == 0:
            os._exit(self._test(tests))
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False  # an endless loop is noticed, too

    def _test(self, tests: Sequence[str]) -> int:
        """In the fork: run the tests in silence; pytest's exit status."""
        os.setpgid(0, 0)
        os.chdir(self.root)
        # In place of this file's folder, in which `tensorrt` is a benchmark.
        sys.path[0] = str(self.root)
        os.environ |= {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        except BaseException:
            return 99


def preload(torch: bool) -> None:
    """Import what tests import, but nothing of this repository."""
    for name in (*_SLOW_TO_IMPORT, *(["torch"] if torch else [])):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def judge(
    copy: Copy,
    file: str,
    stages: Sequence[Sequence[str]],
    count: int,
    seed: int,
    equivalent: set[tuple[str, str]],
) -> tuple[int, int]:
    """Change a file `count` times, print what the tests of no stage notice.

    Returns:
        How many changes were noticed, and how many should have been.
    """
    path = copy.root / file
    source = path.read_text(encoding="utf-8")
    start = time.perf_counter()
    limits_s = []
    for tests in stages:
        began = time.perf_counter()
        if not copy.survives(tests, 3600):
            print(f"{file}: {' '.join(tests)} fail as they are", flush=True)
            return 0, 1
        limits_s.append(5 * (time.perf_counter() - began) + 30)
    every = changes_of(source)
    picked = random.Random(seed).sample(every, min(count, len(every)))
    counted = [change for change in picked if change.key not in equivalent]
    missed = []
    for change in counted:
        path.write_text(changed(source, change.place), encoding="utf-8")
        if all(copy.survives(t, s) for t, s in zip(stages, limits_s, strict=True)):
            missed.append(change)
            print(f"    {file}:{change.line}: {change.what}: {change.text}", flush=True)
    path.write_text(source, encoding="utf-8")
    noticed = len(counted) - len(missed)
    aside = f", {len(picked) - len(counted)} equivalent" if len(counted) < len(picked) else ""
    seconds = time.perf_counter() - start
    print(f"{file}: {noticed} of {len(counted)} noticed{aside}, {seconds:.0f} s", flush=True)
    return noticed, len(counted)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="source files, relative to the repository")
    parser.add_argument("--tests", nargs="+", help="instead of those of each file")
    parser.add_argument("--count", type=int, default=30, help="changes a file (default: 30)")
    parser.add_argument("--seed", type=int, default=5, help="which these are (default: 5)")
    parser.add_argument(
        "--least", type=float, default=0.9, help="share to be noticed (default: 0.9)"
    )
    args = parser.parse_args()
    preload(torch=any("/models/" in f or "/training/" in f for f in args.files))
    equivalent = known_equivalents(ROOT / EQUIVALENT)
    failed = []
    with tempfile.TemporaryDirectory(prefix="anysense-mutate-") as folder:
        copy = Copy(Path(folder))
        for file in args.files:
            named, folder_of_tests = tests_of(file)
            stages = [args.tests] if args.tests else [named, [folder_of_tests, *_QUICK]]
            known = equivalent.get(file, set())
            noticed, counted = judge(
                copy, file, [t for t in stages if t], args.count, args.seed, known
            )
            if noticed < args.least * counted:
                failed.append(file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
