"""What is fuzzed, and the law that holds for all of it.

A harness takes the bytes of an input and an empty folder, and does with them what AnySense does with what
others send.  An `AnySenseError` of one line is a refusal, and as good as a result.  Any other exception is a
fault of ours, and so is a broken law of the harness's own (`assert`): that nothing is lost, that what was
encoded is decoded to the same.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from fuzz import decoders, documents, streams

from perception.errors import AnySenseError

Harness = Callable[[bytes, Path], str]

TARGETS: dict[str, Harness] = {
    "image": decoders.image,
    "compressed": decoders.compressed,
    "cloud": decoders.cloud,
    "pcd": decoders.pcd,
    "file": decoders.file,
    "mcap": documents.mcap,
    "sqlite": documents.sqlite,
    "bag": documents.bag,
    "bundle": documents.bundle,
    "rig": documents.rig,
    "calibration": documents.calibration,
    "values": documents.values,
    "boxes": documents.boxes,
    "config": documents.config,
    "schedule": documents.schedule,
    "folder": documents.folder,
    "importer": documents.importer,
    "collector": streams.collector,
    "stream": streams.stream,
}
"""Harnesses by name."""

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target: seeds (`make_corpus.py`), and inputs that once broke a law (`found_*`)."""

LONGEST_LINE = 4000
_FAST = Path("/dev/shm")
_TMP = str(_FAST) if _FAST.is_dir() else None


def check(target: str, data: bytes) -> str:
    """Put one input through a harness; returns what came of it.

    Raises:
        Exception: anything but an `AnySenseError` that came out, or an `AssertionError` of a broken law.
    """
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(dir=_TMP) as place, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TARGETS[target](data, Path(place))
    except AnySenseError as error:
        line = str(error)
        assert line and "\n" not in line and len(line) <= LONGEST_LINE, f"not a line: {line!r}"
        return type(error).__name__
    finally:
        logging.disable(logging.NOTSET)


def seeds(target: str) -> list[Path]:
    """The inputs in the repository."""
    return sorted((CORPUS / target).iterdir())
