"""The table of several bundles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from perception.cli.main import main
from perception.evaluation.zoo_table import make_rows, to_markdown

TASKS = ("segmentation", "boxes2d")
MANIFEST = SimpleNamespace(
    name="zoo-x",
    tasks=TASKS,
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


def _cells(table: str, start: str) -> list[str]:
    (line,) = (line for line in table.split("\n") if line.startswith(f"| {start}"))
    assert line.endswith(" |")
    return line[2:-2].split(" | ")


def test_each_metric_of_a_bundle_has_a_row_and_each_column_its_number() -> None:
    many = SimpleNamespace(
        name="b", tasks=TASKS, modalities=("rgb", "thermal"), model={"name": "m", "parameters": 10**10},
        training={},
    )  # fmt: skip
    scores = {
        "thermal": {"miou": 0.25, "ap50": None},
        "rgb": {"miou": 0.125, "ap50": 0.75},
        "rgb+thermal": {"miou": 0.5, "ap50": 0.875},
    }
    rows = [*make_rows(many, scores, 3.26, ""), *make_rows(MANIFEST, SCORES, 12.5, "mIoU 57.7")]
    assert [(row.name, row.metric) for row in rows] == [
        ("b", "miou"), ("b", "ap50"), ("zoo-x", "miou")
    ]  # fmt: skip
    table = to_markdown(rows, "What it is")
    assert table.startswith("What it is\n\n| model |") and table.endswith("\n")
    heads = _cells(table, "model")
    (rule,) = (line for line in table.split("\n") if line.startswith("|-"))
    assert rule.count("---") == len(heads) and set(rule) == {"|", "-"}
    miou, ap50, other = (
        dict(zip(heads, _cells(table, start), strict=True))
        for start in ("m (b) | mIoU", "m (b) | AP50", "ssma")
    )
    assert [miou[k] for k in ("full", "rgb", "depth", "thermal", "mean", "min")] == [
        "50.0", "12.5", "", "25.0", "29.2", "12.5"
    ]  # fmt: skip
    # What was not judged is a dash, and not counted; a sensor that the bundle lacks is empty.
    assert [ap50[k] for k in ("full", "rgb", "depth", "thermal", "mean", "min")] == [
        "87.5", "75.0", "", "-", "81.2", "75.0"
    ]  # fmt: skip
    assert (miou["M params"], miou["GMAC"], miou["CPU ms"]) == ("10000.00", "-", "3.3")
    assert miou["training budget"] == "? epochs of ?, start: ?"
    assert miou["published, not comparable"] == "-"
    assert (other["GMAC"], other["depth"], other["thermal"]) == ("2.00", "10.0", "")
    assert other["training budget"] == "16 epochs of streets, start: random"
    assert other["published, not comparable"] == "mIoU 57.7"
    assert "all subsets" in table and "say what the method can do" in table


def test_a_bundle_that_says_little_of_itself_and_was_not_judged_has_dashes() -> None:
    bare = SimpleNamespace(name="a|<b>", tasks=TASKS, modalities=("rgb",), model={}, training={})
    assert make_rows(bare, {"rgb": {"frames": 3}}, 1.0, "") == []
    (row,) = make_rows(bare, {"rgb": {"ap50": None}}, 1.0, "")
    assert row.full is row.mean is row.minimum is row.parameters is row.gmac is None
    cells = _cells(to_markdown([row], ""), "?")
    assert cells[0] == "? (a\\|&lt;b>)"
    assert cells[2:8] == ["-"] * 6


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
