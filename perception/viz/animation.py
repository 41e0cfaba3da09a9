"""Short films: animated GIFs of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.extras import require
from perception.files.writing import writing


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

    for step, width in ((1, 720), (2, 720), (2, 560), (3, 480), (4, 400), (6, 320)):
        chosen = images[::step]
        scale = min(1.0, width / chosen[0].shape[1])
        size = (round(chosen[0].shape[1] * scale), round(chosen[0].shape[0] * scale))
        frames = [
            Image.fromarray(cv2.resize(i, size, interpolation=cv2.INTER_AREA)).quantize(96)
            for i in chosen
        ]
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
