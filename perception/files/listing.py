"""Folders of samples: which files are there, without what systems and viewers leave beside them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from perception.errors import AnySenseError, DataError, meant

_LEFTOVERS = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


def is_leftover(path: Path) -> bool:
    """Whether a file is hidden or a viewer's own: `.DS_Store`, `._0001.jpg`, `Thumbs.db`."""
    return path.name.startswith(".") or path.name.lower() in _LEFTOVERS


def stem_of(path: Path, suffixes: tuple[str, ...]) -> str:
    """The name without the longest of `suffixes` that it ends with (`a.pcd.bin` -> `a`)."""
    lower = path.name.lower()
    longest = max((s for s in suffixes if lower.endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(longest)]


def same_name(name: str) -> str:
    """The form in which names are compared: macOS writes `ö` as `o` and a mark, others as one letter."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def counted(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """The key by which names are sorted as people count: 1, 2, 10 and not 1, 10, 2."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts], name


def siblings_hint(path: Path) -> str:
    """For a path that leads nowhere: what in its folder is called nearly so; empty where nothing is."""
    try:
        names = [p.name for p in path.parent.iterdir() if not is_leftover(p)]
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return ""
    return meant(path.name, names)


def is_there(path: Path) -> bool:
    """Whether anything has this name; one that nothing can have (too long, a null byte) is not there.

    For names out of files of any origin: `Path.exists` and its like raise where a name is too long.
    """
    return _asked(path.exists)


def is_file(path: Path) -> bool:
    """Whether this is a regular file, see `is_there`."""
    return _asked(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether this is a folder, see `is_there`."""
    return _asked(path.is_dir)


def is_link(path: Path) -> bool:
    """Whether this is a link, see `is_there`."""
    return _asked(path.is_symlink)


def _asked(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError):
        return False


def visible_files(folder: Path, *, error: type[AnySenseError] = DataError) -> list[Path]:
    """The regular files in a folder without leftovers, sorted; none where there is no folder.

    Raises:
        AnySenseError: of the class `error`: the folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        return [p for p in sorted(folder.iterdir()) if not is_leftover(p) and p.is_file()]
    except OSError as problem:
        raise error(f"cannot be listed: {problem.strerror}", where=str(folder)) from problem


class SampleFolder:
    """The files of one sensor: one for each frame, named by the frame's id.

    Suffixes are compared without regard to case, stems without regard to the Unicode form of accents;
    several suffixes may be mixed, and leftovers are not counted.
    The folder is listed once, when it is first asked for; a missing one holds nothing.

    Args:
        folder: where the files are.
        suffixes: what their names end with, in lower case.
        error: the class of what is raised.
    """

    def __init__(
        self, folder: Path, suffixes: tuple[str, ...], *, error: type[AnySenseError] = DataError
    ) -> None:
        self.folder, self.suffixes, self.error = folder, suffixes, error

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The files by stem, sorted.

        Raises:
            AnySenseError: of the class `error`: the folder cannot be listed.
        """
        found: dict[str, list[Path]] = {}
        for path in visible_files(self.folder, error=self.error):
            if path.name.lower().endswith(self.suffixes):
                found.setdefault(same_name(stem_of(path, self.suffixes)), []).append(path)
        return dict(sorted(found.items()))

    def find(self, stem: str) -> Path | None:
        """The file of a frame, None where there is none.

        Raises:
            AnySenseError: of the class `error`: there are two.
        """
        paths = self.files.get(same_name(stem), [])
        if len(paths) > 1:
            raise self.error(
                f"{paths[0].name} and {paths[1].name} are two files for one frame",
                where=str(self.folder),
                hint="remove one",
            )
        return paths[0] if paths else None

    def file(self, stem: str) -> Path:
        """The file of a frame.

        Raises:
            AnySenseError: of the class `error`: there is none, or two.
        """
        found = self.find(stem)
        if found is None:
            raise self.error("no such file", where=str(self.folder / f"{stem}{self.suffixes[0]}"))
        return found


def list_files(
    folder: Path, suffixes: tuple[str, ...], *, error: type[AnySenseError] = DataError
) -> dict[str, Path]:
    """The files of a `SampleFolder` by stem, sorted by stem, numbers by their value.

    Raises:
        AnySenseError: of the class `error`: no such folder, no such file in it, or two files of one stem.
    """
    if not folder.is_dir():
        raise error("no such folder", where=str(folder))
    samples = SampleFolder(folder, suffixes, error=error)
    if not samples.files:
        raise error(f"no {', '.join(suffixes)} file", where=str(folder))
    return {stem: samples.file(stem) for stem in sorted(samples.files, key=counted)}


def list_ids(
    folder: Path, suffixes: tuple[str, ...], *, error: type[AnySenseError] = DataError
) -> list[str]:
    """Sorted stems of the files of `list_files`."""
    return list(list_files(folder, suffixes, error=error))
