"""What of a fleet is worth a person's time: chosen from the rows, and written as recordings to label."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perception.data.base import ClassInfo
from perception.errors import AnySenseError
from perception.fleet.job import Keep
from perception.fleet.labels import boxes_of, classes_of, size_of
from perception.fleet.rows import Row
from perception.frame import Sample
from perception.geometry.rig import Rig, SensorCalibration
from perception.importers.recording import COUNTS, in_steps
from perception.importers.source import Item, Marks, Named, Source, Stored
from perception.importers.taking import Wishes, take_over
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.sensors.registry import kind_of

COLUMNS = (
    "recording",
    "frame",
    "stamp_ns",
    "state",
    "health",
    "confidence",
    "shares",
    "class_confidence",
    "novelty",
    "disagreement",
)
"""Of the rows, those that a choice looks at."""

_ABOVE_FULL = {"degraded": 1.0, "hold": 2.0, "stop": 3.0}


@dataclass(frozen=True)
class Wanted:
    """The frames of one recording that are kept.

    Attributes:
        reasons: by name of the frame, why, worst first.
    """

    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class _Found:
    """A frame and how much it is of something; in an order that is the same whoever finds them."""

    score: float
    recording: str
    stamp_ns: int
    frame: str
    chunk: str


class Choice:
    """Chooses frames from rows in order of time, recording by recording; holds no more than it keeps.

    Args:
        keep: what is asked for.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._best: dict[str, list[_Found]] = {}
        self._last: dict[tuple[str, str], _Found] = {}

    def add(self, row: Row) -> None:
        """Look at a row, which also says its `chunk`."""
        for reason, score in self._reasons(row):
            found = _Found(score, row["recording"], row["stamp_ns"], row["frame"], row["chunk"])
            last = self._last.get((reason, found.recording))
            near = (
                last is not None and abs(found.stamp_ns - last.stamp_ns) < self._keep.every_s * 1e9
            )
            if last is not None and near:
                if found.score <= last.score:
                    continue
                self._drop(reason, last)
            self._last[reason, found.recording] = found
            self._put(reason, found)

    def _put(self, reason: str, found: _Found) -> None:
        heap = self._best.setdefault(reason, [])
        heapq.heappush(heap, found)
        most = self._keep.per_class if reason.startswith("class ") else self._keep.most
        if len(heap) > most:
            heapq.heappop(heap)

    def _drop(self, reason: str, found: _Found) -> None:
        heap = self._best[reason]
        if found in heap:
            heap.remove(found)
            heapq.heapify(heap)

    def _reasons(self, row: Row) -> Iterator[tuple[str, float]]:
        keep = self._keep
        if keep.degraded and row["state"] != "full":
            yield "degraded", _ABOVE_FULL.get(row["state"], 0.0)
        if keep.misaligned:
            for sensor, state in row["health"]:
                if state == "misaligned":
                    yield f"misaligned {sensor}", 1.0
        if keep.novelty is not None:
            for sensor, value in row["novelty"]:
                if value > keep.novelty:
                    yield f"novel {sensor}", value
        confidence, differ = row["confidence"], row["disagreement"]
        least = keep.low_confidence
        if least is not None and confidence is not None and confidence < least:
            yield "low confidence", 1.0 - confidence
        pair = keep.disagreement
        if pair is not None and differ is not None and differ > pair.above:
            one, other = ("+".join(names) for names in pair.between)
            yield f"{one} against {other}", differ
        if keep.per_class:
            shares = dict(row["shares"])
            for name, value in row["class_confidence"]:
                if shares.get(name, 0.0) >= keep.least_share:
                    yield f"class {name}", 1.0 - value

    @property
    def rows(self) -> list[Row]:
        """What is kept and why, by recording and time."""
        found = [
            {
                "recording": one.recording,
                "frame": one.frame,
                "stamp_ns": one.stamp_ns,
                "reason": reason,
                "score": one.score,
                "chunk": one.chunk,
            }
            for reason, heap in self._best.items()
            for one in heap
        ]
        return sorted(found, key=lambda row: (row["recording"], row["stamp_ns"], row["reason"]))


