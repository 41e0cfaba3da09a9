"""KITTI's average precision of objects: boxes in the picture, on the ground, in space, and with orientation.

Geiger et al., "Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite" (CVPR 2012), and the
evaluation program that comes with the benchmark's development kit; the 40 recall points instead of 11 are
those of Simonelli et al., "Disentangling Monocular 3D Object Detection" (ICCV 2019).

What does not count is in the truth, too, so that a detection of it is no mistake: objects that are too
small, hidden or cut off for a difficulty; vans where cars are judged, sitting persons where pedestrians
are; and regions of any number of objects ("DontCare").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.metrics.boxes3d.matching import Bools, Floats, Ints, Pairs, pairs_of_frames
from perception.metrics.boxes3d.overlap import intersection_of_turned, intersection_of_upright

TYPES = (
    "Car",
    "Van",
    "Truck",
    "Pedestrian",
    "Person_sitting",
    "Cyclist",
    "Tram",
    "Misc",
    "DontCare",
)
"""What KITTI's labels tell apart."""

DONT_CARE = TYPES.index("DontCare")

JUDGED: Mapping[str, str | None] = {"Car": "Van", "Pedestrian": "Person_sitting", "Cyclist": None}
"""Classes that are judged, each with the one that is too much like it to be counted as wrong."""

OVERLAP: Mapping[str, float] = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
"""Intersection over union that a right detection exceeds."""

METRICS = ("detection", "detection_ground", "detection_3d")
"""In the picture, on the ground, in space."""

ORIENTATION = "orientation"
"""Average orientation similarity, of the matches in the picture."""

NO_ALPHA = -10.0
"""The observation angle of a detection that has none."""

NO_PLACE = -1000.0
"""A coordinate in metres of a detection that has none."""

_POINTS = 41


@dataclass(frozen=True)
class Difficulty:
    """What an object must be in order to count.

    Attributes:
        min_height: pixels, of objects and detections.
        max_occlusion: KITTI's level, 0 to 3.
        max_truncation: share of the object outside of the picture.
    """

    min_height: float
    max_occlusion: int
    max_truncation: float


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(40, 0, 0.15),
    "moderate": Difficulty(25, 1, 0.3),
    "hard": Difficulty(25, 2, 0.5),
}


@dataclass(frozen=True)
class LabeledObjects:
    """Objects of all frames as KITTI's label files have them, in the rectified left color camera's frame.

    Attributes:
        frame: (N,) int64, of which frame each object is.
        types: (N,) int64, indices into `TYPES`.
        truncated: (N,) float64, 0..1; of detections, anything.
        occluded: (N,) int64, 0..3; of detections, anything.
        alpha: (N,) float64, radians, the observation angle; `NO_ALPHA` for none.
        bbox: (N, 4) float64, left, top, right, bottom in pixels.
        hwl: (N, 3) float64, height, width, length in metres; -1 for none.
        xyz: (N, 3) float64, the middle of the bottom in metres, y down; `NO_PLACE` for none.
        ry: (N,) float64, radians around y.
        scores: (N,) float64; of truth, anything.
    """

    frame: Ints
    types: Ints
    truncated: Floats
    occluded: Ints
    alpha: Floats
    bbox: Floats
    hwl: Floats
    xyz: Floats
    ry: Floats
    scores: Floats

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, keep: Bools | Ints) -> LabeledObjects:
        """Some of the objects: (N,) bool, or indices."""
        return LabeledObjects(**{name: values[keep] for name, values in vars(self).items()})

    @property
    def height_px(self) -> Floats:
        """(N,) pixels of the picture."""
        height: Floats = self.bbox[:, 3] - self.bbox[:, 1]
        return height


@dataclass(frozen=True)
class KittiScore:
    """What KITTI's evaluation says of detections.

    Attributes:
        curves: by `car_detection` and the like, then by difficulty, (41,) float64 in 0..1: the largest
            precision, or orientation similarity, at each recall point or a later one; NaN where the program
            divides by 0.  A class that was never detected has none, and no class has orientation when a
            detection lacks alpha.
    """

    curves: Mapping[str, Mapping[str, Floats]]

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """By metric and difficulty, `r40` and `r11` in percent; None for what was not judged."""
        out: dict[str, dict[str, dict[str, float | None]]] = {}
        for kind in JUDGED:
            for metric in (*METRICS, ORIENTATION):
                name = f"{kind.lower()}_{metric}"
                own = self.curves.get(name, {})
                out[name] = {level: _averages(own.get(level)) for level in DIFFICULTIES}
        return out


