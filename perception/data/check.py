"""Finding mistakes in a folder recording before training on it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perception.adapters.files import file_remarks
from perception.data.files import BLACK_AND_WHITE, is_black_and_white, read_labels
from perception.data.folder import FRAMES, RIG, FolderRecording, parse_frames
from perception.errors import AnySenseError, DataError
from perception.files.listing import stem_of, visible_files
from perception.frame import Modality, Sample
from perception.geometry.rig import Rig, load_rig

PLAUSIBLE_DEPTH_M = (0.15, 150.0)
"""Median depths outside this are taken for a wrong scale."""

_TRUTH = ("labels", "boxes", "boxes3d")
PLAUSIBLE_KELVIN = (220.0, 420.0)


@dataclass(frozen=True)
class Finding:
    """One mistake: how bad, in which file or frame, and what."""

    severity: Literal["error", "warning"]
    where: str
    message: str


def _no_progress(items: Iterable[int]) -> Iterable[int]:
    return items


def check_folder(
    root: Path, progress: Callable[[Iterable[int]], Iterable[int]] = _no_progress
) -> list[Finding]:
    """Check every file of a recording in the folder format; one that is wrong does not end it.

    Looks for wrong rows of `frames.csv`, a wrong rig, missing and unreadable files, wrong sizes,
    turned pictures, previews of radiometric JPEGs, label ids that no class has, masks stored as 0 and
    255, boxes outside the image, depth and temperatures of an impossible scale, empty clouds, clouds that
    miss the image, stamps that do not rise, mixed formats, and files that no frame names.

    Raises:
        DataError: there is no such folder, or `dataset.yaml` or `frames.csv` cannot be read at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("no such folder", where=str(root))
    rows, faults = parse_frames(root)
    findings = [_fault(fault, root, FRAMES) for fault in faults]
    rig = Rig({})
    try:
        if (root / RIG).is_file():
            rig = load_rig(root / RIG)
    except AnySenseError as error:
        findings.append(_fault(error, root, RIG))
    check = _FolderCheck(FolderRecording(root, rows=rows, rig=rig))
    check.findings = findings
    check.index(complete=not faults)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the readers: each becomes a finding
        for index in progress(range(len(check.recording))):
            check.frame(index)
    check.whole()
    return check.findings


def _fault(error: AnySenseError, root: Path, where: str) -> Finding:
    """What was raised, its place told from `root` on."""
    place = error.where.removeprefix(f"{root}/") or where
    hint = f" ({error.hint})" if error.hint else ""
    return Finding("error", place, " ".join(f"{error.message}{hint}".split()))


