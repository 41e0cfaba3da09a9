"""Running an import as the command does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from foreign_sets import Import

from perception.cli.main import main
from perception.data.folder import FolderRecording


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """`anysense data import`; gives the recording, after `data check` found no error in it."""

    def run(source: str, *options: str, check: bool = True) -> FolderRecording:
        out = tmp_path / "out"
        assert main(["data", "import", source, "--out", str(out), *options]) == 0
        if check:
            assert main(["data", "check", str(out)]) == 0
        return FolderRecording(out)

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The line by which an import is refused; nothing is left."""

    def run(source: str, *options: str) -> str:
        out = tmp_path / "out"
        before = sorted(p.name for p in tmp_path.iterdir())
        capsys.readouterr()
        assert main(["data", "import", source, "--out", str(out), *options]) == 2
        assert sorted(p.name for p in tmp_path.iterdir()) == before
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 1 and "Traceback" not in lines[0]
        return lines[0]

    return run
