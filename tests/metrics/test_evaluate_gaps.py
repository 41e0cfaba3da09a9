"""Evaluation where frames lack sensors or truth: who was judged is counted, and nothing is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_kit import BOXES, CLASSES, write_recording
from small_bundles import SmallBundles

from perception.cli.main import main
from perception.data import open_recording
from perception.data.base import IGNORE_LABEL, Recording, Truth
from perception.evaluation.evaluate import evaluate_subsets
from perception.evaluation.zoo_table import make_rows, to_markdown
from perception.frame import Frame, subset_name, subsets_of
from perception.runtime.pipeline import Pipeline


class Gappy(Recording):
    """Another recording's first frames, without some sensors and with other truth."""

    def __init__(
        self, whole: Recording, lacks: Mapping[int, set[str]], truth: Mapping[int, Truth]
    ) -> None:
        super().__init__(whole.root, whole.info, whole.ids[:4])
        self._whole, self._lacks, self._truth = whole, lacks, truth

    def frame(self, index: int) -> Frame:
        return self._whole.frame(index).without(*self._lacks.get(index, set()))

    def truth(self, index: int) -> Truth:
        return self._truth.get(index, self._whole.truth(index))


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle)


def _scores(pipeline: Pipeline, recording: Recording) -> dict:
    seen = []
    found = evaluate_subsets(
        pipeline, recording, subsets_of(("rgb", "depth")), lambda: seen.append(1)
    )
    assert len(seen) == 3 * len(recording)  # progress reaches its end
    return found


def test_a_subset_is_judged_on_frames_that_have_all_of_it(
    pipeline: Pipeline, simulated: Path
) -> None:
    whole = open_recording("folder", simulated)
    found = _scores(pipeline, Gappy(whole, {1: {"depth"}, 2: {"rgb", "depth"}}, {}))
    counts = {name: (row["frames"], row["answered"], row["judged"]) for name, row in found.items()}
    assert counts == {"rgb+depth": (2, 2, 2), "rgb": (3, 3, 3), "depth": (2, 2, 2)}
    # The numbers are those of these frames alone.
    only = Gappy(whole, {}, {})
    only.ids = [only.ids[0], only.ids[3]]
    only._whole.ids = only.ids
    alone = _scores(pipeline, only)
    for name in ("rgb+depth", "depth"):
        assert alone[name] == found[name]


def test_a_subset_that_no_frame_has_scores_nothing(pipeline: Pipeline, simulated: Path) -> None:
    whole = open_recording("folder", simulated)
    row = _scores(pipeline, Gappy(whole, {i: {"depth"} for i in range(4)}, {}))["depth"]
    assert (row["frames"], row["answered"], row["judged"]) == (0, 0, 0)
    names = ("miou", "miou_8", "pixel_accuracy", "ap50", "ap")
    assert [row[n] for n in names] == [None] * 5
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("kind", ["unlabeled", "ignored"])
def test_frames_without_truth_are_not_judged(
    kind: str, pipeline: Pipeline, simulated: Path
) -> None:
    whole = open_recording("folder", simulated)
    labels = whole.truth(0).labels
    assert labels is not None
    nothing = None if kind == "unlabeled" else np.full_like(labels, IGNORE_LABEL)
    blank = Truth(nothing, None)
    row = _scores(pipeline, Gappy(whole, {}, dict.fromkeys(range(4), blank)))["rgb"]
    assert (row["frames"], row["answered"], row["judged"]) == (4, 4, 0)
    assert row["miou"] is None and row["ap50"] is None
    some = _scores(pipeline, Gappy(whole, {}, {2: blank}))["rgb"]
    assert some["judged"] == 3 and some["miou"] is not None


def test_tables_show_a_dash_for_what_was_not_judged(pipeline: Pipeline, simulated: Path) -> None:
    whole = open_recording("folder", simulated)
    found = _scores(pipeline, Gappy(whole, {i: {"depth"} for i in range(4)}, {}))
    rows = make_rows(pipeline.manifest, found, 1.0, "")
    table = to_markdown(rows, "caption")
    line = next(line for line in table.splitlines() if "| mIoU |" in line)
    cells = [c.strip() for c in line.split("|")]
    assert cells[3] == "-" and cells[5] == "-", line
    assert cells[4] == f"{100 * found['rgb']['miou']:.1f}"


@pytest.mark.slow
def test_eval_writes_null_and_says_how_many_were_judged(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "drive"
    shutil.copytree(simulated, root)
    for index in range(3):
        (root / "depth" / f"{index:06}.png").unlink()
    argv = ["eval", str(tiny_bundle), "--data", f"folder:{root}", "--all-subsets", "--limit", "4"]
    assert main([*argv, "--json", str(tmp_path / "e.json")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    content = json.loads((tmp_path / "e.json").read_text())
    picked = [i * 14 // 4 for i in range(4)]
    have = sum(i > 2 for i in picked)
    for subset in subsets_of(("rgb", "depth", "thermal", "lidar")):
        row = content["subsets"][subset_name(subset)]
        assert row["frames"] == (have if "depth" in subset else 4)
    assert "some of the 4 frames lack a sensor" in printed
    assert any("lack a sensor" in note for note in content["notes"])
    for index in range(14):
        (root / "depth" / f"{index:06}.png").unlink(missing_ok=True)
    assert main([*argv, "--json", str(tmp_path / "e.json")]) == 0
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["subsets"]["depth"]["miou"] is None
    assert content["subsets"]["rgb"]["miou"] is not None
    # The first row has nothing to show, and the others' columns are there all the same.
    printed = capsys.readouterr().out
    assert "miou" in printed and " - " in printed


def test_eval_says_that_no_frame_has_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_recording(tmp_path / "drive", 3, 1)

    def named(content: dict[str, Any]) -> None:
        for task, classes in (("segmentation", CLASSES), ("detection", BOXES)):
            for entry, own in zip(content["classes"][task], classes, strict=True):
                entry["name"] = own.name

    bundle = SmallBundles(tmp_path)(("rgb", "depth"), 3, 2, edit=named)
    argv = ["eval", str(bundle), "--data", f"folder:{drive}", "--json"]
    shutil.rmtree(drive / "boxes")
    (drive / "labels/0000.png").unlink()
    assert main(argv) == 0
    assert "some frames have no truth" in str(json.loads(capsys.readouterr().out)["notes"])
    shutil.rmtree(drive / "labels")
    assert main(argv) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["notes"] == ["no frame has truth: nothing is judged"]
    assert content["subsets"]["rgb+depth"]["miou"] is None
