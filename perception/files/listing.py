"""Folders of samples: which files are there, without what systems and viewers leave beside them."""

from __future__ import annotations

from pathlib import Path

from perception.errors import AnySenseError, DataError

_LEFTOVERS = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


def is_leftover(path: Path) -> bool:
    """Whether a file is hidden or a viewer's own: `.DS_Store`, `._0001.jpg`, `Thumbs.db`."""
    return path.name.startswith(".") or path.name.lower() in _LEFTOVERS


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file name ends with one of `suffixes` (lower case), in any case of letters."""
    return path.name.lower().endswith(suffixes)


def stem_of(path: Path, suffixes: tuple[str, ...]) -> str:
    """The name without the longest of `suffixes` that it ends with (`a.pcd.bin` -> `a`)."""
    lower = path.name.lower()
    longest = max((s for s in suffixes if lower.endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(longest)]


def list_files(
    folder: Path, suffixes: tuple[str, ...], *, error: type[AnySenseError] = DataError
) -> dict[str, Path]:
    """The files in `folder` that end with one of `suffixes`, by stem, sorted by stem.

    Suffixes are compared without regard to case, and several may be mixed.

    Raises:
        AnySenseError: of the class `error`: no such folder, no such file in it, or two files of one stem.
    """
    if not folder.is_dir():
        raise error("no such folder", where=str(folder))
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_leftover(path) or not has_suffix(path, suffixes) or not path.is_file():
            continue
        stem = stem_of(path, suffixes)
        if stem in found:
            raise error(
                f"{found[stem].name} and {path.name} are two files for one frame",
                where=str(folder),
                hint="remove one",
            )
        found[stem] = path
    if not found:
        raise error(f"no {', '.join(suffixes)} file", where=str(folder))
    return dict(sorted(found.items()))


def list_ids(
    folder: Path, suffixes: tuple[str, ...], *, error: type[AnySenseError] = DataError
) -> list[str]:
    """Sorted stems of the files of `list_files`."""
    return list(list_files(folder, suffixes, error=error))


def find_file(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path | None:
    """The file `stem` + one of `suffixes` in any case of letters; None when there is none."""
    for suffix in suffixes:
        for spelled in (suffix, suffix.upper()):
            path = folder / f"{stem}{spelled}"
            if path.is_file():
                return path
    return None
