"""Made-up scenes as two sensors see them: the same shapes, each with a brightness of its own."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

A = CameraModel(480, 360, 420.0, 421.0, 238.0, 182.0)
B = CameraModel(400, 300, 330.0, 331.0, 202.0, 148.0, "plumb_bob", (-0.05, 0.01, 0.0, 0.0, 0.0))
"""The cameras of `seen_by_b`."""


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


def hills(seed: int) -> NDArray[np.float64]:
    """(360, 480) metres, from near 1.3 to 3: no homography joins two views of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:360, 0:480]
    waves = np.sin(x / 90 + rng.uniform(0, 6)) + np.cos(y / 75 + rng.uniform(0, 6))
    return np.asarray(2.1 + 0.4 * waves, np.float64)


def seen_by_b(
    picture: NDArray[Any], depth: NDArray[np.float64], pose: RigidTransform
) -> NDArray[np.uint8]:
    """What B sees of a picture of A, by fixed-point iteration; the surface is smooth."""
    y, x = np.mgrid[0 : B.height, 0 : B.width]
    target = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    at = target * [A.width / B.width, A.height / B.height]
    for _ in range(60):
        z = cv2.remap(depth, *at.T.astype(np.float32).reshape(2, B.height, B.width), 1,
                      borderMode=cv2.BORDER_REPLICATE).ravel()  # fmt: skip
        put = B.project(pose.apply(A.unproject(at, z)))[0]
        at = at + (target - put) * A.fx / B.fx * 0.8
    maps = at.astype(np.float32).reshape(B.height, B.width, 2)
    return np.asarray(cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR), np.uint8)


def truth(seed: int, baseline: float = 0.15) -> RigidTransform:
    rng = np.random.default_rng(seed + 50)
    turn = cv2.Rodrigues(np.radians(rng.uniform(-3, 3, 3)))[0]
    move = rng.normal(0, 1, 3) * [1, 0.6, 0.4]
    return RigidTransform(turn, baseline * move / np.linalg.norm(move))
