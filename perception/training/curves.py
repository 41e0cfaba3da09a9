"""What a run folder shows of a training: a table, learning curves as a picture, and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from perception.errors import MissingDependencyError
from perception.files.writing import write_text, writing

LOG = "log.csv"

_METRICS = {"miou": "mIoU", "ap50": "AP50"}


def line_of(row: dict[str, Any]) -> str:
    """One row of the log for a terminal."""
    shown = {k: "-" if v is None else v for k, v in row.items()}
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )


def write_log(log: list[dict[str, Any]], folder: Path) -> None:
    """Write `log.csv`.

    Raises:
        DataError: it cannot be written.
    """
    write_text(folder / LOG, _table_of(log))


def is_written(log: list[dict[str, Any]], folder: Path) -> bool:
    """Whether `log.csv` is there and says just this."""
    try:
        return (folder / LOG).read_bytes() == _table_of(log).encode()
    except OSError:
        return False


def _table_of(log: list[dict[str, Any]]) -> str:
    fields = list(dict.fromkeys(key for row in log for key in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    return table.getvalue()


def sweep(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for pattern in (".*.part.*", ".tmp??????"):
        for stale in folder.glob(pattern):
            stale.unlink(missing_ok=True)


def plot_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Plot loss and validation scores over epochs to a PNG; does nothing without matplotlib.

    Raises:
        DataError: the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    metrics = [m for m in _METRICS if any(k.endswith(f"/{m}") for row in log for k in row)]
    figure = Figure(figsize=(5 + 6.5 * max(1, len(metrics)), 4.5), layout="constrained")
    panels = figure.subplots(
        1, 1 + max(1, len(metrics)), width_ratios=[5, *[6.5] * max(1, len(metrics))]
    )
    losses = [(r["epoch"], r["loss"]) for r in log if r["loss"] is not None]
    panels[0].plot([e for e, _ in losses], [loss for _, loss in losses], color="tab:gray")
    panels[0].set(xlabel="epoch", ylabel="training loss", title="Loss")
    for axis, metric in zip(panels[1:], metrics, strict=False):
        _plot_scores(axis, log, metric)
    for axis in panels:
        axis.grid(alpha=0.3)
    with writing(path) as partial:
        figure.savefig(partial, dpi=110)


def _plot_scores(axis: Any, log: list[dict[str, Any]], metric: str) -> None:
    """One line per subset; up to fifteen of them, so the legend goes beside the curves."""
    subsets = dict.fromkeys(
        k.rpartition("/")[0] for row in log for k in row if k.endswith(f"/{metric}")
    )
    for index, subset in enumerate(subsets):
        key = f"{subset}/{metric}"
        points = [(row["epoch"], 100 * row[key]) for row in log if row.get(key) is not None]
        style = ("-", "--")[index // 10 % 2]
        axis.plot(
            [e for e, _ in points],
            [score for _, score in points],
            style,
            marker="o",
            markersize=3,
            label=subset,
        )
    axis.set(xlabel="epoch", ylabel=f"{_METRICS[metric]}, %", title="Validation by subset")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def open_board(folder: Path) -> Any:
    """A TensorBoard writer for a run folder.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "TensorBoard is not installed", hint="pip install 'anysense[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
