"""Running a recording through the pipeline under a fault script, and keeping what happened."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import Recording, TruthBoxes3d
from perception.demo.scenario import (
    Phase,
    Script,
    make_scenario,
    make_surround_scenario,
    sensor_title,
)
from perception.errors import ConfigError
from perception.evaluation.elsewhere import truth_on_ground
from perception.evaluation.evaluate import LOW_SCORE, Scorer
from perception.files.made import make_folder
from perception.files.writing import write_image, writing
from perception.frame import Frame
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.registry import drawn, parts_of
from perception.viz.legend import draw_key
from perception.viz.overlay import above, draw_result, draw_sample
from perception.viz.scene import draw_scene, shows_ground

TILE_WIDTH = 320
_SURROUND_WIDTH = 1200

_TIMED_FRAMES = 9


@dataclass
class PhaseRecord:
    """What was measured in one phase; `reference` is the score had no sensor failed."""

    phase: Phase
    scorer: Scorer | None
    reference: Scorer | None
    latencies: list[float] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The scores of all its frames, once they are counted."""
        return self.scorer.scores() if self.scorer is not None else {}

    @cached_property
    def reference_scores(self) -> dict[str, Any]:
        """The same of the frames before any sensor failed."""
        return self.reference.scores() if self.reference is not None else {}


