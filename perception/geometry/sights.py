"""Where the pixels of sensors' pictures look, by intrinsics and extrinsics; equal ones have one key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]
Key = tuple[Any, ...]

_ROUNDED = 5
"""Digits of rotations and metres by which two transforms are one: below a hundredth of a pixel."""


@dataclass(frozen=True, eq=False)
class Sight:
    """Where the pixels of a sensor's pictures look.

    Attributes:
        camera: its intrinsics, for pictures of this very size.
        extrinsics: from its optical frame to that of the rig's reference; None for the same frame.
    """

    camera: CameraModel
    extrinsics: RigidTransform | None = None

    @staticmethod
    def of(sample: Sample) -> Sight | None:
        """That of a picture; None without intrinsics, or where they are of another size."""
        camera = sample.camera
        if camera is None or (camera.height, camera.width) != sample.data.shape[:2]:
            return None
        return Sight(camera, sample.extrinsics)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.camera.height, self.camera.width

    @cached_property
    def key(self) -> Key:
        """Equal for what makes no difference to any pixel."""
        c, at = self.camera, self.extrinsics or RigidTransform.identity()
        place = np.round(np.append(at.rotation, at.translation), _ROUNDED) + 0.0  # no -0.0
        return c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.distortion, place.tobytes()

    def to(self, other: Sight) -> RigidTransform:
        """From this optical frame to that of another."""
        ours, theirs = (s.extrinsics or RigidTransform.identity() for s in (self, other))
        return theirs.inverse() @ ours

    def angle_to(self, other: Sight) -> float:
        """Radians between the optical axes."""
        return float(np.arccos(np.clip(self.to(other).rotation[2, 2], -1, 1)))


_KEPT = 32
"""Views that are kept: of all sensors and references of a robot, and of a calibration before."""


class Cache:
    """What was made of keys, the last ones of them.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._made: dict[Key, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Any]) -> Any:
        """What was made of a key before, else now; two threads may make the same at a time."""
        with self._lock:
            found = self._made.get(key)
        if found is None:
            found = make()
        with self._lock:
            self._made.pop(key, None)
            self._made[key] = found
            while len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
        return found
