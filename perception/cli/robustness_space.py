"""The table of failures of sensors round a vehicle, as `anysense robustness` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perception.cli.console import Table

if TYPE_CHECKING:
    from perception.evaluation.robustness_report import Robustness, SpaceFound


def print_space(runs: Sequence[Robustness], what: str) -> None:
    """Print it, and beside it what late samples cost with odometry and without.

    Args:
        runs: those that have one, on the same recording.
        what: the data in words.
    """
    from perception.viz.robustness_page import labels

    named = list(zip(labels(runs), runs, strict=True))
    scores = list(dict.fromkeys(n for run in runs for f in run.space() for n in f.scores))
    table = Table(title=f"failures of sensors on {what}, in %")
    table.add_column("", no_wrap=True)
    if len(runs) > 1:
        table.add_column("run")
    for column in ("frames", *_columns(runs, scores)):
        table.add_column(column, justify="right")
    names = dict.fromkeys(f.row.name for r in runs for f in r.space() if f.row.group != "late")
    for name in names:
        for tag, run in named:
            found = next((f for f in run.space() if f.row.name == name), None)
            if found is not None:
                own = [tag] if len(runs) > 1 else []
                table.add_row(name, *own, str(found.frames), *_cells(found, scores))
    table.show()
    if any(f.row.group == "late" for run in runs for f in run.space()):
        _print_late(named, scores)


def _print_late(named: Sequence[tuple[str, Robustness]], scores: Sequence[str]) -> None:
    table = Table(title="late against the cameras, in % and without -> with odometry")
    table.add_column("late, ms", justify="right")
    if len(named) > 1:
        table.add_column("run")
    runs = [run for _, run in named]
    for column in ("frames", "vehicle moved, m", "points moved", *_columns(runs, scores)):
        table.add_column(column, justify="right")
    for tag, run in named:
        content = run.content()["space"]["late"]
        late = [f for f in run.space() if f.row.group == "late"]
        for seconds in dict.fromkeys(f.row.amount for f in late):
            assert seconds is not None
            told = content.get(f"{seconds:g}", {})
            pair = {f.row.odometry: f for f in late if f.row.amount == seconds}
            either = [_cells(pair[k], scores) if k in pair else None for k in (False, True)]
            cells = [
                " -> ".join("-" if own is None else own[i] for own in either)
                for i in range(2 * len(scores))
            ]
            first = next(iter(pair.values()))
            moved = told.get("moved_m")
            table.add_row(
                f"{round(seconds * 1e3)}",
                *([tag] if len(named) > 1 else []),
                str(first.frames),
                "-" if moved is None else f"{moved:.2f}",
                f"in {told.get('made', 0)}",
                *cells,
            )
    table.show()


def _columns(runs: Sequence[Robustness], scores: Sequence[str]) -> list[str]:
    titles = {name: title for run in runs for name, title in run.titles.items()}
    return [text for name in scores for text in (titles.get(name, name), "of all")]


def _cells(found: SpaceFound, scores: Sequence[str]) -> list[str]:
    cells = []
    for name in scores:
        value, share = found.scores.get(name), found.retained.get(name)
        cells.append("-" if value is None else f"{100 * value:.1f}")
        cells.append("-" if share is None else f"{100 * share:.0f}")
    return cells