def wanted_of(rows: Iterable[Row]) -> dict[str, Wanted]:
    """By recording, what `Choice.rows` say of its frames."""
    found: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for row in rows:
        reasons = found.setdefault(row["recording"], {}).setdefault(row["frame"], [])
        reasons.append((-row["score"], row["reason"]))
    return {
        name: Wanted({f: tuple(reason for _, reason in sorted(r)) for f, r in frames.items()})
        for name, frames in found.items()
    }


def write_kept(
    results: Iterable[tuple[str, Result]], wanted: Wanted, root: Path, pipeline: Pipeline
) -> int:
    """Write frames as a recording, with what the bundle found in them for labels to be corrected.

    Samples lie on this machine's disk until all are there: a recording says first how large its pictures are.

    Args:
        results: names of frames and what came out of them.
        wanted: why each is kept, which becomes its tags.
        root: the folder, which is not there yet.
        pipeline: whose results they are.

    Returns:
        How many frames there are.

    Raises:
        AnySenseError: a sample cannot be stored, pictures differ in size, or the disk is full.
    """
    classes = classes_of(pipeline)
    with tempfile.TemporaryDirectory(dir=root.parent) as spool:
        shelf = _Shelf(Path(spool))
        items = [shelf.item(name, result, wanted) for name, result in results]
        if not items:
            return 0
        rig = shelf.rig
        source = Source(
            root.name,
            {name: pipeline.kinds[name] for name in pipeline.sensors if name in shelf.sensors},
            [replace(item, rig=rig) for item in items],
            _named(classes["seg_classes"]),
            _named(classes["det_classes"]),
            labels_of=shelf.reference,
            fields=shelf.fields,
        )
        return take_over(source, root, Wishes(name=root.name)).frames


def _named(classes: Iterable[ClassInfo]) -> tuple[Named, ...]:
    return tuple(Named(c.name, c.color) for c in classes)


class _Shelf:
    """Samples on disk, and what is known of their sensors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sensors: dict[str, Sample] = {}
        self.fields: dict[str, Any] = {}
        self.reference = ""

    def item(self, name: str, result: Result, wanted: Wanted) -> Item:
        """A frame of the recording to be."""
        self.reference = self.reference or result.reference or ""
        samples, sizes = {}, {}
        for sensor, sample in result.samples.items():
            own = kind_of(sample.kind)
            if sensor not in self.sensors:
                # Of the first sample only what is said about it is needed.
                self.sensors[sensor] = sample
                if own.units:
                    known = sample.unit if sample.unit in COUNTS else own.file_unit
                    self.fields[f"{sample.kind}_unit"] = known
            path = self._folder / f"{name}.{sensor}.npy"
            np.save(path, np.asarray(in_steps(sample)), allow_pickle=False)
            samples[sensor] = partial(_stored, path)
            if own.has_picture:
                sizes[sensor] = sample.data.shape[:2]
        size = size_of(result)
        boxes = None if size is None else boxes_of(result, size)
        reasons = tuple(reason.replace(" ", "_") for reason in wanted.reasons[name])
        marks = self._folder / f"{name}.marks.npy"
        if result.labels is not None:
            np.save(marks, result.labels, allow_pickle=False)
        return Item(
            name,
            samples,
            partial(_marks, marks, boxes),
            sizes=sizes,
            stamp_ns=result.output_ns,
            tags=reasons,
        )

    @property
    def rig(self) -> Rig | None:
        """The calibration that samples came with."""
        found = {}
        for name, sample in self.sensors.items():
            camera, place = sample.camera, sample.extrinsics
            picture = kind_of(sample.kind).has_picture
            if picture and (
                camera is None or (camera.height, camera.width) != sample.data.shape[:2]
            ):
                continue
            if picture or place is not None:
                found[name] = SensorCalibration(camera, place, sample.frame_id, kind=sample.kind)
        try:
            return Rig(found) if found else None
        except AnySenseError:  # what came with single samples need not fit together
            return None


def _stored(path: Path) -> Stored:
    found: Stored = np.load(path, allow_pickle=False)
    return found


def _marks(path: Path, boxes: Any) -> Marks:
    labels = np.load(path, allow_pickle=False).astype(np.int32) if path.exists() else None
    return Marks(labels, boxes)
