"""Pairs of gray visible and infrared pictures with masks of the persons in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.data.files import read_labels
from perception.files.listing import SampleFolder, list_ids
from perception.frame import Frame, Sample
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.thermal.decode import load_thermal

BACKGROUND = ClassInfo(0, "background", (40, 40, 40))
PERSON = ClassInfo(1, "person", (230, 60, 70))

MIN_PERSON_PX = 12
"""Mask components with fewer pixels are ignored as boxes: neither found nor missed."""

_PICTURES = (".png", ".jpg")
_VALIDATION_EVERY = 4


def boxes_of_mask(mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Boxes:
    """One box per connected component (8-neighborhood) of an (H, W) person mask."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        (mask == 1).astype(np.uint8), connectivity=8
    )
    left, top, width, height, area = stats[1:count].astype(np.float32).T.reshape(5, -1)
    xyxy = np.stack([left, top, left + width, top + height], axis=1)
    return Boxes(xyxy, np.zeros(count - 1, np.int64), area < MIN_PERSON_PX)


class RGBTPerson(Recording):
    """Frames of `ROOT/{rgb,thermal,label}`.

    Persons who touch form one component and so one box; a box score on this set is a lower bound.
    """

    def __init__(self, root: Path, split: str = "all") -> None:
        info = RecordingInfo(
            "rgbt_person",
            "RGB-T person",
            {"rgb": "rgb", "thermal": "thermal"},
            seg_classes=(BACKGROUND, PERSON),
            det_classes=(ClassInfo(0, PERSON.name, PERSON.color),),
        )
        ids = list_ids(root / "rgb", _PICTURES)
        ids.sort(key=lambda name: (len(name), name))
        if split != "all":
            ids = [n for i, n in enumerate(ids) if (i % _VALIDATION_EVERY == 0) == (split == "val")]
        super().__init__(root, info, ids)
        self._rgb = SampleFolder(root / "rgb", _PICTURES)
        self._thermal = SampleFolder(root / "thermal", _PICTURES)
        self._labels = SampleFolder(root / "label", (".png",))

    def scene(self, index: int) -> str:
        return self.ids[index]

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        rgb = load_rgb(self._rgb.file(name))
        thermal = load_thermal(self._thermal.file(name), "counts8")
        return Frame(
            {
                "rgb": Sample("rgb", rgb.data, stamp, "camera", "mono8"),
                "thermal": Sample("thermal", thermal.data, stamp, "camera", "mono8", thermal.unit),
            }
        )

    def truth(self, index: int) -> Truth:
        labels = read_labels(self._labels.file(self.ids[index]), 2)
        return Truth(labels=labels, boxes=boxes_of_mask(labels))
