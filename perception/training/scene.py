"""Augmentation of scenes whose inputs lie on the ground: everything moves together.

A scene is mirrored, turned and scaled as a whole.  Points and pictures stay what their sensors saw; what
moves is where the sensors sit on the vehicle, from which pillars and tables of pixels follow, and the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.data.base import TruthBoxes3d
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.sensors.registry import kind_of

_P2 = {"plumb_bob": 3, "rational_polynomial": 3, "omni": 4}
"""Where the coefficient of tangential distortion stands whose sign a mirror changes."""

_JITTER_DEG, _JITTER_M = 0.3, 0.03


class SceneSpec(BaseModel):
    """How scenes are moved in training where inputs lie on the ground.

    Attributes:
        mirror: how often left and right change places.
        turn_deg: largest angle about the vehicle, either way.
        scale: of all distances, from and to.
        paste: objects of other frames that are put into one, at most; see `training.pasting`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    mirror: float = Field(0.5, ge=0, le=1)
    turn_deg: float = Field(20.0, ge=0, le=180)
    scale: tuple[float, float] = (0.95, 1.05)
    paste: int = Field(0, ge=0, le=100)

    @model_validator(mode="after")
    def _in_order(self) -> SceneSpec:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError("scale must be (from, to) with 0 < from <= to")
        return self

    def drawn(self, rng: np.random.Generator) -> SceneMove:
        """A random move."""
        turn = np.radians(rng.uniform(-1, 1) * self.turn_deg)
        scale = rng.uniform(*self.scale)
        return SceneMove(bool(rng.random() < self.mirror), float(turn), float(scale))


@dataclass(frozen=True)
class SceneMove:
    """Left and right changed or not, then distances scaled, then turned about z by an angle in radians."""

    mirror: bool = False
    turn: float = 0.0
    scale: float = 1.0

    @property
    def rotation(self) -> RigidTransform:
        """The turn."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.zeros(3))

    def boxes(self, boxes: TruthBoxes3d) -> TruthBoxes3d:
        """Boxes of the base frame where they are then."""
        side = np.array([1.0, -1.0 if self.mirror else 1.0, 1.0])
        moved = replace(
            boxes,
            center=boxes.center * side * self.scale,
            size=boxes.size * self.scale,
            yaw=boxes.yaw * side[1],
            velocity=boxes.velocity * side[:2] * self.scale,
        )
        return moved.moved(self.rotation, boxes.frame)

    def sample(self, sample: Sample) -> Sample:
        """What a sensor would have seen of the moved scene, and where it would sit."""
        assert sample.pose is not None
        measures = kind_of(sample.kind).distances is not None
        found = sample
        rotation, place = sample.pose.rotation, sample.pose.translation
        if self.mirror:
            found = _mirrored(sample)
            own = np.diag([-1.0, 1, 1] if kind_of(sample.kind).has_picture else [1.0, -1, 1])
            side = np.diag([1.0, -1, 1])
            rotation, place = side @ rotation @ own, side @ place
        if self.scale != 1 and not kind_of(sample.kind).has_picture:
            points = np.array(found.data)
            points[:, :3] *= np.asarray(self.scale, points.dtype)
            found = replace(found, data=points)
        elif self.scale != 1 and measures:
            found = replace(found, data=found.data * np.float32(self.scale))
        return replace(found, pose=self.rotation @ RigidTransform(rotation, place * self.scale))


def can_mirror(camera: CameraModel | None) -> bool:
    """Whether the picture's mirror image is one that some camera of its model sees."""
    return camera is None or camera.distortion_model in {"none", "equidistant", *_P2}


def _mirrored(sample: Sample) -> Sample:
    if not kind_of(sample.kind).has_picture:
        points = np.array(sample.data)
        points[:, 1] *= -1
        return replace(sample, data=points)
    camera = sample.camera
    if camera is not None:
        values = list(camera.distortion)
        if (at := _P2.get(camera.distortion_model)) is not None:
            values[at] *= -1
        camera = replace(camera, cx=camera.width - 1 - camera.cx, distortion=tuple(values))
    return replace(sample, data=np.ascontiguousarray(sample.data[:, ::-1]), camera=camera)


def displaced(sample: Sample, rng: np.random.Generator) -> Sample:
    """A sensor that does not sit quite where its calibration says."""
    angles = np.radians(rng.normal(0, _JITTER_DEG, 3)) / 2
    off = RigidTransform.from_quaternion_xyzw([*angles, 1.0], np.zeros(3))
    assert sample.pose is not None
    found = sample.pose @ off
    shift = rng.normal(0, _JITTER_M, 3)
    return replace(sample, pose=RigidTransform(found.rotation, found.translation + shift))


def moved(
    samples: Mapping[str, Sample], move: SceneMove, misaligned: float, rng: np.random.Generator
) -> dict[str, Sample]:
    """All sensors of a scene moved, and each displaced with a probability of its own."""
    found = {}
    for name, sample in samples.items():
        wrong = rng.random() < misaligned
        own = move.sample(sample)
        found[name] = displaced(own, rng) if wrong else own
    return found
