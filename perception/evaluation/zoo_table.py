"""One row per bundle: accuracy by subset, cost, and the publication's number beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.files.text import printable
from perception.frame import in_order, subset_name
from perception.tasks.registry import judged


@dataclass(frozen=True)
class ZooRow:
    """A bundle's row.

    Attributes:
        name: of the bundle.
        model: of its registry entry.
        metric: name of the score.
        title: of the score.
        full: score with all sensors that the bundle takes and the data have, 0 to 1; None where it
            cannot be told.
        single: score with one sensor alone, by sensor.
        mean, minimum: over all subsets.
        parameters: of the model.
        gmac: billions of multiply-accumulates with all sensors, as the bundle says.
        cpu_ms: median milliseconds of the whole call with all sensors.
        budget: what the bundle says of its training.
        published: the publication's number, if known.
    """

    name: str
    model: str
    metric: str
    title: str
    full: float | None
    single: dict[str, float | None]
    mean: float | None
    minimum: float | None
    parameters: int | None
    gmac: float | None
    cpu_ms: float
    budget: str
    published: str


def make_rows(
    manifest: Any,
    scores: Mapping[str, Mapping[str, Any]],
    cpu_ms: float,
    published: str,
) -> list[ZooRow]:
    """The rows of one bundle, one per metric of its tasks.

    Args:
        manifest: the bundle's.
        scores: by subset name, as `evaluate_subsets` gives them.
        cpu_ms: measured with all sensors.
        published: the publication's number.
    """
    rows = []
    full_name = max(scores, key=lambda name: name.count("+"))
    described = manifest.model
    gmac = described.get("gmac", {})
    for metric, title in judged(manifest.tasks).items():
        values = {name: row.get(metric) for name, row in scores.items() if metric in row}
        if not values:
            continue
        known = [v for v in values.values() if v is not None]
        rows.append(
            ZooRow(
                manifest.name,
                described.get("name", "?"),
                metric,
                title,
                values.get(full_name),
                {n: values[n] for n in in_order(values) if "+" not in n},
                float(np.mean(known)) if known else None,
                min(known) if known else None,
                described.get("parameters"),
                gmac.get(subset_name(manifest.modalities)),
                cpu_ms,
                _budget(manifest.training),
                published,
            )
        )
    return rows


def _budget(training: Mapping[str, Any]) -> str:
    data, epochs = training.get("data", "?"), training.get("epochs", "?")
    return f"{epochs} epochs of {data}, start: {training.get('start', '?')}"


def _cell(text: str) -> str:
    """Text of any origin as a cell of a Markdown table."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def to_markdown(rows: Sequence[ZooRow], caption: str) -> str:
    """The table, with what it was measured on and what the published numbers are not."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    singles = in_order(name for row in rows for name in row.single)
    heads = ["model", "metric", "full", *singles, "mean", "min", "M params", "GMAC", "CPU ms"]
    heads += ["training budget", "published, not comparable"]
    lines = [f"{caption}", "", "| " + " | ".join(heads) + " |"]
    lines.append("|" + "|".join(["---"] * len(heads)) + "|")
    for row in rows:
        cells = [_cell(f"{row.model} ({row.name})"), row.title, percent(row.full)]
        cells += [percent(row.single[m]) if m in row.single else "" for m in singles]
        cells += [percent(row.mean), percent(row.minimum)]
        cells.append("-" if row.parameters is None else f"{row.parameters / 1e6:.2f}")
        cells.append("-" if row.gmac is None else f"{row.gmac:.2f}")
        cells += [f"{row.cpu_ms:.1f}", _cell(row.budget), row.published or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Mean and min are over all subsets that are judged of a bundle. Published numbers were reached",
        "with other data, classes, sizes and budgets: they say what the method can do, not what this",
        "table measures.",
    ]
    return "\n".join(lines) + "\n"
