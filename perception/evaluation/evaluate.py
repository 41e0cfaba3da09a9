"""Accuracy of a pipeline on a recording, by subset of sensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perception.data.base import Recording, RecordingInfo, Truth
from perception.errors import ConfigError
from perception.evaluation.elsewhere import truth_on_ground, truth_seen_by
from perception.frame import Frame, Sample, subset_name
from perception.runtime.manifest import BundleManifest
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS, parts_of
from perception.tasks.task import Meter

COUNTS = ("frames", "answered", "judged")
NO_SCORES = ("per_class", "far", "moved", *COUNTS)
"""What a table of scores by subset has besides."""

LOW_SCORE = 0.01
"""Score threshold for average precision, which wants the whole precision-recall curve."""


def meters_of(specs: Mapping[str, Any], info: RecordingInfo) -> dict[str, Meter]:
    """By task, what holds a bundle's values against the truth of a recording; not where they share no class.

    Args:
        specs: what the bundle says of its tasks.
        info: of the recording.
    """
    makers = {n: make for n in specs if (make := TASKS[n].meter) is not None}
    found = {n: make(specs[n], info) for n, make in makers.items()}
    return {n: meter for n, meter in found.items() if meter is not None}


class Scorer:
    """Collects results against the truth; classes are matched by name.

    Args:
        pipeline: what is scored.
        recording: whose truth is used.

    Raises:
        ConfigError: bundle and recording have no task with a class in common.
    """

    def __init__(self, pipeline: Pipeline, recording: Recording) -> None:
        manifest, info = pipeline.manifest, recording.info
        self._specs, self._info = manifest.tasks.every, info
        self._sees_labels, self._rig = recording.sees_labels, recording.rig
        self._alignment = pipeline.aligner.config
        self.moved: Counter[str] = Counter()
        self._views = manifest.inputs.views(pipeline.inputs)
        self.meters = meters_of(self._specs, info)
        if not self.meters:
            raise ConfigError(
                f"bundle {manifest.name} ({', '.join(manifest.tasks)}) and {info.kind} data share no class",
                hint="choose data whose labels the bundle was trained for",
            )
        self.frames = self.answered = self.judged = 0
        self.far: Counter[str] = Counter()

    @property
    def parts(self) -> frozenset[str]:
        """What a result must hold to be judged."""
        return parts_of(self.meters, lambda task: True)

    @property
    def lacking(self) -> list[str]:
        """Classes of the recording that the bundle does not know, so that they score 0."""
        return list(dict.fromkeys(n for meter in self.meters.values() for n in meter.lacking))

    def add(self, result: Result, truth: Truth, frame: Mapping[str, Sample] | None = None) -> None:
        """Count one frame; a result in the pixels of a camera that looks elsewhere is not judged.

        Truth belongs to one sensor, `RecordingInfo.labels_of`; in the pixels of another one, whose
        calibration says how it stands to that, it is what that one sees of it.

        Args:
            result: of the pipeline.
            truth: of the frame.
            frame: all samples of the frame, also those that the pipeline was not given.
        """
        self.frames += 1
        self.answered += bool(result.used)
        self.far.update(result.far)
        self.judged += self._add(self.meters, result, self._seen(result, truth, frame))

    def _seen(self, result: Result, truth: Truth, frame: Mapping[str, Sample] | None) -> Truth:
        """The truth in the result's pixels, where something is judged by it there."""
        if not any(meter.in_pixels for meter in self.meters.values()):
            return truth_on_ground(truth, self._rig)
        shown = result.reference or ""
        found = truth_seen_by(
            shown, self._info.labels_of, truth, frame or result.samples, self._alignment
        )
        self.moved[shown] += found is not truth
        return truth_on_ground(found, self._rig)

    def _add(self, meters: Mapping[str, Meter], result: Result, truth: Truth) -> bool:
        shown = result.reference
        if shown is not None and not self._sees_labels(self._views.get(shown, shown)):
            truth = Truth(boxes3d=truth.boxes3d)  # which are in nobody's pixels
        own = result.samples.get(shown or "")
        size = None if own is None else kind_of(own.kind).source_size(own)
        judged = [m.add(result.values.get(n), truth, size) for n, m in meters.items()]
        return any(judged)  # after all of them have counted it

    def of_frame(self, result: Result, truth: Truth) -> dict[str, float]:
        """The scores of one frame alone that tasks give (`Task.frame_score`), where it has truth."""
        every = meters_of(self._specs, self._info)
        meters = {n: m for n, m in every.items() if TASKS[n].frame_score}
        self._add(meters, result, self._seen(result, truth, None))
        found = {TASKS[n].frame_score: m.scores()[TASKS[n].frame_score] for n, m in meters.items()}
        return {name: value for name, value in found.items() if value is not None}

    def scores(self) -> dict[str, Any]:
        """The numbers so far; None where there is no truth to judge by.

        Returns:
            `frames`; `answered`, those for which there was an output; `judged`, those that have truth;
            the scores of each task's meter; `per_class`, theirs by class name; `far`, where frames were far
            from training, how many by sensor; `moved`, in how many frames truth was brought to the pixels
            of which sensor.
        """
        counts = {name: getattr(self, name) for name in COUNTS}
        return score_table(counts, self.meters, self.far, self.moved)


