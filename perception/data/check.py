"""Finding mistakes in a recording before training on it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perception.data.base import IGNORE_LABEL, Recording
from perception.data.boxes3d import POSES, largest_turn, read_poses
from perception.data.check_space import SpaceCheck
from perception.data.files import BLACK_AND_WHITE, is_black_and_white, read_labels
from perception.data.folder import BOXES3D, RIG, TRUTH_SUFFIXES, FolderRecording
from perception.data.layout import FRAMES, parse_frames
from perception.errors import AnySenseError, DataError
from perception.files.listing import is_folder, same_name, stem_of, visible_files
from perception.frame import Frame, Sample
from perception.geometry.rig import Rig, load_rig
from perception.geometry.trajectory import Trajectory
from perception.sensors.kind import Inspection
from perception.sensors.registry import kind_of
from perception.sensors.samples import file_remarks

_CLASSES = {"labels": "seg_classes", "boxes": "det_classes", BOXES3D: "det_classes"}
_WHOLE_TURN = 2 * np.pi + 0.01
_EXAMPLES = 8  # frames that are named for a finding
_RATES = 8.0  # by so much the frames' rate may differ from the one that is said
_UNITS = {"nanoseconds": 1, "microseconds": 10**3, "milliseconds": 10**6, "seconds": 10**9}
_FIT = 100.0  # and by so much if the unit is another
_MISSES = "no point falls into the image: check the extrinsics"
_OUTSIDE = 0.02  # share of the image by which boxes may reach beyond it
_OFF_CENTER = 0.2  # share of the image by which a principal point may lie beside its middle


@dataclass(frozen=True)
class Finding:
    """One mistake: how bad, in which file or frame, and what; `frames` are some that it is seen in."""

    severity: Literal["error", "warning"]
    where: str
    message: str
    frames: tuple[str, ...] = field(default=(), compare=False)


def check_folder(
    root: Path, progress: Callable[[Iterable[int]], Iterable[int]] = lambda items: items
) -> list[Finding]:
    """Check every file of a recording in the folder format; one that is wrong does not end it.

    Looks for wrong rows of `frames.csv`, a wrong rig, missing and unreadable files, sensors without any
    file, wrong sizes, turned pictures, previews of radiometric JPEGs, label ids that no class has, masks
    stored as 0 and 255, boxes outside the image or given twice, depth, temperatures and clouds of an
    impossible scale, empty clouds, clouds that miss the image, cameras that contradict their pictures,
    boxes in space that are far away, empty, of an odd size, turned by degrees or below the ground, poses that
    are missing or jump,
    stamps that do not rise or are of another unit, mixed formats, and files that no frame names.

    Raises:
        DataError: there is no such folder, or `dataset.yaml` or `frames.csv` cannot be read at all.
    """
    recording, findings = open_leniently(root)
    check = _FolderCheck(recording)
    check.findings = findings
    check.index(complete=not any(f.where.startswith(FRAMES) for f in findings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the readers: each becomes a finding
        for index in progress(range(len(check.recording))):
            check.frame(index)
    check.whole()
    return check.findings


def open_leniently(root: Path) -> tuple[FolderRecording, list[Finding]]:
    """A recording in the folder format without the rows of `frames.csv` and the rig that are wrong.

    Raises:
        DataError: there is no such folder, or `dataset.yaml` or `frames.csv` cannot be read at all.
    """
    root = Path(root)
    if not is_folder(root):
        raise DataError("no such folder", where=str(root))
    rows, faults = parse_frames(root)
    findings = [_fault(fault, root, FRAMES) for fault in faults]
    rig = Rig({})
    try:
        if (root / RIG).is_file():
            rig = load_rig(root / RIG)
    except AnySenseError as error:
        findings.append(_fault(error, root, RIG))
    trajectory = None
    try:
        if (root / POSES).is_file():
            trajectory = read_poses(root / POSES)
    except AnySenseError as error:
        findings.append(_fault(error, root, POSES))
        trajectory = Trajectory(np.zeros(0, np.int64), ())
    return FolderRecording(root, rows=rows, rig=rig, trajectory=trajectory), findings


def _fault(error: AnySenseError, root: Path, where: str) -> Finding:
    """What was raised, its place told from `root` on."""
    return Finding("error", error.where.removeprefix(f"{root}/") or where, _told(error))


def _told(error: AnySenseError) -> str:
    hint = f" ({error.hint})" if error.hint else ""
    return " ".join(f"{error.message}{hint}".split())


class _Findings:
    """Collects the findings of one recording."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[Finding] = []

    def add(
        self,
        severity: Literal["error", "warning"],
        where: str,
        message: str,
        frames: Iterable[str] = (),
    ) -> None:
        self.findings.append(Finding(severity, where, message, tuple(frames)[:_EXAMPLES]))

    @contextmanager
    def reported(self, where: str) -> Iterator[None]:
        """Turn what is raised into a finding, so that the next file gets its turn."""
        try:
            yield
        except AnySenseError as error:
            self.findings.append(_fault(error, self.root, where))
        except Exception as error:  # a checker goes on whatever a decoder thinks of a file
            self.add("error", where, f"cannot be read: {type(error).__name__}: {error}")


