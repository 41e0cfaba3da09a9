"""What boxes on the ground cost beyond inference, and how LiDAR alone compares with a bundle of pictures.

    python benchmarks/ground_overhead.py [BUNDLE] [--points 120000] [--frames 40] [--json FILE]

In one run, in turn, on one core: the LiDAR-only path of BUNDLE (sim-bev where none is named) on turns of a
LiDAR in a street, and the bundle sim-rgbdtl on all of its four sensors.  Prints the share of engine time
that the points' way into pillars and the decoding of boxes take (at most 20 %), and the LiDAR-only total
over that of sim-rgbdtl (at most 2.5).  Medians of ratios within each round: a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError, ConfigError
from perception.files.writing import write_json
from perception.frame import Frame, Sample
from perception.geometry.transforms import RigidTransform
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.pipeline import Pipeline

MOST_SHARE, MOST_TIMES = 0.20, 2.5
_WARM_UP = 5
_SENSOR_M, _WALLS_M, _REACH_M = 1.8, (8.0, 11.0), 90.0
_BEAMS = np.radians(np.linspace(-24.8, 2.0, 64))


def turn_in_a_street(count: int, seed: int) -> NDArray[np.float32]:
    """A turn of 64 beams between two walls, with boxes of cars' size on the road: (count, 4) x, y, z,
    intensity in the LiDAR's frame."""
    rng = np.random.default_rng(seed)
    steps = -(-count // len(_BEAMS))
    around = np.linspace(-np.pi, np.pi, steps, endpoint=False)
    angle, rise = (g.ravel() for g in np.meshgrid(around, _BEAMS, indexing="ij"))
    ahead, side, up = np.cos(rise) * np.cos(angle), np.cos(rise) * np.sin(angle), np.sin(rise)
    with np.errstate(divide="ignore"):
        ground = np.where(up < 0, _SENSOR_M / -up, np.inf)
        wall = np.where(side > 0, _WALLS_M[0] / side, -_WALLS_M[1] / side)
    # A third of the directions end on what stands in the street.
    objects = np.where(rng.random(steps) < 0.3, rng.uniform(5, 45, steps), np.inf).repeat(
        len(_BEAMS)
    )
    objects = np.where((np.abs(up * objects) < _SENSOR_M), objects, np.inf)
    away = np.minimum.reduce([ground, np.abs(wall), objects, np.full(len(up), _REACH_M)])
    away += rng.normal(0, 0.02, len(away))
    points = np.column_stack([ahead * away, side * away, up * away, rng.random(len(away))])
    return points[:count].astype(np.float32)


def _lidar_of(pipeline: Pipeline) -> str:
    inputs = pipeline.manifest.inputs
    found = [n for n in pipeline.sensors if "pillars" in inputs[pipeline.inputs[n]].tensors]
    if not found:
        hint = "a bundle whose points lie on the ground"
        raise ConfigError("takes no points", where=pipeline.manifest.name, hint=hint)
    return found[0]


def _timed(pipeline: Pipeline, frame: Frame) -> dict[str, float]:
    pipeline.reset()
    result = pipeline(frame)
    if len(result.used) != len(frame):
        raise ConfigError("; ".join(result.lines), where=pipeline.manifest.name)
    steps = {k.partition("_")[0]: 0.0 for k in result.timings}
    for name, spent in result.timings.items():
        steps[name.partition("_")[0]] += spent
    return {**steps, "engine": result.engine_ms}


def measure(bundle: str, points: int, frames: int) -> dict[str, Any]:
    """The ratios, and the medians of milliseconds that they are of."""
    pipeline = Pipeline.load(bundle, "cpu", threads=1)
    pictures = Pipeline.load("sim-rgbdtl", "cpu", threads=1)
    name, pose = _lidar_of(pipeline), RigidTransform(np.eye(3), np.array([0, 0, _SENSOR_M]))
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    for index in range(_WARM_UP + frames):
        data = turn_in_a_street(points, index)
        sample = Sample("lidar", data, index, "lidar", sensor=name, pose=pose)
        own = _timed(pipeline, Frame({name: sample}, index))
        other = _timed(pictures, synthetic_frame(pictures, index))
        if index >= _WARM_UP:
            rows.append((own, other))

    def median(values: list[float]) -> float:
        return round(float(np.median(values)), 4)

    steps = ("preprocess", "encode", "fuse", "postprocess", "engine", "total")
    return {
        "bundle": pipeline.manifest.name,
        "backend": pipeline.backend,
        "points": points,
        "frames": frames,
        "voxels_over_engine": median([own["preprocess"] / own["engine"] for own, _ in rows]),
        "decoding_over_engine": median([own["postprocess"] / own["engine"] for own, _ in rows]),
        "share": median([(o["preprocess"] + o["postprocess"]) / o["engine"] for o, _ in rows]),
        "times_sim_rgbdtl": median([own["total"] / other["total"] for own, other in rows]),
        "lidar_only_ms": {s: median([own.get(s, 0.0) for own, _ in rows]) for s in steps},
        "sim_rgbdtl_ms": {s: median([other.get(s, 0.0) for _, other in rows]) for s in steps},
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Measure and print; the exit status is 0 whatever comes out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="sim-bev")
    parser.add_argument("--points", type=int, default=120_000)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        found = measure(args.bundle, args.points, args.frames)
        if args.json:
            write_json(args.json, found)
    except AnySenseError as error:
        print(f"ground_overhead: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1))
    for what, value, most in (
        ("voxels and decoding / engine", found["share"], MOST_SHARE),
        ("LiDAR alone / sim-rgbdtl", found["times_sim_rgbdtl"], MOST_TIMES),
    ):
        verdict = "within the limit" if value <= most else "beyond the limit"
        print(f"{what}: {value:.3f} ({verdict} of {most:g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
