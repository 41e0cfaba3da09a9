"""What is chosen by name: that which comes with AnySense, and that which other distributions bring.

A distribution brings a kind of sensor, a task, a model, a training method, a backend or a data set by an
entry point of the group in `GROUPS` (Python packaging, "Entry points specification"):

    [project.entry-points."anysense.sensors"]
    radar = "my_package.radar:RADAR"

Only what somebody asks for by name is imported.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isfunction
from traceback import walk_tb
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from perception.errors import AnySenseError, ConfigError, names_hint
from perception.extras import explain

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

REGISTRIES: dict[Group, str] = {
    "sensors": "perception.sensors.registry:KINDS",
    "tasks": "perception.tasks.registry:TASKS",
    "models": "perception.models.registry:MODELS",
    "methods": "perception.training.methods:METHODS",
    "backends": "perception.runtime.engines.registry:BACKENDS",
    "datasets": "perception.data.registry:READERS",
}
"""Where the registry of each lies, to be imported by who looks at all of them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_OURS = frozenset(("perception", "export", "calibration", "anysense_ros"))

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
        gives: of a thing that is a record of functions, what some of them return, or what raises for
            what they must not: of a plug-in's record, every function is one that raises nothing but an
            `AnySenseError` and gives nothing else.
    """

    def __init__(
        self,
        group: Group,
        what: str,
        own: Mapping[str, T | str],
        check: Callable[[str, Any], object] = lambda name, thing: None,
        gives: Mapping[str, type | Callable[[Any], object]] = MappingProxyType({}),
    ) -> None:
        self.group, self.what = group, what
        self.own: dict[str, T | str] = dict(own)
        self._check, self._gives = check, gives
        self._loaded: dict[str, T] = {}
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        """The thing called `name`, imported if it has not been.

        Raises:
            KeyError: there is none.
            PluginError: it is a plug-in's and cannot be used.
        """
        own = self.own.get(name)
        if own is not None and not isinstance(own, str):
            return own
        if name in self._loaded:  # asked for with every sample: no lock
            return self._loaded[name]
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = (
                    self._from_plugin(name, plugins(self.group)[name])
                    if own is None
                    else _imported(own)
                )
            return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in plugins(self.group)

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in plugins(self.group) if name not in self.own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def named(self, name: str, where: str = "") -> T:
        """The thing called `name`.

        Raises:
            ConfigError: there is none; the hint says which there are.
            PluginError: it is a plug-in's and cannot be used.
        """
        if name not in self:
            hint = names_hint(name, tuple(self))
            raise ConfigError(f"unknown {self.what} '{str(name)[:80]}'", where=where, hint=hint)
        return self[name]

    def place(self, name: str) -> str:
        """What `name` is in words, with the distribution that brings it if it is none of ours."""
        entry = None if name in self.own else plugins(self.group).get(name)
        of = f" of {_distribution(entry)}" if entry is not None else ""
        return f"{self.what} '{name}'{of}"

    @contextmanager
    def guarding(self, name: str) -> Iterator[None]:
        """Within, whatever a plug-in's `name` raises is one line that names it; ours is left alone.

        Raises:
            PluginError: instead of what is no `AnySenseError` or `ImportError`.
        """
        try:
            yield
        except (AnySenseError, ImportError, MemoryError):
            raise
        except Exception as error:
            if name in self.own:
                raise
            raise PluginError(_said(error), where=self.place(name)) from error

    def _from_plugin(self, name: str, entry: EntryPoint) -> T:
        place = self.place(name)
        try:
            thing: T = entry.load()
            self._check(name, thing)
        except AnySenseError as error:
            raise PluginError(error.message, where=place, hint=error.hint) from error
        except Exception as error:  # another's code: whatever it raises
            missing = explain(error) if isinstance(error, ImportError) else None
            hint = f"its entry point is {entry.value}; uninstall or repair it"
            raise PluginError(
                missing or _said(error), where=place, hint="" if missing else hint
            ) from error
        return self._guarded(name, thing)

    def _guarded(self, name: str, thing: T) -> T:
        """A plug-in's record with functions that are guarded; what is none, as it is."""
        if not is_dataclass(thing) or isinstance(thing, type):
            return thing
        foreign = {
            f.name: self._guard(name, f.name, value)
            for f in fields(thing)
            if isfunction(value := getattr(thing, f.name))
            and value.__module__.partition(".")[0] not in _OURS
        }
        return replace(thing, **foreign)

    def _guard(self, name: str, attribute: str, function: Callable[..., Any]) -> Any:
        wanted = self._gives.get(attribute, object)

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with self.guarding(name):
                given = function(*args, **kwargs)
                if not isinstance(wanted, type):
                    wanted(given)
            if isinstance(wanted, type) and not isinstance(given, wanted):
                what = f"{attribute} gave {type(given).__name__}, not {wanted.__name__}"
                raise PluginError(what, where=self.place(name))
            return given

        return guarded


