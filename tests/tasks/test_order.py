"""Tasks that need others: their order, and what is computed for what somebody wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.registry import OURS, TASKS, closure, with_implied
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Task

NAMES = tuple("abcdef")


def _task(name: str, after: tuple[str, ...], parts: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        spec=TaskSpec,
        forms=lambda spec, grid: ({},),
        decode=lambda tensors, ctx: None,
        after=after,
        parts=parts,
    )


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Task]:
    """Tasks each of which needs some that come before it in an order of their own, listed in another."""
    order = draw(st.permutations(NAMES))
    found = {}
    for index, name in enumerate(order):
        after = draw(st.sets(st.sampled_from(order[:index]))) if index else set()
        parts = tuple(f"{name}{i}" for i in range(draw(st.integers(1, 3))))
        found[name] = _task(name, tuple(sorted(after)), parts)
    return {name: found[name] for name in draw(st.permutations(NAMES))}


@given(graphs(), st.data())
def test_each_comes_after_what_it_needs_which_is_made_whole(
    tasks: dict[str, Task], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, task in tasks.items():
            patch.setitem(TASKS.own, name, task)
            patch.setitem(TASKS._loaded, name, task)
        specs = with_implied({name: TaskSpec() for name in tasks})
        names = list(specs)
        assert sorted(names) == sorted(tasks)
        for name in names:
            assert all(names.index(needed) < names.index(name) for needed in tasks[name].after)
        every = [part for task in tasks.values() for part in task.parts]
        wanted = data.draw(st.sets(st.sampled_from([*every, "unknown"])))
        found = closure(specs, wanted)
        assert [*found] == [name for name in names if name in found]
        needed = {need for name in found for need in tasks[name].after}
        for name, task in tasks.items():
            own = wanted & {*task.parts}
            parts = set(task.parts) if name in needed else own
            assert found.get(name, frozenset()) == parts
        patch.setitem(TASKS.own, names[0], (first := _task(names[0], (names[-1],), ("x",))))
        patch.setitem(TASKS._loaded, names[0], first)
        linked = names[0] in _needs(tasks, names[-1])
        if linked:
            with pytest.raises(ValueError, match="need each other"):
                with_implied({name: TaskSpec() for name in tasks})
        else:
            with_implied({name: TaskSpec() for name in tasks})


def _needs(tasks: dict[str, Task], name: str) -> set[str]:
    own = {name}
    for need in tasks[name].after:
        own |= _needs(tasks, need)
    return own


def test_parts_are_of_one_task_each() -> None:
    parts = [part for name in OURS for part in TASKS[name].parts]
    assert len(set(parts)) == len(parts)
