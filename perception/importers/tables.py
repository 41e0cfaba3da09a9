"""Values of JSON records that somebody else wrote: each is checked where it is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from perception.errors import DataError


class Record:
    """One JSON object.

    Args:
        value: what was read.
        where: names it in errors.

    Raises:
        DataError: it is no object.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"expected an object, not {_kind(value)}", where=where)
        self.fields, self.where = value, where

    def has(self, name: str) -> bool:
        """Whether there is such a field with a value."""
        return self.fields.get(name) is not None

    def _wrong(self, name: str, wanted: str) -> DataError:
        if name not in self.fields:
            return DataError(f"has no '{name}'", where=self.where)
        return DataError(f"'{name}' is no {wanted}", where=self.where)

    def text(self, name: str) -> str:
        """A text."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def whole(self, name: str) -> int:
        """A whole number, also as 3.0 or "3", as some tools write ids."""
        value = self.fields.get(name)
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            value = int(value[:20])
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise self._wrong(name, "whole number")
        return int(value)

    def number(self, name: str) -> float:
        """A finite number."""
        return self.numbers_of([self.fields.get(name)], name, 1)[0]

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """A list of finite numbers, of so many if `count` is given."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "list of numbers")
        return self.numbers_of(value, name, count)

    def numbers_of(self, value: Sequence[Any], name: str, count: int | None) -> list[float]:
        """The values as finite numbers."""
        wanted = "number" if count == 1 else f"list of {count or 'some'} numbers"
        good = all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e18 for v in value
        )
        if not good or (count is not None and len(value) != count):
            raise self._wrong(name, wanted)
        found = [float(v) for v in value]
        if not all(map(math.isfinite, found)):
            raise self._wrong(name, wanted)
        return found

    def records(self, name: str) -> Iterator[Record]:
        """A list of objects."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "list")
        for index, one in enumerate(value):
            yield Record(one, f"{self.where}: {name}[{index}]")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(value), "a value")
