"""What a training run shows while it goes on: its lines above a bar of the epochs that are done."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from perception.files.text import printable


class Display:
    """A bar on the terminal; entering gives the function that prints a line above it.

    Args:
        name: of the run.
        epochs: how many are done, and how many there are to be; asked with each line.
    """

    def __init__(self, name: str, epochs: Callable[[], tuple[int, int]]) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        self._progress = Progress(*columns, TimeRemainingColumn())
        self._epochs = epochs
        self._bar = self._progress.add_task(printable(name), total=epochs()[1])

    def __enter__(self) -> Callable[[str], None]:
        self._progress.__enter__()
        return self._tell

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def _tell(self, line: str) -> None:
        done, total = self._epochs()
        self._progress.update(self._bar, completed=done, total=total)
        self._progress.console.print(Text(printable(line)), soft_wrap=True)
