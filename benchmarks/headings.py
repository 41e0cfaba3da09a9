"""Prints how far off headings of boxes in space are, in turned scenes: streets do not tell them there.

    python benchmarks/headings.py BUNDLE --data KIND:DIR [--sensors lidar,...] [--turn 20] [--near 15]
        [--within 2] [--seed 0]

Each frame of the recording is turned about the vehicle by its own angle, drawn evenly from both sides: all
sensors sit elsewhere by it, and so do the boxes of its truth.  Boxes that are found belong to those of the
truth as `anysense eval` pairs them: the surest first, each with the nearest that is left of its class, nearer
than `--within` metres; what is to be ignored, has no LiDAR point or is beyond the grid does not count.

Of each class, near the vehicle and farther away: how many were found, the median error of the axis in
degrees (a box that is turned round has none), that of one who guesses that everything lies along or across
the vehicle, and how many of a hundred face the other way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Recording, Truth
from perception.data.registry import open_recording, parse_data_argument
from perception.errors import AnySenseError
from perception.evaluation.evaluate import meters_of
from perception.frame import Frame
from perception.geometry.boxes import wrapped
from perception.runtime.pipeline import Pipeline
from perception.tasks.boxes3d_meter import Boxes3dMeter
from perception.training.scene import SceneMove

Float64 = NDArray[np.float64]

TASK = "boxes3d"


def pairs(pipeline: Pipeline, recording: Recording, args: argparse.Namespace) -> Float64:
    """Of each box of the truth that was found: its class, how far away it is, its yaw, and the yaw found.

    Raises:
        AnySenseError: the bundle or the recording has no boxes in the base frame.
    """
    rng = np.random.default_rng(args.seed)
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    wanted = [s for s in args.sensors.split(",") if s]
    meter = meters_of(pipeline.manifest.tasks.every, recording.info).get(TASK)
    if not isinstance(meter, Boxes3dMeter):
        raise AnySenseError("finds no boxes in space of these classes", where=args.bundle)
    for index in range(len(recording)):
        move = SceneMove(turn=float(np.radians(rng.uniform(-1, 1) * args.turn)))
        truth = recording.in_space(index)
        placed = None if truth is None else truth.to_base(recording.rig)
        if placed is None:
            raise AnySenseError("boxes in space of the base frame are needed", where=args.data)
        given = recording.seen(index, views)
        seen = {n: move.sample(s) for n, s in given.items() if n in wanted or not wanted}
        pipeline.reset()
        found = pipeline(Frame(seen, given.stamp_ns)).boxes3d
        meter.add(found, Truth(boxes3d=move.boxes(placed)))
    objects, boxes = meter.matched(args.within)
    away = np.hypot(*objects.center[:, :2].T)
    return np.column_stack([objects.class_ids, away, objects.yaw, boxes.yaw])


def told(rows: Float64, names: Mapping[int, str], near: float) -> Iterator[str]:
    """A line for each class, near and far."""
    for kind, name in names.items():
        for title, place in (("near", rows[:, 1] <= near), ("far", rows[:, 1] > near)):
            own = rows[(rows[:, 0] == kind) & place]
            if not len(own):
                continue
            off = np.abs(wrapped(own[:, 3] - own[:, 2]))
            axis = np.minimum(off, np.pi - off)
            guess = np.abs((own[:, 2] + np.pi / 4) % (np.pi / 2) - np.pi / 4)
            turned, (a, g) = (
                (off > np.pi / 2).mean(),
                np.degrees([np.median(axis), np.median(guess)]),
            )
            yield f"{name:10} {title:5}{len(own):6}{a:10.1f}{g:10.1f}{100 * turned:12.0f}"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True, metavar="KIND:DIR")
    parser.add_argument("--sensors", default="", help="only these, such as lidar (default: all)")
    parser.add_argument(
        "--turn", type=float, default=20.0, metavar="DEG", help="at most, either way"
    )
    parser.add_argument("--near", type=float, default=15.0, metavar="M")
    parser.add_argument("--within", type=float, default=2.0, metavar="M")
    parser.add_argument("--min-score", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        pipeline = Pipeline.load(args.bundle, "cpu", threads=args.threads, min_score=args.min_score)
        kind, root = parse_data_argument(args.data)
        recording = open_recording(kind, root)
        rows = pairs(pipeline, recording, args)
    except AnySenseError as error:
        print(f"headings: error: {error}", file=sys.stderr)
        return 2
    print("class      where found  axis off  if guessed  turned round of 100")
    names = dict(enumerate(c.name for c in recording.info.det_classes))
    for line in told(rows, names, args.near):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
