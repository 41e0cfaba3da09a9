"""Several files as the bytes of one input, so that a fuzzer which knows nothing of folders can change them.

first line, which says how they are to be read
=== images/a.png
the bytes of the file
=== dataset.yaml
...
"""

from __future__ import annotations

from pathlib import Path

MARK = b"\n=== "
"""Comes before the name of each file."""

_MOST_FILES = 40


def pack(folder: Path, first: str) -> bytes:
    """The files below a folder, in order of name."""
    packed = first.encode()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        packed += MARK + path.relative_to(folder).as_posix().encode() + b"\n" + path.read_bytes()
    return packed


def unpack(data: bytes, folder: Path) -> str:
    """Write the files below a folder; returns the first line.  Names that lead elsewhere are left out."""
    first, *files = data.split(MARK)
    for file in files[:_MOST_FILES]:
        name, _, content = file.partition(b"\n")
        parts = name.decode("utf-8", "replace").replace("\0", "").split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > 200 for part in parts[:9]):
            continue
        path = folder.joinpath(*parts[:9])
        if any(above.is_file() for above in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return first.decode("utf-8", "replace")
