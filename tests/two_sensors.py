"""Made-up scenes as two sensors see them: the same shapes, each with a brightness of its own."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def scene(seed: int, width: int = 480, height: int = 360) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two aligned (H, W) uint8 pictures of some dozens of things."""
    rng = np.random.default_rng(seed)
    a, b = np.full((2, height, width), 120, np.uint8)
    a[: height // 2], b[: height // 2] = rng.integers(20, 230, 2)
    for _ in range(45):
        at = rng.uniform([0, 0], [width, height])
        size = rng.uniform(10, 70, 2)
        if rng.random() < 0.5:
            box = cv2.boxPoints((tuple(at), tuple(size), float(rng.uniform(0, 90))))
            shape = [np.int32(box)]
        else:
            shape = [
                cv2.ellipse2Poly(np.int32(at).tolist(), np.int32(size / 2).tolist(), 0, 0, 360, 20)
            ]
        for picture in (a, b):
            cv2.fillPoly(picture, shape, int(rng.integers(10, 245)))
    blurred = [cv2.GaussianBlur(x, (0, 0), s).astype(np.float32) for x, s in ((a, 0.7), (b, 1.3))]
    noisy = [np.clip(x + rng.normal(0, 3, x.shape), 1, 255).astype(np.uint8) for x in blurred]
    return noisy[0], noisy[1]


def homography(
    width: int, height: int, share: float, degrees: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A turn about the middle, then every corner moved by up to a share of the size."""
    at = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * rng.uniform(-1, 1), 1.0)
    to = at @ turn[:, :2].T + turn[:, 2] + rng.uniform(-1, 1, (4, 2)) * share * [width, height]
    return np.asarray(cv2.getPerspectiveTransform(np.float32(at), np.float32(to)), np.float64)


def corner_error(found: Any, truth: Any, shape: tuple[int, ...]) -> float:
    """Mean distance of a picture's corners, mapped by both, in pixels."""
    height, width = shape[:2]
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    gap = cv2.perspectiveTransform(corners, np.asarray(found, np.float64))
    return float(np.linalg.norm(gap - cv2.perspectiveTransform(corners, truth), axis=2).mean())
