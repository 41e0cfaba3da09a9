"""Short films: animated GIFs of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.extras import require
from perception.files.writing import writing

_COLORS = 192


def write_gif(
    images: Sequence[NDArray[np.uint8]], path: Path, *, fps: float = 6.0, max_bytes: int = 3_000_000
) -> None:
    """Write an animated GIF, made smaller until it fits.

    Args:
        images: (H, W, 3) uint8 RGB, all of one size.
        path: the file.
        fps: frames per second.
        max_bytes: frames are thinned out and shrunk until the file is no larger.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    require("writing a GIF", "PIL")
    from PIL import Image

    palette = _palette(images)
    nearest = _nearest(np.array(palette.getpalette(), np.int32).reshape(-1, 3)[:_COLORS])
    for step, width in ((1, 720), (2, 720), (2, 560), (3, 480), (4, 400), (6, 320)):
        chosen = images[::step]
        scale = min(1.0, width / chosen[0].shape[1])
        size = (round(chosen[0].shape[1] * scale), round(chosen[0].shape[0] * scale))
        frames = []
        for image in chosen:
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) >> 3
            r, g, b = cv2.split(small.astype(np.uint16))
            frames.append(Image.fromarray(nearest[(r << 10) | (g << 5) | b], "P"))
            frames[-1].putpalette(palette.getpalette() or [])
        with writing(path) as partial:
            frames[0].save(
                partial,
                save_all=True,
                append_images=frames[1:],
                duration=round(1000 * step / fps),
                loop=0,
                optimize=False,
            )
        if path.stat().st_size <= max_bytes:
            return


def _palette(images: Sequence[NDArray[np.uint8]]) -> Any:
    """Colors for the whole film, as a picture of Pillow's that has them."""
    from PIL import Image

    some = images[:: -(-len(images) // 12)]
    thumbs = [cv2.resize(i, (240, 160), interpolation=cv2.INTER_NEAREST) for i in some]
    return Image.fromarray(np.vstack(thumbs)).quantize(_COLORS)


def _nearest(colors: NDArray[np.int32]) -> NDArray[np.uint8]:
    """By the upper five bits of red, green and blue, the color that is nearest: 32768 indices.

    One table for all frames, where Pillow would choose colors for each and spread its errors: a tenth of
    the time, and what does not move stays the same, which compresses.
    """
    bits = np.arange(1 << 15, dtype=np.int32)
    cells = np.stack([bits >> 10, (bits >> 5) & 31, bits & 31], axis=1) * 8 + 4
    found = np.empty(len(cells), np.uint8)
    for start in range(0, len(cells), 4096):
        part = cells[start : start + 4096]
        found[start : start + 4096] = ((part[:, None] - colors) ** 2).sum(axis=2).argmin(axis=1)
    return found
