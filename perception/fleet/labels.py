"""Labels and boxes of results as files of the folder format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.data.base import Boxes
from perception.data.folder import FolderWriter, folder_info
from perception.errors import DataError
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.sensors.registry import kind_of
from perception.tasks.boxes2d import BOXES2D
from perception.tasks.segmentation import SEGMENTATION

LABELS = "labels"
LABEL_FOLDERS = ("labels", "boxes")
"""Of a recording's labels, those with a file a frame."""
_RATE_HZ = 10.0
_LEAST_PX = 0.5


def classes_of(pipeline: Pipeline) -> dict[str, Any]:
    """The classes of a bundle, as `folder_info` takes them."""
    specs = pipeline.manifest.tasks.every
    found = {"seg_classes": SEGMENTATION.name, "det_classes": BOXES2D.name}
    return {
        field: tuple(c.info() for c in specs[task].labels) if task in specs else ()
        for field, task in found.items()
    }


def boxes_of(result: Result, size: tuple[int, int]) -> Boxes | None:
    """The boxes of a result as a recording has them: cut off at the picture's edges, none without extent.

    Args:
        result: what came out.
        size: height and width of the picture.
    """
    found = result.boxes
    if found is None:
        return None
    height, width = size
    xyxy = found.xyxy.clip(0, np.array([width, height, width, height], np.float32))
    some = (xyxy[:, 2:] - xyxy[:, :2] >= _LEAST_PX).all(axis=1)
    return Boxes.of(xyxy[some], found.class_ids[some])


def size_of(result: Result) -> tuple[int, int] | None:
    """Height and width of the picture that a result is of; None where that has none."""
    sample = result.samples.get(result.reference or "")
    if sample is None:
        return None
    return kind_of(sample.kind).source_size(sample)


class LabelFiles:
    """Files of one recording in `labels/NAME`; each chunk writes its frames and the same description.

    Args:
        folder: for all recordings.
        name: of the recording.
        pipeline: whose results they are.
    """

    def __init__(self, folder: Path, name: str, pipeline: Pipeline) -> None:
        self._root, self._pipeline, self._name = folder / LABELS / name, pipeline, name
        self._writer: FolderWriter | None = None
        self._size: tuple[int, int] | None = None

    def add(self, name: str, result: Result) -> None:
        """Write the files of a frame.

        Raises:
            DataError: its picture is of another size than those before, or they cannot be written.
        """
        size = size_of(result)
        if size is None:
            return
        if self._writer is None:
            self._size = size
            sensors = self._pipeline.kinds
            info = folder_info(
                name=self._name,
                sensors=sensors,
                labels_of=result.reference,
                size=size,
                rate_hz=_RATE_HZ,
                licence="as the recording",
                **classes_of(self._pipeline),
            )
            self._writer = FolderWriter(self._root, info, placed=tuple(sensors), unseen=True)
            # Rows of other chunks belong into it, too: the driver writes it when all are done.
            (self._root / "frames.csv").unlink()
        if size != self._size:
            raise DataError(f"pictures are of {self._size} and of {size} pixels", where=self._name)
        self._writer.add(
            name, stamp_ns=result.output_ns, labels=result.labels, boxes=boxes_of(result, size)
        )
