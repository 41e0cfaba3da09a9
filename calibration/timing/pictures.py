"""How a camera turned between pictures: the usual flow of corners, whatever kind of picture it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.timing.motion import Motion, motion_of
from perception.geometry.flow import small_gray, turn_between
from perception.geometry.transforms import Float64


class PictureMotion:
    """Takes a camera's pictures one after the other; `motion` is what came of them."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._turns: list[Float64 | None] = []
        self._last: NDArray[np.uint8] | None = None
        self._dropped = 0

    def push(self, stamp_ns: int, picture: NDArray[Any]) -> None:
        """The next picture: (H, W) or (H, W, C) of any type; what is not finite is taken as 0."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            self._dropped += 1
            return
        small = small_gray(picture)
        if self._last is not None:
            same = self._last.shape == small.shape
            self._turns.append(turn_between(self._last, small) if same else None)
        self._stamps.append(stamp_ns)
        self._last = small

    def motion(self) -> Motion:
        """Turns to the right, downwards (radians where the focal length is the width) and about the view.

        Raises:
            DataError: fewer than three pictures.
        """
        return motion_of(self._stamps, self._turns, self._dropped)
