"""Makes the simulated drives of configs/sim-bev-data.yaml, and compares the objects in them with that file.

    python benchmarks/bev_data.py --out data/sim-bev [--parts val test] [--workers 2] [--write]

Exits with 1 where the counts differ.  `--write` puts them into the file instead, behind what it says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from perception.data.folder import FolderRecording
from perception.data.objects import object_counts
from perception.sim.drives import Drives, make_drives

FILE = Path(__file__).parents[1] / "configs/sim-bev-data.yaml"
HEADING = "objects:"


def counts(root: Path) -> dict[str, Any]:
    """Towns, conditions and objects of a part."""
    recording = FolderRecording(root)
    tags = Counter(tag for i in range(len(recording)) for tag in recording.tags(i))
    towns = len({recording.scene(i) for i in range(len(recording))})
    return {
        "towns": towns,
        "frames_by_tag": dict(sorted(tags.items())),
        "classes": object_counts(recording),
    }


def main() -> int:
    """Make the parts that are not there yet, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", choices=("train", "val", "test"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    content = yaml.safe_load(FILE.read_text())
    found = dict(content.get("objects") or {})
    wrong = []
    for part, own in content["parts"].items():
        if args.parts and part not in args.parts:
            continue
        fields = {**content["common"], **own}
        fields["size"] = tuple(fields["size"])
        drives, start = Drives(**fields), time.perf_counter()
        if not (args.out / part).exists():
            make_drives(args.out / part, drives, workers=args.workers)
            print(f"{part}: {drives.frames} frames in {time.perf_counter() - start:.0f} s")
        counted = counts(args.out / part)
        wrong += [part] if found.get(part) != counted else []
        found[part] = counted
    if args.write:
        text = FILE.read_text().split(f"{HEADING}\n")[0]
        listed = yaml.safe_dump(
            {"objects": {part: found[part] for part in content["parts"] if part in found}},
            sort_keys=False,
            default_flow_style=None,
            width=110,
        )
        FILE.write_text(text + listed)
        return 0
    for part in wrong:
        print(f"{part}: other objects than {FILE.name} says", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
