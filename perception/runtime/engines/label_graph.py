"""Labels and confidence from class logits as a graph, so that a GPU need not hand over the logits.

For 40 classes these are 160 bytes a pixel of theirs, and what comes of them is 8.  It computes what the CPU
does: labels at twice the logits' resolution, confidence at theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.runtime.engines.device_form import DeviceForm
from perception.runtime.onnx_model import model, node, type_number
from perception.tasks.segmentation import CONFIDENCE, LABELS, LOGITS, SegmentationSpec

TEMPERATURE = "temperature"


def label_graph(shape: tuple[int, ...]) -> bytes:
    """An ONNX model from logits (1, K, h, w) float32, and what they are divided by, (1,) float32.

    Its outputs are `seg_labels`, (1, 2h, 2w) uint8, and `seg_confidence`, (1, h, w) float32, which is NaN
    where a logit is not finite.

    Args:
        shape: of the logits; at most 255 classes.
    """
    _, classes, height, width = shape
    # The first class of the largest logit: a reduction of indices is slower on GPUs than these steps.
    nodes = [
        node(
            "Resize",
            [LOGITS, "", "scales"],
            "fine",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        node("ReduceMax", ["fine"], "best", axes=[1], keepdims=1),
        node("Equal", ["fine", "best"], "wins"),
        node("Where", ["wins", "places", "none"], "place"),
        node("ReduceMax", ["place"], "first", axes=[1], keepdims=0),
        node("Sub", ["last", "first"], "label"),
        node("Cast", ["label"], LABELS, to=type_number("uint8")),
        node("ReduceMax", [LOGITS], "peak", axes=[1], keepdims=1),
        node("Sub", [LOGITS, "peak"], "below"),
        node("Div", ["below", TEMPERATURE], "cooled"),
        node("Exp", ["cooled"], "shares"),
        node("ReduceSum", ["shares", "classes"], "all", keepdims=0),
        node("Reciprocal", ["all"], "peak_share"),
        # Nothing where all are finite, otherwise NaN: the largest may hide what is below it.
        node("Mul", [LOGITS, "zero"], "nothing"),
        node("ReduceSum", ["nothing", "classes"], "spoilt", keepdims=0),
        node("Add", ["peak_share", "spoilt"], CONFIDENCE),
    ]
    places = np.arange(classes - 1, -1, -1, dtype=np.float32).reshape(1, classes, 1, 1)
    constants: dict[str, NDArray[np.generic]] = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "places": places,
        "none": np.array([-1], np.float32),
        "last": np.array([classes - 1], np.float32),
        "zero": np.array([0], np.float32),
        "classes": np.array([1], np.int64),
    }
    return model(
        nodes,
        {LOGITS: ("float32", shape), TEMPERATURE: ("float32", [1])},
        {
            LABELS: ("uint8", [1, 2 * height, 2 * width]),
            CONFIDENCE: ("float32", [1, height, width]),
        },
        constants,
    )


def _feeds(spec: SegmentationSpec, names: Collection[str]) -> Mapping[str, NDArray[Any]]:
    return {TEMPERATURE: np.array([spec.temperature(names)], np.float32)}


ON_DEVICE = DeviceForm(LOGITS, label_graph, _feeds)
