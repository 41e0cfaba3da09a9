"""NYU Depth v2: indoor RGB-D frames with 40 semantic classes.

Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012; the 40
classes are those of Gupta et al., CVPR 2013.
"""

from __future__ import annotations

from pathlib import Path

from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth
from perception.data.classes import distinct_color
from perception.data.files import read_labels
from perception.errors import DataError
from perception.files.listing import SampleFolder, list_ids
from perception.frame import Frame, Sample
from perception.sensors.depth.decode import load_depth
from perception.sensors.rgb.decode import load_rgb

# fmt: off
CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror",
    "floor_mat", "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel",
    "shower_curtain", "box", "whiteboard", "person", "night_stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)
# fmt: on

DEPTH_SCALE_M = 10.0 / 255.0
"""Metres per step of the repacked 8 bit depth images: 255 is 10 m, the reach of the sensor."""

_PICTURES = (".jpg", ".png")
_VALIDATION_EVERY, _VALIDATION_PHASE = 7, 3


def scene_runs(ids: list[str]) -> list[list[str]]:
    """Runs of consecutive ids.

    The official split assigns whole scenes and ids are consecutive within a scene, so no scene
    spans a gap between runs of training ids.
    """
    runs: list[list[str]] = []
    for name in ids:
        if runs and int(name) == int(runs[-1][-1]) + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


class NYUv2(Recording):
    """Frames of `ROOT/{rgb,depth,label}`; depth is mapped to metres here, once.

    Args:
        root: the folder.
        split: `all`, or a part of the official training frames: `val` is every seventh run of
            consecutive ids (whole scenes), `train` the others.
    """

    def __init__(self, root: Path, split: str = "all") -> None:
        classes = tuple(ClassInfo(i, n, distinct_color(i)) for i, n in enumerate(CLASS_NAMES))
        info = RecordingInfo(
            "nyuv2",
            "NYU Depth v2",
            {"rgb": "rgb", "depth": "depth"},
            seg_classes=classes,
            rate_hz=2.0,
        )
        ids = list_ids(root / "rgb", _PICTURES)
        if split != "all":
            if not all(name.isascii() and name.isdigit() for name in ids):
                raise DataError(
                    "ids are not numbers, so scenes cannot be told apart", where=str(root)
                )
            held_out = {
                name
                for i, run in enumerate(scene_runs(ids))
                if i % _VALIDATION_EVERY == _VALIDATION_PHASE
                for name in run
            }
            ids = [name for name in ids if (name in held_out) == (split == "val")]
        super().__init__(root, info, ids)
        numbered = all(name.isascii() and name.isdigit() for name in ids)
        runs = scene_runs(ids) if numbered else [[name] for name in ids]
        self._scenes = {name: run[0] for run in runs for name in run}
        self._rgb = SampleFolder(root / "rgb", _PICTURES)
        self._depth = SampleFolder(root / "depth", (".png",))
        self._labels = SampleFolder(root / "label", (".png",))

    def scene(self, index: int) -> str:
        return self._scenes[self.ids[index]]

    def frame(self, index: int) -> Frame:
        name, stamp = self.ids[index], self.stamp_ns(index)
        rgb = load_rgb(self._rgb.file(name))
        depth = load_depth(self._depth.file(name), m_per_count8=DEPTH_SCALE_M)
        return Frame(
            {
                "rgb": Sample("rgb", rgb.data, stamp, "camera", "rgb8"),
                "depth": Sample("depth", depth.data, stamp, "camera", "32FC1"),
            }
        )

    def truth(self, index: int) -> Truth:
        path = self._labels.file(self.ids[index])
        return Truth(labels=read_labels(path, len(CLASS_NAMES)))
