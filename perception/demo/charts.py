"""The report's charts, drawn as inline SVG so that they stay sharp and follow the page's colors."""

from __future__ import annotations

from itertools import pairwise

from perception.demo.runner import DemoRecord
from perception.demo.scenario import sensor_title
from perception.files.text import html_text

_WIDTH, _LEFT, _ROW = 1000, 92, 30
_LETTER = 7.4  # pixels of one, of labels in bold
_STATE_CLASS = {"full": "full", "degraded": "degraded", "hold": "hold", "stop": "stop"}


def _svg(parts: list[str], height: int) -> str:
    drawing = f"<svg class='chart' viewBox='0 0 {_WIDTH} {height}'>{''.join(parts)}</svg>"
    return f"<div class='scroll'>{drawing}</div>"


def _runs(values: list[str]) -> list[tuple[int, int, str]]:
    """(start, stop, value) of each stretch of equal values."""
    runs: list[tuple[int, int, str]] = []
    for index, value in enumerate(values):
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], index + 1, value)
        else:
            runs.append((index, index + 1, value))
    return runs


def timeline_chart(record: DemoRecord) -> str:
    """Per sensor, when it was used, at fault or missing; below, the pipeline's state."""
    count = len(record.rows)
    scale = (_WIDTH - _LEFT) / count
    parts = [
        "<defs><pattern id='hatch' width='7' height='7' patternUnits='userSpaceOnUse' "
        "patternTransform='rotate(45)'><rect width='3' height='7' class='hatch'/></pattern></defs>"
    ]
    top = 40
    for phase in record.phases:
        x0 = _LEFT + phase.phase.start * scale
        x1 = _LEFT + phase.phase.stop * scale
        parts.append(f"<line class='grid' x1='{x0:.1f}' x2='{x0:.1f}' y1='14' y2='100%'/>")
        parts.append(_phase_label(phase.phase.name, x0, x1))
    for row, sensor in enumerate(record.sensors):
        y = top + row * _ROW
        parts.append(f"<text class='axis' x='0' y='{y + 17}'>{sensor_title(sensor)}</text>")
        status = [_status(r, sensor) for r in record.rows]
        for start, stop, found in _runs(status):
            parts.append(_bar(start, stop, y, scale, found))
    y = top + len(record.sensors) * _ROW + 8
    parts.append(f"<text class='axis' x='0' y='{y + 17}'>State</text>")
    for start, stop, value in _runs([str(r["state"]) for r in record.rows]):
        x, wide = _LEFT + start * scale, (stop - start) * scale
        parts.append(
            f"<rect class='state {_STATE_CLASS[value]}' x='{x:.1f}' y='{y}' width='{wide:.1f}' "
            f"height='22' rx='3'><title>{value}: frames {start} to {stop - 1}</title></rect>"
        )
        if wide > 60:
            parts.append(f"<text class='inbar' x='{x + wide / 2:.1f}' y='{y + 15}'>{value}</text>")
    parts += _seconds(_times(record), scale, y + 30)
    return _svg(parts, y + 62)


def _times(record: DemoRecord) -> list[float]:
    """Seconds of the frames since the first; by the recording's rate where its stamps do not rise."""
    stamps = [record.recording.stamp_ns(i) for i in range(len(record.rows))]
    if all(a < b for a, b in pairwise(stamps)):
        return [(stamp - stamps[0]) / 1e9 for stamp in stamps]
    return [i / record.recording.info.rate_hz for i in range(len(record.rows))]


def _seconds(times: list[float], scale: float, y: int) -> list[str]:
    """An axis of round times below the bars."""
    length = times[-1]
    steps = (f * 10**e for e in range(-3, 9) for f in (1, 2, 5))
    step = next((s for s in steps if length / s <= 10), max(length, 1.0))
    parts = []
    for number in range(int(length / step + 1e-6) + 1):
        at = number * step
        index = next((i for i, t in enumerate(times) if t >= at - 1e-9), len(times) - 1)
        x = _LEFT + index * scale
        parts.append(f"<line class='grid' x1='{x:.1f}' x2='{x:.1f}' y1='{y}' y2='{y + 6}'/>")
        parts.append(
            f"<text class='phase' text-anchor='middle' x='{x:.1f}' y='{y + 20}'>{at:g} s</text>"
        )
    return parts


def _phase_label(name: str, x0: float, x1: float) -> str:
    """The phase's name over two lines where one is too long for it."""
    room = max(4, int((x1 - x0) / 6.4))
    words, lines = name.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) > room and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    spans = "".join(
        f"<tspan x='{x0 + 4:.1f}' dy='{0 if i == 0 else 12}'>{html_text(_cut(t, room))}</tspan>"
        for i, t in enumerate(lines[:2])
    )
    return f"<text class='phase' y='18'><title>{html_text(name)}</title>{spans}</text>"


def _cut(text: str, room: int) -> str:
    """Not beyond the next phase's name."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _status(row: dict[str, object], sensor: str) -> str:
    if sensor in str(row["used"]).split("+"):
        return "used"
    if sensor not in str(row["present"]).split("+"):
        return "lost"
    return str(row[f"health_{sensor}"])


def _bar(start: int, stop: int, y: int, scale: float, status: str) -> str:
    x, wide = _LEFT + start * scale, (stop - start) * scale
    title = f"<title>{status}: frames {start} to {stop - 1}</title>"
    box = f"x='{x:.1f}' y='{y}' width='{wide:.1f}' height='22' rx='3'"
    if status == "used":
        return f"<rect class='used' {box}>{title}</rect>"
    text = ""
    if wide > 44:
        text = f"<text class='inbar fault' x='{x + wide / 2:.1f}' y='{y + 15}'>{status}</text>"
    return f"<rect class='bad' {box}>{title}</rect>{text}"


def latency_chart(record: DemoRecord) -> str:
    """Median latency by the sensors used, split into inference and all else, with a key of the colors."""
    if not record.timed:
        return "<p class='note'>No frame was answered.</p>"
    order = sorted(record.timed, key=lambda s: (s.count("+"), record.timed[s][1]))
    names = {subset: " + ".join(map(sensor_title, subset.split("+"))) for subset in order}
    longest = max(map(len, names.values()))
    left = min(_WIDTH // 2, max(_LEFT, 16 + round(longest * _LETTER)))
    peak = max(total for _, total in record.timed.values())
    scale = (_WIDTH - left - 200) / peak
    parts = [
        f"<rect class='used' x='{left}' y='2' width='14' height='14' rx='3'/>"
        f"<text class='value' x='{left + 20}' y='14'>inference</text>"
        f"<rect class='rest' x='{left + 110}' y='2' width='14' height='14' rx='3'/>"
        f"<text class='value' x='{left + 130}' y='14'>everything else</text>"
    ]
    for index, subset in enumerate(order):
        engine, total = record.timed[subset]
        y = 26 + index * 32
        parts.append(f"<text class='axis' x='0' y='{y + 17}'>{html_text(names[subset])}</text>")
        parts.append(
            f"<rect class='used' x='{left}' y='{y}' width='{engine * scale:.1f}' height='24' rx='3'/>"
        )
        parts.append(
            f"<rect class='rest' x='{left + engine * scale:.1f}' y='{y}' "
            f"width='{max(1.0, (total - engine) * scale):.1f}' height='24' rx='3'/>"
        )
        parts.append(
            f"<text class='value' x='{left + total * scale + 8:.1f}' y='{y + 17}'>"
            f"{total:.1f} ms ({engine:.1f} inference)</text>"
        )
    return _svg(parts, 32 + 32 * len(order))
