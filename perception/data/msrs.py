"""MSRS: aligned road images in visible light and long-wave infrared, day and night, with boxes.

Tang et al., "PIAFusion: A progressive infrared and visible image fusion network based on
illumination aware", Information Fusion 2022.
"""

from __future__ import annotations

from pathlib import Path

from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth
from perception.data.files import read_yolo_boxes
from perception.errors import ConfigError, DataError, names_hint
from perception.files.listing import SampleFolder, list_ids
from perception.frame import Frame, Sample
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.thermal.decode import load_thermal

CLASSES = (
    ClassInfo(0, "person", (230, 60, 70)),
    ClassInfo(1, "bicycle", (250, 190, 50)),
    ClassInfo(2, "car", (60, 140, 240)),
)
LABEL_SETS = ("fusion", "visible", "infrared")
SIZE = (480, 640)

_PICTURES = (".jpg", ".png")
_BLOCK = 10
_VALIDATION_EVERY, _VALIDATION_PHASE = 5, 2


class MSRS(Recording):
    """Pairs of `ROOT/{rgb,thermal}` with YOLO boxes in `ROOT/boxes_<labels>`.

    Args:
        root: the folder.
        split: `all`, `train` or `val`.  The pictures come from a few drives, so validation takes
            every fifth block of ten neighbors instead of single pictures.
        labels: the boxes as seen in `visible` or `infrared` light, or in both (`fusion`).
    """

    def __init__(self, root: Path, split: str = "all", labels: str = "fusion") -> None:
        if labels not in LABEL_SETS:
            raise ConfigError(f"unknown labels '{labels}'", hint=names_hint(labels, LABEL_SETS))
        info = RecordingInfo(
            "msrs", "MSRS", {"rgb": "rgb", "thermal": "thermal"}, det_classes=CLASSES, rate_hz=2.0
        )
        ids = list_ids(root / "rgb", _PICTURES)
        self._blocks = {name: str(i // _BLOCK) for i, name in enumerate(ids)}
        if split != "all":
            ids = [
                name
                for i, name in enumerate(ids)
                if (i // _BLOCK % _VALIDATION_EVERY == _VALIDATION_PHASE) == (split == "val")
            ]
        super().__init__(root, info, ids)
        self._rgb = SampleFolder(root / "rgb", _PICTURES)
        self._thermal = SampleFolder(root / "thermal", _PICTURES)
        self._boxes = SampleFolder(root / f"boxes_{labels}", (".txt",))

    def tags(self, index: int) -> frozenset[str]:
        return frozenset({"night" if self.ids[index].endswith("N") else "day"})

    def scene(self, index: int) -> str:
        return self._blocks[self.ids[index]]

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        rgb = load_rgb(self._rgb.file(name))
        thermal = load_thermal(self._thermal.file(name), "counts8")
        for sample in (rgb, thermal):
            if sample.data.shape[:2] != SIZE:  # that of the boxes
                height, width = sample.data.shape[:2]
                raise DataError(
                    f"is {width}x{height}, MSRS pictures are {SIZE[1]}x{SIZE[0]}",
                    where=str(self.root / sample.kind / name),
                )
        return Frame(
            {
                "rgb": Sample("rgb", rgb.data, stamp, "camera", "rgb8"),
                "thermal": Sample("thermal", thermal.data, stamp, "camera", "mono8", thermal.unit),
            }
        )

    def truth(self, index: int) -> Truth:
        path = self._boxes.file(self.ids[index])
        return Truth(boxes=read_yolo_boxes(path, SIZE, range(len(CLASSES))))
