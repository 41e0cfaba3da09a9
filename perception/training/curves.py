"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Plot loss and validation scores over epochs to a PNG; does nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["loss"] for row in log], color="tab:gray")
    left.set(xlabel="epoch", ylabel="training loss", title="Loss")
    names = list(dict.fromkeys(k for row in log for k in row if k.endswith(("/miou", "/ap50"))))
    for name in names:
        points = [(row["epoch"], 100 * row[name]) for row in log if name in row]
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    right.set(xlabel="epoch", ylabel="score, %", title="Validation by subset")
    if names:
        right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
