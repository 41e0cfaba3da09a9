"""Which plans this machine built itself: noted in the user's own cache, outside every bundle.

A plan is a program.  A checksum in its own header says that it is whole, not whose it is; so a plan is
run only when it is noted here, or when the user says that plans of this bundle are to be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from perception.errors import AnySenseError
from perception.files.writing import write_bytes
from perception.runtime.engines.measured import cache_folder

_MOST_BYTES = 4096


@dataclass(frozen=True)
class Note:
    """What is known of a plan that was built here.

    Attributes:
        host_code: it was built to bring code of its own for the CPU, as version compatible plans do.
    """

    host_code: bool


_known: dict[str, Note] = {}  # what this process built, wherever notes cannot be kept


def note(graph_sha256: str, plan: bytes, known: Note) -> bool:
    """Note that a plan was built here.

    Args:
        graph_sha256: of the ONNX graph that it was built from.
        plan: the whole plan file, header and all.
        known: what is to be kept.

    Returns:
        False where nothing can be kept: no home, a full disk, a folder that cannot be written.
    """
    _known[_key(graph_sha256, plan)] = known
    try:
        path = _path(graph_sha256, plan)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, json.dumps(asdict(known)).encode())
        path.chmod(0o600)
    except (OSError, RuntimeError, AnySenseError):
        return False
    return _read(graph_sha256, plan) == known


def look_up(graph_sha256: str, plan: bytes) -> Note | None:
    """What was noted of a plan; None when it was not built here, or others could write the note."""
    return _known.get(_key(graph_sha256, plan)) or _read(graph_sha256, plan)


def _read(graph_sha256: str, plan: bytes) -> Note | None:
    try:
        path = _path(graph_sha256, plan)
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            others = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(state.st_mode) or others or state.st_uid not in (0, os.geteuid()):
                return None
            content = json.loads(file.read(_MOST_BYTES))
    except (OSError, RuntimeError, ValueError):
        return None
    host_code = content.get("host_code") if isinstance(content, dict) else None
    return Note(host_code) if isinstance(host_code, bool) else None


def folder_name() -> str:
    """Where notes are kept, for messages."""
    try:
        return str(_folder())
    except RuntimeError:
        return "a home folder, of which there is none (ANYSENSE_CACHE names another)"


def _folder() -> Path:
    return cache_folder() / "plans"


def _key(graph_sha256: str, plan: bytes) -> str:
    """By graph and plan: a plan of one graph says nothing about another."""
    identity = f"{graph_sha256}\n{hashlib.sha256(plan).hexdigest()}"
    return hashlib.sha256(identity.encode()).hexdigest()


def _path(graph_sha256: str, plan: bytes) -> Path:
    return _folder() / f"{_key(graph_sha256, plan)}.json"
