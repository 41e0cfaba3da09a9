"""Finding mistakes in a folder recording before training on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perception.data.base import IGNORE_LABEL
from perception.data.files import read_image, read_yolo_boxes
from perception.data.folder import FolderRecording
from perception.errors import AnySenseError, DataError
from perception.frame import Frame, Modality, Sample

PLAUSIBLE_DEPTH_M = (0.15, 150.0)
"""Median depths outside this are taken for a wrong scale."""

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
    """Check every frame of a recording in the folder format.

    Looks for missing and unreadable files, wrong sizes, label ids out of range, boxes outside the
    image, depth and temperatures of an impossible scale, empty clouds, clouds that miss the image,
    stamps that do not rise, and files that no frame names.

    Raises:
        DataError: `dataset.yaml` or `frames.csv` is missing or malformed.
    """
    if not Path(root).is_dir():
        raise DataError("no such folder", where=str(root))
    recording = FolderRecording(Path(root))
    findings = _check_index(recording)
    medians: list[float] = []
    for index in progress(range(len(recording))):
        findings += _check_samples(recording, index, medians)
        findings += _check_truth(recording, index)
    if medians:
        findings += _check_depth_scale(float(np.median(medians)))
    return findings


def _check_index(recording: FolderRecording) -> list[Finding]:
    findings = []
    ids = recording.ids
    if not ids:
        findings.append(Finding("error", "frames.csv", "lists no frame"))
    if len(set(ids)) != len(ids):
        findings.append(Finding("error", "frames.csv", "an id occurs twice"))
    for i in range(1, len(ids)):
        if recording.stamp_ns(i) <= recording.stamp_ns(i - 1):
            findings.append(Finding("error", f"frames.csv: {ids[i]}", "stamp does not rise"))
            break
    known = set(ids)
    for folder in (*recording.layout.modalities, "labels", "boxes"):
        for path in sorted((recording.root / folder).glob("*")):
            if path.stem not in known:
                findings.append(Finding("warning", f"{folder}/{path.name}", "is not in frames.csv"))
    return findings


def _check_samples(recording: FolderRecording, index: int, medians: list[float]) -> list[Finding]:
    name = recording.ids[index]
    findings = []
    for modality in recording.layout.modalities:
        if recording.path(modality, name) is None:
            findings.append(Finding("warning", f"{modality}/{name}", "sample is missing"))
    try:
        frame = recording.frame(index)
    except AnySenseError as error:
        return [*findings, Finding("error", name, str(error))]
    return findings + _check_frame(recording, name, frame, medians)


def _check_frame(
    recording: FolderRecording, name: str, frame: Frame, medians: list[float]
) -> list[Finding]:
    findings = []
    size = (recording.layout.height, recording.layout.width)
    for modality, sample in frame.items():
        where = f"{modality}/{name}"
        if modality != "lidar" and sample.data.shape[:2] != size:
            got = f"{sample.data.shape[1]}x{sample.data.shape[0]}"
            text = f"image is {got}, dataset.yaml says {size[1]}x{size[0]}"
            findings.append(Finding("error", where, text))
        findings += [Finding("error", where, text) for text in _CHECKS[modality](sample)]
        if modality == "depth":
            finite = sample.data[np.isfinite(sample.data)]
            medians += [float(np.median(finite))] if finite.size else []
    return findings


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


def _check_depth_scale(median: float) -> list[Finding]:
    low, high = PLAUSIBLE_DEPTH_M
    if low <= median <= high:
        return []
    hint = "values may be metres stored as millimetres" if median < low else "too large a scale"
    text = f"median depth over all frames is {median:.4g} m: {hint}; set depth_scale"
    return [Finding("error", "depth", text)]


def _check_truth(recording: FolderRecording, index: int) -> list[Finding]:
    name, layout = recording.ids[index], recording.layout
    findings = []
    if layout.seg_classes and (recording.root / "labels").is_dir():
        findings += _check_labels(recording, name)
    if layout.det_classes and (recording.root / "boxes").is_dir():
        path = recording.root / "boxes" / f"{name}.txt"
        try:
            read_yolo_boxes(path, (layout.height, layout.width), len(layout.det_classes))
        except AnySenseError as error:
            findings.append(Finding("error", f"boxes/{name}", str(error)))
    return findings


def _check_labels(recording: FolderRecording, name: str) -> list[Finding]:
    where = f"labels/{name}"
    layout = recording.layout
    try:
        labels = read_image(recording.root / "labels" / f"{name}.png")
    except AnySenseError as error:
        return [Finding("error", where, str(error))]
    if labels.dtype != np.uint8 or labels.ndim != 2:
        return [Finding("error", where, f"is {labels.dtype} {labels.shape}, expected uint8 (H, W)")]
    findings = []
    if labels.shape != (layout.height, layout.width):
        text = f"is {labels.shape[1]}x{labels.shape[0]}, dataset.yaml says {layout.width}x{layout.height}"
        findings.append(Finding("error", where, text))
    wrong = np.unique(labels[(labels >= len(layout.seg_classes)) & (labels != IGNORE_LABEL)])
    if wrong.size:
        text = f"label ids {', '.join(map(str, wrong[:5]))} are out of range"
        findings.append(Finding("error", where, f"{text} 0..{len(layout.seg_classes) - 1}"))
    return findings
