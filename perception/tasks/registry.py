"""All tasks by name: those that come with AnySense, and those of plug-ins."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from perception.errors import ConfigError, names_hint
from perception.plugins import Registry, check_fields
from perception.sensors.drawing import check_picture
from perception.tasks import given
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Shape, Task

OURS = ("segmentation", "boxes2d", "pictures", "points", "boxes3d")
"""The tasks that come with AnySense, in the order in which they are decoded, written and drawn."""


def _check(name: str, thing: Any) -> None:
    if not isinstance(thing, Task):
        raise TypeError(f"is a {type(thing).__name__}, not a perception.tasks.task.Task")
    if thing.name != name or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"its name is '{thing.name}': the entry point's, of a-z, 0-9 and _")
    check_fields(thing)
    if not issubclass(thing.spec, TaskSpec):
        raise TypeError(f"spec is {thing.spec.__name__}, which is no TaskSpec")
    taken = {part for own in OURS for part in TASKS[own].parts} & set(thing.parts)
    if taken:
        raise ValueError(f"part {min(taken)} is that of another task")


TASKS: Registry[Task] = Registry(
    "tasks",
    "task",
    {n: f"perception.tasks.{n}:{n.upper()}" for n in OURS},
    _check,
    {
        "forms": given.check_forms,
        "to_dict": given.check_plain,
        "summary": given.check_plain,
        "draw": check_picture,
        "files": given.check_files,
    },
)
"""Tasks by name."""


def with_implied(specs: Mapping[str, TaskSpec]) -> dict[str, TaskSpec]:
    """A bundle's tasks and those that follow from them, each after those whose values it needs.

    Raises:
        ValueError: a task needs one that is not there, or itself.
    """
    found = dict(specs)
    for name in OURS:
        spec = TASKS[name].implied(found)
        if spec is not None and not (name in found and found[name].labels):
            found[name] = spec
    listed = [*(n for n in OURS if n in found), *(n for n in found if n not in OURS)]
    needs = {name: TASKS[name].needs(found[name]) for name in listed}
    for name in listed:
        for needed in needs[name]:
            if needed not in found:
                raise ValueError(f"{name} needs {needed}")
    ordered: dict[str, TaskSpec] = {}
    while len(ordered) < len(listed):
        ready = (n for n in listed if n not in ordered and set(needs[n]) <= ordered.keys())
        if (first := next(ready, None)) is None:
            rest = ", ".join(n for n in listed if n not in ordered)
            raise ValueError(f"{rest} need each other")
        ordered[first] = found[first]
    return ordered


def parts_of(specs: Iterable[str], which: Callable[[Task], object]) -> frozenset[str]:
    """The usual parts of those tasks for which something holds."""
    tasks = [TASKS[name] for name in specs]
    return frozenset(part for task in tasks if which(task) for part in task.usual)


def usual_parts(specs: Mapping[str, TaskSpec], usual: bool = True) -> frozenset[str]:
    """The usual parts of those tasks that are computed without being asked for; or of the others."""
    tasks = [TASKS[n] for n, spec in specs.items() if TASKS[n].is_usual(spec) == usual]
    return frozenset(part for task in tasks for part in task.usual)


def wanted_parts(specs: Mapping[str, TaskSpec], wanted: Collection[str] | None) -> frozenset[str]:
    """The parts that results of these tasks are to hold; without any word, the usual ones.

    Raises:
        ConfigError: one of them is no part of these tasks.
    """
    if wanted is None:
        return usual_parts(specs)
    if isinstance(wanted, str):
        raise ConfigError("is one word, expected several", where="wanted", hint=f"{{'{wanted}'}}")
    parts = every_part(specs)
    if unknown := set(wanted) - parts:
        name = min(unknown)
        hint = names_hint(name, sorted(parts))
        raise ConfigError(f"'{name}' is no part of a result", where="wanted", hint=hint)
    return frozenset(wanted)


def every_part(specs: Iterable[str]) -> frozenset[str]:
    """All parts of tasks, those that are computed on request only among them."""
    return frozenset(part for name in specs for part in TASKS[name].parts)


def drawn(specs: Mapping[str, TaskSpec]) -> frozenset[str]:
    """The parts that a picture of a result with these tasks takes."""
    found = {part for name in specs for part in TASKS[name].drawn}
    direct = (TASKS[name] for name, spec in specs.items() if TASKS[name].direct(spec))
    return frozenset(found.union(*(task.usual for task in direct)))


def graph_inputs(specs: Mapping[str, TaskSpec]) -> dict[str, Shape]:
    """What graphs may take for these tasks besides the sensors' features, by name."""
    return {
        n: shape for task in specs for n, shape in TASKS[task].graph_inputs(specs[task]).items()
    }


def feeds_of(
    specs: Mapping[str, TaskSpec], used: Collection[str], taken: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Of these, what a graph does take, where these inputs are used."""
    found = {n: v for task in specs for n, v in TASKS[task].feeds(specs[task], used).items()}
    return {name: value for name, value in found.items() if name in taken}


OLD_WORDS = {"detection": "boxes2d"}
"""What tasks were called, and are in training configurations."""


def judged(tasks: Iterable[str]) -> dict[str, str]:
    """The scores by which what has these tasks is compared, with their titles."""
    names = [OLD_WORDS.get(name, name) for name in tasks]
    return {score: title for n in names for score, title in TASKS[n].judged.items()}


def shown(tasks: Iterable[str]) -> list[str]:
    """The scores that are shown: first those of `judged`."""
    names = [OLD_WORDS.get(name, name) for name in tasks]
    return [*judged(names), *(score for n in names for score in TASKS[n].shown)]


def closure(specs: Mapping[str, TaskSpec], wanted: Collection[str]) -> dict[str, frozenset[str]]:
    """By task, the parts of it that must be computed for those that are wanted.

    Args:
        specs: tasks in an order in which each comes after those that it needs.
        wanted: parts; those of no task are left aside.
    """
    found: dict[str, frozenset[str]] = {}
    needed: set[str] = set()
    for name in reversed(list(specs)):
        task = TASKS[name]
        parts = frozenset(wanted) & {*task.parts} | frozenset(task.usual if name in needed else ())
        if parts:
            found[name] = parts
            needed.update(task.needs(specs[name]))
    return {name: found[name] for name in specs if name in found}
