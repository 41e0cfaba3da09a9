"""2D boxes of objects in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from perception.data.base import Boxes, RecordingInfo, Truth
from perception.frame import subset_name
from perception.geometry.grid import GridMap
from perception.metrics.confidence import ConfidenceHistogram
from perception.metrics.detection import DetectionScore, average_precision, matched
from perception.metrics.fitted import Fitted
from perception.metrics.scaling import FARTHEST, HIGHEST, LOWEST, fit_scalings
from perception.tasks.detections import Detections, decode_detections
from perception.tasks.matching import class_map, number
from perception.tasks.spec import Classes, ClassSpec, Frozen, Spec, TaskSpec, class_name
from perception.tasks.task import (
    Counted,
    Form,
    Image,
    Meter,
    Task,
    TaskContext,
    TemperatureFit,
)

Float32 = NDArray[np.float32]

_FIT_FROM = 2 / 3
"""Of the threshold: boxes a little less sure say where the line goes, too, and there are many of them.  Of 1,
2/3, 1/3 and 1/6, with this one boxes of scenes that were left out are likeliest."""


class ScoreScaling(Spec):
    """sigmoid(slope * logit + offset) of a score's logit is how often boxes with this score are right."""

    slope: float = Field(ge=LOWEST, le=HIGHEST)
    offset: float = Field(ge=-FARTHEST, le=FARTHEST)

    def __call__(self, scores: Float32) -> Float32:
        """Confidences of boxes with these scores (N,), float32 in 0..1; a higher score has no lower one."""
        near = np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).eps
        p = scores.astype(np.float64).clip(*near)
        z = self.slope * (np.log(p) - np.log1p(-p)) + self.offset
        return np.exp(-np.logaddexp(0, -z)).astype(np.float32)


