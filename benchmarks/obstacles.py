"""How many obstacle points of a recording with truth `ObstacleRules` keeps, and how many of the ground.

python benchmarks/obstacles.py --bundle bundles/sim-rgbdtl --data folder:DIR
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np

from perception.data.registry import open_recording, parse_data_argument
from perception.runtime.pipeline import Pipeline
from perception.tasks.obstacles import OBSTACLE, TRAVERSABLE, ClassRoles, ObstacleRules


def main() -> None:
    """Parse the arguments, measure, print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=100)
    args = parser.parse_args()
    pipeline = Pipeline.load(args.bundle, device="cpu", wanted=("points",))
    data = open_recording(*parse_data_argument(args.data))
    rules = ObstacleRules(ClassRoles.common(pipeline.manifest.seg_classes))
    ways = {"labels": replace(rules, ground_m=0.0), "labels and ground": rules}
    truth_roles = ClassRoles.common(data.info.seg_classes).table
    found = {name: np.zeros(4, int) for name in ways}
    for index in range(min(args.limit, len(data))):
        points = pipeline(data.frame(index)).points
        truth = data.truth(index).labels
        if points is None or truth is None:
            continue
        numbered = replace(points, sensor="", column=np.arange(len(points.column), dtype=np.int32))
        role = truth_roles[truth[points.row, points.column]]
        for name, way in ways.items():
            kept = np.zeros(len(role), bool)
            kept[way.obstacles(numbered).column] = True
            counts = [
                ((role == r) & (kept == k)).sum() for r in (OBSTACLE, TRAVERSABLE) for k in (1, 0)
            ]
            found[name] += np.array(counts)
    out = {
        name: {
            "obstacle points kept, %": round(100 * n[0] / max(n[0] + n[1], 1), 2),
            "ground points taken for obstacles, %": round(100 * n[2] / max(n[2] + n[3], 1), 3),
            "points": int(n.sum()),
        }
        for name, n in found.items()
    }
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
