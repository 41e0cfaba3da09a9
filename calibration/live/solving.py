"""From a folder of views to a rig: what the commands of `anysense calibrate` do, one after the other.

First the intrinsics of each camera that has none, then cameras by the first of them, then each LiDAR by it. A
step that is refused takes along only those that need it; a place that is not to be trusted does not go into
the rig.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.boards import Board
from calibration.cameras import calibrate_cameras
from calibration.detection import Detections, detect_folder
from calibration.extrinsics import Extrinsics, calibrate_lidar
from calibration.intrinsics import Intrinsics, calibrate
from calibration.plates import Plate
from calibration.rigs import Placed, with_intrinsics, with_placed
from calibration.scans import cloud_files
from perception.errors import AnySenseError
from perception.files.writing import without_nan
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig
from perception.geometry.transforms import RigidTransform

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """A sensor whose views lie in a folder.

    Attributes:
        name: in the rig.
        kind: which kind of sensor.
        folder: its pictures or clouds.
        picture: whether it has pictures.
        camera: its intrinsics, where they are known and stay.
        frame_id: its frame, where the rig does not say it.
    """

    name: str
    kind: str
    folder: Path
    picture: bool
    camera: CameraModel | None = None
    frame_id: str = ""


@dataclass(frozen=True)
class Step:
    """One part of the answer.

    Attributes:
        name: what was to be found.
        line: what was found, or why it was refused.
        trusted: whether nothing speaks against it.
        written: whether it is in the rig.
        result: all numbers, as `--json` of the command has them; empty where it was refused.
    """

    name: str
    line: str
    trusted: bool
    written: bool
    result: dict[str, Any]


@dataclass(frozen=True)
class Solved:
    """The answer.

    Attributes:
        rig: with what may be used in it; None where that is nothing.
        steps: what was done, in order.
    """

    rig: Rig | None
    steps: tuple[Step, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against any part of it."""
        return all(step.trusted for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        steps = {
            s.name: {"line": s.line, "trusted": s.trusted, "written": s.written, **s.result}
            for s in self.steps
        }
        plain: dict[str, Any] = without_nan({"trusted": self.trusted, "steps": steps})
        return plain


class Solver:
    """Solves the views of several sensors.

    Args:
        sources: at least one with pictures; others are placed by the first of them.
        board: that they show.
        plate: that it is on the middle of; needed where there are clouds.
        old: the rig that exists, which stays but for what is found.
        model: of the cameras, see `calibration.intrinsics.calibrate`.
        date, told: of what is found.
        progress: called with a text, what is done, and of how much.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        board: Board,
        plate: Plate | None,
        old: Rig | None,
        *,
        model: str = "auto",
        date: str,
        told: str,
        progress: Progress | None = None,
    ) -> None:
        self._sources, self._board, self._plate, self._old = sources, board, plate, old
        self._model, self._about = model, {"date": date, "source": told}
        self._tell = progress or (lambda *_: None)
        self._rig, self._written = old, False
        self._steps: list[Step] = []
        self._models: dict[str, CameraModel] = {}
        self._seen: dict[str, Detections] = {}

    def run(self) -> Solved:
        """Do it all."""
        cameras = [one for one in self._sources if one.picture]
        clouds = [one for one in self._sources if not one.picture]
        for one in cameras:
            self._try(f"intrinsics of {one.name}", self._intrinsics, one)
        first, *others = cameras
        if first.name in self._models:
            placed = [one for one in others if one.name in self._models]
            if placed:
                names = ", ".join(one.name for one in placed)
                self._try(f"place of {names}", self._cameras, first, placed)
            for one in clouds:
                self._try(f"place of {one.name}", self._cloud, first, one)
        rig = self._rig if self._written else None
        return Solved(rig and _apart(rig, [one.name for one in cameras]), tuple(self._steps))

    def _try(self, name: str, step: Callable[..., Step | None], *arguments: Any) -> None:
        self._tell(name, 0, 1)
        try:
            done = step(name, *arguments)
        except AnySenseError as error:
            done = Step(name, str(error), False, False, {})
        if done is not None:
            self._steps.append(done)

    def _progress(self, name: str) -> Progress:
        return lambda text, done, of: self._tell(f"{name}: {text}", done, of)

    def _intrinsics(self, name: str, one: Source) -> Step | None:
        seen = detect_folder(one.folder, self._board, self._progress(name))
        self._seen[one.name] = seen
        if one.camera is not None:
            self._models[one.name] = one.camera
            return None
        found = calibrate(seen, self._board, self._model, self._progress(name))
        kind = "" if one.kind == one.name else one.kind
        self._rig = with_intrinsics(
            self._rig, one.name, kind, found, frame_id=one.frame_id, **self._about
        )
        self._written = True
        self._models[one.name] = self._camera_in_rig(one.name, found)
        return Step(name, _said(found), found.trusted, True, found.to_dict())

    def _camera_in_rig(self, name: str, found: Intrinsics) -> CameraModel:
        assert self._rig is not None
        return self._rig.sensors[name].camera or found.camera

    def _cameras(self, name: str, first: Source, others: Sequence[Source]) -> Step:
        every = [first, *others]
        found = calibrate_cameras(
            {one.name: self._seen[one.name] for one in every},
            {one.name: self._models[one.name] for one in every},
            self._board,
        )
        kinds = {one.name: one.kind for one in every}
        placed = {
            other: Placed(place.transform, place.covariance, kinds[other], self._models[other])
            for other, place in found.places.items()
        }
        if found.trusted:
            self._place(first, placed, others)
        parts = [f"{n} {p.rms_px:.2f} px off in {p.poses} poses" for n, p in found.places.items()]
        return Step(
            name, _judged(parts, found.doubts), found.trusted, found.trusted, found.to_dict()
        )

    def _cloud(self, name: str, first: Source, cloud: Source) -> Step:
        assert self._plate is not None
        found = calibrate_lidar(
            self._seen[first.name],
            cloud_files(cloud.folder),
            self._models[first.name],
            self._board,
            self._plate,
            self._progress(name),
        )
        placed = {cloud.name: Placed(found.joint.transform, found.joint.covariance, cloud.kind)}
        if found.trusted:
            self._place(first, placed, [cloud])
        return Step(
            name,
            _judged([_told(found)], found.doubts),
            found.trusted,
            found.trusted,
            found.to_dict(),
        )

    def _place(self, first: Source, placed: dict[str, Placed], own: Sequence[Source]) -> None:
        rig = with_placed(
            self._rig, first.name, first.kind, self._models[first.name], placed, **self._about
        )
        frames = {one.name: one.frame_id for one in (first, *own) if one.frame_id}
        sensors = {
            name: replace(one, frame_id=one.frame_id or frames.get(name, ""))
            for name, one in rig.sensors.items()
        }
        self._rig, self._written = replace(rig, sensors=sensors), True


def _apart(rig: Rig, cameras: Sequence[str]) -> Rig:
    """The rig, where a camera that was not placed is not taken for aligned with the first: with a base."""
    bare = [name for name in cameras if name in rig.cameras and rig.sensors[name].pose is None]
    if rig.base or len(bare) < 2:
        return rig
    first, *lost = bare
    sensors = {}
    for name, own in rig.sensors.items():
        if name == first:
            own = replace(own, pose=Pose(RigidTransform.identity()))
        elif name in rig.cameras and own.pose is None and name not in lost:
            own = replace(own, aligned_with=own.aligned_with or first)
        sensors[name] = replace(own, extrinsics=None)
    return replace(rig, sensors=sensors, base=rig.sensors[first].frame_id or first, reference=first)


def _said(found: Intrinsics) -> str:
    line = (
        f"{found.fit.form.name}, {found.fit.rms_px:.2f} px, {len(found.views)} views, "
        f"{100 * (found.coverage > 0).mean():.0f} % of the picture"
    )
    return "; ".join([line, *found.remarks])


def _told(found: Extrinsics) -> str:
    sigma = 100 * float(np.linalg.norm(found.sigma[:3]))
    turn = float(np.degrees(np.linalg.norm(found.sigma[3:])))
    return (
        f"{found.rms_px:.1f} px off, {found.held_out_px:.1f} px in poses that were not fitted; "
        f"{len(found.pairs)} poses, known to {sigma:.1f} cm and {turn:.2f} degrees"
    )


def _judged(parts: Sequence[str], doubts: Sequence[str]) -> str:
    line = "; ".join(parts)
    return f"not to be trusted: {'; '.join(doubts)} ({line})" if doubts else line
