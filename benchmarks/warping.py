"""What it costs to bring a camera that stands elsewhere to the reference's pixels, on one core.

    python benchmarks/warping.py [--rounds N] [--json FILE]

A thermal picture (640x512, lens distortion) and a depth picture (640x480), each turned and 10 cm beside a
colour camera, come to a grid of 640x480.  Side by side in one run, by turns: plain resampling, which is what
aligned cameras get; `cv2.remap` with maps of floats that are there already; and the step as pipelines take
it, with everything on a plane and by depth.  Medians in milliseconds of the thread's own time, which other
programs on the machine stretch less than that of the clock, and their ratios to the first two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec
from perception.runtime.alignment import Aligner, Alignment
from perception.sensors.registry import kind_of

SIZE = (480, 640)
LIMIT_MS = 1.5
_PLAIN, _REMAP = "plain resample", "cv2.remap"


def frame() -> dict[str, Sample]:
    """A room: a wall that is not straight, and a pillar before it."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    v, u = np.mgrid[:height, :width]
    depth = (4 + np.sin(u / 90) + 0.3 * np.cos(v / 40)).astype(np.float32)
    depth[100:400, 250:330] = 1.5
    depth += rng.normal(0, 0.005, SIZE).astype(np.float32)
    depth[rng.random(SIZE) < 0.03] = np.nan
    turned = RigidTransform.from_quaternion_xyzw([0.01, 0.03, 0.005, 1], [0.1, 0.02, 0.0])
    hot = CameraModel(640, 512, 580, 580, 322, 250, "plumb_bob", (-0.2, 0.05, 0.001, 0.001, 0.0))
    deep = CameraModel(640, 480, 560, 560, 318, 242)
    color = CameraModel(640, 480, 540, 540, 320, 240)
    thermal = rng.uniform(0, 255, (512, 640)).astype(np.float32)
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (*SIZE, 3), np.uint8), 0, camera=color),
        "depth": Sample("depth", depth, 0, camera=deep, extrinsics=turned),
        "thermal": Sample("thermal", thermal, 0, unit="counts8", camera=hot, extrinsics=turned),
    }


def steps() -> dict[str, dict[str, Callable[[], Any]]]:
    """By sensor, what is timed."""
    samples = frame()
    view = {"height": SIZE[0], "width": SIZE[1]}
    inputs = {n: InputSpec(kind=n, view=view) for n in samples}
    aligned = {
        **samples,
        "depth": Sample("depth", samples["depth"].data, 0, camera=samples["rgb"].camera),
    }
    v, u = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    maps = (u * np.float32(0.95) + 12, v * np.float32(0.97) + 7)
    found: dict[str, dict[str, Callable[[], Any]]] = {}

    def way(name: str, given: dict[str, Sample], config: Alignment) -> Callable[[], Any]:
        aligner = Aligner(inputs, tuple(inputs), config)
        register = kind_of(name).register
        assert register is not None
        pixels, others = given[name].data, [given["depth"]]

        def run() -> Any:
            # A picture of its own each time: of one depth picture distances are computed once.
            one = Sample(
                name,
                pixels.view(),
                0,
                unit=given[name].unit,
                camera=given[name].camera,
                extrinsics=given[name].extrinsics,
            )
            near = [
                Sample("depth", o.data.view(), 0, camera=o.camera, extrinsics=o.extrinsics)
                for o in others
            ]
            for sample in (given["rgb"], *near, one):
                aligner.note(sample)
            placement = aligner.place(one, "rgb", near)
            assert placement is not None
            return register(one, inputs[name], placement)

        return run

    for name in ("thermal", "depth"):
        sample, record = samples[name], kind_of(name)
        nearest = cv2.INTER_NEAREST if name == "depth" else cv2.INTER_LINEAR
        # A picture as large as the grid would not be resampled at all: of another size it is.
        other = Sample(
            name,
            np.ascontiguousarray(np.vstack([sample.data, sample.data])[:512]),
            0,
            unit=sample.unit,
        )

        def plain(
            record: Any = record, other: Sample = other, spec: InputSpec = inputs[name]
        ) -> Any:
            return record.resample(other, spec)

        def remap(data: Any = sample.data, mode: int = nearest) -> Any:
            return cv2.remap(
                data, *maps, mode, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,)
            )

        found[name] = {_PLAIN: plain, _REMAP: remap}
    found["thermal"] |= {
        "far away": way("thermal", samples, Alignment(depth=False)),
        "on a plane": way("thermal", samples, Alignment(depth=False, plane_m=3.0)),
        "by aligned depth": way("thermal", aligned, Alignment()),
        "by depth from elsewhere": way("thermal", samples, Alignment()),
    }
    found["depth"]["registered"] = way("depth", samples, Alignment())
    # In a pipeline the depth picture is registered once, for itself and for thermal.
    return found


def measured(rounds: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, by sensor and step; steps are taken by turns."""
    ways = steps()
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 5):
        for sensor, own in ways.items():
            for step, run in own.items():
                start = time.thread_time_ns()
                run()
                if number >= 5:
                    spent = (time.thread_time_ns() - start) / 1e6
                    times.setdefault((sensor, step), []).append(spent)
    return {s: {step: float(np.median(times[s, step])) for step in own} for s, own in ways.items()}


def main() -> int:
    """Measure, print, write the JSON; status 1 where a step takes longer than `LIMIT_MS`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found = measured(args.rounds)
    beyond = False
    for sensor, own in found.items():
        print(f"{sensor}, {SIZE[1]}x{SIZE[0]}, one core")
        for step, spent in own.items():
            ratios = f"{spent / own[_PLAIN]:6.1f} x {_PLAIN}, {spent / own[_REMAP]:5.1f} x {_REMAP}"
            print(f"  {step:24} {spent:6.2f} ms {ratios}")
            beyond |= step not in (_PLAIN, _REMAP) and spent > LIMIT_MS
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(beyond)


if __name__ == "__main__":
    raise SystemExit(main())
