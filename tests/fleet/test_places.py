"""Files that a worker has made are moved into their place, from whatever file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fleet_kit import files_in

from perception.fleet.places import Place, UnwritableError


def made(folder: Path) -> dict[str, bytes]:
    """A folder of files, one of them in a folder below, and an empty folder."""
    for name in ("a.txt", "labels/b.png", "labels/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "empty").mkdir()
    return files_in(folder)


@pytest.mark.parametrize("other", [False, True], ids=["the same file system", "another"])
def test_a_folder_is_moved_into_one_that_has_files(
    tmp_path: Path, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = made(tmp_path / "own")
    target = tmp_path / "there" / "name"
    (target / "labels").mkdir(parents=True)
    (target / "labels" / "b.png").write_bytes(b"before")
    (target / "labels" / "z.png").write_bytes(b"another chunk's")
    if other:
        rename = os.replace

        def crossing(source: str, goal: str) -> None:
            if Path(source).parent != Path(goal).parent:
                raise OSError(18, "Invalid cross-device link")
            rename(source, goal)

        monkeypatch.setattr(os, "replace", crossing)
    Place(str(target)).put(tmp_path / "own", move=True)
    assert files_in(target) == wanted | {"labels/z.png": b"another chunk's"}
    assert bool(files_in(tmp_path / "own")) == other
    assert not (target / "empty").exists()


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    made(tmp_path / "own")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnwritableError, match="cannot be written: "):
        Place(str(tmp_path / "file")).put(tmp_path / "own", move=True)
