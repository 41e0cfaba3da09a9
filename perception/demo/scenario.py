"""Scripts of sensor faults, and what each fault does to a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from perception.frame import Frame, Modality, Sample

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
    faults: dict[Modality, Fault] = field(default_factory=dict)


_NAMES = {"rgb": "RGB", "depth": "Depth", "thermal": "Thermal", "lidar": "LiDAR"}


def modality_title(modality: str) -> str:
    """The name to show to people."""
    return _NAMES.get(modality, modality)


def make_scenario(modalities: Sequence[Modality], frames: int) -> list[Phase]:
    """A script for these sensors: each fails in its own way, alone and together, and comes back.

    The first sensor (RGB) goes dark, the second dies, the last freezes; with three sensors or more
    all but one die at once; at the end everything is back.  One sensor alone dies and comes back.
    """
    steps: list[tuple[str, dict[Modality, Fault]]] = [("All sensors", {})]
    ways: tuple[Fault, ...] = ("dark", "lost", "frozen", "lost")
    words = {"dark": "goes dark", "lost": "is lost", "frozen": "freezes"}
    if len(modalities) == 1:
        steps.append((f"{modality_title(modalities[0])} is lost", {modalities[0]: "lost"}))
    else:
        for modality, fault in zip(modalities, ways, strict=False):
            steps.append((f"{modality_title(modality)} {words[fault]}", {modality: fault}))
        if len(modalities) == 2:
            steps.append((f"{modality_title(modalities[0])} is lost", {modalities[0]: "lost"}))
        else:
            last = modalities[-1]
            gone: dict[Modality, Fault] = dict.fromkeys(modalities[:-1], "lost")
            steps.append((f"Only {modality_title(last)} left", gone))
            if "rgb" in modalities and "thermal" in modalities:
                most: dict[Modality, Fault] = {m: "lost" for m in modalities if m != "thermal"}
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
        self._last: dict[Modality, Sample] = {}

    def phase(self, index: int) -> Phase:
        """The phase of frame `index`."""
        return next(p for p in self.phases if p.start <= index < p.stop)

    def apply(self, index: int, frame: Frame) -> Frame:
        """The frame as the pipeline gets it."""
        faults = self.phase(index).faults
        samples: dict[Modality, Sample] = {}
        for modality, sample in frame.items():
            fault = faults.get(modality)
            if fault == "lost":
                continue
            if fault == "frozen":
                before = self._last.get(modality, sample)
                samples[modality] = replace(before, stamp_ns=sample.stamp_ns)
                continue
            self._last[modality] = sample
            samples[modality] = darken(sample) if fault == "dark" else sample
        return Frame(samples, frame.stamp_ns)


def darken(sample: Sample) -> Sample:
    """What a covered or blinded sensor gives: black, no depth, one temperature, no points."""
    if sample.modality == "rgb":
        return replace(sample, data=np.zeros_like(sample.data))
    if sample.modality == "depth":
        return replace(sample, data=np.full_like(sample.data, np.nan))
    if sample.modality == "thermal":
        return replace(sample, data=np.full_like(sample.data, np.nanmedian(sample.data)))
    return replace(sample, data=sample.data[:0])