@dataclass
class DemoRecord:
    """Everything the report shows."""

    pipeline: Pipeline
    recording: Recording
    sensors: tuple[str, ...]
    rows: list[dict[str, Any]]
    phases: list[PhaseRecord]
    mosaics: list[NDArray[np.uint8]]
    timed: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By sensors used, median milliseconds of inference and of all, timed in turn."""


def run_demo(
    pipeline: Pipeline,
    reference: Pipeline,
    recording: Recording,
    out: Path,
    on_frame: Callable[[], None] = lambda: None,
) -> DemoRecord:
    """Run every frame of the recording; writes `frames.csv` and overlay pictures into `out`.

    Args:
        pipeline: a loaded bundle.
        reference: the same bundle once more; it sees the frames without faults, so that each
            phase's accuracy can be held against what all sensors would have given there.
        recording: frames with or without truth.
        out: folder for the results.
        on_frame: called after each frame.

    Raises:
        ConfigError: bundle and recording have no sensor in common.
    """
    sensors = recording.info.shared(pipeline.kinds)
    if not sensors:
        raise ConfigError("bundle and recording have no sensor in common")
    made = make_surround_scenario if shows_ground(pipeline.manifest) else make_scenario
    scenario = made(sensors, len(recording), pipeline.kinds)
    script = Script(scenario)
    phases = [
        PhaseRecord(p, _scorer(pipeline, recording), _scorer(reference, recording))
        for p in scenario
    ]
    before, specs = pipeline.min_score, pipeline.manifest.tasks.every
    for each in (pipeline, reference):
        each.min_score = LOW_SCORE
        each.expected = sensors  # a sensor that the recording never had is not missed
        each.wanted = drawn(specs) | parts_of(specs, lambda task: task.meter)
    pictures = out / "overlays"
    make_folder(pictures)
    rows, mosaics = [], []
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    _warm_up(pipeline, recording, sensors, views)
    for index in range(len(recording)):
        clean = _restricted(recording.seen(index, views), sensors)
        frame = script.apply(index, clean)
        result = pipeline(frame)
        record = next(p for p in phases if p.phase.start <= index < p.phase.stop)
        accuracy = _score(record, reference, clean, recording, index, result)
        rows.append(_row(index, sensors, record.phase, result, accuracy))
        if result.used:
            record.latencies.append(result.total_ms)
        shown = above(result, specs, before)
        if shows_ground(pipeline.manifest):
            boxes = truth_on_ground(recording.truth(index), recording.rig).boxes3d
            mosaic = draw_surround(pipeline, frame, shown, record.phase, boxes)
        else:
            mosaic = draw_mosaic(pipeline, clean, frame, shown, record.phase)
        mosaics.append(mosaic)
        if index in _showcase(record.phase):
            path = pictures / f"{index:05d}.jpg"
            write_image(path, mosaic, [cv2.IMWRITE_JPEG_QUALITY, 85])
            record.pictures.append(path)
        on_frame()
    pipeline.min_score = before
    _write_csv(rows, out / "frames.csv")
    timed = _timed(pipeline, recording, views, sorted({r["used"] for r in rows if r["used"]}))
    return DemoRecord(pipeline, recording, sensors, rows, phases, mosaics, timed)


def _timed(
    pipeline: Pipeline, recording: Recording, views: Mapping[str, str], subsets: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Each set of sensors on each of some frames in turn: a busy moment slows all of them alike."""
    found: dict[str, list[tuple[float, float]]] = {subset: [] for subset in subsets}
    for step in range(_TIMED_FRAMES):
        clean = recording.seen(step * len(recording) // _TIMED_FRAMES, views)
        for subset in subsets:
            names = subset.split("+")
            pipeline.reset()
            given = {name: sample for name, sample in clean.items() if name in names}
            result = pipeline(Frame(given, clean.stamp_ns))
            if set(result.used) == set(names):
                found[subset].append((result.engine_ms, result.total_ms))
    pipeline.reset()
    medians = {s: np.median(np.array(v), axis=0) for s, v in found.items() if v}
    return {subset: (float(engine), float(total)) for subset, (engine, total) in medians.items()}


def _restricted(frame: Frame, sensors: tuple[str, ...]) -> Frame:
    return Frame({name: s for name, s in frame.items() if name in sensors}, frame.stamp_ns)


def _warm_up(
    pipeline: Pipeline, recording: Recording, sensors: tuple[str, ...], views: Mapping[str, str]
) -> None:
    """Let memory be allocated before anything is timed."""
    for _ in range(3):
        pipeline.reset()
        pipeline(_restricted(recording.seen(0, views), sensors))
    pipeline.reset()
    pipeline.counters.clear()


def _scorer(pipeline: Pipeline, recording: Recording) -> Scorer | None:
    try:
        return Scorer(pipeline, recording)
    except ConfigError:
        return None


def _score(
    record: PhaseRecord,
    reference: Pipeline,
    clean: Frame,
    recording: Recording,
    index: int,
    result: Result,
) -> dict[str, float]:
    """Count the frame in its phase; returns its own pixel accuracy where there are labels."""
    scorer = record.scorer
    if scorer is None or record.reference is None:
        return {}
    truth = recording.truth(index)
    scorer.add(result, truth, clean)
    if record.phase.faults:
        reference.reset()
        record.reference.add(reference(clean), truth, clean)
    return scorer.of_frame(result, truth)


def _row(
    index: int,
    sensors: tuple[str, ...],
    phase: Phase,
    result: Result,
    accuracy: dict[str, float],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "frame": index,
        "stamp_ns": result.stamp_ns,
        "phase": phase.name,
        "present": "+".join(result.present),
        "used": "+".join(result.used),
        "state": result.state,
        "total_ms": round(result.total_ms, 3),
        "engine_ms": round(result.engine_ms, 3),
    }
    row |= {f"{step}_ms": round(ms, 3) for step, ms in result.timings.items() if step != "total"}
    row |= {f"health_{s}": result.health.get(s, "lost") for s in sensors}
    return row | {k: round(v, 4) for k, v in accuracy.items()}


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with writing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _showcase(phase: Phase) -> set[int]:
    """Frames of a phase whose pictures are kept: past the start, so that detection has settled."""
    length = phase.stop - phase.start
    return {phase.start + int(length * share) for share in (0.55, 0.9)}


def _tile(
    image: NDArray[np.uint8], title: str, height: int, dim: bool = False
) -> NDArray[np.uint8]:
    tile = cv2.resize(image, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    if dim:
        tile = (tile * 0.25).astype(np.uint8)
    cv2.rectangle(tile, (0, 0), (TILE_WIDTH, 22), (18, 22, 30), -1)
    color = (255, 120, 110) if dim else (235, 240, 245)
    cv2.putText(tile, title, (7, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
    return tile


def draw_surround(
    pipeline: Pipeline, given: Frame, result: Result, phase: Phase, truth: TruthBoxes3d | None
) -> NDArray[np.uint8]:
    """What the cameras see with boxes, and the ground from above, as the pipeline got and found it (RGB)."""
    scene = draw_scene(pipeline.manifest, given, result, truth, phase.faults)
    height = round(_SURROUND_WIDTH * scene.shape[0] / scene.shape[1])
    scene = cv2.resize(scene, (_SURROUND_WIDTH, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    strip = np.full((22, _SURROUND_WIDTH, 3), (18, 22, 30), np.uint8)
    title = f"{phase.name}. Output: {result.state}, {result.total_ms:.0f} ms; thin white lines: the truth"
    font, ink = cv2.FONT_HERSHEY_SIMPLEX, (235, 240, 245)
    cv2.putText(strip, title, (7, 15), font, 0.45, ink, 1, cv2.LINE_AA)
    return np.vstack([strip, scene])


def draw_mosaic(
    pipeline: Pipeline, clean: Frame, given: Frame, result: Result, phase: Phase
) -> NDArray[np.uint8]:
    """Inputs as the pipeline got them, and its output, as one picture (RGB)."""
    first = draw_sample(next(iter(clean.values())))
    height = max(90, round(TILE_WIDTH * first.shape[0] / first.shape[1]))
    tiles = []
    for sensor in clean:
        fault = phase.faults.get(sensor)
        used = sensor in result.used
        title = sensor_title(sensor) + ("" if used else f": {fault or 'not used'}")
        if sensor in given:
            tiles.append(_tile(draw_sample(given[sensor]), title, height, dim=not used))
        else:
            blank = np.full((height, TILE_WIDTH, 3), 90, np.uint8)
            tiles.append(_tile(blank, title, height, dim=True))
    shown = {m: s for m, s in given.items() if m in result.used} or dict(clean)
    output = draw_result(pipeline.manifest, Frame(shown), result)
    title = f"Output: {result.state}, {result.total_ms:.0f} ms"
    tiles.append(_tile(output, title, height))
    columns = 3 if len(tiles) > 3 else len(tiles)
    if len(tiles) % columns:
        tiles.append(draw_key(pipeline.manifest, result, (height, TILE_WIDTH)))
    while len(tiles) % columns:
        tiles.append(np.full((height, TILE_WIDTH, 3), 18, np.uint8))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)
