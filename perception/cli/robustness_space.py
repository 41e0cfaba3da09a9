"""The table of failures of sensors round a vehicle, as `anysense robustness` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        found = {tag: f for tag, run in named for f in run.space() if f.row.name == name}
        rows = {tag: [str(f.frames), *_cells(f, scores)] for tag, f in found.items()}
        for tag, cells in _told_once(rows, len(named)).items():
            table.add_row(name, *([tag] if len(runs) > 1 else []), *cells)
    table.show()
    if any(run.late() for run in runs):
        _print_late(named, scores)


def _print_late(named: Sequence[tuple[str, Robustness]], scores: Sequence[str]) -> None:
    from perception.viz.robustness_space import LATE_FACTS

    table = Table(title="late against the cameras, in % and without -> with odometry")
    table.add_column("late, ms", justify="right")
    if len(named) > 1:
        table.add_column("run")
    runs = [run for _, run in named]
    for column in (*LATE_FACTS, *_columns(runs, scores)):
        table.add_column(column, justify="right")
    late = {tag: _late_cells(run, scores) for tag, run in named}
    for seconds in sorted({seconds for own in late.values() for seconds in own}):
        rows = {tag: own[seconds] for tag, own in late.items() if seconds in own}
        for tag, cells in _told_once(rows, len(named)).items():
            name = f"{round(seconds * 1e3)}"
            table.add_row(name, *([tag] if len(named) > 1 else []), *cells)
    table.show()


def _late_cells(run: Robustness, scores: Sequence[str]) -> dict[float, list[str]]:
    """By seconds, the cells of a run."""
    from perception.viz.robustness_space import late_facts

    rows = {}
    for found in run.late():
        either = [
            None if own is None else _cells(own, scores)
            for own in (found.without, found.with_odometry)
        ]
        rows[found.seconds] = late_facts(found) + [
            " -> ".join("-" if own is None else own[i] for own in either)
            for i in range(2 * len(scores))
        ]
    return rows


def _told_once(rows: Mapping[str, list[str]], runs: int) -> dict[str, list[str]]:
    """The cells by run; those of one called `all` where all of several say the same."""
    alike = len(rows) == runs > 1 and len({tuple(cells) for cells in rows.values()}) == 1
    return {"all": next(iter(rows.values()))} if alike else dict(rows)


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
