"""What is chosen by name: that which comes with AnySense, and that which other distributions bring.

A distribution brings a kind of sensor, a task, a model, a training method, a backend or a data set by an
entry point of the group in `GROUPS` (Python packaging, "Entry points specification"):

    [project.entry-points."anysense.sensors"]
    radar = "my_package.radar:RADAR"

Only what somebody asks for by name is imported.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from perception.errors import AnySenseError, ConfigError

Group = Literal["sensors", "tasks", "models", "methods", "backends", "datasets"]

GROUPS: dict[Group, str] = {
    "sensors": "anysense.sensors",
    "tasks": "anysense.tasks",
    "models": "anysense.models",
    "methods": "anysense.methods",
    "backends": "anysense.backends",
    "datasets": "anysense.datasets",
}
"""Entry point group of each."""

T = TypeVar("T")


class PluginError(ConfigError):
    """What another distribution brings cannot be imported, or is not what its group takes."""


class Registry(Mapping[str, T], Generic[T]):
    """Things of one group by name, ours first, in their order, then those of plug-ins by name.

    Args:
        group: a key of `GROUPS`.
        what: what one of them is called in errors, such as `model`.
        own: ours: the thing, or `module:attribute` to be imported when it is asked for.
        check: raises what is wrong with a plug-in's thing; `TypeError` and `ValueError` become a
            `PluginError` that names the distribution.
    """

    def __init__(
        self,
        group: Group,
        what: str,
        own: Mapping[str, T | str],
        check: Callable[[str, Any], object] = lambda name, thing: None,
    ) -> None:
        self.group, self.what = group, what
        self._own, self._check = dict(own), check
        self._loaded: dict[str, T] = {n: t for n, t in own.items() if not isinstance(t, str)}
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        """The thing called `name`, imported if it has not been.

        Raises:
            KeyError: there is none.
            PluginError: it is a plug-in's and cannot be used.
        """
        with self._lock:
            if name not in self._loaded:
                own = self._own.get(name)
                if isinstance(own, str):
                    self._loaded[name] = _imported(own)
                else:
                    self._loaded[name] = self._from_plugin(name, plugins(self.group)[name])
            return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in plugins(self.group)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in plugins(self.group) if name not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def named(self, name: str, where: str = "") -> T:
        """The thing called `name`.

        Raises:
            ConfigError: there is none; the hint says which there are.
            PluginError: it is a plug-in's and cannot be used.
        """
        if name not in self:
            close = get_close_matches(str(name), list(self), 1)
            meant = f"did you mean '{close[0]}'? " if close else ""
            hint = f"{meant}one of {', '.join(self)}"
            raise ConfigError(f"unknown {self.what} '{str(name)[:80]}'", where=where, hint=hint)
        return self[name]

    def _from_plugin(self, name: str, entry: EntryPoint) -> T:
        place = f"{self.what} '{name}' of {_distribution(entry)}"
        try:
            thing: T = entry.load()
            self._check(name, thing)
        except AnySenseError as error:
            raise PluginError(error.message, where=place, hint=error.hint) from error
        except Exception as error:  # another's code: whatever it raises
            line = next(iter(str(error).splitlines()), "")
            raise PluginError(
                f"{type(error).__name__}: {line}",
                where=place,
                hint=f"its entry point is {entry.value}; uninstall or repair it",
            ) from error
        return thing


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """The entry points of a group by name, in alphabetical order; none is imported.

    Of two that bear one name the one of the distribution that comes first by name counts, with a
    warning.
    """
    found: dict[str, EntryPoint] = {}
    ordered = sorted(entry_points(group=GROUPS[group]), key=lambda e: (e.name, _distribution(e)))
    for entry in ordered:
        first = found.setdefault(entry.name, entry)
        if first.value != entry.value:
            warnings.warn(
                f"{group} '{entry.name}' of {_distribution(entry)} is left aside: "
                f"{_distribution(first)} has one of that name",
                stacklevel=2,
            )
    return found


def installed() -> list[tuple[Group, str, str]]:
    """All plug-ins: group, name, and the distribution with its version."""
    return [
        (group, name, _distribution(entry))
        for group in GROUPS
        for name, entry in plugins(group).items()
    ]


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "?"
