"""What is known about sensors while they run: intrinsics, frames and a rig file, each as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from perception.errors import CalibrationError
from perception.frame import Modality, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.rig import Rig, load_rig
from perception.geometry.transforms import RigidTransform

IMAGES: tuple[Modality, ...] = ("rgb", "depth", "thermal")


_SAME_VIEW = 0.02
"""Largest difference of two views that pass for one, as a share of the picture's size."""


def _other_view(name: str, first: str, camera: CameraModel, reference: CameraModel) -> str:
    """What tells two cameras' views apart, empty when they are one; pictures may differ in size."""
    for value, size in (("fx", "width"), ("fy", "height"), ("cx", "width"), ("cy", "height")):
        ours = getattr(camera, value) / getattr(camera, size)
        wanted = getattr(reference, value) / getattr(reference, size)
        if abs(ours - wanted) > _SAME_VIEW * max(1.0, wanted):
            return f"{name}: {value} is {ours:.3f} of the {size}, {first}'s {wanted:.3f}"
    return ""


class LiveCalibration:
    """Gathers intrinsics, a frame tree and a rig file, and attaches what they say to samples.

    Intrinsics: the rig file's, otherwise the newest noted.  Extrinsics: by `source`, `file` or `tf`
    (the tree); `auto` takes the rig file's where it has some, otherwise the tree's.

    Args:
        source: `auto`, `tf` or `file`.
        reference_frame: optical frame of the reference camera; empty takes that of the first camera
            in canonical order whose intrinsics are known.
        max_age_ns: how much older than a sample a transform that changes may be; None for any age.

    Attributes:
        unaligned: by image sensor, why its pixels are not those of the first image sensor: another
            frame, or other intrinsics.  They are fused as if they were.
        on_missing: called, on the thread that attaches, when the tree lacks a transform or its last
            one is too old.
    """

    def __init__(
        self, source: str = "auto", reference_frame: str = "", max_age_ns: int | None = None
    ) -> None:
        self.source, self.reference_frame = source, reference_frame
        self.max_age_ns = max_age_ns
        self.unaligned: dict[Modality, str] = {}
        self.on_missing: Callable[[], None] = lambda: None
        self._looked_up: tuple[str, str] | None = None
        self._image_frames: dict[Modality, str] = {}
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
            self._compare(modality, sample.frame_id)
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
        self._looked_up = frame, sample.frame_id
        try:
            return self.tree.lookup(
                frame, sample.frame_id, sample.stamp_ns, max_age_ns=self.max_age_ns
            )
        except CalibrationError:
            self.on_missing()
            raise

    def follows_changes(self) -> bool:
        """Whether what was looked up last in the tree is unknown or may change over time."""
        return self._looked_up is None or not self.tree.is_static(*self._looked_up)

    def sources(self) -> list[str]:
        """What is known, by where it comes from, such as `rgb camera_info`; empty for nothing."""
        with self._lock:
            live = {m for m, choices in self._cameras.items() if choices}
        found = []
        for modality in IMAGES:
            own = self.rig.sensors.get(modality)
            if own is not None and own.camera is not None:
                found.append(f"{modality} rig file")
            elif modality in live:
                found.append(f"{modality} camera_info")
        own = self.rig.sensors.get("lidar")
        if own is not None and own.extrinsics is not None and self.source != "tf":
            found.append("lidar rig file")
        elif self._looked_up is not None and self.tree.connects(*self._looked_up):
            found.append("lidar tf")
        return found

    def needs_tree(self, inputs: Collection[Modality]) -> bool:
        """Whether transforms from the tree are used for any of these sensors."""
        own = self.rig.sensors.get("lidar")
        placed = own is not None and own.extrinsics is not None
        return "lidar" in inputs and self.source != "file" and (self.source == "tf" or not placed)

    def _compare(self, modality: Modality, frame: str) -> None:
        """Note in `unaligned` whether a sensor's pixels are those of the first image sensor."""
        with self._lock:
            self._image_frames[modality] = frame.lstrip("/")
            first = next(m for m in IMAGES if m in self._image_frames)
            frames = self._image_frames[first], self._image_frames[modality]
        if modality == first:
            return
        line = ""
        if all(frames) and frames[0] != frames[1]:
            line = f"{modality}: in frame '{frames[1]}', {first} in '{frames[0]}'"
        else:
            one, other = self.camera(first), self.camera(modality)
            if one is not None and other is not None:
                line = _other_view(modality, first, other, one)
        if line:
            self.unaligned[modality] = f"{line}: fused as if registered, which it is not"
        else:
            self.unaligned.pop(modality, None)
