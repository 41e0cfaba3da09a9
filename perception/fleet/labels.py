"""Labels and boxes of results as files of the folder format."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
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
_RATE_HZ = 10.0
_LEAST_PX = 0.5
_AHEAD = 8
"""Frames that wait to be written at most: a slow disk holds the pipeline up, and fills no memory."""


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

    A thread of its own encodes and writes while the pipeline is at the next frames; it is waited for at the
    end of the `with` that this is to be used in.

    Args:
        folder: for all recordings.
        name: of the recording.
        pipeline: whose results they are.
    """

    def __init__(self, folder: Path, name: str, pipeline: Pipeline) -> None:
        self._root, self._pipeline, self._name = folder / LABELS / name, pipeline, name
        self._writer: FolderWriter | None = None
        self._size: tuple[int, int] | None = None
        self._thread = ThreadPoolExecutor(1, "labels")
        self._ahead: deque[Future[None]] = deque()

    def __enter__(self) -> LabelFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._wait(0)

    def add(self, name: str, result: Result) -> None:
        """Have the files of a frame written.

        Raises:
            DataError: its picture is of another size than those before, or one before could not be written.
        """
        self._wait(_AHEAD)
        self._ahead.append(self._thread.submit(self._add, name, result))

    def _wait(self, most: int) -> None:
        """Until so many are left to be written."""
        while len(self._ahead) > most or (self._ahead and self._ahead[0].done()):
            self._ahead.popleft().result()

    def _add(self, name: str, result: Result) -> None:
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
            self._writer = FolderWriter(self._root, info, placed=tuple(sensors))
            # Rows of other chunks belong into it, too: the driver writes it when all are done.
            (self._root / "frames.csv").unlink()
        if size != self._size:
            raise DataError(f"pictures are of {self._size} and of {size} pixels", where=self._name)
        self._writer.add(
            name, stamp_ns=result.output_ns, labels=result.labels, boxes=boxes_of(result, size)
        )
