"""Every fault of every sensor of a frame at severities 1, 3 and 5, as a picture to look at.

    python benchmarks/corruptions.py --out out/corruptions                  # a simulated street
    python benchmarks/corruptions.py --data folder:out/drive --frame 12 --out out/corruptions
    python benchmarks/corruptions.py --table                                # severities, in Markdown

Writes one PNG for each sensor.  What is drawn in false colors has the scale of the clean picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.cli.parsing import MAX_SEED, whole
from perception.corruptions import DELIVERY, Severity, corrupt, faults_of, severity_of
from perception.corruptions.content import SHARED
from perception.data.registry import open_recording
from perception.errors import AnySenseError
from perception.files.folders import scratch_folder
from perception.files.writing import write_image
from perception.frame import Frame, Sample
from perception.sensors.names import kinds
from perception.sensors.registry import kind_of
from perception.viz.overlay import draw_sample

SHOWN = (1, 3, 5)
WIDTH, HEAD = 300, 22

Image = NDArray[np.uint8]


def drawn_beside(clean: Sample, spoilt: Sample) -> Image:
    """The spoilt sample, in the colors of the clean one."""
    if not kind_of(clean.kind).has_picture:
        return draw_sample(spoilt)
    both = np.concatenate([clean.data, spoilt.data], axis=1)
    return draw_sample(replace(clean, data=both, camera=None))[:, clean.data.shape[1] :]


def tile(picture: Image, title: str) -> Image:
    """A picture of one width under a line of text."""
    height = round(WIDTH * picture.shape[0] / picture.shape[1])
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    head = np.full((HEAD, WIDTH, 3), 25, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(head, title, (6, 15), font, 0.42, (235, 240, 245), 1, cv2.LINE_AA)
    return np.vstack([head, small])


def sheet(clean: Sample, seed: int) -> Image:
    """Rows of faults that show, from the clean sample to severity 5."""
    rows = []
    before = draw_sample(clean)
    for fault in faults_of(clean.kind):
        severity = severity_of(clean.kind, fault)
        unit = severity.unit.split(":")[0].split(",")[0].split(";")[0] if severity else ""
        tiles, shows = [tile(before, f"{clean.sensor}: {fault}")], False
        for level in SHOWN:
            amount = f"{severity.at(level):g} {unit}"[:34] if severity and unit else ""
            picture = drawn_beside(clean, corrupt(clean, fault, level, seed))
            tiles.append(tile(picture, f"{level}: {amount}"))
            shows = shows or not np.array_equal(picture, drawn_beside(clean, clean))
        if shows:
            rows.append(np.hstack(tiles))
    return np.vstack(rows)


def table(of: Iterable[str]) -> str:
    """All severities of these kinds in Markdown, a table for each."""
    parts = []
    for kind in of:
        found = ((fault, severity_of(kind, fault)) for fault in kind_of(kind).faults)
        own = {fault: severity for fault, severity in found if severity is not None}
        parts.append(f"### {kind_of(kind).called}\n\n{_table(own)}")
    shared = {name: each.severity for name, each in SHARED.items()}
    parts.append(f"### Any sensor\n\n{_table(shared)}")
    parts.append(f"### On the way\n\n{_table(DELIVERY)}")
    return "\n\n".join(parts)


def _table(faults: Mapping[str, Severity]) -> str:
    lines = ["| fault | what happens | severity 1 to 5 | unit | source |", "|---|---|---|---|---|"]
    for name, s in faults.items():
        amounts = ", ".join(f"{a:g}" for a in s.amounts) if s.unit else "always the same"
        lines.append(f"| `{name}` | {s.text} | {amounts} | {s.unit} | {s.source} |")
    return "\n".join(lines)


def _frame(data: str, index: int, size: int) -> Frame:
    if data:
        kind, _, folder = data.partition(":")
        return open_recording(kind, Path(folder)).frame(index)
    from perception.sim.generate import make_recording

    with scratch_folder("a simulated street") as folder:
        shape = (size * 3 // 4, size)
        make_recording(folder / "drive", "drive", index + 1, 7, size=shape, progress=False)
        return open_recording("folder", folder / "drive").frame(index)


def main() -> int:
    """Draw the sheets, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", metavar="KIND:DIR", help="default: simulated")
    parser.add_argument("--frame", type=whole(0), default=0)
    parser.add_argument("--size", type=whole(64, 4096), default=640, help="width, if simulated")
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0)
    parser.add_argument("--out", type=Path, default=Path("out/corruptions"))
    parser.add_argument("--table", action="store_true", help="print the severities")
    args = parser.parse_args()
    if args.table:
        print(table(kinds()))
        return 0
    try:
        frame = _frame(args.data, args.frame, args.size)
        args.out.mkdir(parents=True, exist_ok=True)
        for sensor, sample in frame.items():
            write_image(args.out / f"{sensor}.png", sheet(sample, args.seed))
    except AnySenseError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {len(frame)} sheets to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
