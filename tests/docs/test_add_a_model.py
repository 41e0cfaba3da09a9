"""docs/add-a-model.md, followed to the letter in a copy of the code: files, edits, commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")
# What a block is: the words before it, and its content.
_BLOCK = re.compile(r"([^\n`]*(?:`[^`\n]+`[^\n`]*)*):\n\n```\w+\n(.*?)```", re.DOTALL)


def _blocks() -> list[tuple[str, str]]:
    return [(said.strip(), content) for said, content in _BLOCK.findall(PAGE)]


def _commands() -> list[str]:
    return re.findall(r"^    (anysense .*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code with everything done that the page says."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("perception", "export", "calibration", "configs", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "ros")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    edited = None
    for said, content in _blocks():
        named = re.search(r"`([\w/]+\.(?:py|yaml))`", said)
        if said.endswith("complete"):
            assert named is not None
            assert not (root / named[1]).exists()
            (root / named[1]).write_text(content, encoding="utf-8")
            continue
        edited = root / named[1] if named is not None else edited
        assert edited is not None, said
        text = edited.read_text(encoding="utf-8")
        if said.endswith("among the imports"):
            last = list(re.finditer(r"^from .*$", text, re.MULTILINE))[-1].end()
            text = f"{text[:last]}\n{content.strip()}{text[last:]}"
        else:
            table = re.search(r"in its table `(\w+)`$", said)
            assert table is not None, f"what is to be done with: {said}?"
            end = text.index("\n}\n", text.index(f"{table[1]}:")) + 1
            text = text[:end] + content + text[end:]
        edited.write_text(text, encoding="utf-8")
    return root


def _run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_the_page_has_what_this_test_follows() -> None:
    said = [words for words, _ in _blocks()]
    assert len(said) == 4, said
    assert sum(words.endswith("complete") for words in said) == 2
    assert [c.split()[1] for c in _commands()] == ["train", "export", "run"]


@pytest.mark.slow
def test_the_commands_of_the_page_run_one_after_the_other(copy: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(copy / "a.png"), picture)
    for command in _commands():
        done = _run(copy, "perception.cli.main", *shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
    assert (copy / "out/run/result.json").is_file()
    assert (copy / "bundles/mean/bundle.yaml").is_file()


@pytest.mark.slow
def test_the_model_passes_the_tests_that_every_model_passes(copy: Path) -> None:
    command = re.search(r"`(pytest tests/models/zoo -k mean)`", PAGE)
    assert command is not None
    done = _run(copy, *command[1].split(), "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]
    counted = re.search(r"\b(\d+) passed", done.stdout)
    assert counted is not None and int(counted[1]) >= 8, done.stdout[-500:]
