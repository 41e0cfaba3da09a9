"""Accuracy of a pipeline on a recording, for one subset of modalities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes, ClassInfo, Recording, Truth
from perception.errors import ConfigError
from perception.frame import Frame, Modality
from perception.metrics.detection import average_precision
from perception.metrics.segmentation import ConfusionMatrix
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Detections, Result

LOW_SCORE = 0.01
"""Score threshold for average precision, which wants the whole precision-recall curve."""


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
        self.seg_names = [c.name for c in info.seg_classes]
        self.det_names = [c.name for c in info.det_classes]
        self.seg_map = _name_map([c.info() for c in manifest.classes.segmentation], self.seg_names)
        self.det_map = _name_map([c.info() for c in manifest.classes.detection], self.det_names)
        self.segments = "segmentation" in manifest.tasks and bool((self.seg_map < 255).any())
        self.detects = "detection" in manifest.tasks and bool((self.det_map < 255).any())
        if not (self.segments or self.detects):
            raise ConfigError(
                f"bundle {manifest.name} ({', '.join(manifest.tasks)}) and {info.kind} data share no class",
                hint="choose data whose labels the bundle was trained for",
            )
        self.confusion = ConfusionMatrix(len(self.seg_names))
        self.boxes: list[tuple[Detections, Boxes]] = []
        self.frames = 0

    def add(self, result: Result, truth: Truth) -> None:
        """Count one frame."""
        self.frames += 1
        if self.segments and truth.labels is not None:
            self.confusion.add(truth.labels, self.labels(result, truth.labels.shape))
        if self.detects and truth.boxes is not None:
            self.boxes.append((self.detections(result), truth.boxes))

    def labels(self, result: Result, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The result's labels as ids of the recording, 255 where it has none."""
        if result.labels is None:
            return np.full(size, 255, np.uint8)
        labels = result.labels
        if labels.shape != size:
            import cv2

            labels = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        return self.seg_map[labels]

    def detections(self, result: Result) -> Detections:
        """The result's boxes with class ids of the recording."""
        if result.boxes is None:
            return Detections.empty()
        kinds = self.det_map[result.boxes.class_ids]
        keep = kinds < 255
        return Detections(
            result.boxes.xyxy[keep], result.boxes.scores[keep], kinds[keep].astype(np.int64)
        )

    def scores(self) -> dict[str, Any]:
        """`miou`, `miou_40`-like mean over all classes, or `ap50` and `ap`; NaN becomes None."""
        out: dict[str, Any] = {"frames": self.frames}
        if self.segments and self.confusion.truth_pixels.sum():
            iou = self.confusion.iou()
            out["miou"] = self.confusion.miou()
            out[f"miou_{len(self.seg_names)}"] = self.confusion.miou_all()
            out["pixel_accuracy"] = self.confusion.pixel_accuracy()
            out["per_class_iou"] = {n: _number(v) for n, v in zip(self.seg_names, iou, strict=True)}
        if self.detects and self.boxes:
            score = average_precision(self.boxes, len(self.det_names))
            out["ap50"], out["ap"] = _number(score.ap50), _number(score.ap)
            out["per_class"] = {
                self.det_names[k]: {"ap50": a, "ap": b} for k, (a, b) in score.per_class.items()
            }
        return out


def _name_map(bundle: Sequence[ClassInfo], names: list[str]) -> NDArray[np.uint8]:
    """(256,) recording's id by the bundle's id, 255 for classes that the recording lacks."""
    table = np.full(256, 255, np.uint8)
    for index, info in enumerate(bundle):
        if info.name in names:
            table[index] = names.index(info.name)
    return table


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def evaluate_subset(
    pipeline: Pipeline,
    recording: Recording,
    subset: tuple[Modality, ...],
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Score the pipeline on every frame of a recording, only `subset` being present.

    Args:
        pipeline: a pipeline whose detection threshold suits average precision (see `LOW_SCORE`).
        recording: the frames and their truth.
        subset: modalities to give; the others are missing.
        on_frame: called after each frame, for progress.
    """
    scorer = Scorer(pipeline, recording)
    pipeline.reset()
    for index in range(len(recording)):
        frame = recording.frame(index)
        kept = Frame({m: s for m, s in frame.items() if m in subset}, frame.stamp_ns)
        # Frames of a data set are no stream: health and held results must not leak between them.
        pipeline.reset()
        scorer.add(pipeline(kept), recording.truth(index))
        on_frame()
    return scorer.scores()
