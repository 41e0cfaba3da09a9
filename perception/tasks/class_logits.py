"""Labels of pixels and how sure they are, from class logits on a coarser grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Labels = NDArray[np.uint8]

_SPARSE = 12
"""Where fewer than one in so many logits of a class matter, these are picked out first."""

_LEAST_CLASSES, _CLASSES_A_SHARE = 10, 240
"""Where looking at mixed cells alone pays: measured with 8 to 40 classes and 1 to 14 % of the cells mixed."""


def _most_mixed(classes: int) -> float:
    """Share of mixed cells up to which those are looked at alone; beyond it, all pixels are."""
    return (classes - _LEAST_CLASSES) / _CLASSES_A_SHARE


@dataclass(frozen=True)
class Winners:
    """The first class of the largest logit, on the logits' own grid.

    Attributes:
        peak: (h, w) float32, that logit.
        labels: (h, w) uint8, that class.
    """

    peak: Float32
    labels: Labels

    @staticmethod
    def of(logits: Float32) -> Winners:
        """Those of (K, h, w) logits, at most 256 classes."""
        peak = logits[0].copy()
        labels, wins = np.zeros(peak.shape, np.uint8), np.empty(peak.shape, np.uint8)
        for index in range(1, len(logits)):
            _compete(logits[index], index, peak, labels, wins)
        return Winners(peak, labels)


def _compete(
    plane: Float32, index: int, best: Float32, labels: Labels, wins: NDArray[np.uint8]
) -> None:
    """Let a class compete with those of smaller numbers; `wins` is memory for as many bytes."""
    np.greater(plane, best, out=wins.view(np.bool_))
    np.maximum(plane, best, out=best)
    # As no label is larger yet, this is `labels[wins] = index`, only faster.
    np.multiply(wins, np.uint8(index), out=wins)
    np.maximum(wins, labels, out=labels)


def label_pixels(logits: Float32, size: tuple[int, int], winners: Winners | None = None) -> Labels:
    """Labels from class logits.

    Classes are compared at twice the logits' resolution after bilinear interpolation; the winner is then
    brought to `size`.  What is interpolated between four logits is at most the largest and at least the
    smallest of them: where one class wins at all four, it wins between them, and elsewhere only classes
    compete whose largest reaches the smallest of another.

    Args:
        logits: (K, h, w) float32, finite.
        size: (height, width) of the result in pixels.
        winners: of these logits, where they are known.

    Returns:
        (H, W) uint8 class ids, the first of equal ones.
    """
    fine = _fine_labels(logits, winners) if _most_mixed(len(logits)) > 0 else _every_pixel(logits)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_NEAREST).astype(
        np.uint8, copy=False
    )


def _fine_labels(logits: Float32, winners: Winners | None) -> Labels:
    coarse = (winners or Winners.of(logits)).labels
    height, width = coarse.shape
    # A cell lies between four logits, and has four of the finer pixels in it; at the border two are one.
    framed = cv2.copyMakeBorder(coarse, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    corners = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    mixed = corners[0] != corners[1]
    mixed |= corners[0] != corners[2]
    mixed |= corners[0] != corners[3]
    rows, columns = np.nonzero(mixed)
    if len(rows) > _most_mixed(len(logits)) * mixed.size:
        return _every_pixel(logits)
    fine = cv2.resize(coarse, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    if len(rows):
        classes = np.stack([corner[rows, columns] for corner in corners])
        threshold = _threshold(logits, classes, rows, columns)
        found = _contested(logits, threshold)
        where = cv2.resize(
            mixed.view(np.uint8), (2 * width + 2, 2 * height + 2), interpolation=cv2.INTER_NEAREST
        )
        np.copyto(fine, found, where=where[1:-1, 1:-1].view(np.bool_))
    return fine  # type: ignore[return-value]


def _every_pixel(logits: Float32) -> Labels:
    size = (2 * logits.shape[2], 2 * logits.shape[1])
    best = cv2.resize(logits[0], size, interpolation=cv2.INTER_LINEAR)
    plane = np.empty_like(best)
    labels, wins = np.zeros(best.shape, np.uint8), np.empty(best.shape, np.uint8)
    for index in range(1, len(logits)):
        cv2.resize(logits[index], size, plane, interpolation=cv2.INTER_LINEAR)
        _compete(plane, index, best, labels, wins)  # type: ignore[arg-type]
    return labels


def _threshold(
    logits: Float32, classes: Labels, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Float32:
    """What a logit (h, w) must reach for its class to win anywhere in a mixed cell that it is a corner of.

    Args:
        logits: (K, h, w).
        classes: (4, N) that win at the corners of each mixed cell.
        rows, columns: (N,) of the cells.
    """
    height, width = logits.shape[1:]
    top, bottom = np.maximum(rows - 1, 0), np.minimum(rows, height - 1)
    left, right = np.maximum(columns - 1, 0), np.minimum(columns, width - 1)
    y, x = np.stack([top, top, bottom, bottom]), np.stack([left, right, left, right])
    # At every pixel of a cell, the best class is at least as good as the worst corner of any class.
    least = logits[classes[:, None], y, x].min(axis=1).max(axis=0)
    cells = np.full((height + 1, width + 1), np.inf, np.float32)
    cells[rows, columns] = least
    upper = np.minimum(cells[:-1, :-1], cells[:-1, 1:])
    return np.minimum(upper, np.minimum(cells[1:, :-1], cells[1:, 1:]))


def _contested(logits: Float32, threshold: Float32) -> Labels:
    """Labels (2h, 2w) that hold in mixed cells; each class competes only where it reaches the threshold."""
    height, width = threshold.shape
    labels = np.zeros((2 * height, 2 * width), np.uint8)
    best = np.full(labels.shape, -np.inf, np.float32)
    cuts, bytes_ = np.empty(best.size, np.float32), np.empty(best.size, np.uint8)
    reaches = np.empty(threshold.shape, np.uint8)
    for index in _reaching(logits, threshold):
        plane = logits[index]
        np.greater_equal(plane, threshold, out=reaches.view(np.bool_))
        x, y, wide, high = cv2.boundingRect(reaches)
        if not wide:
            continue
        # Of the cells with a corner in there, all corners, and the finer pixels.
        (y0, y1), (up, down) = _between(y, y + high + 1, height)
        (x0, x1), (left, right) = _between(x, x + wide + 1, width)
        size = (2 * (x1 - x0), 2 * (y1 - y0))
        cut = cuts[: size[0] * size[1]].reshape(size[::-1])
        cv2.resize(plane[y0:y1, x0:x1], size, cut, interpolation=cv2.INTER_LINEAR)
        # What a border of the cut falsifies is left out.
        part = cut[up - 2 * y0 : down - 2 * y0, left - 2 * x0 : right - 2 * x0]
        wins = bytes_[: part.size].reshape(part.shape)
        _compete(part, index, best[up:down, left:right], labels[up:down, left:right], wins)
    return labels


def _reaching(logits: Float32, threshold: Float32) -> Iterable[int]:
    """The classes that reach the threshold somewhere; all of them where looking costs as much as it saves."""
    near = np.flatnonzero(threshold != np.inf)
    if not logits.flags.c_contiguous or len(near) > threshold.size // _SPARSE:
        return range(len(logits))
    values = logits.reshape(len(logits), -1).take(near, axis=1)
    found = (values >= threshold.reshape(-1)[near]).any(axis=1)
    return (int(index) for index in np.flatnonzero(found))


def _between(start: int, stop: int, count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of a range of cells along an axis of `count` logits: the ranges of corners and of finer pixels."""
    corners = max(start - 1, 0), min(stop, count)
    return corners, (max(2 * start - 1, 0), min(2 * stop - 1, 2 * count))