class Boxes2dSpec(TaskSpec):
    """Classes of boxes, how boxes are decoded, and how sure they are.

    `scalings` are by subset, such as `rgb+thermal`; they change neither boxes nor scores.
    """

    classes: Classes = Field(min_length=1)
    strides: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (8, 16, 32), min_length=1, max_length=16
    )
    score_threshold: float = Field(0.3, gt=0, lt=1)
    nms_iou: float = Field(0.6, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=100_000)
    scalings: Frozen[str, ScoreScaling] = Field(default_factory=lambda: MappingProxyType({}))

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without scalings where there are none, so that versions that know of none read it."""
        content: dict[str, Any] = handler(self)
        return content if self.scalings else {k: v for k, v in content.items() if k != "scalings"}

    def check(self, inputs: Sequence[str]) -> None:
        """Refuse a scaling of no subset of the inputs."""
        for name in self.scalings:
            wanted = name.split("+")
            if wanted != [n for n in inputs if n in wanted]:
                raise ValueError(f"scalings: '{name}' is no subset of the inputs")

    def with_fitted(self, fitted: Mapping[str, Fitted]) -> Boxes2dSpec:
        own = {subset: ScoreScaling(**found.numbers) for subset, found in fitted.items()}
        return self.model_copy(update={"scalings": MappingProxyType({**self.scalings, **own})})

    def scaling(self, names: Iterable[str]) -> ScoreScaling | None:
        """What makes confidences of the scores of a result from these inputs."""
        return self.scalings.get(subset_name(names)) if self.scalings else None

    @model_validator(mode="after")
    def _distinct(self) -> Boxes2dSpec:
        if len(set(self.strides)) < len(self.strides):
            raise ValueError("a stride is given twice")
        return self


def _names(stride: int) -> tuple[str, str]:
    return f"det_cls_{stride}", f"det_box_{stride}"


def _forms(spec: Boxes2dSpec, grid: tuple[int, int]) -> tuple[Form, ...]:
    form: dict[str, tuple[int | None, ...]] = {}
    for stride in spec.strides:
        exact = grid[0] % stride == 0 and grid[1] % stride == 0
        cells = (grid[0] // stride, grid[1] // stride) if exact else (None, None)
        kinds, sides = _names(stride)
        form |= {kinds: (1, len(spec.classes), *cells), sides: (1, 4, *cells)}
    return (form,)


def _on_grid(
    tensors: Mapping[str, NDArray[Any]], spec: Boxes2dSpec, least: float | None = None
) -> Detections:
    pairs = {stride: _names(stride) for stride in spec.strides}
    return decode_detections(
        {
            stride: (tensors[kinds][0], tensors[sides][0])
            for stride, (kinds, sides) in pairs.items()
        },
        score_threshold=spec.score_threshold if least is None else least,
        nms_iou=spec.nms_iou,
        max_detections=spec.max_detections,
    )


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Detections:
    spec: Boxes2dSpec = ctx.spec
    found = _on_grid(tensors, spec, ctx.min_score)
    scores = found.scores * np.float32(ctx.confidence)
    scaling = spec.scaling(ctx.inputs)
    sure = None
    if scaling is not None:  # it knows which sensors are missing
        sure = scaling(found.scores) * np.float32(ctx.familiarity)
    return Detections(ctx.grid.boxes_to_source(found.xyxy), scores, found.class_ids, sure)


_RANKED = ("xyxy", "scores", "class_ids")
_LABELED = ("xyxy", "class_ids", "ignore")


class BoxesMeter(Meter):
    """Average precision: `ap50` at IoU 0.5, `ap` over 0.5 to 0.95; `box_ece` and `box_aurc`.

    The last two are of confidences (of scores, where there are none) against precision at IoU 0.5, of
    the boxes that reach the bundle's own threshold: the detection calibration error of Küppers et al.,
    "Multivariate Confidence Calibration for Object Detection" (CVPR workshops 2020), by score alone;
    see `ConfidenceHistogram`.

    Args:
        spec: the bundle's.
        info: of the recording.
    """

    def __init__(self, spec: Boxes2dSpec, info: RecordingInfo) -> None:
        self.names = [c.name for c in info.det_classes]
        self.map = class_map(spec.classes, self.names)
        self.lacking = tuple(n for i, n in enumerate(self.names) if i not in self.map)
        self.frames: list[tuple[Detections, Boxes]] = []
        self.confidence: ConfidenceHistogram = ConfidenceHistogram()
        self._least = spec.score_threshold
        self._known: tuple[int, DetectionScore] | None = None

    def add(self, value: Detections | None, truth: Truth, size: tuple[int, int] | None) -> bool:
        """Keep one frame's boxes; without an answer there are none."""
        if truth.boxes is None:
            return False
        found = self.detections(value, truth.size, size)
        self.frames.append((found, truth.boxes))
        given = found.where(found.scores >= self._least)
        if given.confidence is not None:
            given = replace(given, scores=given.confidence)
        self.confidence.add(*matched(given, truth.boxes, len(self.names)))
        return True

    def detections(
        self,
        value: Detections | None,
        wanted: tuple[int, int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Detections:
        """Boxes with class ids of the recording, from a picture of a (height, width) in a wanted one."""
        if value is None:
            return Detections.empty()
        kinds = self.map[value.class_ids]
        keep = kinds < 255
        xyxy = value.xyxy[keep]
        if wanted is not None and size is not None and size != wanted:
            (height, width), (h, w) = size, wanted
            xyxy = xyxy * np.array([w / width, h / height] * 2, np.float32)
        found = value.where(keep)
        return replace(found, xyxy=xyxy, class_ids=kinds[keep].astype(np.int64))

    def _precision(self) -> DetectionScore:
        """Of the frames so far; found once for as many, as it takes longer than the boxes did."""
        if self._known is None or self._known[0] != len(self.frames):
            self._known = len(self.frames), average_precision(self.frames, len(self.names))
        return self._known[1]

    def scores(self) -> dict[str, float | None]:
        """See the class."""
        score = self._precision()
        precision = {"ap50": number(score.ap50), "ap": number(score.ap)}
        return precision | self.confidence.scores("box_")

    def counted(self) -> Counted:
        """The boxes of all frames one after the other, how many each has, and the confidences."""
        found = [found for found, _ in self.frames] or [Detections.empty()]
        truth = [truth for _, truth in self.frames] or [Boxes.empty()]
        lengths = [(len(f), len(t.class_ids)) for f, t in self.frames]
        return {
            "lengths": np.array(lengths, np.int64).reshape(-1, 2),
            **{f"found_{n}": np.concatenate([getattr(f, n) for f in found]) for n in _RANKED},
            **{f"true_{n}": np.concatenate([getattr(t, n) for t in truth]) for n in _LABELED},
            **self.confidence.counted("confidence_"),
        }

    def take(self, counted: Counted) -> None:
        """Have the frames and confidences of another one, too."""
        lengths = counted["lengths"]
        if lengths.dtype != np.int64 or lengths.shape[1:] != (2,) or (lengths < 0).any():
            raise ValueError("lengths: no numbers of boxes")
        given = {n: counted[f"found_{n}"] for n in _RANKED}
        wanted = {n: counted[f"true_{n}"] for n in _LABELED}
        for side, (own, empty) in enumerate(((given, Detections.empty()), (wanted, Boxes.empty()))):
            for name, values in own.items():
                like = getattr(empty, name)
                if values.dtype != like.dtype or values.shape[1:] != like.shape[1:]:
                    raise ValueError(f"{name}: {values.dtype} {values.shape}")
                if len(values) != lengths[:, side].sum():
                    raise ValueError(f"{name}: {len(values)} of {lengths[:, side].sum()} boxes")
            kinds = own["class_ids"]
            if kinds.size and not (kinds.min() >= 0 and kinds.max() < len(self.names)):
                raise ValueError("class_ids: no class")
        ends = lengths.cumsum(axis=0)
        for (a, b), (c, d) in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
            found = Detections(**{n: v[a:c] for n, v in given.items()})
            self.frames.append((found, Boxes(**{n: v[b:d] for n, v in wanted.items()})))
        self.confidence.take(counted, "confidence_")

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """`ap50` and `ap` by name of a class, of those in the truth."""
        found = self._precision().per_class
        return {self.names[k]: {"ap50": ap50, "ap": ap} for k, (ap50, ap) in found.items()}


def _meter(spec: Boxes2dSpec, info: RecordingInfo) -> BoxesMeter | None:
    meter = BoxesMeter(spec, info)
    return meter if (meter.map < 255).any() else None


class BoxFit(TemperatureFit):
    """Fits how often boxes are right, at IoU 0.5, to the logits of those that nearly reach the threshold.

    Args:
        spec: the bundle's.
        meter: of the recording.
    """

    def __init__(self, spec: Boxes2dSpec, meter: BoxesMeter) -> None:
        self._spec, self._meter = spec, meter
        self._frames = 0
        self._scores: list[Float32] = []
        self._right: list[NDArray[np.bool_]] = []

    def add(self, tensors: Mapping[str, NDArray[Any]], grid: GridMap, truth: Truth) -> None:
        if truth.boxes is None:
            return
        self._frames += 1
        found = _on_grid(tensors, self._spec, _FIT_FROM * self._spec.score_threshold)
        found = replace(found, xyxy=grid.boxes_to_source(found.xyxy))
        found = self._meter.detections(found, truth.size, grid.source)
        scores, right = matched(found, truth.boxes, len(self._meter.names))
        self._scores.append(scores)
        self._right.append(right)

    def judged(self) -> bool:
        return self._frames > 0

    def fitted(self) -> Fitted | None:
        return self.together([self])[0]

    @classmethod
    def together(cls, fits: Sequence[TemperatureFit]) -> list[Fitted | None]:
        """See `fit_scalings`: lines of subsets are drawn to their mean."""
        samples = [fit._samples() for fit in fits if isinstance(fit, BoxFit)]
        lines = iter(fit_scalings([one for one in samples if one[0].size]))
        return [next(lines) if logits.size else None for logits, _ in samples]

    def _samples(self) -> tuple[Float32, NDArray[np.bool_]]:
        """Logits of scores, and whether their boxes are right."""
        p = np.concatenate([*self._scores, np.zeros(0, np.float32)]).astype(np.float64)
        p = p.clip(np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).eps)
        logits = (np.log(p) - np.log1p(-p)).astype(np.float32)
        return logits, np.concatenate([*self._right, np.zeros(0, bool)])


def _fit(spec: Boxes2dSpec, info: RecordingInfo, frames: int) -> BoxFit | None:
    meter = _meter(spec, info)
    return None if meter is None else BoxFit(spec, meter)


def draw_boxes(image: Image, boxes: Detections, classes: Sequence[ClassSpec]) -> Image:
    """Boxes with class name and score on a copy of `image`."""
    image = np.ascontiguousarray(image).copy()
    by_id = {c.id: c for c in classes}
    thick = max(1, round(image.shape[1] / 400))
    size = max(0.35, image.shape[1] / 1600)
    placed: list[tuple[int, int, int, int]] = []
    # The best last, so that its frame is on top.
    for index in reversed(range(len(boxes))):
        entry = by_id.get(int(boxes.class_ids[index]))
        left, top, right, bottom = (int(v) for v in boxes.xyxy[index])
        color = entry.color if entry else (255, 255, 255)
        cv2.rectangle(image, (left, top), (right, bottom), color, thick, cv2.LINE_AA)
    for box, score, kind in zip(boxes.xyxy, boxes.scores, boxes.class_ids, strict=True):
        entry = by_id.get(int(kind))
        color = entry.color if entry else (255, 255, 255)
        text = f"{entry.name if entry else kind} {score:.2f}"
        (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        place = _free_place(box, (wide, high + base), image.shape[:2], placed)
        if place is None:
            continue  # of many boxes in one place the best are named
        placed.append(place)
        left, top, right, bottom = place
        cv2.rectangle(image, (left, top), (right, bottom), color, -1)
        cv2.putText(
            image,
            text,
            (left, bottom - base),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    return image


def _free_place(
    box: NDArray[Any],
    text: tuple[int, int],
    size: tuple[int, int],
    placed: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """Where a box's name covers no other's: above its top, below its bottom, or within; None for nowhere.

    Args:
        box: left, top, right, bottom.
        text: (width, height) of the name.
        size: (height, width) of the picture.
        placed: left, top, right, bottom of those that are there.
    """
    left, top, right, bottom = (int(v) for v in box)
    (wide, high), (rows, columns) = text, size
    for x in (left, right - wide):
        for y in (top - high, bottom, top, bottom - high):
            x0 = max(0, min(x, columns - wide))
            y0 = max(0, min(y, rows - high))
            free = all(
                x0 >= x2 or x0 + wide <= x1 or y0 >= y2 or y0 + high <= y1
                for x1, y1, x2, y2 in placed
            )
            if free:
                return x0, y0, x0 + wide, y0 + high
    return None


def _to_dict(value: Detections, spec: Boxes2dSpec) -> dict[str, Any]:
    boxes = [
        {
            "class": class_name(spec.classes, int(kind)),
            "score": round(float(score), 4),
            "xyxy": [round(float(v), 1) for v in box],
        }
        for box, score, kind in zip(value.xyxy, value.scores, value.class_ids, strict=True)
    ]
    for box, sure in zip(boxes, () if value.confidence is None else value.confidence, strict=False):
        box["confidence"] = round(float(sure), 4)
    return {"boxes": boxes}


def _present(value: Detections, spec: Boxes2dSpec) -> list[tuple[ClassSpec, str]]:
    """By how many there are."""
    counts = np.bincount(value.class_ids, minlength=len(spec.classes))[: len(spec.classes)]
    order = np.argsort(-counts, kind="stable")
    return [(spec.classes[int(i)], f"x {counts[i]}") for i in order if counts[i]]


def _annotations(value: Detections, spec: Boxes2dSpec) -> list[dict[str, Any]]:
    found = []
    for box, score, kind in zip(value.xyxy, value.scores, value.class_ids, strict=True):
        left, top, right, bottom = (round(float(v), 2) for v in box)
        wide, high = round(right - left, 2), round(bottom - top, 2)
        found.append(
            {
                "category_id": int(kind),
                "bbox": [left, top, wide, high],
                "area": round(wide * high, 2),
                "score": round(float(score), 4),
                "iscrowd": 0,
            }
        )
    return found


def _above(value: Detections, spec: Boxes2dSpec, score: float | None) -> Detections:
    return value.where(value.scores >= (spec.score_threshold if score is None else score))


BOXES2D = Task(
    name="boxes2d",
    spec=Boxes2dSpec,
    parts=("boxes",),
    forms=_forms,
    decode=_decode,
    classes_of=lambda info: info.det_classes,
    meter=_meter,
    judged={"ap50": "AP50"},
    shown=("ap",),
    trust=("box_ece", "box_aurc"),
    temperature_fit=_fit,
    to_dict=_to_dict,
    summary=lambda value, spec: {"boxes": len(value)},
    draw=lambda picture, value, spec, opacity: draw_boxes(picture, value, spec.classes),
    present=_present,
    annotations=_annotations,
    above=_above,
    training="perception.training.tasks.boxes2d:BOXES2D",
    publisher="anysense_ros.publishing.boxes2d:Boxes2dPublisher",
)
