"""Checking a rig against a recording: no board, no truth, a verdict for each sensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.alignment import (
    FEWEST_EDGES,
    LEAST_CONTRAST,
    REACH_DEG,
    Alignment,
    Edges,
    align,
    edges_of_cloud,
)
from perception.errors import CalibrationError
from perception.frame import Frame, Sample
from perception.geometry.rig import Rig
from perception.sensors.names import has_picture, is_projected

Verdict = Literal["ok", "suspect", "cannot tell"]
TOLERANCE_DEG = 0.5
"""By how much a rig may be off about x and y."""

_ROLL = 2.0
"""What is allowed about z, in tolerances: it moves the middle of a picture little, and is known worse."""

_SURE = 3.0
_NAMES = ("pitch", "yaw", "roll")


@dataclass(frozen=True)
class PairCheck:
    """One camera and one LiDAR.

    Attributes:
        camera, cloud: their names.
        verdict: of the two together.
        reason: in a line.
        found: what the verdict is from.
    """

    camera: str
    cloud: str
    verdict: Verdict
    reason: str
    found: Alignment

    def to_dict(self) -> dict[str, Any]:
        """Plain values: rotations in degrees about the camera's optical x, y, z axes."""
        found = self.found
        return {
            "camera": self.camera,
            "cloud": self.cloud,
            "verdict": self.verdict,
            "reason": self.reason,
            "frames": found.frames,
            "edges": found.edges,
            "score": found.score,
            "best_score": found.best,
            "contrast": found.contrast,
            "is_maximum": found.is_maximum,
            "offset_deg": list(found.offset_deg),
            "sigma_deg": list(found.sigma_deg),
            "perturbed": [
                {"axis": axis, "deg": away, "score": score}
                for (axis, away), score in found.perturbed.items()
            ],
        }


@dataclass(frozen=True)
class RigCheck:
    """A rig on a recording.

    Attributes:
        pairs: each camera with each LiDAR.
        sensors: verdict and reason of each sensor of the rig.
    """

    pairs: tuple[PairCheck, ...]
    sensors: Mapping[str, tuple[Verdict, str]]

    @property
    def verdict(self) -> Verdict:
        """`suspect` if any sensor is, `ok` if all that could be told are."""
        told = {verdict for verdict, _ in self.sensors.values()}
        return "suspect" if "suspect" in told else "ok" if "ok" in told else "cannot tell"


def check_rig(
    rig: Rig,
    frames: Iterable[Frame],
    tolerance_deg: float = TOLERANCE_DEG,
    progress: Callable[[str, int, int], None] | None = None,
) -> RigCheck:
    """Compare the edges of clouds with those of pictures at the rig's poses and beside them.

    Only rotations are told.  A sensor that sits elsewhere than the rig says looks turned: 10 cm sideways like
    about half a degree where things are 10 m away.

    Args:
        rig: what is checked; sensors are called as in the frames.
        frames: as the recording gives them; of a scene with things that stand out.
        tolerance_deg: by how much the rig may be off about x and y; twice as much about z.
        progress: called with a text, the number of pairs done, and of all.

    Raises:
        CalibrationError: the rig and the recording share no camera and LiDAR, or pictures are of another size
        than
            the rig says.
    """
    cameras, lidars = checkable(rig)
    pictures: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in cameras}
    clouds: dict[str, dict[int, Edges]] = {name: {} for name in lidars}
    names = dict[str, str]()
    for index, frame in enumerate(frames):
        for name, sample in frame.items():
            names[name] = sample.kind
            if name in pictures:
                pictures[name][index] = gray_picture(sample, rig)
            elif name in clouds:
                clouds[name][index] = edges_of_cloud(sample.data)
    pairs = [(c, p) for c in cameras for p in lidars if pictures[c] and clouds[p]]
    if not pairs:
        seen = ", ".join(f"{name} ({kind})" for name, kind in names.items()) or "nothing"
        own = ", ".join(f"{name} ({kind})" for name, kind in rig.kinds.items())
        raise CalibrationError(
            f"the recording has {seen}, the rig {own}: no camera and LiDAR in both",
            hint="the rig has to say where both sit, and the camera's intrinsics",
        )
    found = []
    for done, (camera, lidar) in enumerate(pairs):
        if progress is not None:
            progress("comparing edges", done, len(pairs))
        both = sorted(pictures[camera].keys() & clouds[lidar].keys())
        model = rig.sensors[camera].camera
        assert model is not None
        one = align(
            [(pictures[camera][i], clouds[lidar][i]) for i in both],
            model,
            rig.between(lidar, camera),
        )
        found.append(PairCheck(camera, lidar, *judge(one, tolerance_deg), one))
    return RigCheck(tuple(found), _by_sensor(rig, found))


