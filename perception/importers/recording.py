"""Data sets that there is a reader for, by their reader: NYU Depth v2, MSRS, KITTI drives, plug-ins'."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from perception.data.base import Recording
from perception.data.folder import BOXES3D
from perception.data.layout import BASE
from perception.data.registry import open_recording, splits_of
from perception.errors import DataError
from perception.frame import Frame, Sample
from perception.geometry.transforms import RigidTransform
from perception.importers.source import (
    Item,
    Marks,
    Named,
    Source,
    Stored,
    TimedPoints,
    to_places,
)
from perception.sensors.registry import kind_of

COUNTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "counts8": (np.uint8, 255),
    "counts16": (np.uint16, 65535),
}
"""How counts are written, by their unit: type and largest value."""

_KELVIN_STEP = 0.01


def recording(root: Path, kind: str, **options: Any) -> Source:
    """What a reader of `perception.data.registry` gives; its splits stay, and files are written anew.

    Args:
        root: the folder.
        kind: the reader's name.
        **options: of the reader.

    Raises:
        AnySenseError: as the reader.
    """
    found = open_recording(kind, root, **options)
    splits = splits_of(kind, root, **options)
    info = found.info
    fields = _fields(found)
    items = [
        Item(
            name,
            {sensor: partial(_stored, found, index, sensor) for sensor in info.sensors},
            partial(_marks, found, index),
            split=splits.get(name, ""),
            stamp_ns=found.stamp_ns(index),
            tags=tuple(sorted(found.tags(index) - {"train", "val", "test"})),
            sizes=partial(_sizes, found, index),
            rig=found.rig if found.rig.sensors else None,
            pose=_pose(found, index),
        )
        for index, name in enumerate(found.ids)
    ]
    return Source(
        info.name,
        dict(info.sensors),
        items,
        tuple(Named(c.name, c.color) for c in info.seg_classes),
        tuple(Named(c.name, c.color) for c in info.det_classes),
        info.labels_of,
        fields,
        info.rate_hz,
        info.licence,
        sized=None if _pictured(found) or not len(found) else found.truth(0).size,
    )


def _fields(found: Recording) -> dict[str, Any]:
    """What files will not say themselves, by the first frame that has the sensor."""
    fields: dict[str, Any] = {}
    kinds = found.info.sensors
    usual = next((n for n in kinds if not kind_of(kinds[n]).has_picture), "")
    if (own := _space(found)) not in (None, usual):
        fields[f"{BOXES3D}_frame"] = own or BASE
    wanted = {name for name, kind in found.info.sensors.items() if kind_of(kind).units}
    for index in range(len(found)):
        if not wanted:
            break
        for name, sample in found.frame(index).items():
            if name in wanted:
                wanted.discard(name)
                unit = sample.unit if sample.unit in COUNTS else kind_of(sample.kind).file_unit
                fields[f"{sample.kind}_unit"] = unit
    return fields


@lru_cache(maxsize=2)
def _frame(found: Recording, index: int) -> Frame:
    """A frame, which is asked for once for each of its sensors."""
    return found.frame(index)


def _sizes(found: Recording, index: int) -> dict[str, tuple[int, int]]:
    pictures = _frame(found, index).items()
    return {n: s.data.shape[:2] for n, s in pictures if kind_of(s.kind).has_picture}


def _stored(found: Recording, index: int, name: str) -> Stored | None:
    sample = _frame(found, index).get(name)
    return None if sample is None else in_steps(sample)


def in_steps(sample: Sample) -> Stored:
    """A sample as a file of it holds it: distances in millimetres, temperatures in 0.01 K, 0 for none.

    Raises:
        DataError: its kind is written in no such way.
    """
    own = kind_of(sample.kind)
    data = sample.data
    if not own.has_picture:
        points = data.astype(np.float32)
        return points if sample.times is None else TimedPoints(points, sample.times)
    if own.colors and data.dtype == np.uint8:
        return data
    if sample.unit in COUNTS:
        dtype, most = COUNTS[sample.unit]
        return np.nan_to_num(data).round().clip(0, most).astype(dtype)
    step = 0.001 if "scale" in own.hints else _KELVIN_STEP
    if "scale" not in own.hints and not own.units:
        raise DataError(f"samples of kind {own.name} cannot be taken over", where=sample.sensor)
    steps = np.nan_to_num(data / step, posinf=0.0, neginf=0.0).round()
    steps[(steps < 0) | (steps > 65535)] = 0  # what 16 bits cannot hold is none
    return steps.astype(np.uint16)


def _marks(found: Recording, index: int) -> Marks:
    truth = found.truth(index)
    count = len(found.info.seg_classes)
    labels = truth.labels
    places = None if labels is None else to_places(labels, {i: i for i in range(count)})
    return Marks(places, truth.boxes, truth.boxes3d)


def _pictured(found: Recording) -> bool:
    return any(kind_of(kind).has_picture for kind in found.info.sensors.values())


def _pose(found: Recording, index: int) -> RigidTransform | None:
    return None if found.trajectory is None else found.trajectory.at(found.stamp_ns(index))


def _space(found: Recording) -> str | None:
    """The sensor in whose frame boxes in space are, empty for the base; None where no frame has any."""
    if not found.rig.base and all(kind_of(k).has_picture for k in found.info.sensors.values()):
        return None
    truths = (found.truth(index).boxes3d for index in range(len(found)))
    return next((boxes.frame for boxes in truths if boxes is not None), None)
