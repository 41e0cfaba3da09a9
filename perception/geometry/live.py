"""What is known about sensors while they run: intrinsics, frames and a rig file, each as they come."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from perception.errors import CalibrationError
from perception.frame import Modality, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.rig import Rig, load_rig
from perception.geometry.transforms import RigidTransform

IMAGES: tuple[Modality, ...] = ("rgb", "depth", "thermal")


class LiveCalibration:
    """Gathers intrinsics, a frame tree and a rig file, and attaches what they say to samples.

    Intrinsics: the rig file's, otherwise the newest noted.  Extrinsics: by `source`, `file` or `tf`
    (the tree); `auto` takes the rig file's where it has some, otherwise the tree's.

    Args:
        source: `auto`, `tf` or `file`.
        reference_frame: optical frame of the reference camera; empty takes that of the first camera
            in canonical order whose intrinsics are known.
    """

    def __init__(self, source: str = "auto", reference_frame: str = "") -> None:
        self.source, self.reference_frame = source, reference_frame
        self.tree = FrameTree()
        self.rig = Rig({})
        self._cameras: dict[Modality, tuple[CameraModel, ...]] = {}
        self._lock = threading.Lock()

    def load(self, path: str) -> None:
        """Read a rig file; an empty path forgets the one before.

        Raises:
            CalibrationError: it cannot be read; what was known stays.
        """
        self.rig = load_rig(Path(path)) if path else Rig({})

    def note_camera(self, modality: Modality, *choices: CameraModel) -> None:
        """Take in intrinsics: of several, the one whose size an image has is attached to it."""
        with self._lock:
            if set(choices) != set(self._cameras.get(modality, ())):  # else their order stays
                self._cameras[modality] = choices

    def camera(self, modality: Modality) -> CameraModel | None:
        """Intrinsics of a camera, None when nothing is known."""
        own = self.rig.sensors.get(modality)
        if own is not None and own.camera is not None:
            return own.camera
        with self._lock:
            return next(iter(self._cameras.get(modality, ())), None)

    def offset_ns(self, modality: Modality) -> int:
        """What the rig file adds to a sensor's stamps."""
        own = self.rig.sensors.get(modality)
        return 0 if own is None else own.time_offset_ns

    def attach(self, sample: Sample) -> Sample:
        """The sample with what is known about its sensor.

        Raises:
            CalibrationError: the LiDAR's place is to come from TF, and TF does not say it.
        """
        modality = sample.modality
        if modality != "lidar":
            self._choose(modality, sample.data.shape[:2])
            return replace(sample, camera=self.camera(modality))
        own = self.rig.sensors.get("lidar")
        extrinsics = own.extrinsics if own is not None and self.source != "tf" else None
        camera = own.camera if own is not None else None
        if camera is None:
            camera = next((c for m in IMAGES if (c := self.camera(m)) is not None), None)
        if camera is None:
            raise CalibrationError(
                "no camera to project into",
                where="lidar",
                hint="camera_info of an image input, or a rig file",
            )
        frame = self.reference_frame or camera.frame_id
        if extrinsics is None and self.source != "file":
            extrinsics = self._from_tree(frame, sample)
        return replace(sample, camera=camera, extrinsics=extrinsics)

    def _choose(self, modality: Modality, size: tuple[int, ...]) -> None:
        """Put those of a camera's models first that have the size (height, width) of its image."""
        with self._lock:
            choices = self._cameras.get(modality, ())
            if len(choices) > 1:
                fitting = sorted(choices, key=lambda c: (c.height, c.width) != size)
                self._cameras[modality] = tuple(fitting)

    def _from_tree(self, frame: str, sample: Sample) -> RigidTransform:
        if not frame or not sample.frame_id:
            raise CalibrationError(
                "a frame has no name: cannot look up its transform",
                where="lidar",
                hint="set frame_id in the messages, reference_frame, or calibration_file",
            )
        return self.tree.lookup(frame, sample.frame_id, sample.stamp_ns)
