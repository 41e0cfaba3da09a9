"""The nuScenes detection score: mean average precision, errors of true positives, and both in one number.

Caesar et al., "nuScenes: A multimodal dataset for autonomous driving" (CVPR 2020), section 3, and the
configuration `detection_cvpr_2019` of its evaluation: boxes match by the distance of their centers on
the ground, curves are sampled at 101 recall points, of which those up to a recall of 0.1 and the part of
precision below 0.1 do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.metrics.boxes3d.matching import Bools, Floats, Ints, Pairs, pairs_of_frames

CLASSES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
"""What nuScenes' detection task tells apart."""

ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
"""Of true positives: metres, 1 - IoU of boxes that are laid upon each other, radians, metres per second,
1 - share of right attributes."""

DISTANCES_M = (0.5, 1.0, 2.0, 4.0)
"""A prediction matches within such a distance; average precision is the mean over all four."""

TP_DISTANCE_M = 2.0
"""The one of them whose matches errors are taken of."""

UNDEFINED: Mapping[str, tuple[str, ...]] = {
    "traffic_cone": ("orient_err", "vel_err", "attr_err"),
    "barrier": ("vel_err", "attr_err"),
}
"""Errors that say nothing of a class."""

TWO_FOLD = ("barrier",)
"""Classes whose boxes look the same when they are turned by half a circle."""

MAX_PREDICTIONS = 500
"""Predictions that a sample may have."""

NO_ATTRIBUTE = -1

_RECALLS = np.linspace(0, 1, 101)
_FIRST = 11  # the first recall point beyond a recall of 0.1
_LEAST_PRECISION = 0.1
_MAP_WEIGHT = 5


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes of all frames, upright, in one frame of reference whose z points up.

    Attributes:
        frame: (N,) int64, of which frame each box is.
        class_ids: (N,) int64.
        center: (N, 3) float64, metres.
        size: (N, 3) float64, metres: width, length (along the heading), height; positive.
        yaw: (N,) float64, radians, the heading from x towards y.
        velocity: (N, 2) float64, metres per second along x and y; NaN where it is unknown.
        attribute: (N,) int64; `NO_ATTRIBUTE` where there is none.
        scores: (N,) float64; of truth, anything.
    """

    frame: Ints
    class_ids: Ints
    center: Floats
    size: Floats
    yaw: Floats
    velocity: Floats
    attribute: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.frame)

    @staticmethod
    def joined(parts: Sequence[PlacedBoxes]) -> PlacedBoxes:
        """One after the other; none of none."""
        nothing = np.zeros((0, 3))
        ids, values = np.zeros(0, np.int64), np.zeros(0)
        none = PlacedBoxes(ids, ids, nothing, nothing, values, nothing[:, :2], ids, values)
        columns = zip(*(vars(part).values() for part in (none, *parts)), strict=True)
        return PlacedBoxes(*(np.concatenate(column) for column in columns))

    def where(self, keep: Bools | Ints) -> PlacedBoxes:
        """Some of the boxes: (N,) bool, or indices."""
        return PlacedBoxes(**{name: values[keep] for name, values in vars(self).items()})


@dataclass(frozen=True)
class NuScenesScore:
    """What nuScenes' evaluation says of detections.

    Attributes:
        label_aps: by class and distance in metres, average precision in 0..1.
        label_tp_errors: by class and name of `ERRORS`; NaN where it is undefined, 1 where nothing matched.
    """

    label_aps: Mapping[str, Mapping[float, float]]
    label_tp_errors: Mapping[str, Mapping[str, float]]

    @property
    def mean_dist_aps(self) -> dict[str, float]:
        """By class, the mean over distances."""
        return {name: float(np.mean(list(aps.values()))) for name, aps in self.label_aps.items()}

    @property
    def mean_ap(self) -> float:
        """The mean over classes, those without truth or predictions counted as 0; NaN without classes."""
        return _mean(self.mean_dist_aps.values())

    @property
    def tp_errors(self) -> dict[str, float]:
        """By error, the mean over the classes for which it is defined; NaN where it is for none."""
        return {e: _mean(own[e] for own in self.label_tp_errors.values()) for e in ERRORS}

    @property
    def tp_scores(self) -> dict[str, float]:
        """By error, 1 - error, at least 0."""
        return {name: float(np.maximum(0, 1 - error)) for name, error in self.tp_errors.items()}

    @property
    def nd_score(self) -> float:
        """The nuScenes detection score: mean AP counts as much as the five errors together."""
        scores = self.tp_scores.values()
        return (_MAP_WEIGHT * self.mean_ap + sum(scores)) / (_MAP_WEIGHT + len(scores))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, by nuScenes' own names."""
        return {
            "mean_dist_aps": self.mean_dist_aps,
            "mean_ap": self.mean_ap,
            "label_aps": {
                name: {str(distance): ap for distance, ap in aps.items()}
                for name, aps in self.label_aps.items()
            },
            "label_tp_errors": {n: dict(errors) for n, errors in self.label_tp_errors.items()},
            "tp_errors": self.tp_errors,
            "tp_scores": self.tp_scores,
            "nd_score": self.nd_score,
        }


