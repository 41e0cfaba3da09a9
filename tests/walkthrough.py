"""Pages that are followed to the letter: their files are written, their commands typed into a shell.

A page is Markdown.  A block of code after a line that ends in "`path`:" is that file.  Lines that are
indented by four spaces are commands.  "goes on from [other](other.md)" means that what that page has up
to its first "##" heading after its first commands was done before.

A file `anysense-NAME/...` is the one of the distribution in `tests/plugins/NAME`; `python
tests/walkthrough.py` brings the pages up to date with these.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/plugins"
SAMPLES = ROOT / "tests/plugins"
_BLOCK = re.compile(
    r"`(?P<file>[\w./-]+)`:\n\n```\w*\n(?P<code>.*?)^```$|^(?P<commands>(?:    \S[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
_BEFORE = re.compile(r"goes on from\s+\[[^]]*\]\((\w+\.md)\)")


@dataclass(frozen=True)
class Step:
    """One thing that a page says to do: write a file, or type commands."""

    file: str = ""
    code: str = ""
    commands: tuple[str, ...] = ()


def steps_of(text: str) -> list[Step]:
    """What a page says, in its order."""
    found = []
    for block in _BLOCK.finditer(text):
        lines = [line[4:] for line in (block["commands"] or "").splitlines()]
        joined = "\n".join(lines).replace("\\\n", " ").splitlines()
        found.append(Step(block["file"] or "", block["code"] or "", tuple(joined)))
    return found


def before(text: str) -> list[str]:
    """The pages that one goes on from."""
    return _BEFORE.findall(text)


def groundwork(text: str) -> str:
    """A page up to the heading that follows its first commands."""
    start = re.search(r"^    \S", text, re.MULTILINE)
    assert start is not None
    end = text.find("\n## ", start.start())
    return text if end < 0 else text[:end]


def brought_up_to_date(text: str) -> str:
    """A page with the files of the sample distributions as they are."""

    def current(block: re.Match[str]) -> str:
        found = re.match(r"anysense-(\w+)/(.+)", block["file"] or "")
        if found is None:
            return block[0]
        code = (SAMPLES / found[1] / found[2]).read_text(encoding="utf-8")
        fence = block[0][: block.start("code") - block.start()]
        return f"{fence}{code}```"

    return _BLOCK.sub(current, text)


@dataclass
class Walk:
    """A fresh folder in which pages are followed.

    Attributes:
        folder: where files are written and commands run.
        said: by command, what it wrote on stdout and stderr.
    """

    folder: Path
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        programs = self.folder / ".programs"
        programs.mkdir(parents=True)
        for name, words in {
            "anysense": "-m perception.cli.main",
            "python": "",
            "pip": "-m pip",
        }.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    @property
    def site(self) -> Path:
        """Where pip installs."""
        return self.folder / ".site"

    @property
    def environment(self) -> dict[str, str]:
        """As a user's who has AnySense, pip then fetches nothing and installs into the folder."""
        path = os.pathsep.join((str(self.folder / ".programs"), os.environ.get("PATH", "")))
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": os.pathsep.join(map(str, (self.site, ROOT))),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # means: do not isolate
            "PIP_TARGET": str(self.site),
            "PIP_UPGRADE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def follow(self, page: str) -> None:
        """Do what a page says, and before it what it goes on from."""
        text = (PAGES / page).read_text(encoding="utf-8")
        for other in before(text):
            for step in steps_of(groundwork((PAGES / other).read_text(encoding="utf-8"))):
                self.do(step)
        for step in steps_of(text):
            self.do(step)

    def do(self, step: Step) -> None:
        """Write the file, or type the commands."""
        if step.file:
            path = self.folder / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.code, encoding="utf-8")
        for command in step.commands:
            self.type(command)

    def type(self, command: str, status: int = 0) -> str:
        """Type one command; what it said."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{command}\n{said[-3000:]}"
        assert "Traceback" not in said, said
        self.said[command] = said
        return said


if __name__ == "__main__":
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(brought_up_to_date(page.read_text(encoding="utf-8")), encoding="utf-8")