class _FolderCheck:
    """Collects the findings of one recording."""

    def __init__(self, recording: FolderRecording) -> None:
        self.recording = recording
        self.layout = recording.layout
        self.root = recording.root
        self.findings: list[Finding] = []
        self.medians: list[float] = []
        self.label_files = 0
        self.black_and_white: list[str] = []
        self.remarks: dict[tuple[str, str], list[str]] = {}
        self.cameras: set[Modality] = set()

    def add(self, severity: Literal["error", "warning"], where: str, message: str) -> None:
        self.findings.append(Finding(severity, where, message))

    def index(self, *, complete: bool) -> None:
        """What the table of frames, if `complete`, and the lists of files tell."""
        recording, ids = self.recording, self.recording.ids
        if not ids and complete:
            self.add("error", FRAMES, "lists no frame")
        for i in range(1, len(ids)):
            if recording.stamp_ns(i) <= recording.stamp_ns(i - 1):
                self.add("error", f"{FRAMES}: {ids[i]}", "stamp does not rise")
                break
        known = set(ids)
        for folder in (*self.layout.modalities, *_TRUTH):
            self._files(folder, known if complete else None)

    def _files(self, folder: str, known: set[str] | None) -> None:
        samples = self.recording.files[folder]
        used = {path for paths in samples.files.values() for path in paths}
        for path in visible_files(self.root / folder):
            if path not in used:
                wanted = ", ".join(samples.suffixes)
                self.add("warning", f"{folder}/{path.name}", f"is not read: none of {wanted}")
            elif known is not None and stem_of(path, samples.suffixes) not in known:
                self.add("warning", f"{folder}/{path.name}", "is not in frames.csv")
        formats = Counter(path.suffix.lower() for path in used)
        if len(formats) > 1:
            counts = ", ".join(f"{n} {suffix}" for suffix, n in sorted(formats.items()))
            self.add("warning", folder, f"several formats: {counts}")

    def frame(self, index: int) -> None:
        """The samples and the truth of a frame."""
        name, stamp = self.recording.ids[index], self.recording.stamp_ns(index)
        missing = 0
        for modality in self.layout.modalities:
            with self._reported(f"{modality}/{name}"):
                sample = self.recording.sample(modality, name, stamp)
                if sample is not None:
                    self._sample(f"{modality}/{name}", sample)
                    self._remarks(modality, name)
                else:
                    missing += 1
                    self.add("warning", f"{modality}/{name}", "sample is missing")
        if missing == len(self.layout.modalities):
            self.add("error", name, "no sensor has a sample of this frame")
        with self._reported(f"labels/{name}"):
            self._labels(name)
        with self._reported(f"boxes/{name}"):
            self.recording.boxes(name)

    @contextmanager
    def _reported(self, where: str) -> Iterator[None]:
        """Turn what is raised into a finding, so that the next file gets its turn."""
        try:
            yield
        except AnySenseError as error:
            self.findings.append(_fault(error, self.root, where))
        except Exception as error:  # a checker goes on whatever a decoder thinks of a file
            self.add("error", where, f"cannot be read: {type(error).__name__}: {error}")

    def _sample(self, where: str, sample: Sample) -> None:
        modality, size = sample.modality, (self.layout.height, self.layout.width)
        if modality != "lidar" and sample.data.shape[:2] != size:
            got = f"{sample.data.shape[1]}x{sample.data.shape[0]}"
            self.add("error", where, f"image is {got}, dataset.yaml says {size[1]}x{size[0]}")
        self._camera(sample)
        for text in _CHECKS[modality](sample):
            self.add("error", where, text)
        if modality == "depth":
            finite = sample.data[np.isfinite(sample.data)]
            self.medians += [float(np.median(finite))] if finite.size else []

    def _remarks(self, modality: Modality, name: str) -> None:
        """What is to be known of a file that is right, once for all files of which it is true."""
        path = self.recording.path(modality, name)
        if path is None:
            return
        for text in file_remarks(path, modality):
            self.remarks.setdefault((modality, text), []).append(path.name)

    def _camera(self, sample: Sample) -> None:
        """A sensor's calibration against its pictures; for a cloud, against the labeled image."""
        camera, modality = sample.camera, sample.modality
        if camera is None or modality in self.cameras:
            return
        shape = (self.layout.height, self.layout.width)
        if modality != "lidar":
            shape = sample.data.shape[:2]
        if (camera.height, camera.width) != shape:
            self.cameras.add(modality)
            text = f"camera is of {camera.width}x{camera.height}, the image {shape[1]}x{shape[0]}"
            self.add("error", f"{RIG}: {modality}", text)

    def _labels(self, name: str) -> None:
        layout = self.layout
        if not layout.seg_classes or not (self.root / "labels").is_dir():
            return
        path = self.recording.files["labels"].file(name)
        labels = read_labels(path, 256)
        if labels.shape != (layout.height, layout.width):
            got = f"{labels.shape[1]}x{labels.shape[0]}"
            text = f"is {got}, dataset.yaml says {layout.width}x{layout.height}"
            self.add("error", f"labels/{name}", text)
        self.label_files += 1
        if is_black_and_white(labels):
            self.black_and_white.append(path.name)
        self.recording.seg_table.positions(labels, str(path))

    def whole(self) -> None:
        """What only all frames together tell."""
        low, high = PLAUSIBLE_DEPTH_M
        median = float(np.median(self.medians)) if self.medians else low
        if not low <= median <= high:
            why = "metres stored as millimetres?" if median < low else "too large a scale?"
            text = f"median depth over all frames is {median:.4g} m: {why} Set depth_scale"
            self.add("error", "depth", text)
        if self.black_and_white and len(self.layout.seg_classes) > 1:
            count = f"{len(self.black_and_white)} of {self.label_files} files"
            text = f"{count} ({self.black_and_white[0]}) hold {BLACK_AND_WHITE}"
            self.add("warning", "labels", text)
        for (folder, text), names in self.remarks.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.add("warning", f"{folder}/{names[0]}{more}", text)


def _check_rgb(sample: Sample) -> list[str]:
    return ["image is all one value"] if np.ptp(sample.data) == 0 else []


def _check_depth(sample: Sample) -> list[str]:
    return [] if np.isfinite(sample.data).any() else ["no valid depth"]


def _check_thermal(sample: Sample) -> list[str]:
    finite = sample.data[np.isfinite(sample.data)]
    if not finite.size:
        return ["no valid value"]
    low, high = PLAUSIBLE_KELVIN
    if sample.unit == "kelvin" and not low <= float(np.median(finite)) <= high:
        return [f"median temperature is {float(np.median(finite)):.1f} K: is thermal_unit right?"]
    return []


def _check_lidar(sample: Sample) -> list[str]:
    if len(sample.data) == 0:
        return ["cloud is empty"]
    if sample.camera is None or sample.extrinsics is None:
        return ["no calibration for lidar in rig.yaml"]
    optical = sample.extrinsics.apply(sample.data[:, :3])
    uv, valid = sample.camera.project(optical)
    inside = valid & (uv >= 0).all(axis=1)
    inside &= (uv[:, 0] < sample.camera.width) & (uv[:, 1] < sample.camera.height)
    return [] if inside.any() else ["no point falls into the image: check the extrinsics"]


_CHECKS: dict[Modality, Callable[[Sample], list[str]]] = {
    "rgb": _check_rgb,
    "depth": _check_depth,
    "thermal": _check_thermal,
    "lidar": _check_lidar,
}