def check_recording(
    recording: Recording, progress: Callable[[Iterable[int]], Iterable[int]] = lambda items: items
) -> list[Finding]:
    """Check what a reader of any kind of data gives; a frame that is wrong does not end it.

    Looks for frames and truth that cannot be read, samples that no network could use, sensors that no
    frame has, frames without any sample, stamps that do not rise, and truth that is never there.
    """
    found = _Findings(recording.root)
    seen: set[str] = set()
    before: int | None = None
    labeled, boxes = False, False
    space = SpaceCheck(recording.rig, recording.info.det_classes, recording.trajectory)
    for index in progress(range(len(recording))):
        name, frame = recording.ids[index], Frame({})
        with found.reported(name):
            frame = recording.frame(index)
            seen |= set(frame)
            if not len(frame):
                found.add("error", name, "no sensor has a sample of this frame")
            if before is not None and frame.stamp_ns is not None and frame.stamp_ns <= before:
                found.add("error", name, "stamp does not rise")
            before = frame.stamp_ns
            for sensor, sample in frame.items():
                with found.reported(f"{sensor}/{name}"):
                    for text in _inspected(sample).errors:
                        found.add("error", f"{sensor}/{name}", text)
        with found.reported(f"truth of {name}"):
            truth = recording.truth(index)
            labeled |= truth.labels is not None and bool((truth.labels != IGNORE_LABEL).any())
            boxes |= truth.boxes is not None or truth.boxes3d is not None
            stamp = frame.stamp_ns if frame.stamp_ns is not None else recording.stamp_ns(index)
            space.frame(name, stamp, truth.boxes3d, _clouds(frame.values()))
    for remark in space.remarks():
        found.add(*remark)
    info = recording.info
    for sensor in info.sensors.keys() - seen:
        found.add("error", sensor, "no frame has a sample")
    for classes, there, what in (
        (info.seg_classes, labeled, "a labeled pixel"),
        (info.det_classes, boxes, "boxes"),
    ):
        if classes and not there:
            found.add("error", info.name, f"there are classes, but no frame has {what}")
    return found.findings