def _averages(curve: Floats | None) -> dict[str, float | None]:
    if curve is None:
        return {"r40": None, "r11": None}
    return {"r40": float(100 * curve[1:].mean()), "r11": float(100 * curve[::4].mean())}


def kitti_score(
    truth: LabeledObjects, found: LabeledObjects, overlap: Mapping[str, float] = OVERLAP
) -> KittiScore:
    """Hold detections against the truth.

    Args:
        truth: all objects, those that do not count too; the order of a frame's objects matters, as KITTI's
            program lets them choose in turn.
        found: detections.
        overlap: by class, what a right detection exceeds.
    """
    curves: dict[str, dict[str, Floats]] = {}
    least = min(overlap.values())
    oriented = not (found.alpha == NO_ALPHA).any()
    for metric in METRICS:
        matchable, spared = _pairs(truth, found, metric, least)
        for kind in JUDGED:
            if not _has_boxes(found.where(found.types == TYPES.index(kind)), metric):
                continue
            own = _Judged(truth, found, kind, overlap[kind], matchable, spared)
            levels = {name: own.curves(level) for name, level in DIFFICULTIES.items()}
            curves[f"{kind.lower()}_{metric}"] = {n: both[0] for n, both in levels.items()}
            if metric == METRICS[0] and oriented:
                curves[f"{kind.lower()}_{ORIENTATION}"] = {n: both[1] for n, both in levels.items()}
    return KittiScore(curves)


def _has_boxes(found: LabeledObjects, metric: str) -> bool:
    """Whether some detection has what is judged: a class of which none has is not evaluated."""
    if metric == "detection":
        return bool((found.bbox[:, 0] >= 0).any())
    axes, sides = ([0, 2], [1, 2]) if metric == "detection_ground" else ([0, 1, 2], [0, 1, 2])
    there = (found.xyz[:, axes] != NO_PLACE).all(axis=1) & (found.hwl[:, sides] > 0).all(axis=1)
    return bool(there.any())


def _pairs(
    truth: LabeledObjects, found: LabeledObjects, metric: str, least: float
) -> tuple[Pairs, Pairs]:
    """Objects and detections that overlap by more than `least`; regions and detections, of whose own size the
    overlap is."""
    whole = _sizes(truth, metric), _sizes(found, metric)

    def of_union(i: Ints, j: Ints) -> Floats:
        shared = _shared(truth.where(i), found.where(j), metric)
        return _share(shared, whole[0][i] + whole[1][j] - shared)

    def of_detection(i: Ints, j: Ints) -> Floats:
        return _share(_shared(truth.where(i), found.where(j), metric), whole[1][j])

    regions = np.flatnonzero(truth.types == DONT_CARE)
    objects = np.flatnonzero(truth.types != DONT_CARE)
    out = []
    for own, measure in ((objects, of_union), (regions, of_detection)):
        pairs = pairs_of_frames(
            truth.frame[own],
            found.frame,
            lambda i, j, own=own, measure=measure: measure(own[i], j),  # type: ignore[misc]
            lambda value: value > least,
        )
        out.append(Pairs(own[pairs.chooser], pairs.choice, pairs.value, pairs.turn))
    return out[0], out[1]


def _share(part: Floats, whole: Floats) -> Floats:
    out: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return out


def _sizes(boxes: LabeledObjects, metric: str) -> Floats:
    """(N,) area or volume."""
    if metric == "detection":
        sides = boxes.bbox[:, 2:] - boxes.bbox[:, :2]
    else:
        sides = boxes.hwl if metric == "detection_3d" else boxes.hwl[:, 1:]
    size: Floats = sides.prod(axis=1)
    return size


