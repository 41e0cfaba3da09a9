"""Accuracy of a pipeline on a recording, by subset of sensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import (
    IGNORE_LABEL,
    Boxes,
    ClassInfo,
    Recording,
    RecordingInfo,
    Truth,
)
from perception.errors import ConfigError
from perception.frame import Frame, subset_name
from perception.metrics.detection import average_precision
from perception.metrics.segmentation import ConfusionMatrix
from perception.preprocess.sample import source_size
from perception.runtime.manifest import BundleManifest
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Detections, Result

LOW_SCORE = 0.01
"""Score threshold for average precision, which wants the whole precision-recall curve."""

UNLEARNABLE: dict[str, tuple[str, ...]] = {"nyuv2": ("otherprop",)}
"""Classes, by kind of data, that the training labels do not tell from unlabeled pixels.

No model can learn them, so `miou` leaves them and their pixels out; the mean over all classes
counts them as 0 and charges what was said there instead.
"""

BACKGROUND = "background"
"""A class of this name in a recording takes all that its other classes do not name."""


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
        self._sees_labels = recording.sees_labels
        self._views = manifest.inputs.views(pipeline.inputs)
        self.seg_names = [c.name for c in info.seg_classes]
        self.det_names = [c.name for c in info.det_classes]
        self.seg_map = _name_map([c.info() for c in manifest.seg_classes], self.seg_names)
        self.det_map = _name_map([c.info() for c in manifest.det_classes], self.det_names)
        self.segments = bool((self.seg_map < 255).any())
        self.detects = bool((self.det_map < 255).any())
        if not (self.segments or self.detects):
            tasks = ", ".join(name for name, spec in manifest.tasks if spec is not None)
            raise ConfigError(
                f"bundle {manifest.name} ({tasks}) and {info.kind} data share no class",
                hint="choose data whose labels the bundle was trained for",
            )
        self.confusion = ConfusionMatrix(len(self.seg_names))
        self.boxes: list[tuple[Detections, Boxes]] = []
        hidden = UNLEARNABLE.get(info.kind, ())
        self.unlearnable = [i for i, name in enumerate(self.seg_names) if name in hidden]
        self.frames = self.answered = self.judged = 0

    @property
    def lacking(self) -> list[str]:
        """Classes of the recording that the bundle does not know, so that they score 0."""
        names: list[str] = []
        if self.segments:
            names += [n for i, n in enumerate(self.seg_names) if i not in self.seg_map]
        if self.detects:
            names += [n for i, n in enumerate(self.det_names) if i not in self.det_map]
        return list(dict.fromkeys(names))

    def add(self, result: Result, truth: Truth) -> None:
        """Count one frame; a result in the pixels of a camera that looks elsewhere is not judged."""
        shown = result.reference
        if shown is not None and not self._sees_labels(self._views.get(shown, shown)):
            truth = Truth()
        self.frames += 1
        self.answered += bool(result.used)
        labeled = truth.labels is not None and bool((truth.labels != IGNORE_LABEL).any())
        self.judged += (self.segments and labeled) or (self.detects and truth.boxes is not None)
        if self.segments and truth.labels is not None:
            self.confusion.add(truth.labels, self.labels(result, truth.labels.shape))
        if self.detects and truth.boxes is not None:
            self.boxes.append((self.detections(result, truth.size), truth.boxes))

    def labels(self, result: Result, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The result's labels as ids of the recording, 255 where it has none."""
        if result.labels is None:
            return np.full(size, 255, np.uint8)
        labels = result.labels
        if labels.shape != size:
            import cv2

            labels = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        return self.seg_map[labels]

    def detections(self, result: Result, size: tuple[int, int] | None = None) -> Detections:
        """The result's boxes with class ids of the recording, in a picture of this (height, width)."""
        if result.boxes is None:
            return Detections.empty()
        kinds = self.det_map[result.boxes.class_ids]
        keep = kinds < 255
        xyxy = result.boxes.xyxy[keep]
        own = result.samples.get(result.reference or "")
        if size is not None and own is not None and source_size(own) != size:
            height, width = source_size(own)
            xyxy = xyxy * np.array([size[1] / width, size[0] / height] * 2, np.float32)
        return Detections(xyxy, result.boxes.scores[keep], kinds[keep].astype(np.int64))

    def scores(self) -> dict[str, Any]:
        """The numbers so far; None where there is no truth to judge by.

        Returns:
            `frames`; `answered`, those for which there was an output; `judged`, those that have truth.
            For segmentation `miou` (classes that occur in the truth, without `UNLEARNABLE` ones),
            `miou_<K>` (all K classes, 0 for those without truth) and `pixel_accuracy`; for boxes `ap50`
            and `ap`; `per_class` with `iou`, or `ap50` and `ap`, by class name.
        """
        out: dict[str, Any] = {
            "frames": self.frames,
            "answered": self.answered,
            "judged": self.judged,
        }
        per_class: dict[str, dict[str, float | None]] = {}
        if self.segments:
            learnable = self.confusion.without(self.unlearnable)
            labeled = bool(self.confusion.truth_pixels.sum())
            out["miou"] = _number(learnable.miou())
            out[f"miou_{len(self.seg_names)}"] = self.confusion.miou_all() if labeled else None
            out["pixel_accuracy"] = _number(learnable.pixel_accuracy())
            for name, value in zip(self.seg_names, learnable.iou(), strict=True):
                per_class[name] = {"iou": _number(value)}
        if self.detects:
            score = average_precision(self.boxes, len(self.det_names))
            out["ap50"], out["ap"] = _number(score.ap50), _number(score.ap)
            for kind, (ap50, ap) in score.per_class.items():
                per_class.setdefault(self.det_names[kind], {}).update(ap50=ap50, ap=ap)
        return {**out, "per_class": per_class}


def _name_map(bundle: Sequence[ClassInfo], names: list[str]) -> NDArray[np.uint8]:
    """(256,) recording's id by the bundle's id, 255 for classes that the recording lacks."""
    table = np.full(256, 255, np.uint8)
    shared = [info.name for info in bundle if info.name in names]
    if shared and BACKGROUND in names:
        table[[info.id for info in bundle]] = names.index(BACKGROUND)
    for info in bundle:
        if info.name in names:
            table[info.id] = names.index(info.name)
    return table


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


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
    scorers = {subset: Scorer(pipeline, recording) for subset in subsets}
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    for index in range(len(recording)):
        frame, truth = recording.seen(index, views), recording.truth(index)
        for subset, scorer in scorers.items():
            if not set(subset) <= set(frame):
                on_result()
                continue
            kept = Frame({m: s for m, s in frame.items() if m in subset}, frame.stamp_ns)
            # Frames of a data set are no stream: health and held results must not leak.
            pipeline.reset()
            scorer.add(pipeline(kept), truth)
            on_result()
    pipeline.reset()
    return {subset_name(subset): scorer.scores() for subset, scorer in scorers.items()}