class _FolderCheck(_Findings):
    """Collects the findings of a recording in the folder format."""

    def __init__(self, recording: FolderRecording) -> None:
        super().__init__(recording.root)
        self.recording = recording
        self.layout = recording.layout
        self.kept: dict[str, list[Any]] = {}
        self.labeled = False
        self.label_files = 0
        self.black_and_white: list[str] = []
        self.remarks: dict[tuple[str, str], list[str]] = {}
        self.cameras: set[str] = set()
        self.unlabeled: dict[str, list[str]] = {}
        self.space = SpaceCheck(recording.rig, recording.info.det_classes, recording.trajectory)
        self.turned: list[str] = []

    def index(self, *, complete: bool) -> None:
        """What the table of frames, if `complete`, and the lists of files tell."""
        recording, ids = self.recording, self.recording.ids
        if not ids and complete:
            self.add("error", FRAMES, "lists no frame")
        for i in range(1, len(ids)):
            if recording.stamp_ns(i) <= recording.stamp_ns(i - 1):
                self.add("error", f"{FRAMES}: {ids[i]}", "stamp does not rise")
                break
        self._rates()
        known = {same_name(name) for name in ids}
        for sensor in recording.silent() if ids else ():
            self.add(
                "error",
                sensor,
                "no frame has a file: is the folder or are its files named otherwise?",
            )
        kinds = recording.info.sensors
        for sensor, kind in kinds.items():
            alone = list(kinds.values()).count(kind) == 1 or sensor == recording.info.labels_of
            if not alone and sensor not in recording.rig.sensors:
                text = f"does not say where {sensor} sits: taken to be where {recording.info.labels_of} is"
                self.add("warning", RIG, text)
        for folder, classes in _CLASSES.items():
            if recording.files[folder].files and not getattr(self.layout, classes):
                self.add("warning", folder, f"are not read: dataset.yaml has no {classes}")
        for folder in (*recording.sensors, *TRUTH_SUFFIXES):
            self._files(folder, known if complete else None)

    def _rates(self) -> None:
        """Dates against `rate_hz`, whose unit is known; stamps that count from 0 may be anything."""
        recording = self.recording
        stamps = [recording.stamp_ns(i) for i in range(len(recording))]
        step = float(np.median(np.diff(stamps))) * 1e-9 if len(stamps) > 1 else 0.0
        rate = self.layout.rate_hz
        if step <= 0 or 1 / _RATES < step * rate < _RATES:
            return
        text = f"frames are {step:.3g} s apart, rate_hz says {rate:g} Hz"
        for unit, factor in _UNITS.items():
            if not 10**18 <= stamps[0] * factor < 10**19:  # 2001 to 2286
                continue
            if factor == 1:
                self.add("warning", FRAMES, text)
            elif 1 / _FIT < step * factor * rate < _FIT:
                text = f"{text}: are its stamps {unit}? They must be nanoseconds"
                self.add("error", FRAMES, text)

    def _files(self, folder: str, known: set[str] | None) -> None:
        samples = self.recording.files[folder]
        used = {path for paths in samples.files.values() for path in paths}
        for path in visible_files(self.root / folder):
            if path not in used:
                wanted = ", ".join(samples.suffixes)
                self.add("warning", f"{folder}/{path.name}", f"is not read: none of {wanted}")
            elif known is not None and same_name(stem_of(path, samples.suffixes)) not in known:
                self.add("warning", f"{folder}/{path.name}", "is not in frames.csv")
        formats = Counter(path.suffix.lower() for path in used)
        if len(formats) > 1:
            counts = ", ".join(f"{n} {suffix}" for suffix, n in sorted(formats.items()))
            self.add("warning", folder, f"several formats: {counts}")

    def frame(self, index: int) -> None:
        """The samples and the truth of a frame."""
        name, stamp = self.recording.ids[index], self.recording.stamp_ns(index)
        missing, samples = 0, list[Sample]()
        for sensor in self.recording.sensors:
            with self.reported(f"{sensor}/{name}"):
                sample = self.recording.sample(sensor, name, stamp)
                if sample is not None:
                    samples.append(sample)
                    self._sample(f"{sensor}/{name}", sample)
                    self._remarks(sample, name)
                else:
                    missing += 1
                    self.add("warning", f"{sensor}/{name}", "sample is missing")
        if missing == len(self.recording.sensors):
            self.add("error", name, "no sensor has a sample of this frame")
        with self.reported(f"labels/{name}"):
            self._labels(name)
        with self.reported(f"boxes/{name}"):
            self._boxes(name)
        with self.reported(f"{BOXES3D}/{name}"):
            self._boxes3d(name, stamp, _clouds(samples))

    def _sample(self, where: str, sample: Sample) -> None:
        own, sensor = self.recording.sensors[sample.sensor], sample.sensor
        size = (own.height, own.width)
        if kind_of(sample.kind).has_picture and sample.data.shape[:2] != size:
            got = f"{sample.data.shape[1]}x{sample.data.shape[0]}"
            self.add("error", where, f"image is {got}, dataset.yaml says {size[1]}x{size[0]}")
        self._camera(sample)
        found = _inspected(sample)
        for text in found.errors:
            if text != _MISSES or not self._seen_elsewhere(sample):
                self.add("error", where, text)
        if found.kept is not None:
            self.kept.setdefault(sensor, []).append(found.kept)
        for text in found.remarks:
            self.remarks.setdefault((sensor, text), []).append(where.rpartition("/")[2])

    def _seen_elsewhere(self, sample: Sample) -> bool:
        """Whether another camera than the labeled one sees a cloud."""
        rig = self.recording.rig
        placed = [n for n in rig.cameras if rig.sensors[n].camera and rig.sensors[n].pose]
        return any(not _misses(rig.attach(sample, into=name)) for name in placed)

    def _remarks(self, sample: Sample, name: str) -> None:
        """What is to be known of a file that is right, once for all files of which it is true."""
        path = self.recording.files[sample.sensor].find(name)
        if path is None:
            return
        for text in file_remarks(path, sample.kind):
            self.remarks.setdefault((sample.sensor, text), []).append(path.name)

    def _camera(self, sample: Sample) -> None:
        """A sensor's calibration against its pictures; for a cloud, against the labeled image."""
        camera, sensor = sample.camera, sample.sensor
        if camera is None or sensor in self.cameras:
            return
        shape = (self.layout.height, self.layout.width)
        if kind_of(sample.kind).has_picture:
            shape = sample.data.shape[:2]
        if (camera.height, camera.width) != shape:
            self.cameras.add(sensor)
            text = f"camera is of {camera.width}x{camera.height}, the image {shape[1]}x{shape[0]}"
            self.add("error", f"{RIG}: {sensor}", text)
            return
        for value, size, name in (
            (camera.cx, camera.width, "width"),
            (camera.cy, camera.height, "height"),
        ):
            share = (value + 0.5) / size
            if abs(share - 0.5) > _OFF_CENTER:
                self.cameras.add(sensor)
                text = f"principal point lies at {share:.2f} of the {name}: of another resolution?"
                self.add("warning", f"{RIG}: {sensor}", text)
                return

    def _boxes(self, name: str) -> None:
        boxes = self.recording.boxes(name)
        if boxes is None and self.layout.det_classes and (self.root / "boxes").is_dir():
            self.unlabeled.setdefault("boxes", []).append(name)
        if boxes is None or not len(boxes.xyxy):
            return
        rows = boxes.xyxy / np.tile([self.layout.width, self.layout.height], 2)
        if rows.min() < -_OUTSIDE or rows.max() > 1 + _OUTSIDE:
            text = "a box reaches outside the image: corners instead of center and size?"
            self.add("warning", f"boxes/{name}", text)
        if len(np.unique(np.column_stack([rows, boxes.class_ids]), axis=0)) < len(rows):
            self.add("warning", f"boxes/{name}", "a box is given twice")

    def _boxes3d(self, name: str, stamp_ns: int, clouds: list[Sample]) -> None:
        boxes, files = self.recording.boxes3d(name), self.recording.files[BOXES3D]
        if boxes is None and self.layout.det_classes and files.files:
            self.unlabeled.setdefault(BOXES3D, []).append(name)
        self.space.frame(name, stamp_ns, boxes, clouds)
        path = files.find(name)
        if boxes is not None and path is not None and largest_turn(path) > _WHOLE_TURN:
            self.turned.append(path.name)

    def _labels(self, name: str) -> None:
        layout = self.layout
        if not layout.seg_classes or not (self.root / "labels").is_dir():
            return
        path = self.recording.files["labels"].find(name)
        if path is None:
            self.unlabeled.setdefault("labels", []).append(name)
            return
        labels = read_labels(path, 256)
        if labels.shape != (layout.height, layout.width):
            got = f"{labels.shape[1]}x{labels.shape[0]}"
            text = f"is {got}, dataset.yaml says {layout.width}x{layout.height}"
            self.add("error", f"labels/{name}", text)
        self.label_files += 1
        self.labeled = self.labeled or bool((labels != IGNORE_LABEL).any())
        if is_black_and_white(labels):
            self.black_and_white.append(path.name)
        self.recording.seg_table.positions(labels, str(path))

    def whole(self) -> None:
        """What only all frames together tell."""
        for sensor, kept in self.kept.items():
            for text in kind_of(self.recording.info.sensors[sensor]).judge(kept):
                self.add("error", sensor, text)
        if self.label_files and not self.labeled:
            self.add("error", "labels", f"every pixel is {IGNORE_LABEL}, which means ignore")
        if self.black_and_white and len(self.layout.seg_classes) > 1:
            count = f"{len(self.black_and_white)} of {self.label_files} files"
            text = f"{count} ({self.black_and_white[0]}) hold {BLACK_AND_WHITE}"
            self.add("warning", "labels", text, self.black_and_white)
        every = len(self.recording)
        for remark in self.space.remarks():
            self.add(*remark)
        if self.turned:
            count = (
                f"{len(self.turned)} files ({self.turned[0]}) have a yaw of more than a whole turn"
            )
            self.add("error", BOXES3D, f"{count}: are these degrees?", self.turned)
        for folder, names in self.unlabeled.items():
            # A recording may have boxes in space alone.
            whole = len(names) == every and not (folder == "boxes" and self.space.labeled)
            severity: Literal["error", "warning"] = "error" if whole else "warning"
            text = f"{len(names)} of {every} frames have no file and so are not labeled: {names[0]}"
            self.add(severity, folder, f"{text}, ..." if names[1:] else text, names)
        for (folder, text), names in self.remarks.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.add("warning", f"{folder}/{names[0]}{more}", text, names)


def _clouds(samples: Iterable[Sample]) -> list[Sample]:
    return [s for s in samples if not kind_of(s.kind).has_picture and s.data.ndim == 2]


def _inspected(sample: Sample) -> Inspection:
    """What its kind says of a sample; if it finds no mistake, whether points meet their camera's picture."""
    own = kind_of(sample.kind)
    if own.inspect is None:
        try:
            own.validate(sample)
        except AnySenseError as error:
            return Inspection((_told(error),))
        return Inspection()
    found = own.inspect(sample)
    if found.errors or not own.projected or not (missed := _misses(sample)):
        return found
    return replace(found, errors=(missed,))


def _misses(sample: Sample) -> str:
    """Why points are not seen by the camera that they are projected into; empty where they are."""
    if sample.camera is None or sample.extrinsics is None:
        return f"no calibration for {sample.sensor} in rig.yaml"
    optical = sample.extrinsics.apply(sample.data[:, :3])
    uv, valid = sample.camera.project(optical)
    inside = valid & (uv >= 0).all(axis=1)
    inside &= (uv[:, 0] < sample.camera.width) & (uv[:, 1] < sample.camera.height)
    return "" if inside.any() else _MISSES
