"""Semantic segmentation: a class for every pixel, and how sure the network is of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.data.base import IGNORE_LABEL, RecordingInfo, Truth
from perception.frame import subset_name
from perception.metrics.confidence import ConfidenceHistogram, require_like
from perception.metrics.segmentation import ConfusionMatrix
from perception.tasks.class_logits import Winners, energy, label_pixels, resized, shares
from perception.tasks.matching import class_map, number
from perception.tasks.pixel_fit import PixelFit
from perception.tasks.spec import Classes, ClassSpec, Frozen, TaskSpec, class_name
from perception.tasks.task import Counted, Form, Image, Meter, Task, TaskContext

Float32 = NDArray[np.float32]

LOGITS = "seg_logits"
LABELS, CONFIDENCE = "seg_labels", "seg_confidence"
PEAK, ENERGY = "seg_peak", "seg_energy"
INV_TEMPERATURE = "inv_temperature"

UNLEARNABLE: dict[str, tuple[str, ...]] = {"nyuv2": ("otherprop",)}
"""Classes, by kind of data, that the training labels do not tell from unlabeled pixels.

No model can learn them, so `miou` leaves them and their pixels out; the mean over all classes
counts them as 0 and charges what was said there instead.
"""


class SegmentationSpec(TaskSpec):
    """Semantic classes, in the order of the network's outputs.

    `temperatures` are by subset, such as `rgb+depth`: logits are divided by it where confidence is
    computed; 1 where none is given.
    """

    classes: Classes = Field(min_length=1)
    temperatures: Frozen[str, Annotated[float, Field(gt=0, le=1e3)]] = Field(
        default_factory=lambda: MappingProxyType({})
    )

    def check(self, inputs: Sequence[str]) -> None:
        """Refuse a temperature of no subset of the inputs."""
        for name in self.temperatures:
            wanted = name.split("+")
            if wanted != [n for n in inputs if n in wanted]:
                raise ValueError(f"temperatures: '{name}' is no subset of the inputs")

    def calibrated(self, names: Iterable[str]) -> bool:
        return subset_name(names) in self.temperatures

    def with_temperatures(self, temperatures: Mapping[str, float]) -> SegmentationSpec:
        return SegmentationSpec(
            classes=self.classes, temperatures={**self.temperatures, **temperatures}
        )

    def temperature(self, names: Iterable[str]) -> float:
        """What logits are divided by where the confidence of a result from these inputs is computed."""
        return self.temperatures.get(subset_name(names), 1.0) if self.temperatures else 1.0


@dataclass(frozen=True)
class Segmentation:
    """Classes of the pixels of the picture that a result is given in.

    Attributes:
        labels: (H, W) uint8 class ids; None where nobody wants them.
        confidence: (H, W) float32 in 0..1, the probability of the label, derated when sensors are
            missing; None where nobody wants it.
        energy: (H, W) float32, how little the logits support any class, see `class_logits.energy`; None
            unless somebody asks for it and the graph gives what it is made of.
    """

    labels: NDArray[np.uint8] | None = None
    confidence: Float32 | None = None
    energy: Float32 | None = None


def _forms(spec: SegmentationSpec, grid: tuple[int, int]) -> tuple[Form, ...]:
    """Logits; or what comes of them: labels (uint8) at twice the resolution of the rest."""
    labeled = {LABELS: (1, None, None), CONFIDENCE: (1, None, None)}
    return (
        {LOGITS: (1, len(spec.classes), None, None)},
        {**labeled, ENERGY: (1, None, None), PEAK: (1,)},
        labeled,
    )


def _feeds(spec: SegmentationSpec, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
    return {INV_TEMPERATURE: np.array([1 / spec.temperature(names)], np.float32)}


def _decode_labels(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Segmentation:
    confidence, size = ctx.grid.crop(tensors[CONFIDENCE][0]), ctx.grid.source
    height, width = confidence.shape
    labels = scaled = energy_map = None
    if "labels" in ctx.parts:
        fine = tensors[LABELS][0, : 2 * height, : 2 * width].astype(np.uint8, order="C", copy=False)
        labels = cv2.resize(fine, size[::-1], interpolation=cv2.INTER_NEAREST)
    if "confidence" in ctx.parts:
        scaled = resized(confidence, size)
        if ctx.confidence != 1.0:
            scaled *= np.float32(ctx.confidence)
    if "energy" in ctx.parts and ENERGY in tensors:
        energy_map = resized(ctx.grid.crop(tensors[ENERGY][0]), size)
    return Segmentation(labels, scaled, energy_map)  # type: ignore[arg-type]


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Segmentation:
    if LOGITS not in tensors:
        return _decode_labels(tensors, ctx)
    logits, size, wanted = ctx.grid.crop(tensors[LOGITS][0]), ctx.grid.source, ctx.parts
    if not wanted & {"confidence", "energy"}:
        return Segmentation(label_pixels(logits, size) if "labels" in wanted else None)
    winners = Winners.of(logits)
    labels = label_pixels(logits, size, winners) if "labels" in wanted else None
    temperature = ctx.spec.temperature(ctx.inputs)
    total = shares(logits, winners.peak, temperature)
    confidence = resized(np.float32(1) / total, size) if "confidence" in wanted else None
    if confidence is not None and ctx.confidence != 1.0:
        confidence *= np.float32(ctx.confidence)
    if "energy" not in wanted:
        return Segmentation(labels, confidence)
    return Segmentation(labels, confidence, resized(energy(total, winners.peak, temperature), size))


class SegmentationMeter(Meter):
    """Intersection over union: `miou` over the classes in the truth without `UNLEARNABLE` ones,
    `miou_<K>` over all K (0 for those without truth), and `pixel_accuracy`; of the same pixels, as far as
    there is a confidence, `ece` and `aurc` (see `ConfidenceHistogram`).

    Args:
        spec: the bundle's.
        info: of the recording, whose class ids are the matrix's.
    """

    def __init__(self, spec: SegmentationSpec, info: RecordingInfo) -> None:
        self.names = [c.name for c in info.seg_classes]
        self.map = class_map(spec.classes, self.names)
        self.lacking = tuple(n for i, n in enumerate(self.names) if i not in self.map)
        self.confusion = ConfusionMatrix(len(self.names))
        hidden = UNLEARNABLE.get(info.kind, ())
        self._unlearnable = [i for i, name in enumerate(self.names) if name in hidden]
        self.confidence: ConfidenceHistogram = ConfidenceHistogram()

    def add(self, value: Segmentation | None, truth: Truth, size: tuple[int, int] | None) -> bool:
        """Count one frame's pixels; without an answer all of them are wrong."""
        if truth.labels is None:
            return False
        found = self.labels(value, truth.labels.shape)
        self.confusion.add(truth.labels, found)
        if value is not None and value.confidence is not None and value.labels is not None:
            sure = _resized(value.confidence, truth.labels.shape)
            counted = ~np.isin(truth.labels, [IGNORE_LABEL, *self._unlearnable])
            self.confidence.add(sure[counted], (found == truth.labels)[counted])
        return bool((truth.labels != IGNORE_LABEL).any())

    def labels(self, value: Segmentation | None, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The value's labels as ids of the recording, 255 where it has none."""
        if value is None or value.labels is None:
            return np.full(size, IGNORE_LABEL, np.uint8)
        return self.map[_resized(value.labels, size)]

    def scores(self) -> dict[str, float | None]:
        """See the class."""
        learnable = self.confusion.without(self._unlearnable)
        labeled = bool(self.confusion.truth_pixels.sum())
        return {
            "miou": number(learnable.miou()),
            f"miou_{len(self.names)}": self.confusion.miou_all() if labeled else None,
            "pixel_accuracy": number(learnable.pixel_accuracy()),
            **self.confidence.scores(),
        }

    def counted(self) -> Counted:
        """The matrix, and the confidences."""
        own = {"counts": self.confusion.counts, "unlabeled": self.confusion.unlabeled}
        return {n: a.copy() for n, a in own.items()} | self.confidence.counted("confidence_")

    def take(self, counted: Counted) -> None:
        """Add the matrix and the confidences of another one."""
        own = {"counts": self.confusion.counts, "unlabeled": self.confusion.unlabeled}
        for name, table in own.items():
            require_like(table, counted[name], name)
            table += counted[name]
        self.confidence.take(counted, "confidence_")

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """`iou` by name of a class."""
        iou = self.confusion.without(self._unlearnable).iou()
        return {n: {"iou": number(value)} for n, value in zip(self.names, iou, strict=True)}


def _resized(picture: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Labels or confidence in the pixels of a truth of (height, width)."""
    if picture.shape == size:
        return picture
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def _meter(spec: SegmentationSpec, info: RecordingInfo) -> SegmentationMeter | None:
    meter = SegmentationMeter(spec, info)
    return meter if (meter.map < IGNORE_LABEL).any() else None


def colorize_labels(labels: NDArray[np.uint8], classes: Sequence[ClassSpec]) -> Image:
    """Label ids (H, W) as colors; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    for entry in classes:
        table[entry.id] = entry.color
    return table[labels]


def _draw(picture: Image, value: Segmentation, spec: SegmentationSpec, opacity: float) -> Image:
    if value.labels is None:
        return picture
    colors = colorize_labels(value.labels, spec.classes)
    if colors.shape[:2] != picture.shape[:2]:
        picture = cv2.resize(picture, colors.shape[1::-1])  # type: ignore[assignment]
    return cv2.addWeighted(colors, opacity, picture, 1 - opacity, 0)  # type: ignore[return-value]


def _to_dict(value: Segmentation, spec: SegmentationSpec) -> dict[str, Any]:
    """Shares of the classes, largest first, and the mean confidence."""
    out: dict[str, Any] = {}
    if value.labels is not None:
        ids, counts = np.unique(value.labels, return_counts=True)
        shares = {
            class_name(spec.classes, int(i)): float(n / counts.sum())
            for i, n in zip(ids, counts, strict=True)
        }
        out["segmentation"] = dict(sorted(shares.items(), key=lambda item: -item[1]))
    if value.confidence is not None:
        out["mean_confidence"] = float(value.confidence.mean())
    if value.energy is not None:
        out["mean_energy"] = float(value.energy.mean())
    return out


def _present(value: Segmentation, spec: SegmentationSpec) -> list[tuple[ClassSpec, str]]:
    """By their share of the picture."""
    if value.labels is None:
        return []
    counts = np.bincount(value.labels.ravel(), minlength=len(spec.classes))[: len(spec.classes)]
    order = np.argsort(-counts, kind="stable")
    share = 100 / value.labels.size
    return [(spec.classes[int(i)], _percent(share * counts[i])) for i in order if counts[i]]


def _percent(share: float) -> str:
    return f"{share:.0f} %" if share >= 1 else "< 1 %"


def _files(value: Segmentation, spec: SegmentationSpec) -> dict[str, NDArray[np.uint8]]:
    found = {}
    if value.labels is not None:
        found["labels"] = value.labels
        found["labels_color"] = colorize_labels(value.labels, spec.classes)
    if value.confidence is not None:
        found["confidence"] = (value.confidence * 255).round().astype(np.uint8)
    return found


SEGMENTATION = Task(
    name="segmentation",
    spec=SegmentationSpec,
    parts=("labels", "confidence", "energy"),
    requested=("energy",),
    forms=_forms,
    decode=_decode,
    classes_of=lambda info: info.seg_classes,
    meter=_meter,
    judged={"miou": "mIoU"},
    shown=("pixel_accuracy",),
    trust=("ece", "aurc"),
    temperature_fit=lambda spec, info, frames: PixelFit(LOGITS, spec.classes, info, frames),
    frame_score="pixel_accuracy",
    to_dict=_to_dict,
    summary=lambda value, spec: {},
    draw=_draw,
    drawn=("labels",),
    present=_present,
    files=_files,
    graph_inputs=lambda spec: {INV_TEMPERATURE: (1,)},
    feeds=_feeds,
    dtypes={LABELS: ("uint8", "float32")},
    on_device="perception.runtime.engines.label_graph:ON_DEVICE",
    training="perception.training.tasks.segmentation:SEGMENTATION",
    publisher="anysense_ros.publishing.segmentation:SegmentationPublisher",
)
