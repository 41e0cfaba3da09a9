"""Labels of pixels and how sure they are, from class logits on a coarser grid."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Labels = NDArray[np.uint8]

_LEAST_CLASSES, _CLASSES_A_SHARE = 10, 90
"""Where looking at mixed cells alone pays: measured with 8 to 40 classes, on rooms and on noise."""

_MOST_OPEN = 1 / 12
"""Share of the cells up to which all classes are compared in these alone."""


def _most_mixed(classes: int) -> float:
    """Share of mixed cells up to which those are looked at alone; beyond it, all pixels are."""
    return (classes - _LEAST_CLASSES) / _CLASSES_A_SHARE


@dataclass(frozen=True)
class Winners:
    """The first class of the largest logit, on the logits' own grid.

    Attributes:
        peak: (h, w) float32, that logit.
        labels: (h, w) uint8, that class.
        second: (h, w) float32, the largest of the other classes.
    """

    peak: Float32
    labels: Labels
    second: Float32

    @staticmethod
    def of(logits: Float32) -> Winners:
        """Those of (K, h, w) logits, at most 256 classes."""
        peak = logits[0].copy()
        second = np.full(peak.shape, -np.inf, np.float32)
        labels, wins, least = np.zeros(peak.shape, np.uint8), *_memory(peak.shape)
        for index in range(1, len(logits)):
            np.maximum(second, np.minimum(logits[index], peak, out=least), out=second)
            _compete(logits[index], index, peak, labels, wins)
        return Winners(peak, labels, second)


def _memory(shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], Float32]:
    return np.empty(shape, np.uint8), np.empty(shape, np.float32)


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
    brought to `size`.  Where one class wins at all four logits around a pixel, it wins there. Elsewhere the
    winners at the four compete: any other class is at each of the four at most the second there, and so
    between them at most what is interpolated of the seconds. Only where none of the four exceeds that
    do all classes compete.

    Args:
        logits: (K, h, w) float32, finite.
        size: (height, width) of the result in pixels.
        winners: of these logits, where they are known.

    Returns:
        (H, W) uint8 class ids, the first of equal ones.
    """
    if _most_mixed(len(logits)) > 0:
        fine = _fine_labels(logits, winners or Winners.of(logits))
    else:
        fine = _every_pixel(logits)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_NEAREST).astype(
        np.uint8, copy=False
    )


def _fine_labels(logits: Float32, winners: Winners) -> Labels:
    coarse = winners.labels
    height, width = coarse.shape
    # A cell lies between four logits, and has four of the finer pixels in it; at the border two are one.
    framed = cv2.copyMakeBorder(coarse, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    mixed = framed[:-1, :-1] != framed[:-1, 1:]
    mixed |= framed[:-1, :-1] != framed[1:, :-1]
    mixed |= framed[:-1, :-1] != framed[1:, 1:]
    rows, columns = np.nonzero(mixed)
    if len(rows) > _most_mixed(len(logits)) * mixed.size:
        return _every_pixel(logits)
    # With a pixel around, so that each cell has its four.
    fine = cv2.resize(framed, (2 * width + 4, 2 * height + 4), interpolation=cv2.INTER_NEAREST)
    fine = fine[1:-1, 1:-1]
    if len(rows):
        found = _mixed_labels(logits, winners, rows, columns)
        if found is None:
            return _every_pixel(logits)
        for number, (down, right) in enumerate(np.ndindex(2, 2)):
            fine[2 * rows + down, 2 * columns + right] = found[number]
    return fine[1:-1, 1:-1]


def _mixed_labels(
    logits: Float32, winners: Winners, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Labels | None:
    """(4, N) labels of the four finer pixels, row by row, of cells (N,) in which several classes win; None
    where too many classes meet for this to pay.
    """
    classes, height, width = logits.shape
    top, bottom = np.maximum(rows - 1, 0) * width, np.minimum(rows, height - 1) * width
    left, right = np.maximum(columns - 1, 0), np.minimum(columns, width - 1)
    corners = np.stack([top + left, top + right, bottom + left, bottom + right])
    flat = np.ascontiguousarray(logits).reshape(-1)
    # In the order of their numbers, so that the first of equal ones wins.
    able = np.sort(winners.labels.reshape(-1)[corners], axis=0)
    values = _between(flat[able[:, None] * np.intp(height * width) + corners])
    best, found = values[0].copy(), np.repeat(able[:1], 4, axis=0)
    for label, value in zip(able[1:], values[1:], strict=True):
        np.copyto(found, label, where=value > best)
        np.maximum(best, value, out=best)
    limit = _between(winners.second.reshape(-1)[corners])
    open_ = np.flatnonzero((best <= limit).any(axis=0))
    if len(open_) > _MOST_OPEN * height * width:
        return None
    if len(open_):
        every = np.arange(classes, dtype=np.intp)[:, None, None] * (height * width)
        found[:, open_] = _between(flat[every + corners[:, open_]]).argmax(axis=0)
    return found


def _between(corners: Float32) -> Float32:
    """Four pixels (..., 4, N) a quarter inside of four corners (..., 4, N), row by row."""
    near, far = np.float32(0.75), np.float32(0.25)
    a, b, c, d = (corners[..., i, :] for i in range(4))
    # Along rows first, as OpenCV does it.
    up, down = (near * a + far * b, far * a + near * b), (near * c + far * d, far * c + near * d)
    four = [near * u + far * v for u, v in zip(up, down, strict=True)]
    four += [far * u + near * v for u, v in zip(up, down, strict=True)]
    return np.stack(four, axis=-2)


def _every_pixel(logits: Float32) -> Labels:
    size = (2 * logits.shape[2], 2 * logits.shape[1])
    best = cv2.resize(logits[0], size, interpolation=cv2.INTER_LINEAR)
    plane = np.empty_like(best)
    labels, wins = np.zeros(best.shape, np.uint8), np.empty(best.shape, np.uint8)
    for index in range(1, len(logits)):
        cv2.resize(logits[index], size, plane, interpolation=cv2.INTER_LINEAR)
        _compete(plane, index, best, labels, wins)  # type: ignore[arg-type]
    return labels


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