def checkable(rig: Rig) -> tuple[list[str], list[str]]:
    """Cameras with intrinsics, and LiDARs, whose place the rig knows."""
    cameras, lidars = list[str](), list[str]()
    for name, kind in rig.kinds.items():
        own = rig.sensors[name]
        if has_picture(kind) and own.camera is not None and (own.pose or not rig.base):
            cameras.append(name)
        elif is_projected(kind) and own.pose is not None:
            lidars.append(name)
    return cameras, lidars


def gray_picture(sample: Sample, rig: Rig) -> NDArray[Any]:
    """A picture as (H, W) from 0 to 255.

    Raises:
        CalibrationError: it is of another size than the rig says.
    """
    data, camera = sample.data, rig.sensors[sample.sensor].camera
    height, width = data.shape[:2]
    assert camera is not None
    if (camera.width, camera.height) != (width, height):
        raise CalibrationError(
            f"pictures have {width}x{height} pixels, the rig says {camera.width}x{camera.height}",
            where=sample.sensor,
        )
    if data.ndim == 3 and data.shape[2] == 3 and data.dtype == np.uint8:
        return np.asarray(cv2.cvtColor(data, cv2.COLOR_RGB2GRAY))
    return scaled(data if data.ndim == 2 else data[..., 0])


def scaled(picture: NDArray[Any]) -> NDArray[Any]:
    """A picture (H, W) of any unit as float32 from 0 to 255; what is not finite is 0."""
    values = picture.astype(np.float32)
    good = np.isfinite(values)
    low, high = np.percentile(values[good], (1, 99)) if good.any() else (0.0, 1.0)
    found = (values - low) / max(float(high - low), 1e-6) * 255
    return np.where(good, found, 0).clip(0, 255).astype(np.float32)


def judge(found: Alignment, tolerance_deg: float) -> tuple[Verdict, str]:
    """The verdict of an alignment, and why in a line."""
    if found.edges < FEWEST_EDGES:
        return (
            "cannot tell",
            f"{found.edges} edges in clouds, {FEWEST_EDGES} are needed: record more frames",
        )
    if found.contrast < LEAST_CONTRAST:
        return (
            "cannot tell",
            f"edges fit nowhere within {REACH_DEG:g} degrees: further off, of other moments, or too few",
        )
    limits = [tolerance_deg, tolerance_deg, tolerance_deg * _ROLL]
    both = list(zip(_NAMES, found.offset_deg, found.sigma_deg, limits, strict=True))
    told = ", ".join(f"{name} {value:+.2f} (sigma {sigma:.2f})" for name, value, sigma, _ in both)
    if any(abs(v) > limit and abs(v) > _SURE * sigma for _, v, sigma, limit in both):
        return "suspect", f"off by {told} degrees"
    loose = [
        name for name, value, sigma, limit in both[:2] if sigma > limit / 2 or abs(value) > limit
    ]
    if loose:
        return "cannot tell", f"{' and '.join(loose)} not known well enough: {told} degrees"
    return "ok", f"within {tolerance_deg:g} degrees: {told}"


def _by_sensor(rig: Rig, pairs: Sequence[PairCheck]) -> dict[str, tuple[Verdict, str]]:
    """A sensor that fits one other is ok, one that fits none and is off from one suspect."""
    found: dict[str, tuple[Verdict, str]] = {}
    for name in rig.sensors:
        own = [pair for pair in pairs if name in (pair.camera, pair.cloud)]
        best: tuple[Verdict, str] = ("cannot tell", "no other sensor to compare it with")
        for verdict in ("ok", "suspect", "cannot tell"):
            fitting = [pair for pair in own if pair.verdict == verdict]
            if fitting:
                pair = fitting[0]
                other = pair.cloud if name == pair.camera else pair.camera
                best = pair.verdict, f"to {other}: {pair.reason}"
                break
        found[name] = best
    return found
