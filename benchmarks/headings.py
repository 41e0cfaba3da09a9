"""Prints how far off headings of boxes in space are, in turned scenes: streets do not tell them there.

    python benchmarks/headings.py BUNDLE --data KIND:DIR [--sensors lidar,...] [--turn 20] [--near 15]
        [--within 2] [--seed 0]

Each frame of the recording is turned about the vehicle by its own angle, drawn evenly from both sides: all
sensors sit elsewhere by it, and so do the boxes of its truth.  A box that is found belongs to the nearest
one of its class within `--within` metres, each to one; boxes that are to be ignored do not count.

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

from perception.data.base import Recording, TruthBoxes3d
from perception.data.registry import open_recording, parse_data_argument
from perception.errors import AnySenseError
from perception.frame import Frame
from perception.geometry.boxes import wrapped
from perception.runtime.pipeline import Pipeline
from perception.tasks.boxes3d import Boxes3d
from perception.training.scene import SceneMove

Float64 = NDArray[np.float64]


def pairs(
    pipeline: Pipeline, recording: Recording, args: argparse.Namespace
) -> Iterator[tuple[Float64, ...]]:
    """Of each box of the truth that was found: its class, how far away it is, its yaw, and the yaw found."""
    rng = np.random.default_rng(args.seed)
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    wanted = [s for s in args.sensors.split(",") if s]
    for index in range(len(recording)):
        move = SceneMove(turn=float(np.radians(rng.uniform(-1, 1) * args.turn)))
        truth = recording.truth(index).boxes3d
        if truth is None or truth.frame:
            raise AnySenseError("boxes in space of the base frame are needed", where=args.data)
        given = recording.seen(index, views)
        seen = {n: move.sample(s) for n, s in given.items() if n in wanted or not wanted}
        pipeline.reset()
        found = pipeline(Frame(seen, given.stamp_ns)).boxes3d
        if found is not None:
            yield from _matched(move.boxes(truth), found, args.within)


def _matched(truth: TruthBoxes3d, found: Boxes3d, within: float) -> Iterator[tuple[Float64, ...]]:
    left = np.ones(len(found), bool)
    for k in np.flatnonzero(~truth.ignore):
        off = np.hypot(*(found.center[:, :2] - truth.center[k, :2]).T)
        off[~left | (found.class_ids != truth.class_ids[k])] = np.inf
        if len(off) and off.min() <= within:
            best = int(off.argmin())
            left[best] = False
            away = np.hypot(*truth.center[k, :2])
            yield truth.class_ids[k], away, truth.yaw[k], found.yaw[best]


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
        rows = np.array(list(pairs(pipeline, open_recording(kind, root), args)), np.float64)
    except AnySenseError as error:
        print(f"headings: error: {error}", file=sys.stderr)
        return 2
    labels = pipeline.manifest.tasks.every["boxes3d"].labels
    print("class      where found  axis off  if guessed  turned round of 100")
    for line in told(rows.reshape(-1, 4), dict(enumerate(c.name for c in labels)), args.near):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
