"""Progress of commands that do one step after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from perception.cli.arguments import CONSOLE


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time passed and an estimate of what is left, for one step after the other.

    Gives a function of what is being done, how far it is, and how far it will be.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        now: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in now:
                for old in now.values():
                    progress.remove_task(old)
                now.clear()
                now[what] = progress.add_task(what, total=total)
            progress.update(now[what], completed=done, total=total)

        yield show
