"""Typed fields of a file's content: what is wrong with them in one line that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from perception.errors import AnySenseError, DataError, meant, names_hint

M = TypeVar("M", bound=BaseModel)

_FEW = 12
"""Names that a hint may list."""


def check_fields(
    model: type[M], content: Any, *, where: str, error: type[AnySenseError] = DataError
) -> M:
    """Content of a YAML or JSON file, as the fields of `model`.

    Args:
        model: what the fields must be.
        content: plain values, as `perception.files.text` reads them.
        where: the file, for the message.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`; it names the first wrong field, what was given, and, for a
            name that does not exist, the one that was meant.
    """
    if content is None:
        raise error("is empty", where=where)
    if not isinstance(content, dict):
        raise error(f"expected fields with names, got a {type(content).__name__}", where=where)
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        every = problem.errors()
        # One that is misspelled is often missed as well: what was meant says more.
        first = next((e for e in every if e["type"] == "extra_forbidden"), every[0])
        field = ".".join(str(part) for part in first["loc"])
        place = f"{where}: {field}" if field else where
        raise error(_message(first), where=place, hint=_hint(model, first)) from problem
    except (RecursionError, OverflowError) as problem:
        raise error(f"cannot be read: {problem}", where=where) from problem


def _message(first: Any) -> str:
    if first["type"] == "extra_forbidden":
        return "no such field"
    if first["type"] == "missing":
        return "this field is missing"
    text = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    if isinstance(given, str | int | float) and not first["type"].startswith("value_error"):
        try:
            shown = repr(given)
        except ValueError:  # a number of thousands of digits
            return text
        return f"{text}, got {shown[:60]}"
    return text


def _hint(model: type[BaseModel], first: Any) -> str:
    if first["type"] == "literal_error":  # whose message lists what there is
        return meant(first.get("input"), re.findall("'([^']*)'", first["ctx"]["expected"]))
    if first["type"] != "extra_forbidden" or not first["loc"]:
        return ""
    *path, name = first["loc"]
    names = _names(model, path)
    return meant(name, names) or (names_hint(name, names) if 0 < len(names) <= _FEW else "")


def _names(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Names of the fields that the model at `path` has; none where that cannot be told."""
    for part in path:
        if isinstance(part, int):
            continue
        named = {info.alias or key: info for key, info in model.model_fields.items()}
        if part not in named:
            return []
        inner = next(_models(named[part].annotation), None)
        if inner is None:
            return []
        model = inner
    return [info.alias or key for key, info in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
