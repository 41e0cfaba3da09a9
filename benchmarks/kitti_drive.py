"""Boxes in space of a bundle on a drive of KITTI, judged as KITTI does it.

    python benchmarks/kitti_drive.py BUNDLE [--data DIR] [--split val] [--sensors lidar,rgb] [--out DIR]

Writes `truth.json` and `predictions.json` into `--out` and holds them against each other with `anysense
metrics kitti`.  Cars count from an overlap of 0.5 on.  Truth is the drive's tracklets.  Vans are cars
there, as they are for whoever learns from the reader `kitti`.  What the picture cuts off is told by
outlines in it, and tracklets are as hidden as they say, those at the picture's edge at least partly.
What is not in the picture is neither truth nor found.  A short drive has fewer objects than KITTI's
curves have points, and then even perfect predictions score below 100: theirs is printed, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.cli.main import main as anysense
from perception.data.kitti import KITTI
from perception.data.tracklets import Tracklet, read_tracklets
from perception.errors import AnySenseError
from perception.evaluation.box_files import read_kitti
from perception.evaluation.evaluate import LOW_SCORE
from perception.files.writing import write_json
from perception.frame import Frame
from perception.geometry.boxes import corners_of
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.metrics.boxes3d import kitti_score
from perception.runtime.pipeline import Pipeline
from perception.tasks.boxes3d import Boxes3d

OVERLAP = {"Car": 0.5, "Pedestrian": 0.5, "Cyclist": 0.5}
TYPES = {"person": "Pedestrian", "car": "Car", "bicycle": "Cyclist", "cyclist": "Cyclist"}
_TRUE_TYPES = {"Person (sitting)": "Person_sitting", "Van": "Car"}
_HIDDEN = {-1: 3, 0: 0, 1: 1, 3: 2}
_NEAREST_M = 0.5
_LEAST_PX = 2.0


class Eye:
    """Rectified camera 2 as KITTI's labels see it.

    Args:
        camera: its model.
        optical: from the LiDAR's frame to the camera's.
    """

    def __init__(self, camera: CameraModel, optical: RigidTransform) -> None:
        self.camera, self.optical = camera, optical

    def row(self, center: Any, size: Any, yaw: float) -> dict[str, Any] | None:
        """A box of the LiDAR's frame (its middle, length, width, height, yaw) as KITTI's fields; None where
        it is not in the picture."""
        box = np.asarray(center, np.float64)[None], np.asarray(size, np.float64)[None]
        corners = self.optical.apply(corners_of(*box, np.array([yaw]))[0])
        if (corners[:, 2] < _NEAREST_M).any():
            return None
        uv, _ = self.camera.project(corners)
        low, high = uv.min(axis=0), uv.max(axis=0)
        whole = [self.camera.width - 1, self.camera.height - 1]
        seen_low, seen_high = low.clip(0, whole), high.clip(0, whole)
        if (seen_high - seen_low).min() < _LEAST_PX:
            return None
        bottom = self.optical.apply(box[0] - [0, 0, box[1][0, 2] / 2])[0]
        ahead = self.optical.rotation @ [np.cos(yaw), np.sin(yaw), 0.0]
        turn = float(np.arctan2(-ahead[2], ahead[0]))
        length, width, height = (float(v) for v in size)
        return {
            "bbox": _floats([*seen_low, *seen_high]),
            "truncated": float(1 - np.prod(seen_high - seen_low) / np.prod(high - low)),
            "hwl": [height, width, length],
            "xyz": _floats(bottom),
            "ry": turn,
            "alpha": turn - float(np.arctan2(bottom[0], bottom[2])),
        }


def _floats(values: Any) -> list[float]:
    return [float(v) for v in values]


def true_rows(tracklets: Sequence[Tracklet], number: int, eye: Eye) -> list[dict[str, Any]]:
    """What is there in a frame of the drive."""
    found = []
    for one in tracklets:
        place, center = one.place(number), one.center(number)
        if place is None or center is None:
            continue
        height, width, length = one.size
        row = eye.row(center, (length, width, height), float(one.poses[place, 3]))
        if row is not None:
            kind = _TRUE_TYPES.get(one.kind, one.kind)
            hidden = _HIDDEN[int(one.occlusion[place])]
            found.append({"type": kind, "occluded": hidden, **row})
    return found


def found_rows(boxes: Boxes3d, names: Sequence[str], to_lidar: RigidTransform, eye: Eye) -> Any:
    """What a pipeline found in a frame."""
    found = []
    centers: NDArray[np.float64] = to_lidar.apply(boxes.center.astype(np.float64))
    for i in range(len(boxes)):
        kind = TYPES.get(names[int(boxes.class_ids[i])])
        row = eye.row(centers[i], boxes.size[i], float(boxes.yaw[i])) if kind else None
        if row is not None:
            found.append({"type": kind, "score": float(boxes.scores[i]), **row})
    return found


def judged(pipeline: Pipeline, drive: KITTI, sensors: Sequence[str]) -> Mapping[str, Any]:
    """Truth and predictions of every frame, as `anysense metrics kitti` reads them.

    Args:
        pipeline: of a bundle that finds boxes on the ground.
        drive: a recording.
        sensors: of the drive that are given; none for all.
    """
    lidar = drive.rig.sensors["lidar"]
    to_base = drive.rig.in_base("lidar")
    assert lidar.camera is not None and lidar.extrinsics is not None and to_base is not None
    eye, to_lidar = Eye(lidar.camera, lidar.extrinsics), to_base.inverse()
    tracklets = read_tracklets(drive.root / "tracklet_labels.xml")
    names = [c.name for c in pipeline.manifest.tasks.every["boxes3d"].labels]
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    truth, predictions = [], []
    for index, name in enumerate(drive.ids):
        given = drive.seen(index, views)
        kept = {n: s for n, s in given.items() if n in sensors or not sensors}
        pipeline.reset()
        boxes = pipeline(Frame(kept, given.stamp_ns)).boxes3d
        truth.append(true_rows(tracklets, int(name), eye))
        predictions.append([] if boxes is None else found_rows(boxes, names, to_lidar, eye))
    return {"truth": truth, "overlap": OVERLAP, "predictions": predictions}


def perfect(truth: Sequence[Sequence[Mapping[str, Any]]], folder: Path) -> dict[str, float | None]:
    """What cars score on the ground (40 points of recall) by difficulty where all of the truth was found."""
    found = [
        [
            {**{k: v for k, v in row.items() if k != "occluded"}, "score": 1 - i / 1000}
            for i, row in enumerate(rows)
            if row["type"] in OVERLAP
        ]
        for rows in truth
    ]
    file = folder / "perfect.json"
    write_json(file, {"truth": truth, "overlap": OVERLAP, "predictions": found})
    true, same, overlap, _ = read_kitti(file, file)
    scores = kitti_score(true, same, overlap).to_dict()["car_detection_ground"]
    return {level: score["r40"] for level, score in scores.items()}


def main() -> int:
    """Run, write, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, default=Path("data/kitti_0005"), metavar="DIR")
    parser.add_argument("--split", default="val", choices=("all", "train", "val"))
    parser.add_argument("--sensors", default="", help="only these, such as lidar (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/kitti_drive"), metavar="DIR")
    args = parser.parse_args()
    try:
        pipeline = Pipeline.load(args.bundle, "cpu", threads=args.threads, min_score=LOW_SCORE)
        given = [s for s in args.sensors.split(",") if s]
        found = judged(pipeline, KITTI(args.data, args.split), given)
        args.out.mkdir(parents=True, exist_ok=True)
        for name in ("truth", "predictions"):
            own = ("truth", "overlap") if name == "truth" else (name,)
            write_json(args.out / f"{name}.json", {key: found[key] for key in own})
        best = perfect(found["truth"], args.out)
    except AnySenseError as error:
        print(f"kitti_drive: error: {error}", file=sys.stderr)
        return 2
    files = [f"--{name}={args.out / f'{name}.json'}" for name in ("truth", "predictions")]
    status = anysense(["metrics", "kitti", *files])
    told = ", ".join(f"{level} {'-' if s is None else f'{s:.1f}'}" for level, s in best.items())
    print(f"R40 of perfect predictions, cars, BEV: {told}")
    return status


if __name__ == "__main__":
    sys.exit(main())
