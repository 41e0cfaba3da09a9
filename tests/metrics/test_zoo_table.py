"""The table of several bundles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from perception.cli.main import main
from perception.metrics.zoo_table import make_rows, to_markdown

MANIFEST = SimpleNamespace(
    name="zoo-x",
    modalities=("rgb", "depth"),
    model={"name": "ssma", "parameters": 1_500_000, "gmac": {"rgb+depth": 2.0, "rgb": 1.5}},
    training={"data": "streets", "epochs": 16, "start": "random"},
)
SCORES = {
    "rgb+depth": {"miou": 0.6, "frames": 5},
    "rgb": {"miou": 0.5, "frames": 5},
    "depth": {"miou": 0.1, "frames": 5},
}


def test_mean_and_minimum_are_over_all_subsets() -> None:
    (row,) = make_rows(MANIFEST, SCORES, 12.5, "mIoU 57.7")
    assert (row.full, row.minimum, row.gmac) == (0.6, 0.1, 2.0)
    assert row.mean == pytest.approx(0.4)
    assert row.single == {"rgb": 0.5, "depth": 0.1}
    table = to_markdown([row], "caption")
    assert (
        "| ssma (zoo-x) | mIoU | 60.0 | 50.0 | 10.0 | 40.0 | 10.0 | 1.50 | 2.00 | 12.5 |" in table
    )
    assert "published, not comparable" in table and "mIoU 57.7" in table


@pytest.mark.slow
def test_bench_zoo_writes_a_row_per_task(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.md"
    arguments = ["bench-zoo", str(tiny_bundle), "--data", f"folder:{simulated}", "--limit", "1"]
    assert main([*arguments, "--frames", "1", "--out", str(out)]) == 0
    table = out.read_text()
    assert table.count("| anyfuse (tiny) |") == 2
    assert "AP50" in table and "rgb | depth | thermal | lidar" in table
    assert (
        main(["bench-zoo", str(tiny_bundle), "--data", f"folder:{simulated}", "--frames", "0"]) == 2
    )
    assert "--frames: must be at least 1" in capsys.readouterr().err
