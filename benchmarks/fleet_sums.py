"""Prints what a fleet takes: bytes, frames, hours of machines, requests and storage, by what was measured.

    python benchmarks/fleet_sums.py [--hours N] [--rate HZ] [--bytes-per-frame B] ...

Nothing is measured here: counts are multiplied with what `benchmarks/fleet.py` and docs/benchmarks.md say.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

HOUR_S = 3600.0
GB, TB = 1e9, 1e12


@dataclass(frozen=True)
class Backend:
    """How long one worker takes for a frame, reading and writing included or not."""

    name: str
    ms: float
    whole: bool = False


BACKENDS = (
    Backend("sim-rgbdtl, ONNX Runtime, 1 core", 22.5, whole=True),
    Backend("sim-rgbdtl, CUDA, an H100", 23.9),
    Backend("road-rgbt, CUDA, an H100", 5.6),
    Backend("indoor-rgbd, CUDA, an H100", 4.4),
)
"""On a core labelling as a whole (`benchmarks/fleet.py`), on a GPU the call alone (docs/benchmarks.md)."""

WORKERS = (1, 10, 100, 1000)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=10_000)
    parser.add_argument("--rate", type=float, default=10.0, help="outputs a second")
    parser.add_argument("--bytes-per-frame", type=float, default=1.106e6, help="of all sensors")
    parser.add_argument(
        "--beside-ms", type=float, default=5.0, help="for reading and writing a frame"
    )
    parser.add_argument("--chunk-s", type=float, default=60.0)
    parser.add_argument("--before-s", type=float, default=2.0, help="played before each chunk")
    parser.add_argument("--row-bytes", type=float, default=89.0, help="of Parquet, a frame")
    parser.add_argument("--label-bytes", type=float, default=1530.0, help="of label files, a frame")
    parser.add_argument("--store-gb-s", type=float, default=1.25, help="what the store delivers")
    parser.add_argument("--price", type=float, default=1.0, help="of a worker's hour")
    args = parser.parse_args()
    frames = args.hours * HOUR_S * args.rate
    chunks = args.hours * HOUR_S / args.chunk_s
    total = frames * args.bytes_per_frame
    again = args.before_s / args.chunk_s
    print(f"{args.hours:g} hours at {args.rate:g} Hz: {frames / 1e6:.0f} million frames")
    print(f"{total / TB:.0f} TB in, {chunks:.0f} chunks, {100 * again:.1f} % played twice")
    print(f"rows {frames * args.row_bytes / GB:.0f} GB in {2 * chunks / 1e6:.2f} million files")
    print(f"label files {frames * args.label_bytes / TB:.1f} TB, {2 * frames / 1e6:.0f} million\n")
    print("| bundle and backend | worker-hours | MB/s a worker | workers that fill the store |")
    print("|---|---|---|---|")
    for one in BACKENDS:
        fps = 1000 / (one.ms + args.beside_ms * (not one.whole)) / (1 + again)
        hours = frames / fps / HOUR_S
        rate = fps * args.bytes_per_frame
        fill = args.store_gb_s * GB / rate
        print(f"| {one.name} | {hours:,.0f} | {rate / 1e6:.0f} | {fill:.0f} |")
    print("\n| workers | " + " | ".join(f"{n:,}" for n in WORKERS) + " |")
    print("|---|" + "---|" * len(WORKERS))
    for one in BACKENDS:
        fps = 1000 / (one.ms + args.beside_ms * (not one.whole)) / (1 + again)
        cells = []
        for count in WORKERS:
            alone = frames / (fps * count)
            reading = total * (1 + again) / (args.store_gb_s * GB)
            wall = max(alone, reading)
            cells.append(f"{wall / HOUR_S:,.0f} h, {wall / HOUR_S * count * args.price:,.0f}")
        print(f"| {one.name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