def _shared(a: LabeledObjects, b: LabeledObjects, metric: str) -> Floats:
    """(P,) area or volume that pairs share."""
    if metric == "detection":
        return intersection_of_upright(a.bbox, b.bbox)
    area = intersection_of_turned(_on_ground(a), _on_ground(b))
    if metric == "detection_ground":
        return area
    # y points down: a box reaches from y - height at its top to y at its bottom.
    bottom = np.minimum(a.xyz[:, 1], b.xyz[:, 1])
    top = np.maximum(a.xyz[:, 1] - a.hwl[:, 0], b.xyz[:, 1] - b.hwl[:, 0])
    shared: Floats = area * (bottom - top).clip(0)
    return shared


def _on_ground(boxes: LabeledObjects) -> Floats:
    """(N, 5) x, z, length, width, and the angle from x towards z, in which `ry` turns backwards."""
    return np.column_stack([boxes.xyz[:, [0, 2]], boxes.hwl[:, [2, 1]], -boxes.ry])


class _Judged:
    """One class and metric, at any difficulty.

    Args:
        truth, found: of all classes.
        kind: the class.
        least: overlap that a right detection exceeds.
        matchable: pairs of objects and detections.
        spared: pairs of regions and detections.
    """

    def __init__(
        self,
        truth: LabeledObjects,
        found: LabeledObjects,
        kind: str,
        least: float,
        matchable: Pairs,
        spared: Pairs,
    ) -> None:
        self.truth, self.found = truth, found
        self.own = truth.types == TYPES.index(kind)
        beside = JUDGED[kind]
        alike = self.own | (truth.types == (-1 if beside is None else TYPES.index(beside)))
        self.mine = found.types == TYPES.index(kind)
        self.pairs = matchable.where((matchable.value > least) & alike[matchable.chooser])
        self.spared = np.zeros(len(found), bool)
        self.spared[spared.choice[spared.value > least]] = True

    def curves(self, difficulty: Difficulty) -> tuple[Floats, Floats]:
        """(41,) precision and (41,) orientation similarity."""
        truth, found = self.truth, self.found
        counts = (
            self.own
            & (truth.occluded <= difficulty.max_occlusion)
            & (truth.truncated <= difficulty.max_truncation)
            & (truth.height_px >= difficulty.min_height)
        )
        # A small detection of whatever class may be matched, and does not count then or otherwise.
        small = found.height_px < difficulty.min_height
        valid = self.mine & ~small
        pairs = self.pairs.where((self.mine | small)[self.pairs.choice])
        right = counts[pairs.chooser] & valid[pairs.choice]

        scores = found.scores[pairs.choice]
        best = pairs.chosen(scores, np.ones((1, len(pairs)), bool), len(found))[0]
        levels = _levels(scores[best & right], int(counts.sum()))

        # Of several that overlap enough the one that counts is taken, however little it overlaps.
        worth = np.where(valid[pairs.choice], pairs.value, 0)
        matches = pairs.chosen(worth, scores >= levels[:, None], len(found))
        level, pair = np.nonzero(matches)
        taken = np.zeros((len(levels), len(found)), bool)
        taken[level, pairs.choice[pair]] = True
        wrong = ((found.scores >= levels[:, None]) & valid & ~self.spared & ~taken).sum(axis=1)
        hits = matches & right
        turned = truth.alpha[pairs.chooser] - found.alpha[pairs.choice]
        total = hits.sum(axis=1) + wrong
        return (
            _curve(hits.sum(axis=1), total),
            _curve(hits @ ((1 + np.cos(turned)) / 2), total),
        )


def _levels(scores: Floats, wanted: int) -> Floats:
    """The scores at which recall is nearest to each of the 41 points from 0 to 1, best first.

    Args:
        scores: (N,) of the matches.
        wanted: number of objects.
    """
    found: list[float] = []
    point, last = 0.0, len(scores) - 1
    for i, score in enumerate(np.sort(scores)[::-1].tolist()):
        left, right = (i + 1) / wanted, (i + 2) / wanted
        if i < last and right - point < point - left:
            continue
        found.append(score)
        point += 1 / (_POINTS - 1)
    return np.array(found[:_POINTS])


def _curve(part: Any, whole: Ints) -> Floats:
    """(41,) shares at the levels and, beyond them, 0; each the largest of its own and those after it."""
    out = np.zeros(_POINTS)
    with np.errstate(invalid="ignore"):
        out[: len(whole)] = part / whole
    later = np.fmax.accumulate(out[::-1])[::-1]
    return np.where(np.isnan(out), out, later)
