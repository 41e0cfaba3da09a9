"""Recordings of a robot in a corridor with posts: one .npz file for each frame.

`python -m anysense_corridor DIR` makes such a recording.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.errors import ConfigError
from perception.files.arrays import parse_npz
from perception.files.listing import list_ids
from perception.files.text import read_bytes
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

HEIGHT, WIDTH = 64, 96
CAMERA = CameraModel(WIDTH, HEIGHT, fx=80.0, fy=80.0, cx=47.5, cy=31.5)
CAMERA_HEIGHT_M = 1.0
# From x forward, y left, z up to z forward, x right, y down: the radar sits at the camera.
RADAR_TO_CAMERA = RigidTransform(
    np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]), np.zeros(3)
)
CLASSES = (ClassInfo(0, "corridor", (90, 90, 90)), ClassInfo(1, "post", (230, 160, 40)))
POST = (ClassInfo(0, "post", (230, 160, 40)),)


class Corridor(Recording):
    """Frames of `ROOT/*.npz`, each with `rgb`, `radar`, `labels`, `boxes` and `height`.

    Args:
        root: the folder.
        split: `all`; every fourth frame is `val`, the others are `train`.
        radar: the name of the kind of sensor that radar points are given as; empty for none.
    """

    def __init__(self, root: Path, split: str = "all", radar: str = "") -> None:
        if radar not in ("", "radar"):
            raise ConfigError(f"radar points are no '{radar}'", where="radar", hint="radar")
        sensors = {"rgb": "rgb", "radar": "radar"} if radar else {"rgb": "rgb"}
        info = RecordingInfo(
            kind="corridor",
            name="Corridor",
            sensors=sensors,
            seg_classes=CLASSES,
            det_classes=POST,
            rate_hz=10.0,
            simulated=True,
            licence="CC0-1.0",
        )
        ids = list_ids(root, (".npz",))
        if split != "all":
            ids = [name for i, name in enumerate(ids) if (i % 4 == 3) == (split == "val")]
        super().__init__(root, info, ids)
        places = {"rgb": SensorCalibration(CAMERA, frame_id="camera")}
        if radar:
            places["radar"] = SensorCalibration(extrinsics=RADAR_TO_CAMERA, frame_id="radar")
        self.rig = Rig(places, reference="rgb")

    def _arrays(self, index: int, *names: str) -> dict[str, np.ndarray]:
        path = self.root / f"{self.ids[index]}.npz"
        return parse_npz(read_bytes(path), names, where=str(path))

    def frame(self, index: int) -> Frame:
        arrays, stamp = self._arrays(index, *self.info.sensors), self.stamp_ns(index)
        samples = {
            name: Sample(kind, arrays[name], stamp, "camera" if kind == "rgb" else "radar")
            for name, kind in self.info.sensors.items()
        }
        return Frame({name: self.rig.attach(sample) for name, sample in samples.items()})

    def truth(self, index: int) -> Truth:
        arrays = self._arrays(index, "labels", "boxes", "height")
        boxes = arrays["boxes"]
        return Truth(
            labels=arrays["labels"],
            boxes=Boxes.of(boxes, np.zeros(len(boxes), int)),
            values={"height": arrays["height"]},
        )


def make_frame(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One frame as its file holds it: posts at random places, seen by the camera and the radar."""
    rgb = rng.integers(60, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    height = np.zeros((HEIGHT, WIDTH), np.float32)
    boxes, points = [], []
    for away in sorted(rng.uniform(3.0, 12.0, rng.integers(1, 4)), reverse=True):
        side, tall = rng.uniform(-0.5, 0.5) * away, rng.uniform(0.5, 2.0)
        left, top = CAMERA.fx * (side - 0.3) / away + 47.5, 31.5 - 80 * (tall - 1.0) / away
        right, bottom = left + CAMERA.fx * 0.6 / away, 31.5 + 80 * CAMERA_HEIGHT_M / away
        x0, x1 = (int(np.clip(v, 0, WIDTH)) for v in (left, right))
        y0, y1 = (int(np.clip(v, 0, HEIGHT)) for v in (top, bottom))
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        rgb[y0:y1, x0:x1] = (230, 160, 40)
        labels[y0:y1, x0:x1], height[y0:y1, x0:x1] = 1, tall
        boxes.append([x0, y0, x1, y1])
        for z in np.linspace(-CAMERA_HEIGHT_M, tall - CAMERA_HEIGHT_M, 5):
            radial, rcs = rng.normal(-1.0, 0.1), rng.normal(10.0, 2.0)
            points.append([away, -side + rng.normal(0.0, 0.1), z, radial, rcs])
    return {
        "rgb": rgb,
        "radar": np.array(points, np.float32).reshape(-1, 5),
        "labels": labels,
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "height": height,
    }


def make(root: Path, frames: int = 24, seed: int = 0) -> None:
    """Write a recording."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(frames):
        np.savez(root / f"{number:04d}.npz", **make_frame(rng))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
