"""Prints what the pipeline costs beyond inference, and what a missing sensor saves, as ratios.

    python benchmarks/overhead.py [BUNDLE] [--frames N] [--json FILE]

The same as `anysense bench`, for the bundle `indoor-rgbd` when none is named, with the two numbers
that are held against the limits (overhead at most 8% of engine time with all sensors, at least
34% less latency when one of two sensors is missing) in a line each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from perception.cli.arguments import output_file
from perception.cli.bench import add_bench_arguments, run
from perception.errors import AnySenseError

MAX_OVERHEAD, MIN_SAVING = 0.08, 0.34


def main() -> int:
    """Run the benchmark and judge its ratios; the exit status is 0 whatever they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_bench_arguments(parser, default="indoor-rgbd")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()
    try:
        output_file(args.json)
        with tempfile.TemporaryDirectory() as folder:
            args.json = args.json or Path(folder) / "bench.json"
            run(args)
            content = json.loads(args.json.read_text())
    except AnySenseError as error:
        print(f"overhead: error: {error}", file=sys.stderr)
        return 2
    for label, found in content["bundles"].items():
        overhead = next(iter(found["subsets"].values()))["overhead_over_engine"]
        print(f"{label}: overhead / engine {overhead:.3f} ({_judged(overhead <= MAX_OVERHEAD)})")
        if len(found["saving_when_lost"]) == 2:
            saving = min(found["saving_when_lost"].values())
            print(f"{label}: least saving {saving:.3f} ({_judged(saving >= MIN_SAVING)})")
    return 0


def _judged(good: bool) -> str:
    return "within the limit" if good else "beyond the limit"


if __name__ == "__main__":
    sys.exit(main())
