"""The outcome of a search as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.errors import ConfigError
from perception.files.writing import writing
from perception.search.search import Found, SearchReport
from perception.search.space import SearchSpace


def report_content(report: SearchReport, space: SearchSpace, backend: str) -> dict[str, Any]:
    """Everything that a search found, as plain values; the front first, by latency."""
    labels = {one.candidate: label for label, one in report.chosen.items()}

    def described(found: Found) -> dict[str, Any]:
        decoded = space.decode(found.candidate)
        convolutions = sum(len(space.blocks[block][-1]) for block in decoded.choices)
        return {
            "chosen_as": labels.get(found.candidate),
            "run": found.run,
            "predicted_ms": round(found.ms, 3),
            "measured_ms": found.measured_ms and round(found.measured_ms, 3),
            "megabytes": round(found.megabytes, 3),
            "score": round(found.score, 4),
            "scores": found.scores,
            "held_out": found.held_out,
            "layers": convolutions,
            "int8": list(decoded.int8),
            "stages": {p: [list(s) for s in v] for p, v in decoded.architecture.stages.items()},
            "decoder_width": decoded.architecture.decoder_width,
        }

    return {
        "backend": backend,
        "latency_fit": dict(zip(("float", "int8", "constant_ms"), report.fit, strict=True)),
        # A correlation that is not defined becomes null.
        "predictors": {k: v if v == v else None for k, v in report.errors.items()},
        "whole": described(report.whole),
        "front": [described(f) for f in report.front],
        "others": [described(f) for f in report.found if f not in report.front],
    }


def plot(report: SearchReport, path: Path, title: str) -> None:
    """Latency against the mean score: all candidates, the front, and what was really timed.

    Raises:
        ConfigError: the disk is full, or the place cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axis = figure.subplots()
    axis.scatter(
        [f.ms for f in report.found],
        [100 * f.score for f in report.found],
        s=14,
        color="0.7",
        label="evaluated",
    )
    axis.step(
        [f.ms for f in report.front],
        [100 * f.score for f in report.front],
        where="post",
        color="tab:blue",
        label="Pareto front, predicted latency",
    )
    timed = [
        (f.ms, f.measured_ms, 100 * f.score) for f in report.found if f.measured_ms is not None
    ]
    for predicted, measured, height in timed:
        axis.plot([predicted, measured], [height, height], color="tab:red", linewidth=0.8)
    axis.scatter(
        [measured for _, measured, _ in timed],
        [height for _, _, height in timed],
        s=30,
        marker="x",
        color="tab:red",
        label="exported and timed",
    )
    for label, one in report.chosen.items():
        place = (one.ms, 100 * one.score)
        axis.annotate(label, place, xytext=(4, -11), textcoords="offset points", fontsize=8)
    whole = (report.whole.ms, 100 * report.whole.score)
    axis.scatter(*whole, s=60, facecolors="none", edgecolors="black", label="whole, float")
    axis.set(xlabel="milliseconds, all sensors", ylabel="mean score over subsets, %")
    axis.set_title(title, parse_math=False)
    axis.margins(x=0.1)  # room for the labels
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=8)
    with writing(path, error=ConfigError) as partial:
        figure.savefig(partial, dpi=120)
