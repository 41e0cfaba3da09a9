"""What is computed when somebody first wants it, and is kept from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A computation that is put off.  Safe to use from several threads; it is made on that of the first.

    Args:
        made: gives what comes out.  Where it raises, it is made again for the next who asks.
    """

    def __init__(self, made: Callable[[], T]) -> None:
        self._made: Callable[[], T] | None = made
        self._found: list[T] = []
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """What comes out."""
        with self._lock:
            if self._made is not None:
                self._found.append(self._made())
                self._made = None  # with all that it was made of
            return self._found[0]


class LaterMapping(Mapping[str, Any]):
    """A mapping that is made when somebody looks into it.

    Args:
        made: see `Later`.
    """

    def __init__(self, made: Callable[[], Mapping[str, Any]]) -> None:
        self._later = Later(made)

    def __getitem__(self, key: str) -> Any:
        return self._later()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._later())

    def __len__(self) -> int:
        return len(self._later())
