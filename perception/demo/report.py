"""The demo's report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import platform
from pathlib import Path
from typing import Any

import numpy as np

from perception.demo.charts import latency_chart, timeline_chart
from perception.demo.runner import DemoRecord, PhaseRecord
from perception.demo.scenario import sensor_title
from perception.files.text import html_text
from perception.files.writing import write_text
from perception.runtime.engines.measured import cpu_name
from perception.tasks.registry import judged

_STYLE = Path(__file__).with_name("report.css")


def write_report(record: DemoRecord, path: Path, *, animation: Path | None, command: str) -> None:
    """Write the report.

    Args:
        record: what the demo measured.
        path: the HTML file.
        animation: a GIF to embed, if there is one.
        command: the command line that made it.
    """
    manifest, info = record.pipeline.manifest, record.recording.info
    notice = ""
    if info.simulated:
        notice = _notice(
            "The recording is simulated: the numbers show the mechanism, not the field."
        )
    elif manifest.simulated:
        notice = _notice(
            "The bundle was trained on simulated data and runs here on a real recording."
        )
    sections = [
        _header(record),
        notice,
        _headlines(record),
        _section(
            "What happened when",
            timeline_chart(record)
            + "<p class='note'>Each row is a sensor. Filled: used for the output. Hatched: at fault "
            "or missing. The line below shows the pipeline's state.</p>",
        ),
        _section("Watch it", _embedded(animation, "image/gif", "wide")) if animation else "",
        _section("Phase by phase", _phase_table(record)),
        _section("Inputs and output", _gallery(record)),
        _section("Latency", latency_chart(record) + _latency_note(record)),
        _section("How this was made", _facts(record, command)),
    ]
    title = html_text(f"AnySense demo: {manifest.name} on {info.name}")
    write_text(
        path,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>",
    )


def _notice(text: str) -> str:
    return f"<p class='notice'>{html_text(text)}</p>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{body}</section>"


def _embedded(path: Path, kind: str, css: str = "", alt: str = "") -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f"<img class='{css}' alt='{html_text(alt)}' src='data:{kind};base64,{content}'>"


def _header(record: DemoRecord) -> str:
    manifest, info = record.pipeline.manifest, record.recording.info
    sensors = " and ".join(", ".join(map(sensor_title, record.sensors)).rsplit(", ", 1))
    return (
        "<header><p class='brand'>AnySense</p>"
        "<h1>The sensors fail. The output goes on.</h1>"
        f"<p class='lead'>{len(record.rows)} frames of <b>{html_text(info.name)}</b> through the "
        f"bundle <b>{html_text(manifest.name)}</b>, with {sensors} failing on a script.</p></header>"
    )


def _score_name(record: DemoRecord) -> tuple[str, str] | None:
    scores = [p.scores for p in record.phases]
    for name, title in judged(record.pipeline.manifest.tasks).items():
        if any(row.get(name) is not None for row in scores):
            return name, title
    return None


def _phase_score(phase: PhaseRecord, key: str) -> float | None:
    return phase.scores.get(key)


def _reference_score(phase: PhaseRecord, key: str) -> float | None:
    return phase.reference_scores.get(key)


def _headlines(record: DemoRecord) -> str:
    answered = sum(bool(r["used"]) for r in record.rows)
    faulty = [
        r
        for p in record.phases
        if p.phase.faults
        for r in record.rows[p.phase.start : p.phase.stop]
    ]
    kept = sum(bool(r["used"]) for r in faulty)
    tiles = [
        (f"{100 * answered / len(record.rows):.0f} %", "frames with a fresh output"),
        (f"{kept} of {len(faulty)}", "frames answered while a sensor was at fault"),
    ]
    score = _score_name(record)
    if score is not None:
        key, name = score
        hurt = [p for p in record.phases if p.phase.faults]
        good = [v for p in hurt if (v := _reference_score(p, key)) is not None]
        bad = [v for p in hurt if (v := _phase_score(p, key)) is not None]
        if good and bad:
            tiles.append(
                (f"{100 * np.mean(bad):.1f} %", f"{name} while sensors fail (mean of phases)")
            )
            tiles.append((f"{100 * np.mean(good):.1f} %", f"{name} had none failed, same frames"))
    full = [r["total_ms"] for r in record.rows if r["state"] == "full"]
    if full:
        tiles.append((f"{np.median(full):.0f} ms", "median latency, all sensors"))
    cells = "".join(
        f"<div class='tile'><b>{a}</b><span>{html_text(b)}</span></div>" for a, b in tiles
    )
    return f"<div class='tiles'>{cells}</div>"


def _phase_table(record: DemoRecord) -> str:
    score = _score_name(record)
    head = [
        "Phase",
        "Frames",
        "Used",
        "State",
        *([score[1], "Had none failed"] if score else []),
        "Median latency",
    ]
    rows = []
    for phase in record.phases:
        part = record.rows[phase.phase.start : phase.phase.stop]
        cells = [
            html_text(phase.phase.name),
            f"{phase.phase.start} to {phase.phase.stop - 1}",
            html_text(_most_common([r["used"] or "none" for r in part])),
            _most_common([r["state"] for r in part]),
        ]
        if score:
            value = _phase_score(phase, score[0])
            whole = _reference_score(phase, score[0]) if phase.phase.faults else value
            cells += ["-" if v is None else f"{100 * v:.1f} %" for v in (value, whole)]
        cells.append(f"{np.median(phase.latencies):.0f} ms" if phase.latencies else "-")
        rows.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    titles = "".join(f"<th>{h}</th>" for h in head)
    note = ""
    if score:
        note = (
            f"<p class='note'>{score[1]} against the recording's labels, over the frames of the phase "
            "alone. Phases show different places: compare within a row, where the last score is that "
            "of the same frames with all sensors at work.</p>"
        )
    return f"<div class='scroll'><table><tr>{titles}</tr>{''.join(rows)}</table></div>{note}"


def _most_common(values: list[str]) -> str:
    return max(set(values), key=values.count) if values else "-"


def _gallery(record: DemoRecord) -> str:
    figures = []
    for phase in record.phases:
        if phase.pictures:
            picture = _embedded(phase.pictures[0], "image/jpeg", alt=phase.phase.name)
            caption = html_text(phase.phase.name)
            figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return f"<div class='gallery'>{''.join(figures)}</div>{_legend(record)}"


def _legend(record: DemoRecord) -> str:
    manifest = record.pipeline.manifest
    classes = next((spec.labels for spec in manifest.tasks.root.values() if spec.labels), ())
    keys = "".join(
        f"<span class='key'><i style='background:rgb{tuple(c.color)}'></i>{html_text(c.name)}</span>"
        for c in classes
    )
    return f"<p class='legend'>{keys}</p>"


def _latency_note(record: DemoRecord) -> str:
    full = [r for r in record.rows if r["state"] == "full"]
    if not full:
        return ""
    overhead = np.median([(r["total_ms"] - r["engine_ms"]) / r["engine_ms"] for r in full])
    return (
        "<p class='note'>A missing sensor costs nothing: its encoder does not run. Everything but "
        f"inference took {100 * overhead:.1f} % of the inference time (median, all sensors).</p>"
    )


def _millions(count: object) -> str:
    """A bundle's own count, which may be missing or anything."""
    return f"{count / 1e6:.2f} M" if isinstance(count, int | float) else "unknown"


def _facts(record: DemoRecord, command: str) -> str:
    manifest, info = record.pipeline.manifest, record.recording.info
    facts: list[tuple[str, Any]] = [
        ("Command", command),
        ("Bundle", f"{manifest.name} {manifest.version}: {manifest.description}"),
        ("Parameters", _millions(manifest.model.get("parameters"))),
        ("Trained on", manifest.training.get("data", "unknown")),
        ("Data licence", manifest.training.get("licence", manifest.licence.data)),
        (
            "Recording",
            f"{info.name}, {len(record.recording)} frames"
            + (" (simulated)" if info.simulated else ""),
        ),
        ("Backend", record.pipeline.backend),
        ("Machine", f"{cpu_name()}, {platform.machine()}, Python {platform.python_version()}"),
    ]
    rows = "".join(f"<tr><th>{html_text(k)}</th><td>{html_text(v)}</td></tr>" for k, v in facts)
    return f"<div class='scroll'><table class='facts'>{rows}</table></div>"
