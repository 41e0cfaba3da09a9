"""Recordings that lie in memory, with frames and truth that suit `SmallBundles`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from small_bundles import GRID

from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth
from perception.frame import Frame, Sample


class InMemory(Recording):
    """Frames of noise with any truth."""

    def __init__(self, info: RecordingInfo, frames: list[Frame], truths: list[Truth]) -> None:
        super().__init__(Path("memory"), info, [str(i) for i in range(len(frames))])
        self._frames, self._truths = frames, truths

    def frame(self, index: int) -> Frame:
        return self._frames[index]

    def truth(self, index: int) -> Truth:
        return self._truths[index]


def make_recording(
    seg: Sequence[str] = (),
    det: Sequence[str] = (),
    sensors: Sequence[Sequence[str]] = (),
    truths: Sequence[Truth] = (),
    kind: str = "folder",
) -> Recording:
    """A recording whose frames hold these sensors, of these classes and truths."""

    def table(names: Sequence[str]) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo(i, name, (i, 1, 2)) for i, name in enumerate(names))

    rng = np.random.default_rng(5)
    frames = []
    for index, modalities in enumerate(sensors):
        samples = {}
        for m in modalities:
            data = (
                rng.integers(0, 256, (*GRID, 3), dtype=np.uint8)
                if m == "rgb"
                else rng.uniform(1, 9, GRID).astype(np.float32)
            )
            samples[m] = Sample(m, data, stamp_ns=index * 10**8)  # type: ignore[arg-type]
        frames.append(Frame(samples, index * 10**8))  # type: ignore[arg-type]
    held = [*truths, *[Truth()] * (len(frames) - len(truths))]
    info = RecordingInfo(kind, "memory", ("rgb", "depth"), table(seg), table(det))
    return InMemory(info, frames, held)
