"""Recordings and bags of two sensors for tests of fleets, and what a job left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.data.base import Boxes, ClassInfo
from perception.data.folder import FolderRecording, FolderWriter, folder_info

CLASSES = tuple(ClassInfo(i, f"c{i}", (i * 20, 2, 3)) for i in range(3))
BOXES = tuple(ClassInfo(i, f"b{i}", (2, i * 20, 3)) for i in range(2))
SIZE = (48, 64)
PERIOD_NS = 100_000_000


def write_recording(root: Path, frames: int, seed: int, dead: range = range(0)) -> Path:
    """Color and depth at 10 Hz with truth; `dead` frames have no color."""
    rng = np.random.default_rng(seed)
    info = folder_info(
        name=root.name,
        sensors={"rgb": "rgb", "depth": "depth"},
        size=SIZE,
        seg_classes=CLASSES,
        det_classes=BOXES,
        rate_hz=10.0,
    )
    with FolderWriter(root, info) as writer:
        for index in range(frames):
            samples: dict[str, Any] = {
                "depth": rng.uniform(1, 5, SIZE).astype(np.float32),
                "rgb": None if index in dead else rng.integers(0, 255, (*SIZE, 3), np.uint8),
            }
            writer.add(
                f"{index:04d}",
                samples,
                stamp_ns=10**18 + index * PERIOD_NS,
                labels=rng.integers(0, 3, SIZE, np.uint8),
                boxes=Boxes.of([[4, 4, 20, 20]], [index % 2]),
            )
    return root


def write_fleet_bag(
    folder: Path, name: str, frames: int, seed: int, dead: range = range(0)
) -> Path:
    """The same as one MCAP file."""
    from perception.bags.files import messages_of, write_bag

    recording = write_recording(folder / f"of-{name}", frames, seed, dead)
    write_bag(folder / f"bag-{name}", messages_of(FolderRecording(recording)))
    path = folder / "bags" / f"{name}.mcap"
    path.parent.mkdir(exist_ok=True)
    (only,) = (folder / f"bag-{name}").glob("*.mcap")
    return only.rename(path)


def rows_in(out: Path) -> list[dict[str, Any]]:
    """All rows of a job's folder, sorted."""
    import pyarrow.parquet as pq

    found = pq.read_table(out / "rows").to_pylist()
    return sorted(found, key=lambda row: (row["recording"], row.get("stamp_ns", 0), str(row)))


def files_in(root: Path) -> dict[str, bytes]:
    """All files below a folder by name."""
    found = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in found}
