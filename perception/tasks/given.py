"""What the functions of a plug-in's task must give: said in one line where it is something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perception.sensors.drawing import is_picture

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEEPEST = 16


def check_forms(value: Any) -> None:
    """Refuse what is no tuple of forms, shapes by name of an output.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, tuple) or not value:
        raise TypeError(f"forms gave {value!r:.80}, not a tuple of forms")
    for form in value:
        if not isinstance(form, Mapping) or not all(
            isinstance(name, str) and isinstance(shape, tuple) for name, shape in form.items()
        ):
            raise TypeError(f"forms gave {form!r:.80}, not shapes by name")


def check_plain(value: Any) -> None:
    """Refuse what is no mapping by text that JSON can hold.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError(f"to_dict gave {type(value).__name__}, not dict")
    _check_plain(value, "to_dict gave")


def _check_plain(value: Any, path: str, depth: int = 0) -> None:
    if value is None or isinstance(value, str | int | float):
        return
    if depth > _DEEPEST:
        raise TypeError(f"{path} nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} the key {key!r:.40}, which is no text")
            _check_plain(inner, f"{path} {key}:", depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(inner, path, depth + 1)
    else:
        raise TypeError(f"{path} {type(value).__name__}, which JSON cannot hold")


def check_files(value: Any) -> None:
    """Refuse what is no mapping of pictures by the name of a file.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"files gave {type(value).__name__}, not pictures by name")
    for name, picture in value.items():
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise TypeError(f"files gave {name!r:.80}, which is no name of a file")
        if not is_picture(picture):
            raise TypeError(f"files gave {name}, which is no picture of 8 bit")