def score_table(
    counts: Mapping[str, int],
    meters: Mapping[str, Meter],
    far: Counter[str],
    moved: Counter[str],
) -> dict[str, Any]:
    """The numbers of meters as `Scorer.scores` has them.

    Args:
        counts: of frames, by `COUNTS`.
        meters: by task.
        far: frames far from training by sensor.
        moved: frames of which truth was brought to the pixels of a sensor, by sensor.
    """
    out: dict[str, Any] = dict(counts)
    per_class: dict[str, dict[str, float | None]] = {}
    for meter in meters.values():
        out |= meter.scores()
        for name, values in meter.per_class().items():
            per_class.setdefault(name, {}).update(values)
    told = {"far": dict(far), "moved": dict(+moved)}
    return {**out, "per_class": per_class, **{k: v for k, v in told.items() if v}}


def judged_subsets(manifest: BundleManifest, info: RecordingInfo) -> list[tuple[str, ...]]:
    """The subsets of a bundle that accuracy is told of, where only a recording's sensors are there.

    Raises:
        ConfigError: these are none of the bundle's.
    """
    sensors = info.shared(manifest.inputs.kinds)
    if not sensors:
        lacks = info.lacking(manifest.inputs.kinds)
        raise ConfigError(f"{info.name} has {lacks}", where=f"bundle {manifest.name}")
    listed = [subset for subset in manifest.subsets if set(subset) <= set(sensors)]
    return listed if sensors in listed else [sensors, *listed]


def evaluate_subsets(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[tuple[str, ...]],
    on_result: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Score the pipeline on the frames of a recording, once for each subset of sensors.

    A frame that lacks a sensor of a subset says nothing about that subset and is not given for it.

    Args:
        pipeline: a pipeline whose detection threshold suits average precision (see `LOW_SCORE`).
        recording: the frames and their truth.
        subsets: sensors to give; the others are missing.
        on_result: called after each frame and subset, for progress.

    Returns:
        `Scorer.scores()` by name of the subset.
    """
    scorers = score_subsets(pipeline, recording, subsets, on_result)
    return {name: scorer.scores() for name, scorer in scorers.items()}


def score_subsets(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[tuple[str, ...]],
    on_result: Callable[[], None] = lambda: None,
) -> dict[str, Scorer]:
    """The same as `evaluate_subsets`, as scorers by name of the subset, which know more than scores."""
    scorers = {subset: Scorer(pipeline, recording) for subset in subsets}
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    before = pipeline.wanted
    pipeline.wanted = frozenset[str]().union(*(scorer.parts for scorer in scorers.values()))
    for index in range(len(recording)):
        frame, truth = recording.seen(index, views), recording.truth(index)
        for subset, scorer in scorers.items():
            if not set(subset) <= set(frame):
                on_result()
                continue
            kept = Frame({m: s for m, s in frame.items() if m in subset}, frame.stamp_ns)
            # Frames of a data set are no stream: health and held results must not leak.
            pipeline.reset()
            scorer.add(pipeline(kept), truth, frame)
            on_result()
    pipeline.reset()
    pipeline.wanted = before
    return {subset_name(subset): scorer for subset, scorer in scorers.items()}
