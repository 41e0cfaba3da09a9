"""`anysense replay --faults`: sensors of a recording that fail on a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RGBD = ("--topic", "rgb=/cam/rgb", "--topic", "depth=/cam/depth")
MS = 10**6


def _schedule(folder: Path, *events: str) -> tuple[str, str]:
    path = folder / "faults.yaml"
    path.write_text("events:\n" + "".join(f"  - {{{event}}}\n" for event in events))
    return "--faults", str(path)


def test_faults_begin_with_the_first_sample_and_end(kit: Any, replay: Any, tmp_path: Path) -> None:
    faults = _schedule(
        tmp_path,
        "at: 0.35, for: 0.2, sensor: rgb, fault: lost",
        "at: 0.75, for: 0.1, sensor: depth, fault: dark",
    )
    done = replay(kit.write(kit.pairs(12, 100 * MS)), *RGBD, *faults)
    assert done.status == 0
    used = [tuple(row["used"]) for row in done.rows]
    assert used[:4] == [("rgb", "depth")] * 4
    assert used[4:6] == [("depth",)] * 2
    assert used[8] == ("rgb",) and done.rows[8]["health"]["depth"] == "dark"
    assert used[11] == ("rgb", "depth")


def test_what_is_held_up_comes_when_it_is_due(kit: Any, replay: Any, tmp_path: Path) -> None:
    """Both sensors, one by 30 ms: groups are as before, each later by what it waits."""
    faults = _schedule(tmp_path, "at: 0, sensor: depth, fault: delay, value: 0.03")
    clean = replay(kit.write(kit.pairs(8, 100 * MS)), *RGBD)
    late = replay(kit.write(kit.pairs(8, 100 * MS)), *RGBD, *faults)
    assert late.status == 0
    assert [row["stamp_ns"] for row in late.rows] == [row["stamp_ns"] for row in clean.rows]
    assert [row["used"] for row in late.rows] == [row["used"] for row in clean.rows]


@pytest.mark.parametrize(
    "event",
    [
        "at: 0, sensor: rgb, fault: melt",
        "at: 0, sensor: thermal, fault: lost",
        "at: 0, sensor: rgb, fault: beam_loss",
        "at: -1, sensor: rgb, fault: lost",
    ],
)
def test_schedules_that_make_no_sense(kit: Any, replay: Any, tmp_path: Path, event: str) -> None:
    done = replay(kit.write(kit.pairs(3, 100 * MS)), *RGBD, *_schedule(tmp_path, event))
    assert done.status == 2
    assert "event 1" in done.out + done.error and "Traceback" not in done.out + done.error
