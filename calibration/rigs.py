"""Putting what a calibration found into a rig, which may exist and keep what it says of other sensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, mounted
from perception.geometry.transforms import Float64, RigidTransform

if TYPE_CHECKING:
    from calibration.intrinsics import Intrinsics


@dataclass(frozen=True)
class Placed:
    """Where a sensor was found.

    Attributes:
        transform: from its frame to that of the camera it was calibrated with.
        covariance: (6, 6) as of `perception.geometry.rig.Pose`, about the axes of that camera.
        kind: which kind of sensor.
        camera: its intrinsics, None of a cloud.
    """

    transform: RigidTransform
    covariance: Float64 | None
    kind: str
    camera: CameraModel | None = None


def with_intrinsics(
    old: Rig | None,
    name: str,
    kind: str,
    found: Intrinsics,
    *,
    date: str,
    source: str,
    frame_id: str = "",
) -> Rig:
    """A rig with a camera's intrinsics in it.

    Args:
        old: the rig that exists, which stays but for them; None for a new one.
        name: the camera's.
        kind: its kind; empty where that is its name.
        found: what was found.
        date, source: told of it.
        frame_id: its optical frame, where the rig does not say it.

    Raises:
        AnySenseError: names or kinds that cannot be.
    """
    sensors = {} if old is None else dict(old.sensors)
    before = sensors.get(name, SensorCalibration())
    frame = before.frame_id or frame_id
    camera = replace(found.camera, frame_id=frame)
    sensors[name] = replace(
        before,
        camera=camera,
        camera_sigma=tuple(found.fit.sigma[: 4 + len(camera.distortion)]),
        frame_id=frame,
        kind=kind,
        date=date,
        source=source,
    )
    return Rig(sensors) if old is None else replace(old, sensors=sensors)


def with_placed(
    old: Rig | None,
    origin: str,
    kind: str,
    camera: CameraModel,
    found: Mapping[str, Placed],
    *,
    date: str,
    source: str,
) -> Rig:
    """A rig with sensors placed by a camera.

    Args:
        old: the rig that exists, whose other sensors stay as they are; None for a new one.
        origin: the camera's name.
        kind: its kind.
        camera: its intrinsics.
        found: sensors by name.
        date, source: told of each of them.

    Raises:
        CalibrationError: the rig does not say where the camera is, or they are too far apart.
        AnySenseError: names or kinds that cannot be.
    """
    sensors = {} if old is None else dict(old.sensors)
    own = sensors.get(origin, SensorCalibration())
    if old is not None and old.base and own.pose is None:
        raise CalibrationError(
            f"the rig does not say where '{origin}' is in '{old.base}'",
            where="--out",
            hint="give its pose there, or write to a new file",
        )
    at = RigidTransform.identity() if own.pose is None else own.pose.transform
    sigma = own.camera_sigma if own.camera == camera else ()
    frame = replace(camera, frame_id=camera.frame_id or (own.camera.frame_id if own.camera else ""))
    sensors[origin] = replace(own, camera=frame, camera_sigma=sigma, kind=own.kind or kind)
    for name, place in found.items():
        before = sensors.get(name, SensorCalibration())
        turned = None
        if place.covariance is not None:  # the rig's base has other axes than the camera
            turn = np.kron(np.eye(2), at.rotation)
            turned = turn @ place.covariance @ turn.T
            turned = (turned + turned.T) / 2
        sensors[name] = replace(
            before,
            camera=place.camera or before.camera,
            camera_sigma=before.camera_sigma if place.camera in (None, before.camera) else (),
            extrinsics=None,
            pose=Pose(mounted(at @ place.transform), turned),
            kind=before.kind or place.kind,
            aligned_with="",
            date=date,
            source=source,
        )
    if old is None:
        return Rig(sensors)
    cleared = {
        name: one if name in found or one.pose else replace(one, extrinsics=None)
        for name, one in sensors.items()
    }
    return replace(old, sensors=cleared)


def with_offsets(
    rig: Rig,
    reference: str,
    offsets: Mapping[str, tuple[int, float]],
    *,
    date: str,
    source: str,
) -> Rig:
    """The rig with time offsets of sensors, which were found to the clock of another one.

    Args:
        rig: that exists.
        reference: the sensor whose clock counted; its own offset, where the rig has one, is added.
        offsets: by sensor, what is added to its stamps for that clock, and its standard deviation, ns.
        date, source: told of each of them.
    """
    own = rig.sensors.get(reference)
    more = 0 if own is None else own.time_offset_ns
    found = {
        name: replace(
            rig.sensors[name],
            time_offset_ns=offset + more,
            offset_sigma_ns=sigma,
            date=date,
            source=source,
        )
        for name, (offset, sigma) in offsets.items()
    }
    return replace(rig, sensors={**rig.sensors, **found})
