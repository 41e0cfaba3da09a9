"""The exceptions that AnySense raises.

Every error that a caller can cause or meet derives from `AnySenseError` and carries one line that
says what is wrong, where, and what to do.  The CLI prints that line and exits with status 2; the
pipeline counts it and goes on with the next frame.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


class AnySenseError(Exception):
    """Base of all errors raised on purpose by AnySense.

    Args:
        message: what is wrong, in one line.
        where: the file, sensor, field or argument concerned (optional).
        hint: what the caller can do about it (optional).
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message = message
        self.where = where
        self.hint = hint
        line = f"{where}: {message}" if where else message
        if hint:
            line = f"{line} ({hint})"
        super().__init__(" ".join(line.split()))


class InputError(AnySenseError, ValueError):
    """A sample, frame, image or cloud cannot be used (dtype, shape, content, stamp)."""


class BlindError(InputError):
    """A sample is well formed, but says that its sensor saw nothing: no return, no finite value."""


class EncodingError(InputError):
    """The encoding or field layout of a message is unknown or contradicts its data."""


class CalibrationError(AnySenseError, ValueError):
    """Intrinsics or extrinsics are missing, malformed or do not match the data."""


class BundleError(AnySenseError):
    """A bundle is missing, damaged, of a newer schema, or points outside its folder."""


class EngineError(AnySenseError):
    """An inference engine cannot be built, loaded or run."""


class DeadlineExceededError(EngineError):
    """An inference engine did not answer in the time that it was given.

    Args:
        message, where, hint: as for every error.
        stuck: it could not be ended, and still computes on a thread of this process; a new process is
            the only way to have that core back.
    """

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", stuck: bool = False
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.stuck = stuck


class ConfigError(AnySenseError, ValueError):
    """A configuration file or command-line argument is wrong."""


class DataError(AnySenseError):
    """A data set folder or one of its files is missing or malformed."""


class ParityError(AnySenseError):
    """Exported graphs do not reproduce the PyTorch model within the stated tolerance."""


class LostRankError(AnySenseError):
    """Another process of a training by several has ended, or does not answer."""


class MissingDependencyError(AnySenseError, ImportError):
    """An optional package is needed for this call; the hint names the extra to install."""


def meant(name: object, known: Collection[str]) -> str:
    """A question for who gave an unknown name, after the one that is close to it; empty if none is."""
    close = get_close_matches(str(name), known, 1)
    return f"did you mean '{close[0]}'?" if close else ""


def names_hint(name: object, known: Collection[str]) -> str:
    """A hint for who gave an unknown name: the one that is meant, if one is close, and all that there are."""
    return f"{meant(name, known)} one of {', '.join(known)}".lstrip()
