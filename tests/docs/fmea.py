"""The tables of docs/fmea.md: `python tests/docs/fmea.py` writes them anew.

What is done about each state lies in `perception/runtime/reactions.py`.  What faults of sensors come to is
measured: content faults on a frame of the drive that comes along, faults of delivery in a stream of two
cameras, in simulated time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from limits import ROOT, in_page, write
from small_bundles import GRID, SmallBundles

from perception.corruptions import DELIVERY, Active, Channel, corrupt, faults_of, severity_of
from perception.data.registry import open_recording
from perception.frame import Sample
from perception.runtime import reactions
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.health import HealthMonitor
from perception.runtime.pipeline import Pipeline
from perception.runtime.reactions import Reaction
from perception.runtime.result import Result
from perception.sensors.faults import SEVERITIES
from perception.sensors.names import OURS
from perception.sensors.registry import KINDS

PAGE = ROOT / "docs/fmea.md"
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
MS, S = 10**6, 10**9
SHOWN = (1, 3, 5)
TURNED_AWAY = ("duplicate", "late", "skewed")


def rows(table: Mapping[object, Reaction]) -> list[str]:
    """A table of the code in Markdown."""
    lines = ["| | detection | reaction | output |", "|---|---|---|---|"]
    for name, one in table.items():
        title = name.__name__ if isinstance(name, type) else str(name)
        lines.append(f"| `{title}` | {one.detection} | {one.reaction} | {one.output} |")
    return lines


@cache
def found_in_content(kind: str) -> dict[str, dict[str, int]]:
    """By fault of a kind, the health states that it leads to, with the least severity of each."""
    recording = open_recording("folder", ROOT / "recordings/simulated_drive")
    clean = recording.frame(0)[kind]
    found: dict[str, dict[str, int]] = {}
    for fault in faults_of(kind):
        found[fault] = {}
        for severity in SEVERITIES:
            state = HealthMonitor().check(corrupt(clean, fault, severity))
            if state != "ok":
                found[fault].setdefault(state, severity)
    return found


def content(kinds: Iterable[str] = OURS) -> list[str]:
    """What content faults of these kinds come to."""
    lines = ["| sensor | fault | what happens | noticed as | output |", "|---|---|---|---|---|"]
    for kind in kinds:
        for fault, states in found_in_content(kind).items():
            severity = severity_of(kind, fault)
            noticed = ", ".join(
                f"`{s}`" + (f" from severity {at}" if at > 1 else "") for s, at in states.items()
            )
            used = "as of that state" if states else "from it, too: confidence is the sign"
            if states and min(states.values()) > 1:
                used += "; below, from it, too"
            text = severity.text if severity is not None else ""
            lines.append(
                f"| {KINDS[kind].called} | `{fault}` | {text} | {noticed or 'not'} | {used} |"
            )
    return lines


@cache
def _sample(sensor: str, number: int) -> Sample:
    rng = np.random.default_rng([number, *sensor.encode()])
    data = rng.integers(20, 220, (*GRID, 3), dtype=np.uint8)
    return Sample("rgb", data, sensor=sensor)


@dataclass(frozen=True)
class Course:
    """What becomes of a stream when one of two cameras meets a fault of delivery.

    Attributes:
        noticed: health states of that camera, and for what its samples were turned away.
        after_ms: how long after the fault's beginning it was no more `ok`; None where it always was.
        states: of the results in the last seconds, sorted.
        used: share of these results that were computed from it, too.
    """

    noticed: tuple[str, ...]
    after_ms: int | None
    states: tuple[str, ...]
    used: float


def course(pipeline: Pipeline, fault: str, severity: int) -> Course:
    """Run a stream of two cameras at 10 Hz for eight seconds, of which the fault has six."""
    pipeline.reset()
    timing = {n: SensorTiming(window_ns=40 * MS) for n in ("left", "right")}
    core = StreamCore(pipeline, StreamSettings(timing))
    way: Channel[int] = Channel(1)
    start = 100 * S
    begins, settled, ends = start + 2 * S, start + 5 * S, start + 8 * S
    active = [Active(fault, DELIVERY[fault].at(severity), begins)]
    states, last, after = set[str](), list[Result](), None
    for now in range(start, ends, 10 * MS):
        if (now - start) % (100 * MS) == 0:
            number = (now - start) // (100 * MS)
            core.push(replace(_sample("left", number), stamp_ns=now), now, now)
            way.push(number, now, now, active if now >= begins else ())
        for message in way.poll(now):
            sample = replace(_sample("right", message.payload), stamp_ns=message.stamp_ns)
            core.push(sample, now, now)
        for result in core.poll(now):
            if now >= begins and result.health["right"] != "ok":
                states.add(result.health["right"])
                after = (now - begins) // MS if after is None else after
            if now >= settled:
                last.append(result)
    fates = [f"samples {name}" for name in TURNED_AWAY if core.counts["right"][name]]
    core.close()
    used = sum("right" in result.used for result in last) / len(last)
    noticed = (*(f"`{state}`" for state in sorted(states)), *fates)
    return Course(noticed, after, tuple(sorted({result.state for result in last})), used)


@cache
def found_in_delivery() -> dict[str, dict[int, Course]]:
    """By fault and severity, what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = SmallBundles(Path(folder)).named(
            {"left": ("rgb", "color"), "right": ("rgb", "color")}
        )
        pipeline = Pipeline.load(bundle, "onnxruntime-cpu", threads=1)
        return {
            fault: {s: course(pipeline, fault, s) for s in _severities(fault)} for fault in DELIVERY
        }


def _severities(fault: str) -> Sequence[int]:
    amounts = {DELIVERY[fault].at(s) for s in SHOWN}
    return SHOWN if len(amounts) > 1 else SHOWN[-1:]


def delivery() -> list[str]:
    """What faults of delivery come to."""
    lines = ["| fault | severity | noticed as | after | output | from it, too |"]
    lines.append("|---|---|---|---|---|---|")
    for fault, by_severity in found_in_delivery().items():
        for severity, one in by_severity.items():
            amount = f"{severity}: {DELIVERY[fault].at(severity):g} {DELIVERY[fault].unit}"
            title = f"`{fault}`: {DELIVERY[fault].text}" if severity == min(by_severity) else ""
            used = "always" if one.used == 1 else "never" if one.used == 0 else "at times"
            lines.append(
                f"| {title} | {amount if len(by_severity) > 1 else ''} | "
                f"{', '.join(one.noticed) or 'not'} | "
                f"{'' if one.after_ms is None else f'{one.after_ms} ms'} | "
                f"{', '.join(f'`{s}`' for s in one.states)} | {used} |"
            )
    return lines


def tables() -> str:
    """All tables of the page."""
    parts = {
        "Health of a sensor": rows(reactions.HEALTH),
        "State of the output": rows(reactions.STATES),
        "Events of the engines": rows(reactions.EVENTS),
        "Results that are late": rows(reactions.LATE),
        "Fates of samples": rows(reactions.FATES),
        "Errors": rows(reactions.ERRORS),
        "Content faults": content(),
        "Faults of delivery": delivery(),
    }
    return "".join(f"\n## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


def page() -> str:
    """The tables as the page has them."""
    return in_page(PAGE, START, END)


if __name__ == "__main__":
    write(PAGE, START, END, tables())