def _mean(values: Any) -> float:
    known = np.array([v for v in values if not np.isnan(v)])
    return float(known.mean()) if known.size else float("nan")


def nuscenes_score(
    truth: PlacedBoxes,
    predictions: PlacedBoxes,
    classes: Sequence[str] = CLASSES,
    spared: PlacedBoxes | None = None,
) -> NuScenesScore:
    """Hold detections against the truth.

    Of predictions of equal scores the later one comes first; it may matter to the order of `predictions`.

    Args:
        truth: the objects that there are.  nuScenes counts only those in which LiDAR or radar had a return,
            and within a range of each class: what does not count is left out before.
        predictions: what was found.
        classes: names; ids are their indices.
        spared: objects that are neither to be found nor mistakes, which nuScenes does not know: predictions
            that are as near to one of their class as a match is, and match no other, do not count.
    """
    aps: dict[str, dict[float, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for index, name in enumerate(classes):
        own = truth.where(truth.class_ids == index)
        mine = predictions.where(_surest_first(predictions, index))
        match = _match(own, mine)
        hits = match >= 0
        counts = np.ones_like(hits)
        if spared is not None:
            counts = hits | ~_near(mine, spared.where(spared.class_ids == index))
        aps[name] = {
            distance: _average_precision(hits[level, counts[level]], len(own))
            for level, distance in enumerate(DISTANCES_M)
        }
        level = DISTANCES_M.index(TP_DISTANCE_M)
        kept = counts[level]
        errors[name] = _errors(own, mine.where(kept), match[level, kept], name)
    return NuScenesScore(aps, errors)


def matched(
    truth: PlacedBoxes, predictions: PlacedBoxes, distance_m: float = TP_DISTANCE_M
) -> tuple[PlacedBoxes, PlacedBoxes]:
    """The objects that are found, and the predictions that match them, as `nuscenes_score` has them.

    Args:
        truth: the objects that there are.
        predictions: what was found.
        distance_m: that between both is smaller, on the ground.

    Returns:
        As many boxes of each, those at one place belonging together; by class, then the surest first.
    """
    objects, hits = [], []
    for index in np.unique(truth.class_ids):
        own, mine = np.flatnonzero(truth.class_ids == index), _surest_first(predictions, index)
        match = _match(truth.where(own), predictions.where(mine), (distance_m,))[0]
        objects.append(own[match[match >= 0]])
        hits.append(mine[match >= 0])
    none = [np.zeros(0, np.int64)]
    return truth.where(np.concatenate(none + objects)), predictions.where(
        np.concatenate(none + hits)
    )


def _surest_first(predictions: PlacedBoxes, kind: int) -> Ints:
    """Indices of the predictions of a class; of equal scores the later one comes first."""
    own = np.flatnonzero(predictions.class_ids == kind)
    return own[np.lexsort((own, predictions.scores[own]))[::-1]]


def _match(
    truth: PlacedBoxes, predictions: PlacedBoxes, distances: Sequence[float] = DISTANCES_M
) -> Ints:
    """(distances, N) index of the object that each prediction, best first, matches; -1 for none."""
    pairs = _pairs(predictions, truth, max(distances))
    near = pairs.value < np.array(distances)[:, None]
    level, pair = np.nonzero(pairs.chosen(-pairs.value, near, len(truth)))
    match = np.full((len(distances), len(predictions)), -1, np.int64)
    match[level, pairs.chooser[pair]] = pairs.choice[pair]
    return match


def _near(predictions: PlacedBoxes, others: PlacedBoxes) -> Bools:
    """(distances, N), which predictions are within each distance of one of the others."""
    pairs = _pairs(predictions, others, max(DISTANCES_M))
    out = np.zeros((len(DISTANCES_M), len(predictions)), bool)
    level, pair = np.nonzero(pairs.value < np.array(DISTANCES_M)[:, None])
    out[level, pairs.chooser[pair]] = True
    return out


def _pairs(predictions: PlacedBoxes, others: PlacedBoxes, most: float) -> Pairs:
    """With the distance of their centers on the ground, smaller than `most`."""

    def distance(i: Ints, j: Ints) -> Floats:
        away: Floats = np.linalg.norm(predictions.center[i, :2] - others.center[j, :2], axis=1)
        return away

    return pairs_of_frames(predictions.frame, others.frame, distance, lambda value: value < most)


def _average_precision(hits: Bools, wanted: int) -> float:
    """Of outcomes (N,), best first, and the number of objects."""
    if not wanted or not hits.any():
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    sampled = np.interp(_RECALLS, found / wanted, precision, right=0)[_FIRST:]
    return float((sampled - _LEAST_PRECISION).clip(0).mean() / (1 - _LEAST_PRECISION))


def _errors(
    truth: PlacedBoxes, predictions: PlacedBoxes, match: Ints, name: str
) -> dict[str, float]:
    """By name, the mean over the recall points that were reached.

    At a recall point is the mean error of all matches of at least its score.
    """
    undefined = UNDEFINED.get(name, ())
    hits = match >= 0
    if not hits.any():
        return {error: float("nan") if error in undefined else 1.0 for error in ERRORS}
    score = np.interp(_RECALLS, np.cumsum(hits) / len(truth), predictions.scores, right=0)
    last = np.flatnonzero(score)[-1] if score.any() else 0
    out = {}
    each = _errors_of_matches(truth.where(match[hits]), predictions.where(hits), name)
    for error in ERRORS:
        if error in undefined:
            out[error] = float("nan")
        elif last < _FIRST:
            out[error] = 1.0
        else:
            scores = predictions.scores[hits][::-1]
            sampled = np.interp(score, scores, _running_mean(each[error])[::-1])
            out[error] = float(sampled[_FIRST : last + 1].mean())
    return out


def _errors_of_matches(
    truth: PlacedBoxes, found: PlacedBoxes, name: str
) -> dict[str, NDArray[np.float64]]:
    """By name, (N,) errors of pairs; NaN where one is not known."""
    shared = np.minimum(truth.size, found.size).prod(axis=1)
    union = truth.size.prod(axis=1) + found.size.prod(axis=1) - shared
    period = np.pi if name in TWO_FOLD else 2 * np.pi
    turned = (truth.yaw - found.yaw + period / 2) % period - period / 2
    attribute = np.where(truth.attribute == found.attribute, 0.0, 1.0)
    return {
        "trans_err": np.linalg.norm((truth.center - found.center)[:, :2], axis=1),
        "scale_err": 1 - shared / union,
        "orient_err": np.abs(turned),
        "vel_err": np.hypot(*(truth.velocity - found.velocity).T),
        "attr_err": np.where(truth.attribute == NO_ATTRIBUTE, np.nan, attribute),
    }


def _running_mean(errors: Floats) -> Floats:
    """(N,) mean of the known ones up to each; 0 before the first of them, 1 where none is known."""
    known = ~np.isnan(errors)
    if not known.any():
        return np.ones(len(errors))
    count = np.cumsum(known)
    mean: Floats = np.nancumsum(errors) / np.maximum(count, 1)
    return mean
