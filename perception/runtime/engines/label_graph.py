"""Labels and confidence from class logits as operators of a graph, so that it need not hand over the logits.

For 40 classes these are 160 bytes a pixel of theirs, and what comes of them is 12.  They compute what
`perception.tasks.class_logits` does: labels at twice the logits' resolution, the rest at theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.runtime.engines.device_form import DeviceForm, Ends
from perception.runtime.onnx_model import node, reduction, type_number
from perception.tasks.segmentation import (
    CONFIDENCE,
    ENERGY,
    INV_TEMPERATURE,
    LABELS,
    LOGITS,
    PEAK,
)
from perception.tasks.task import Shape


def label_ends(shape: Shape, opset: int, indices: bool) -> Ends:
    """Operators from logits (1, K, h, w) float32, and what these are multiplied by, (1,) float32.

    Their outputs are `seg_labels`, (1, 2h, 2w) uint8; `seg_confidence` and `seg_energy`, (1, h, w) float32;
    and `seg_peak`, (1,) float32, the largest absolute value of a logit.  Where a logit is not finite,
    which no label shows, confidence and peak are NaN.

    Args:
        shape: of the logits; at most 255 classes.
        opset: of ONNX's operators, 13 or later.
        indices: with a reduction to indices, which is fast on CPUs and slow on GPUs.
    """
    _, classes, height, width = shape
    assert classes is not None
    own = _name
    nodes = [
        node(
            "Resize",
            [LOGITS, "", own("scales")],
            own("fine"),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        *(_by_index() if indices else _by_comparison(opset)),
        node("Cast", [own("label")], LABELS, to=type_number("uint8")),
        reduction("ReduceMax", LOGITS, own("axis"), own("best"), opset, axes=[1], keepdims=1),
        node("Sub", [LOGITS, own("best")], own("below")),
        node("Mul", [own("below"), INV_TEMPERATURE], own("cooled")),
        node("Exp", [own("cooled")], own("shares")),
        node("ReduceSum", [own("shares"), own("axis")], own("total"), keepdims=0),
        node("Reciprocal", [own("total")], own("share")),
        # Nothing where all are finite, otherwise NaN: the largest may hide what is below it.
        node("Mul", [LOGITS, own("zero")], own("nothing")),
        node("ReduceSum", [own("nothing"), own("axis")], own("spoilt"), keepdims=0),
        node("Add", [own("share"), own("spoilt")], CONFIDENCE),
        node("Log", [own("total")], own("log")),
        node("Div", [own("log"), INV_TEMPERATURE], own("above")),
        node("Squeeze", [own("best"), own("axis")], own("highest")),
        node("Add", [own("highest"), own("above")], own("support")),
        node("Neg", [own("support")], ENERGY),
        node("Abs", [LOGITS], own("sizes")),
        reduction("ReduceMax", own("sizes"), own("all"), own("size"), opset, axes=[1, 2, 3]),
        node("ReduceSum", [own("spoilt"), own("places")], own("spoilt_any"), keepdims=0),
        node("Add", [own("size"), own("spoilt_any")], PEAK),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "zero": np.array([0], np.float32),
        "axis": np.array([1], np.int64),
        "places": np.array([1, 2], np.int64),
    }
    if opset >= 18:
        constants["all"] = np.array([1, 2, 3], np.int64)
    if not indices:
        order = np.arange(classes - 1, -1, -1, dtype=np.float32).reshape(1, classes, 1, 1)
        constants["order"] = order
        constants["none"] = np.array([-1], np.float32)
        constants["last"] = np.array([classes - 1], np.float32)
    plane: tuple[Any, ...] = (1, height, width)
    fine = tuple(None if size is None else 2 * size for size in (height, width))
    return Ends(
        nodes,
        {INV_TEMPERATURE: ("float32", (1,))},
        {
            LABELS: ("uint8", (1, *fine)),
            CONFIDENCE: ("float32", plane),
            ENERGY: ("float32", plane),
            PEAK: ("float32", (1,)),
        },
        {own(name): value for name, value in constants.items()},
    )


def _name(inner: str) -> str:
    """Tensors that are no outputs have names that no other part of a graph has."""
    return f"{LABELS}/{inner}"


def _by_index() -> list[bytes]:
    return [node("ArgMax", [_name("fine")], _name("label"), axis=1, keepdims=0)]


def _by_comparison(opset: int) -> list[bytes]:
    """The first class of the largest logit: the last place from the end, among those that have it."""
    own = _name
    return [
        reduction(
            "ReduceMax", own("fine"), own("axis"), own("finest"), opset, axes=[1], keepdims=1
        ),
        node("Equal", [own("fine"), own("finest")], own("wins")),
        node("Where", [own("wins"), own("order"), own("none")], own("place")),
        reduction("ReduceMax", own("place"), own("axis"), own("first"), opset, axes=[1]),
        node("Sub", [own("last"), own("first")], own("label")),
    ]


ON_DEVICE = DeviceForm(LOGITS, label_ends)
