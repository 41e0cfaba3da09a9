"""What a LiDAR cloud costs before the network in two versions by turns, and what memory alone would take.

    git worktree add ../before COMMIT
    python benchmarks/clouds.py ../before . [--rounds N] [--json FILE]

A made-up turn of 64 beams (123 k points; a sixth falls into a KITTI camera's picture) is decoded from a
`PointCloud2`, then brought to the input of `sim-rgbdtl` and checked, each in milliseconds of the thread's own
time, which other programs on the machine stretch less than that of the clock.  Status 1 where the versions'
inputs differ in a bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS = ("decode", "input")
_CALLS = 5


def turn() -> np.ndarray[Any, Any]:
    """(N, 4) float32: ground and walls around a LiDAR 1.7 m above, ring after ring."""
    rng = np.random.default_rng(0)
    up, around = np.radians(np.linspace(2, -24.8, 64)), np.linspace(0, 2 * np.pi, 1925)
    wall = 12 + 8 * np.sin(3 * around) ** 2 + rng.normal(0, 0.02, (64, 1925))
    ground = 1.7 / np.maximum(np.sin(-up), 1e-3)[:, None]
    reach = np.minimum(wall, ground) + rng.normal(0, 0.02, (64, 1925))
    level = reach * np.cos(up)[:, None]
    x, y = level * np.cos(around), level * np.sin(around)
    z = reach * np.sin(up)[:, None]
    points = np.stack([x, y, z, rng.random(reach.shape)], axis=-1)
    return points.reshape(-1, 4).astype(np.float32)


def work() -> None:
    """Answer each line of the input with the times of some calls, and with what was made."""
    from perception.adapters.pointcloud import PointField, decode_pointcloud2
    from perception.frame import Sample
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform
    from perception.preprocess.sample import preprocess_sample
    from perception.runtime.bundle import Bundle, find_bundle
    from perception.runtime.health import HealthMonitor

    cloud, health = turn(), HealthMonitor()
    fields = [PointField(n, 4 * i, 7) for i, n in enumerate(("x", "y", "z", "intensity"))]
    data, count = cloud.tobytes(), len(cloud)
    camera = CameraModel(1242, 375, 721.5, 721.5, 609.6, 172.9)
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    mount = RigidTransform(axes, np.array([0.0, -0.08, -0.27]))
    input = Bundle.open(find_bundle("sim-rgbdtl")).manifest.inputs["lidar"]
    out = preprocess_sample(Sample("lidar", cloud, camera=camera, extrinsics=mount), input)
    for _ in sys.stdin:
        spent: dict[str, list[float]] = {step: [] for step in STEPS}
        for stamp in range(_CALLS):
            start = time.thread_time()
            points = decode_pointcloud2(fields, data, width=count, height=1, point_step=16)
            decoded = time.thread_time()
            sample = Sample("lidar", points, stamp, camera=camera, extrinsics=mount)
            preprocess_sample(sample, input, out)
            health.reset()  # the same cloud again is no frozen sensor here
            health.check(sample)
            spent["decode"].append(decoded - start)
            spent["input"].append(time.thread_time() - decoded)
        made = hashlib.sha256(b"".join(a.tobytes() for _, a in sorted(out.items())))
        said = {step: 1e3 * float(np.median(v)) for step, v in spent.items()}
        print(json.dumps(said | {"made": made.hexdigest()}), flush=True)


def memory_ms() -> float:
    """What moving the cloud in and the network's input out would take at the speed of memory."""
    far = np.ones(2**26, np.float32)
    times = []
    for _ in range(5):
        start = time.thread_time()
        far.max()
        times.append(time.thread_time() - start)
    moved = turn().nbytes + 4 * 4 * 256 * 320
    return 1e3 * moved / (far.nbytes / min(times))


def main() -> int:
    """Have both versions work in turns; 1 where what they make differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of one version")
    parser.add_argument("after", type=Path, help="checkout of another")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()
    workers = {name: _start(getattr(args, name)) for name in ("before", "after")}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for index in range(args.rounds + 1):
        for name in sorted(workers, reverse=index % 2 == 0):
            answer = _ask(workers[name])
            if index:  # the first is for warming up
                rows[name].append(answer)
    for worker in workers.values():
        worker.communicate()
    found: dict[str, Any] = {"memory_ms": memory_ms()}
    for step in STEPS:
        before, after = (np.array([r[step] for r in rows[n]]) for n in ("before", "after"))
        found[step] = {
            "before_ms": float(np.median(before)),
            "after_ms": float(np.median(after)),
            "ratio": float(np.median(after / before)),
        }
        print(step, {key: round(value, 3) for key, value in found[step].items()})
    print(f"cloud and input at the speed of memory: {found['memory_ms']:.3f} ms")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return int(len({row["made"] for turns in rows.values() for row in turns}) > 1)


def _start(checkout: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, __file__, "--work"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def _ask(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("again\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work()
    else:
        sys.exit(main())
