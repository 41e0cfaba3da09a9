"""Scripts of sensor faults: which sensor fails in which frames, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from types import MappingProxyType

import numpy as np

from perception.corruptions import DELIVERY, Event, FaultInjector, FaultSchedule, faults_of
from perception.frame import Frame
from perception.sensors.names import is_kind
from perception.sensors.registry import kind_of

_FRAME_NS = 1_000_000_000  # a script counts frames, a schedule seconds


@dataclass(frozen=True)
class Phase:
    """A stretch of frames in which some sensors are at fault.

    Attributes:
        name: for the report.
        start, stop: frame indices, stop excluded.
        faults: what is wrong with which sensor, see `perception.corruptions`.
    """

    name: str
    start: int
    stop: int
    faults: dict[str, str] = field(default_factory=dict)


def sensor_title(sensor: str) -> str:
    """The name to show to people."""
    return kind_of(sensor).called if is_kind(sensor) else sensor


def make_scenario(
    sensors: Sequence[str], frames: int, kinds: Mapping[str, str] = MappingProxyType({})
) -> list[Phase]:
    """A script for these sensors: each fails in its own way, alone and together, and comes back.

    The first sensor (RGB) goes dark, the second dies, the third freezes, and so on; with three
    sensors or more all but one die at once, with four or more also all but another one; at the end
    everything is back.  One sensor alone dies and comes back.

    Args:
        sensors: their names, in order.
        frames: how many there are.
        kinds: of those sensors that are not called as their kind.
    """
    steps: list[tuple[str, dict[str, str]]] = [("All sensors", {})]
    words = {"dark": "goes dark", "lost": "is lost", "frozen": "freezes"}
    if len(sensors) > 1:
        for sensor, way in zip(sensors, cycle(("dark", "lost", "frozen", "lost")), strict=False):
            known = way in DELIVERY or way in faults_of(kinds.get(sensor, sensor))
            fault = way if known else "lost"
            steps.append((f"{sensor_title(sensor)} {words[fault]}", {sensor: fault}))
    if len(sensors) <= 2:
        steps.append((f"{sensor_title(sensors[0])} is lost", {sensors[0]: "lost"}))
    for left in sensors[: -3 if len(sensors) > 3 else -2 : -1] if len(sensors) > 2 else ():
        gone = {sensor: "lost" for sensor in sensors if sensor != left}
        steps.append((f"Only {sensor_title(left)} left", gone))
    steps.append(("All sensors back", {}))
    return _spread(steps, frames)


def make_surround_scenario(
    sensors: Sequence[str], frames: int, kinds: Mapping[str, str]
) -> list[Phase]:
    """A script for a vehicle that looks to all sides: what measures dies and comes back, then cameras die one
    after the other, until what measures is left alone, and one camera at last.

    Args:
        sensors: their names, in order.
        frames: how many there are.
        kinds: of the sensors.
    """
    looking = [s for s in sensors if kind_of(kinds.get(s, s)).has_picture]
    measuring = [s for s in sensors if s not in looking]
    if not looking or not measuring:
        return make_scenario(sensors, frames, kinds)
    measured = " and ".join(sensor_title(s) for s in measuring)
    gone, back = ("is lost", "is back") if len(measuring) == 1 else ("are lost", "are back")
    steps: list[tuple[str, dict[str, str]]] = [
        ("All sensors", {}),
        (f"{measured} {gone}", dict.fromkeys(measuring, "lost")),
        (f"{measured} {back}", {}),
        (f"{sensor_title(looking[0])} goes dark", {looking[0]: "dark"}),
    ]
    for count in range(2, len(looking)):
        name = f"{sensor_title(looking[count - 1])} is lost, too"
        steps.append((name, {looking[0]: "dark", **dict.fromkeys(looking[1:count], "lost")}))
    steps.append((f"Only {measured} left", dict.fromkeys(looking, "lost")))
    last = {s: "lost" for s in sensors if s != looking[0]}
    steps += [(f"Only {sensor_title(looking[0])} left", last), ("All sensors back", {})]
    return _spread(steps, frames)


def _spread(steps: Sequence[tuple[str, dict[str, str]]], frames: int) -> list[Phase]:
    """Steps in phases of about one length."""
    edges = np.linspace(0, frames, len(steps) + 1).round().astype(int)
    phases = []
    for (name, faults), start, stop in zip(steps, edges[:-1], edges[1:], strict=True):
        if stop > start:
            phases.append(Phase(name, int(start), int(stop), faults))
    return phases


class Script:
    """Phases, put on frames one after the other."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        events = [
            Event(sensor, fault, phase.start, phase.stop)
            for phase in phases
            for sensor, fault in phase.faults.items()
        ]
        self._injector = FaultInjector(FaultSchedule(tuple(events)), start_ns=0)

    def apply(self, index: int, frame: Frame) -> Frame:
        """Frame `index` as the pipeline gets it."""
        return self._injector.frame(frame, index * _FRAME_NS)
