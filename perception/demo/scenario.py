"""Scripts of sensor faults, and what each fault does to a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Literal

import numpy as np

from perception.frame import Frame, Sample
from perception.sensors.names import is_kind
from perception.sensors.registry import kind_of

Fault = Literal["lost", "frozen", "dark"]


@dataclass(frozen=True)
class Phase:
    """A stretch of frames in which some sensors are at fault.

    Attributes:
        name: for the report.
        start, stop: frame indices, stop excluded.
        faults: what is wrong with which sensor.
    """

    name: str
    start: int
    stop: int
    faults: dict[str, Fault] = field(default_factory=dict)


def sensor_title(sensor: str) -> str:
    """The name to show to people."""
    return kind_of(sensor).called if is_kind(sensor) else sensor


def make_scenario(sensors: Sequence[str], frames: int) -> list[Phase]:
    """A script for these sensors: each fails in its own way, alone and together, and comes back.

    The first sensor (RGB) goes dark, the second dies, the third freezes, and so on; with three
    sensors or more all but one die at once; at the end everything is back.  One sensor alone dies and
    comes back.
    """
    steps: list[tuple[str, dict[str, Fault]]] = [("All sensors", {})]
    ways: tuple[Fault, ...] = ("dark", "lost", "frozen", "lost")
    words = {"dark": "goes dark", "lost": "is lost", "frozen": "freezes"}
    if len(sensors) > 1:
        for sensor, fault in zip(sensors, cycle(ways), strict=False):
            steps.append((f"{sensor_title(sensor)} {words[fault]}", {sensor: fault}))
    if len(sensors) <= 2:
        steps.append((f"{sensor_title(sensors[0])} is lost", {sensors[0]: "lost"}))
    else:
        gone: dict[str, Fault] = dict.fromkeys(sensors[:-1], "lost")
        steps.append((f"Only {sensor_title(sensors[-1])} left", gone))
        if "rgb" in sensors and "thermal" in sensors:
            most: dict[str, Fault] = {s: "lost" for s in sensors if s != "thermal"}
            steps.append(("Only Thermal left", most))
    steps.append(("All sensors back", {}))
    edges = np.linspace(0, frames, len(steps) + 1).round().astype(int)
    phases = []
    for (name, faults), start, stop in zip(steps, edges[:-1], edges[1:], strict=True):
        if stop > start:
            phases.append(Phase(name, int(start), int(stop), faults))
    return phases


class FaultInjector:
    """Applies a phase's faults to frames, remembering what a frozen sensor last showed."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = phases
        self._last: dict[str, Sample] = {}

    def phase(self, index: int) -> Phase:
        """The phase of frame `index`."""
        return next(p for p in self.phases if p.start <= index < p.stop)

    def apply(self, index: int, frame: Frame) -> Frame:
        """The frame as the pipeline gets it."""
        faults = self.phase(index).faults
        samples: dict[str, Sample] = {}
        for sensor, sample in frame.items():
            fault = faults.get(sensor)
            if fault == "lost":
                continue
            if fault == "frozen":
                before = self._last.get(sensor, sample)
                samples[sensor] = replace(before, stamp_ns=sample.stamp_ns)
                continue
            self._last[sensor] = sample
            samples[sensor] = darken(sample) if fault == "dark" else sample
        return Frame(samples, frame.stamp_ns)


def darken(sample: Sample) -> Sample:
    """What a covered or blinded sensor gives: black, no depth, one temperature, no points."""
    if sample.kind == "rgb":
        return replace(sample, data=np.zeros_like(sample.data))
    if sample.kind == "depth":
        return replace(sample, data=np.full_like(sample.data, np.nan))
    if sample.kind == "thermal":
        return replace(sample, data=np.full_like(sample.data, np.nanmedian(sample.data)))
    return replace(sample, data=sample.data[:0])
