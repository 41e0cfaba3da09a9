"""What a fuser's outputs mean, in the pixels of the source image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.geometry.grid import GridMap
from perception.runtime.engines.base import Tensor
from perception.runtime.graph_check import expected_outputs, fits
from perception.runtime.manifest import BundleManifest
from perception.runtime.postprocess import (
    decode_detections,
    label_confidence,
    label_pixels,
    pictures,
)
from perception.runtime.result import Detections

PARTS = frozenset({"labels", "confidence", "boxes", "images"})
"""What a result may hold."""


@dataclass(frozen=True)
class Interpreted:
    """The parts of a result that come from the network; see `Result`."""

    labels: NDArray[np.uint8] | None = None
    confidence: NDArray[np.float32] | None = None
    boxes: Detections | None = None
    images: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def check_outputs(manifest: BundleManifest, outputs: Mapping[str, Tensor]) -> None:
    """Refuse outputs that are not as large as the manifest says, where the graph left it open.

    Raises:
        EngineError: one is missing or of another shape.
    """
    for name, shape in expected_outputs(manifest).items():
        if name not in outputs or not fits(outputs[name].shape, shape):
            found = outputs[name].shape if name in outputs else "nothing"
            raise EngineError(f"gave {found}, where bundle.yaml says {shape}", where=name)


def interpret(
    manifest: BundleManifest,
    outputs: Mapping[str, Tensor],
    grid: GridMap,
    *,
    wanted: Collection[str] = PARTS,
    factor: float = 1.0,
    temperature: float = 1.0,
    min_score: float | None = None,
) -> Interpreted:
    """Labels, confidence, boxes and pictures from outputs that `check_outputs` let pass.

    Args:
        manifest: the bundle's.
        outputs: the fuser's, by name.
        grid: how the source image lies on the reference grid.
        wanted: which of `PARTS`; the others need not be computed.
        factor: on confidences and scores.
        temperature: of the softmax that gives confidences.
        min_score: least score of a box before that; None for the manifest's.
    """
    labels = confidence = boxes = None
    if manifest.tasks.segmentation is not None:
        logits = grid.crop(outputs["seg_logits"][0])
        if "labels" in wanted:
            labels = label_pixels(logits, grid.source)
        if "confidence" in wanted:
            if temperature != 1.0:
                logits = np.divide(logits, np.float32(temperature), dtype=np.float32)
            confidence = label_confidence(logits, grid.source)
            if factor != 1.0:
                confidence *= np.float32(factor)
    spec = manifest.tasks.boxes2d
    if spec is not None and "boxes" in wanted:
        maps = {s: (outputs[f"det_cls_{s}"][0], outputs[f"det_box_{s}"][0]) for s in spec.strides}
        found = decode_detections(
            maps,
            score_threshold=spec.score_threshold if min_score is None else min_score,
            nms_iou=spec.nms_iou,
            max_detections=spec.max_detections,
        )
        scores = found.scores * np.float32(factor)
        boxes = Detections(grid.boxes_to_source(found.xyxy), scores, found.class_ids)
    images = pictures(outputs, grid) if "images" in wanted else {}
    return Interpreted(labels, confidence, boxes, images)
