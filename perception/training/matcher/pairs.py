"""What a matcher learns from: crops of two sensors' pictures with the homography between them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.registration.pictures import SIDE, filled, normalized, stretched
from perception.adapters.files import PICTURE_SUFFIXES, naming, picture_of
from perception.errors import DataError
from perception.files.listing import list_files
from perception.files.text import read_bytes
from perception.training.matcher.config import MatcherSpec, PairSource
from perception.training.matcher.made_up import disturbed, made_up

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_MOST = SIDE * 4 // 3
_FEWEST_VALID = 0.25


@dataclass(frozen=True)
class Pair:
    """Aligned pictures: `a` (H, W, 3) or (H, W), `b` (H, W) uint8, or None where it is made up."""

    name: str
    a: NDArray[np.uint8]
    b: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Crops:
    """Two crops and how they lie.

    Attributes:
        a, b: (2, crop, crop) float32, what the network gets.
        a_to_b: 3x3 between their pixels.
        valid_a, valid_b: (crop, crop) where each shows something.
    """

    a: Float32
    b: Float32
    a_to_b: Float64
    valid_a: NDArray[np.bool_]
    valid_b: NDArray[np.bool_]


def names_of(source: PairSource, split: str) -> list[str]:
    """The names of a source's pairs in a split, without suffix.

    Args:
        source: where the pictures are.
        split: train, val or test.

    Raises:
        DataError: there are none at all.
    """
    files = list_files(source.folder / source.a, PICTURE_SUFFIXES, error=DataError)
    chosen = [name for name in files if split_of(source, name) == split]
    return chosen[:: source.every] if split == "train" else chosen


def split_of(source: PairSource, name: str) -> str:
    """Which part a pair belongs to, by its name alone."""
    for split, patterns in (("test", source.test), ("val", source.val)):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return split
    return "train"


def load_pairs(
    source: PairSource, split: str, tell: Callable[[str, int, int], None] | None = None
) -> list[Pair]:
    """Read the pairs of a split, at most a third larger than registration works with.

    Raises:
        DataError: a picture is missing, or the two are of different shapes.
    """
    pairs = []
    names = names_of(source, split)
    first = list_files(source.folder / source.a, PICTURE_SUFFIXES, error=DataError)
    second = (
        list_files(source.folder / source.b, PICTURE_SUFFIXES, error=DataError) if source.b else {}
    )
    for index, name in enumerate(names):
        if tell is not None:
            tell("reading pairs", index, len(names))
        a = _read(first[name])
        b = None
        if source.b:
            if name not in second:
                raise DataError(f"no picture for {name}", where=str(source.folder / source.b))
            b = _gray(_read(second[name]))
            if b.shape != a.shape[:2]:
                raise DataError(
                    f"pictures of {name} differ in size: {a.shape[:2]} and {b.shape}",
                    where=str(source.folder),
                )
        pairs.append(Pair(name, a, b))
    return pairs


def _read(path: Path) -> NDArray[np.uint8]:
    with naming(path):
        image = picture_of(read_bytes(path), path).upright()
    scale = _MOST / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if image.dtype == np.uint8:
        return np.asarray(image)
    valid = np.isfinite(image)
    gray = stretched(np.nan_to_num(_gray(image).astype(np.float32)), valid.reshape(image.shape))
    if gray is None:
        raise DataError("one value everywhere", where=str(path))
    return np.asarray(np.clip(gray, 0, 1) * 255, np.uint8)


def _gray(image: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) if image.ndim == 3 else image


def crops_of(pair: Pair, spec: MatcherSpec, rng: np.random.Generator) -> Crops:
    """Draw two crops: one near the picture's own pixels, the other by a homography from it.

    Args:
        pair: whose pictures.
        spec: how far corners move, and how large crops are.
        rng: decides.
    """
    made = pair.b is None or rng.random() < spec.made_up
    first = _gray(pair.a).astype(np.float32)
    if pair.b is not None and not made:
        second = pair.b.astype(np.float32)
    elif pair.a.ndim == 3:
        second = made_up(pair.a, rng)
    else:
        second = made_up(np.repeat(pair.a[:, :, None], 3, axis=2), rng)
    if pair.b is not None and made and rng.random() < 0.3:
        first = pair.b.astype(np.float32)
    if rng.random() < 0.5:
        first, second = second, first
    return _crops(first, second, spec, rng)


def _crops(a: Float32, b: Float32, spec: MatcherSpec, rng: np.random.Generator) -> Crops:
    height, width = a.shape
    side = float(spec.crop)
    gentle = rng.random() < 0.4
    for _ in range(20):
        # How much of the picture the first crop shows: of its native size up to all of it.
        zoom = SIDE / max(height, width) * float(np.exp(rng.uniform(-0.5, 0.2)))
        reach = side / zoom
        low = np.minimum(0.0, (np.array([width, height]) - reach) / 2)
        high = np.maximum(low, np.array([width, height]) - reach - low)
        corner = rng.uniform(low, high)
        to_a = np.array([[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]], [0, 0, 1.0]])
        shift = _moved(side, spec, rng, gentle)
        to_b = shift @ to_a
        crop_a, valid_a = _warped(a, to_a, spec.crop, rng)
        crop_b, valid_b = _warped(b, to_b, spec.crop, rng)
        if min(valid_a.mean(), valid_b.mean()) > _FEWEST_VALID:
            break
    return Crops(normalized(crop_a, valid_a), normalized(crop_b, valid_b), shift, valid_a, valid_b)


def _moved(side: float, spec: MatcherSpec, rng: np.random.Generator, gentle: bool) -> Float64:
    """A homography of a crop: turned, scaled, shifted, and its corners moved one by one."""
    part = 0.25 if gentle else 1.0
    angle = np.deg2rad(spec.degrees * part * rng.uniform(-1, 1))
    scale = float(np.exp(np.log(spec.scale) * part * rng.uniform(-1, 1)))
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]]) - side / 2
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = corners @ turn.T + rng.uniform(-1, 1, (4, 2)) * spec.corners * part * side
    moved = moved + rng.uniform(-1, 1, 2) * 0.25 * part * side
    return np.asarray(
        cv2.getPerspectiveTransform(
            (corners + side / 2).astype(np.float32), (moved + side / 2).astype(np.float32)
        ),
        np.float64,
    )


def _warped(
    image: Float32, matrix: Float64, crop: int, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.bool_]]:
    """A crop, 0 to 1, and where it is valid; beyond the picture there is nothing, or its mirror image."""
    mirrored = rng.random() < 0.3
    border = cv2.BORDER_REFLECT if mirrored else cv2.BORDER_CONSTANT
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    if shrink < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / shrink)
    values = cv2.warpPerspective(
        image, matrix, (crop, crop), flags=cv2.INTER_LINEAR, borderMode=border
    )
    inside = cv2.warpPerspective(
        np.full(image.shape, 255, np.uint8), matrix, (crop, crop), flags=cv2.INTER_NEAREST
    )
    valid = inside > 0
    values = disturbed(values, rng)
    if not mirrored:
        values[~valid] = 0
    seen = (
        np.ones_like(valid) if mirrored else valid & ~filled(np.where(valid, values, values.min()))
    )
    gray = stretched(values, seen)
    if gray is None:
        return np.zeros_like(values), np.zeros_like(valid)
    return normal_fill(gray, seen), seen if not mirrored else seen & (inside > 0)


def normal_fill(gray: Float32, valid: NDArray[np.bool_]) -> Float32:
    """The picture with its mean where it is not valid."""
    return np.where(valid, gray, np.float32(gray[valid].mean()))