def label_confidence(
    logits: Float32,
    size: tuple[int, int],
    winners: Winners | None = None,
    temperature: float = 1.0,
) -> Float32:
    """(H, W) float32 softmax probabilities of the labels that `label_pixels` gives.

    Args:
        logits: (K, h, w) float32, finite.
        size: (height, width) of the result in pixels.
        winners: of these logits, where they are known.
        temperature: what logits are divided by.
    """
    peak = (winners or Winners.of(logits)).peak
    return resized(np.float32(1) / shares(logits, peak, temperature), size)


def shares(logits: Float32, peak: Float32, temperature: float = 1.0) -> Float32:
    """(h, w) float32: what all classes' exponentials are together where the largest is 1.

    Args:
        logits: (K, h, w) float32, finite.
        peak: (h, w), the largest of them.
        temperature: what logits are divided by.
    """
    cools, divisor = temperature != 1.0, np.float32(temperature)
    peak = peak / divisor if cools else peak
    total, term = np.zeros(peak.shape, np.float32), np.empty(peak.shape, np.float32)
    with np.errstate(under="ignore"):
        for plane in logits:  # one at a time, which stays in cache
            np.subtract(np.divide(plane, divisor, out=term) if cools else plane, peak, out=term)
            np.exp(term, out=term)
            np.add(total, term, out=total)
    return total


def energy(total: Float32, peak: Float32, temperature: float = 1.0) -> Float32:
    """(h, w) float32 free energy: minus the temperature times the logarithm of the exponentials' sum.

    The lower, the more the logits support some class; pixels unlike those of training have a higher
    one (Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020).

    Args:
        total: what `shares` gives.
        peak, temperature: as there.
    """
    return -(peak + np.float32(temperature) * np.log(total)).astype(np.float32, copy=False)


def resized(values: Float32, size: tuple[int, int]) -> Float32:
    """Numbers of the logits' grid, interpolated to (height, width)."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
