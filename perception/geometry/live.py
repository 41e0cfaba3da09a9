"""What is known about sensors while they run: intrinsics, frames and a rig file, each as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from perception.errors import CalibrationError
from perception.frame import KINDS, Kind, Sample, in_order
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.rig import BASE_FRAME, Rig, load_rig
from perception.geometry.transforms import RigidTransform
from perception.sensors.names import has_picture, is_projected

_SAME_VIEW = 0.02
"""Largest difference of two views that pass for one, as a share of the picture's size."""


class LiveCalibration:
    """Gathers intrinsics, a frame tree and a rig file, and attaches what they say to samples.

    Intrinsics: the rig file's, otherwise the newest noted.  Extrinsics: by `source`, `file` or `tf`
    (the tree); `auto` takes the rig file's where it has some, otherwise the tree's.

    A picture gets extrinsics, too, where the rig file has its pose, or it is in another frame than the
    reference's and the tree connects both: it is then known how to register it.  What is not found is left
    open.

    A sensor of `ground` gets its pose on the vehicle: the rig file's, otherwise that of the tree, from its
    own frame to the base frame.

    A LiDAR is projected into the camera that `into` says, else that whose intrinsics the rig file gives
    it, else the rig's reference, else the first camera, as `kinds` are ordered, whose intrinsics are known.

    Args:
        source: `auto`, `tf` or `file`.
        reference_frame: optical frame of the reference camera; empty takes that of the camera that a
            LiDAR is projected into.  Where `into` names one, that one's own goes first.
        max_age_ns: how much older than a sample a transform that changes may be; None for any age.
        kinds: the sensors' kinds, by name; if not given, there is one of each, called as its kind.
        into: for LiDARs, the camera that each is projected into.
        registered: pictures get extrinsics; without, all are taken to be aligned.
        ground: sensors whose inputs lie on the ground grid, as `PreprocessContract.grounded` says.
        base_frame: the vehicle's; empty for the rig file's base, or else `BASE_FRAME`.

    Attributes:
        unaligned: by image sensor, why its pixels are not those of the first image sensor, or of any of
            that one's kind, or of the one that the rig file says: another frame, or other intrinsics,
            and it is not known where it sits to be registered.  They are fused as if they were.
        on_missing: called, on the thread that attaches, when the tree lacks a transform or its last
            one is too old.
    """

    def __init__(
        self,
        source: str = "auto",
        reference_frame: str = "",
        max_age_ns: int | None = None,
        kinds: Mapping[str, Kind] | None = None,
        into: Mapping[str, str] | None = None,
        registered: bool = True,
        ground: Collection[str] = (),
        base_frame: str = "",
    ) -> None:
        self.registered = registered
        self.ground, self.base_frame = frozenset(ground), base_frame
        self.source, self.reference_frame = source, reference_frame
        self.max_age_ns = max_age_ns
        kinds = {kind: kind for kind in KINDS} if kinds is None else kinds
        self.kinds: dict[str, Kind] = {name: kinds[name] for name in in_order(kinds)}
        self.into = dict(into or {})
        self.unaligned: dict[str, str] = {}
        self.on_missing: Callable[[], None] = lambda: None
        self._looked_up: dict[str, tuple[str, str]] = {}
        self._image_frames: dict[str, str] = {}
        self.tree = FrameTree()
        self.rig = Rig({})
        self._cameras: dict[str, tuple[CameraModel, ...]] = {}
        self._lock = threading.Lock()

    def load(self, path: str) -> None:
        """Read a rig file; an empty path forgets the one before.

        Raises:
            CalibrationError: it cannot be read, or a sensor is of another kind; what was known stays.
        """
        rig = load_rig(Path(path)) if path else Rig({})
        for name, kind in rig.kinds.items():
            if self.kinds.get(name, kind) != kind:
                raise CalibrationError(
                    f"{name} is of kind {kind}, not {self.kinds[name]}", where=path
                )
        self.rig = rig

    def note_camera(self, sensor: str, *choices: CameraModel) -> None:
        """Take in intrinsics: of several, the one whose size an image has is attached to it."""
        with self._lock:
            if set(choices) != set(self._cameras.get(sensor, ())):  # else their order stays
                self._cameras[sensor] = choices

    def camera(self, sensor: str) -> CameraModel | None:
        """Intrinsics of a camera, None when nothing is known."""
        own = self.rig.sensors.get(sensor)
        if own is not None and own.camera is not None:
            return own.camera
        with self._lock:
            return next(iter(self._cameras.get(sensor, ())), None)

    def offset_ns(self, sensor: str) -> int:
        """What the rig file adds to a sensor's stamps."""
        own = self.rig.sensors.get(sensor)
        return 0 if own is None else own.time_offset_ns

    def attach(self, sample: Sample) -> Sample:
        """The sample with what is known about its sensor.

        Raises:
            CalibrationError: of the camera that a LiDAR is projected into nothing is known, or its place,
                or that of a sensor of `ground`, is to come from TF, and TF does not say it.
        """
        sensor = sample.sensor
        if sensor in self.ground:
            return self._grounded(sample)
        if has_picture(sample.kind):
            self._choose(sensor, sample.data.shape[:2])
            extrinsics = self._stands(sample)
            self._compare(sensor, sample.frame_id, extrinsics is not None)
            return replace(sample, camera=self.camera(sensor), extrinsics=extrinsics)
        try:
            return self._projected(sample)
        except CalibrationError:
            if is_projected(sample.kind):
                raise
            return sample  # of points that are not projected nothing need be known

    def _grounded(self, sample: Sample) -> Sample:
        """With its pose on the vehicle; what shows it in a picture, too, where the rig file says it."""
        sensor, own = sample.sensor, self.rig.sensors.get(sample.sensor)
        target = sensor
        if has_picture(sample.kind):
            self._choose(sensor, sample.data.shape[:2])
        else:
            target = self._target(sensor)
        camera, extrinsics = self.camera(target), None if own is None else own.extrinsics
        return replace(sample, camera=camera, extrinsics=extrinsics, pose=self._pose(sample))

    @property
    def base(self) -> str:
        """The vehicle's base frame."""
        return (self.base_frame or self.rig.base or BASE_FRAME).lstrip("/")

    def _pose(self, sample: Sample) -> RigidTransform | None:
        """From a sensor's frame to the base frame; None where only a rig file may say it, and does not."""
        sensor, own = sample.sensor, self.rig.sensors.get(sample.sensor)
        in_file = None if self.source == "tf" else self.rig.in_base(sensor)
        there = in_file is not None and self.rig.base.lstrip("/") == self.base
        if there or (in_file is None and self.source == "file"):
            return in_file
        frame = self.rig.base if in_file is not None else sample.frame_id
        frame = (frame or (own.frame_id if own is not None else "")).lstrip("/")
        unknown = "its place on the vehicle is not known"
        if not frame:
            hint = "set frame_id in the messages, or calibration_file"
            raise CalibrationError(f"{unknown}: its frame has no name", where=sensor, hint=hint)
        self._looked_up[sensor] = self.base, frame
        stamp, age = sample.stamp_ns, self.max_age_ns
        try:
            found = self.tree.lookup(self.base, frame, stamp, max_age_ns=age)
        except CalibrationError as error:
            self.on_missing()
            what = f"{unknown}: no transform from '{frame}' to '{self.base}'"
            raise CalibrationError(what, where=sensor, hint=error.hint) from error
        return found if in_file is None else found @ in_file

    def _placed_by_tree(self, sensor: str) -> bool:
        """Whether the tree has to say where a sensor of `ground` sits."""
        in_file = self.source != "tf" and self.rig.in_base(sensor) is not None
        return self.source != "file" and not (in_file and self.rig.base.lstrip("/") == self.base)

    def _projected(self, sample: Sample) -> Sample:
        """Points with the camera that they are projected into, and where they sit to it."""
        sensor = sample.sensor
        target = self._target(sensor)
        camera = self.camera(target)
        if camera is None:
            raise CalibrationError(
                f"no camera to project into{target and f': {target} has no intrinsics'}",
                where=sensor,
                hint="camera_info of an image input, or a rig file",
            )
        extrinsics = self._placed(sensor)
        if extrinsics is None and self.source != "file":
            own = self.rig.sensors.get(target) if target != sensor else None
            frames = self.reference_frame, camera.frame_id
            frames = frames[::-1] if sensor in self.into else frames
            named = (*frames, own.frame_id if own is not None else "")
            extrinsics = self._from_tree(next(filter(None, named), ""), sample)
        return replace(sample, camera=camera, extrinsics=extrinsics)

    def _stands(self, sample: Sample) -> RigidTransform | None:
        """Where a camera sits to the reference; None where it is that, aligned with it, or not known."""
        sensor, own = sample.sensor, self.rig.sensors.get(sample.sensor)
        if not self.registered or (own is not None and own.aligned_with):
            return None
        if self.source != "tf" and own is not None and (own.extrinsics or not self.rig.base):
            return own.extrinsics
        first = self._first(sensor)
        with self._lock:
            target = self._image_frames.get(first, "")
        target = target or self._named(first)
        frame = sample.frame_id.lstrip("/")
        if sensor == first or not target or not frame or frame == target or self.source == "file":
            return None
        self._looked_up[sensor] = target, frame
        try:
            return self.tree.lookup(target, frame, sample.stamp_ns, max_age_ns=self.max_age_ns)
        except CalibrationError:
            if self.kinds.get(first) != sample.kind:
                self.on_missing()
            return None

    def _first(self, sensor: str) -> str:
        """The camera that others are registered to: the rig's reference, else the first one heard of."""
        images = self._images
        known = (n for n in images if n in self._image_frames or self._named(n))
        return self.rig.reference or next(known, sensor)

    def _named(self, sensor: str) -> str:
        """The frame that a camera's calibration names."""
        own, camera = self.rig.sensors.get(sensor), self.camera(sensor)
        frames = (own.frame_id if own is not None else "", camera.frame_id if camera else "")
        return next(filter(None, frames), "").lstrip("/")

    def uses_tree(self, sensors: Collection[str]) -> bool:
        """Whether transforms from the tree may be of use for any of these sensors."""
        rig = self.rig.sensors
        open_ = [
            n
            for n in self._images
            if n in sensors and n not in self.ground and (n not in rig or self.source == "tf")
        ]
        pictures = self.registered and len(self._images) > 1 and bool(open_)
        return self.source != "file" and (pictures or self.needs_tree(sensors))

    def _target(self, lidar: str) -> str:
        """Whose intrinsics a LiDAR is projected with: a camera's, its own in the rig file; or none's."""
        own = self.rig.sensors.get(lidar)
        if lidar in self.into or own is None or own.camera is None:
            known = (name for name in self._images if self.camera(name) is not None)
            return self.into.get(lidar) or self.rig.reference or next(known, "")
        return lidar

    def _placed(self, lidar: str) -> RigidTransform | None:
        """Where the rig file says that a LiDAR sits, to the camera that it is projected into."""
        own = self.rig.sensors.get(lidar)
        if own is None or self.source == "tf":
            return None
        if lidar not in self.into:
            return own.extrinsics
        try:
            return self.rig.between(lidar, self.into[lidar])
        except CalibrationError:
            return None

    @cached_property
    def _images(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.kinds.items() if has_picture(kind))

    def _choose(self, sensor: str, size: tuple[int, ...]) -> None:
        """Put those of a camera's models first that have the size (height, width) of its image."""
        with self._lock:
            choices = self._cameras.get(sensor, ())
            if len(choices) > 1:
                fitting = sorted(choices, key=lambda c: (c.height, c.width) != size)
                self._cameras[sensor] = tuple(fitting)

    def _from_tree(self, frame: str, sample: Sample) -> RigidTransform:
        if not frame or not sample.frame_id:
            raise CalibrationError(
                "a frame has no name: cannot look up its transform",
                where=sample.sensor,
                hint="set frame_id in the messages, reference_frame, or calibration_file",
            )
        self._looked_up[sample.sensor] = frame, sample.frame_id
        try:
            return self.tree.lookup(
                frame, sample.frame_id, sample.stamp_ns, max_age_ns=self.max_age_ns
            )
        except CalibrationError:
            self.on_missing()
            raise

    def follows_changes(self) -> bool:
        """Whether what was looked up last in the tree is unknown or may change over time."""
        found = self._looked_up
        pending = any(name not in found and self.needs_tree((name,)) for name in self.kinds)
        return not found or pending or not all(self.tree.is_static(*f) for f in found.values())

    def sources(self) -> list[str]:
        """What is known, by where it comes from, such as `rgb camera_info`; empty for nothing."""
        with self._lock:
            live = {name for name, choices in self._cameras.items() if choices}
        found = []
        for name, kind in self.kinds.items():
            own = self.rig.sensors.get(name)
            if name in self.ground:
                if not self._placed_by_tree(name) and self.rig.in_base(name) is not None:
                    found.append(f"{name} pose rig file")
                elif name in self._looked_up and self.tree.connects(*self._looked_up[name]):
                    found.append(f"{name} pose tf")
            if not has_picture(kind):
                if name in self.ground:
                    continue
                if self._placed(name) is not None:
                    found.append(f"{name} rig file")
                elif name in self._looked_up and self.tree.connects(*self._looked_up[name]):
                    found.append(f"{name} tf")
            elif own is not None and own.camera is not None:
                found.append(f"{name} rig file")
            elif name in live:
                found.append(f"{name} camera_info")
        return found

    def needs_tree(self, sensors: Collection[str]) -> bool:
        """Whether transforms from the tree are used for any of these sensors."""
        points = [n for n in sensors if n in self.kinds and not has_picture(self.kinds[n])]
        open_ = any(self._placed(name) is None for name in points if name not in self.ground)
        on_ground = any(self._placed_by_tree(name) for name in sensors if name in self.ground)
        return self.source != "file" and (open_ or on_ground)

    def _compare(self, sensor: str, frame: str, placed: bool) -> None:
        """Note in `unaligned` whether a sensor's pixels are those of the first image sensor."""
        with self._lock:
            self._image_frames[sensor] = frame.lstrip("/")
            frames = dict(self._image_frames)
        own = self.rig.sensors.get(sensor)
        if own is not None and own.aligned_with:
            first = own.aligned_with
            peers, frames = [first], {}  # its frame may have another name
        else:
            first = next(name for name in (*self._images, sensor) if name in frames)
            kind = self.kinds.get(first)
            peers = [name for name, other in self.kinds.items() if other == kind]
            if sensor in (first, *peers):
                return
        if placed and self.camera(sensor) is not None and self.camera(first) is not None:
            self.unaligned.pop(sensor, None)
            return
        lines = [self._apart(sensor, peer, frames) for peer in peers]
        if all(lines):
            self.unaligned[sensor] = f"{lines[0]}: fused as if registered, which it is not"
        else:
            self.unaligned.pop(sensor, None)

    def _apart(self, sensor: str, other: str, frames: Mapping[str, str]) -> str:
        """What tells two sensors' views apart, empty for nothing known; pictures may differ in size."""
        ours, theirs = frames.get(sensor), frames.get(other)
        if ours and theirs and ours != theirs:
            return f"{sensor}: in frame '{ours}', {other} in '{theirs}'"
        own, reference = self.camera(sensor), self.camera(other)
        if own is None or reference is None:
            return ""
        for value, size in (("fx", "width"), ("fy", "height"), ("cx", "width"), ("cy", "height")):
            share = getattr(own, value) / getattr(own, size)
            wanted = getattr(reference, value) / getattr(reference, size)
            if abs(share - wanted) > _SAME_VIEW * max(1.0, wanted):
                return f"{sensor}: {value} is {share:.3f} of the {size}, {other}'s {wanted:.3f}"
        return ""