def check_fields(record: Any) -> None:
    """Refuse a record (a dataclass) whose fields are plainly not of the types that it states.

    Looked at are functions, classes, texts and tuples of texts.

    Raises:
        TypeError: names the first such field.
    """
    for own in fields(record):
        stated, value = str(own.type), getattr(record, own.name)
        if value is None and stated.endswith("| None"):
            continue
        for start, fits, what in _STATED:
            if stated.startswith(start) and not fits(value):
                raise TypeError(f"{own.name} is {value!r:.80}, which is no {what}")


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, str) for v in value)


_STATED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("Callable[", callable, "function"),
    ("type[", lambda value: isinstance(value, type), "class"),
    ("str", lambda value: isinstance(value, str), "text"),
    ("bool", lambda value: isinstance(value, bool), "bool"),
    ("tuple[str, ...]", _texts, "tuple of texts"),
    ("Mapping[", lambda value: isinstance(value, Mapping), "mapping"),
)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """The entry points of a group by name, in alphabetical order; none is imported.

    Of two that bear one name the one of the distribution that comes first by name counts, with a
    warning; so is one left aside that has a name which no command or file could say.
    """
    found: dict[str, EntryPoint] = {}
    ordered = sorted(entry_points(group=GROUPS[group]), key=lambda e: (e.name, _distribution(e)))
    for entry in ordered:
        if not _NAME.fullmatch(entry.name):
            warnings.warn(
                f"{group} {entry.name[:80]!r} of {_distribution(entry)} is left aside: "
                "expected letters, digits, '.', '_', '+' and '-'",
                stacklevel=2,
            )
            continue
        first = found.setdefault(entry.name, entry)
        if first.value != entry.value:
            warnings.warn(
                f"{group} '{entry.name}' of {_distribution(entry)} is left aside: "
                f"{_distribution(first)} has one of that name",
                stacklevel=2,
            )
    return found


@dataclass(frozen=True)
class Installed:
    """A plug-in that is installed; `problem` says why it cannot be used, empty where it can."""

    group: Group
    name: str
    distribution: str
    problem: str = ""


def installed() -> list[Installed]:
    """All plug-ins by group and name; none is imported."""
    return [
        Installed(group, name, _distribution(entry))
        for group in GROUPS
        for name, entry in plugins(group).items()
    ]


def examined() -> list[Installed]:
    """All plug-ins by group and name; each was imported and looked at, and says what is wrong."""
    return [replace(found, problem=_problem(found)) for found in installed()]


def _problem(found: Installed) -> str:
    try:
        registry: Registry[Any] = _imported(REGISTRIES[found.group])
        if found.name in registry.own:
            return f"AnySense has a {registry.what} of that name"
        registry.named(found.name)
    except PluginError as error:
        return f"{error.message} ({error.hint})" if error.hint else error.message
    except ImportError as error:  # such as PyTorch, which the registry needs
        return explain(error) or _said(error)
    return ""


def brought_by(module: str) -> str:
    """The distribution whose plug-in the module belongs to, with its version; empty if to none."""
    top = module.partition(".")[0]
    if top in _OURS:
        return ""
    entries = [entry for group in GROUPS for entry in plugins(group).values()]
    own = [e for e in entries if e.module == module]
    own += [e for e in entries if e.module.partition(".")[0] == top]
    return _distribution(own[0]) if own else ""


def blamed(error: BaseException) -> PluginError | None:
    """The error as one line that names the plug-in whose code it came out of; None if of none."""
    names = [f.f_globals.get("__name__", "") for f, _ in walk_tb(error.__traceback__)]
    for name in reversed(names):
        if distribution := brought_by(name):
            return PluginError(_said(error), where=f"{name} of {distribution}")
    return None


@contextmanager
def suspecting(*suspects: tuple[Registry[Any], str]) -> Iterator[None]:
    """Within, what comes out of a plug-in's code, or out of ours that works on what it gave, is one line.

    Args:
        suspects: registries with the names of what is at work; where no plug-in's code is in the
            traceback, the first of them that is a plug-in's is named.  Without one, errors are left alone.

    Raises:
        PluginError: instead of what is no `AnySenseError` or `ImportError`.
    """
    try:
        yield
    except (AnySenseError, ImportError, MemoryError):
        raise
    except Exception as error:
        places = [r.place(name) for r, name in suspects if name in r and name not in r.own]
        found = blamed(error)
        if found is None and places:
            found = PluginError(_said(error), where=places[0])
        if found is None:
            raise
        raise found from error


def _said(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "?"
