"""Files of 3D boxes and their truth, in JSON, to be held against each other by the fields' own metrics.

What the fields of a box mean is in docs/metrics.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from perception.errors import DataError
from perception.files.fields import check_fields
from perception.files.limits import MAX_ANNOTATION_BYTES, MAX_FRAME_BOXES
from perception.files.text import read_json
from perception.metrics.boxes3d import LabeledObjects, PlacedBoxes, kitti, nuscenes

_FAR = 1e6
_MOST = 1e9
_TYPES = {name.lower(): name for name in kitti.TYPES}
_SMALLEST = 1e-6


def _ordered(bbox: list[float]) -> list[float]:
    if bbox[2] < bbox[0] or bbox[3] < bbox[1]:
        raise ValueError("is not left, top, right, bottom")
    return bbox


def _sides(hwl: list[float]) -> list[float]:
    if any(side < 0 for side in hwl) and hwl != [-1, -1, -1]:
        raise ValueError("must be 0 or more, or all -1 for an unknown size")
    return hwl


def _not_infinite(value: float | None) -> float:
    if value is not None and math.isinf(value):
        raise ValueError("must be a number, or null where it is unknown")
    return math.nan if value is None else value


def _sample(name: Any) -> Any:
    counted = isinstance(name, int) and not isinstance(name, bool) and 0 <= name < 2**53
    if not counted and not isinstance(name, str):
        raise ValueError("must be a whole number, 0 or more, or a text")
    return name


def _type(name: Any) -> Any:
    return _TYPES.get(name.lower(), name) if isinstance(name, str) else name


Real = Annotated[float, Field(ge=-_FAR, le=_FAR)]
Side = Annotated[float, Field(ge=_SMALLEST, le=_FAR)]
Share = Annotated[float, Field(ge=0, lt=1)]
Score = Annotated[float, Field(ge=-_MOST, le=_MOST)]
Speed = Annotated[float | None, AfterValidator(_not_infinite)]
Three = Annotated[list[Real], Field(min_length=3, max_length=3)]
Four = Annotated[list[Real], Field(min_length=4, max_length=4)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _PlacedRow(_Row):
    sample: Annotated[Any, BeforeValidator(_sample)]
    name: Literal[nuscenes.CLASSES]  # type: ignore[valid-type]
    center: Three
    wlh: Annotated[list[Side], Field(min_length=3, max_length=3)]
    yaw: Real
    velocity: Annotated[list[Speed], Field(min_length=2, max_length=2)]
    attribute: str = ""


class _PlacedTruth(_PlacedRow):
    points: Annotated[int, Field(ge=0)] = 1


class _PlacedFound(_PlacedRow):
    score: Score


class _ObjectRow(_Row):
    type: Annotated[Literal[kitti.TYPES], BeforeValidator(_type)]  # type: ignore[valid-type]
    alpha: Real
    bbox: Annotated[Four, AfterValidator(_ordered)]
    hwl: Annotated[Three, AfterValidator(_sides)]
    xyz: Three
    ry: Real


class _ObjectTruth(_ObjectRow):
    truncated: Annotated[float, Field(ge=-1, le=1)]
    occluded: Annotated[int, Field(ge=-1, le=3)]


class _ObjectFound(_ObjectRow):
    score: Score
    truncated: Annotated[float, Field(ge=-1, le=1)] = -1
    occluded: Annotated[int, Field(ge=-1, le=3)] = -1


class _File(BaseModel):
    model_config = ConfigDict(strict=True)


class _NuScenesTruth(_File):
    samples: Annotated[int, Field(ge=0)] | None = None
    truth: list[_PlacedTruth]


class _NuScenesFound(_File):
    samples: Annotated[int, Field(ge=0)] | None = None
    predictions: list[_PlacedFound]


class _Overlap(_Row):
    Car: Share = kitti.OVERLAP["Car"]
    Pedestrian: Share = kitti.OVERLAP["Pedestrian"]
    Cyclist: Share = kitti.OVERLAP["Cyclist"]


class _KittiTruth(_File):
    frames: Annotated[int, Field(ge=0)] | None = None
    truth: list[list[_ObjectTruth]]
    overlap: _Overlap = _Overlap()


class _KittiFound(_File):
    predictions: list[list[_ObjectFound]]


_F = TypeVar("_F", bound=_File)


def _read(path: Path, content: Any, model: type[_F], field: str) -> _F:
    """A file of fields with names, or of the list that the one of them is."""
    named = {field: content} if isinstance(content, list) else content
    return check_fields(model, named, where=str(path))


def _both(truth: Path, predictions: Path) -> tuple[Any, Any]:
    """The content of two files, which may be one."""
    first = read_json(truth, limit=MAX_ANNOTATION_BYTES)
    if truth == predictions:
        return first, first
    return first, read_json(predictions, limit=MAX_ANNOTATION_BYTES)


def _refuse_crowds(frames: Sequence[Hashable], most: int, what: str, where: Path) -> None:
    for frame, count in Counter(frames).most_common(1):
        if count > most:
            raise DataError(
                f"{what} {frame} has {count} boxes, more than {most}",
                where=str(where),
                hint="leave out those of the lowest scores",
            )


def _column(rows: Sequence[_Row], name: str, width: int = 0, dtype: Any = np.float64) -> Any:
    """(N,), or (N, width) values of a field."""
    values = np.array([getattr(row, name) for row in rows], dtype)
    return values.reshape(-1, width) if width else values


def read_nuscenes(truth: Path, predictions: Path) -> tuple[PlacedBoxes, PlacedBoxes, int]:
    """Boxes on the ground, with nuScenes' classes.

    As its evaluation does it, objects without a point are left out, and more than 500 predictions of a
    sample are refused.

    Args:
        truth: a file with `truth`, or of that list alone.
        predictions: a file with `predictions`, or of that list alone; it may be the same.

    Returns:
        The truth, the predictions in the order of their samples, and how many samples there are.

    Raises:
        DataError: a file cannot be read, a field is wrong, or the samples of both differ.
    """
    one, other = _both(truth, predictions)
    wanted = _read(truth, one, _NuScenesTruth, "truth")
    found = _read(predictions, other, _NuScenesFound, "predictions")
    samples = found.samples if wanted.samples is None else wanted.samples
    if found.samples not in (None, samples):
        message = f"{found.samples} samples, but the truth has {samples}"
        raise DataError(message, where=str(predictions))
    asked, answered = ([r.sample for r in rows] for rows in (wanted.truth, found.predictions))
    _refuse_samples(asked, samples, MAX_FRAME_BOXES, truth)
    _refuse_samples(answered, samples, nuscenes.MAX_PREDICTIONS, predictions)
    frames = {n: i for i, n in enumerate(sorted(dict.fromkeys([*asked, *answered]), key=_number))}
    names = {r.attribute for r in (*wanted.truth, *found.predictions)}
    attributes = {name: i for i, name in enumerate(sorted(names - {""}))}
    attributes[""] = nuscenes.NO_ATTRIBUTE
    seen = [r for r in wanted.truth if r.points > 0]
    in_order = sorted(found.predictions, key=lambda r: frames[r.sample])
    return (
        _placed(seen, frames, attributes),
        _placed(in_order, frames, attributes),
        len(frames) if samples is None else samples,
    )


def _refuse_samples(own: list[Any], samples: int | None, most: int, where: Path) -> None:
    """Refuse too many boxes of a sample, and one that is not among the samples."""
    _refuse_crowds(own, most, "sample", where)
    last = max((n for n in own if isinstance(n, int)), default=-1)
    if samples is not None and last >= samples:
        message = f"sample {last} of {samples}, which are counted from 0"
        raise DataError(message, where=str(where))


def _number(sample: int | str) -> float:
    """Numbers in their order, before names, which stay in theirs."""
    return math.inf if isinstance(sample, str) else sample


def _placed(
    rows: Sequence[_PlacedRow], frames: Mapping[Any, int], attributes: Mapping[str, int]
) -> PlacedBoxes:
    return PlacedBoxes(
        frame=np.array([frames[r.sample] for r in rows], np.int64),
        class_ids=np.array([nuscenes.CLASSES.index(r.name) for r in rows], np.int64),
        center=_column(rows, "center", 3),
        size=_column(rows, "wlh", 3),
        yaw=_column(rows, "yaw"),
        velocity=_column(rows, "velocity", 2),
        attribute=np.array([attributes[r.attribute] for r in rows], np.int64),
        scores=np.array([getattr(r, "score", 1.0) for r in rows], np.float64),
    )


def read_kitti(
    truth: Path, predictions: Path
) -> tuple[LabeledObjects, LabeledObjects, dict[str, float], int]:
    """Objects as KITTI labels them, frame by frame.

    Args:
        truth: a file with `truth`, or of that list alone.
        predictions: a file with `predictions`, or of that list alone; it may be the same.

    Returns:
        The truth, the detections, by class the overlap that a right one exceeds, and how many frames there
        are.

    Raises:
        DataError: a file cannot be read, a field is wrong, or the frames of both differ in number.
    """
    one, other = _both(truth, predictions)
    wanted = _read(truth, one, _KittiTruth, "truth")
    found = _read(predictions, other, _KittiFound, "predictions")
    count = len(wanted.truth)
    if wanted.frames not in (None, count):
        message = f"truth of {count} frames, but `frames` is {wanted.frames}"
        raise DataError(message, where=str(truth))
    if len(found.predictions) != count:
        message = f"predictions of {len(found.predictions)} frames, but truth of {count}"
        hint = "a frame without boxes is an empty list"
        raise DataError(message, where=str(predictions), hint=hint)
    for path, sizes in (
        (truth, [len(own) for own in wanted.truth]),
        (predictions, [len(own) for own in found.predictions]),
    ):
        _refuse_crowds(np.repeat(np.arange(count), sizes).tolist(), MAX_FRAME_BOXES, "frame", path)
    overlap = wanted.overlap.model_dump()
    return _labeled(wanted.truth), _labeled(found.predictions), overlap, count


def _labeled(frames: Sequence[Sequence[_ObjectTruth | _ObjectFound]]) -> LabeledObjects:
    rows = [row for own in frames for row in own]
    return LabeledObjects(
        frame=np.repeat(np.arange(len(frames)), [len(own) for own in frames]),
        types=np.array([kitti.TYPES.index(r.type) for r in rows], np.int64),
        truncated=_column(rows, "truncated"),
        occluded=_column(rows, "occluded", dtype=np.int64),
        alpha=_column(rows, "alpha"),
        bbox=_column(rows, "bbox", 4),
        hwl=_column(rows, "hwl", 3),
        xyz=_column(rows, "xyz", 3),
        ry=_column(rows, "ry"),
        scores=np.array([getattr(r, "score", 1.0) for r in rows], np.float64),
    )
