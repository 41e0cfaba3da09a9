"""Scores of a whole fleet: those of `anysense eval` of the recordings joined, not a mean of theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from fleet_kit import rows_in, write_recording

from perception.data.folder import FolderRecording
from perception.data.joined import Joined
from perception.evaluation.evaluate import LOW_SCORE, evaluate_subsets
from perception.runtime.pipeline import Pipeline

Run = Callable[..., dict[str, Any]]
SUBSETS = [("rgb", "depth"), ("rgb",), ("depth",)]


def joined(bundle: Path, *roots: Path) -> dict[str, dict[str, Any]]:
    """What `anysense eval` says of the recordings as one."""
    pipeline = Pipeline.load(bundle, "cpu", threads=1, min_score=LOW_SCORE)
    parts = [FolderRecording(root) for root in roots]
    recording = Joined(parts, [root.name for root in roots], list(pipeline.manifest.tasks.every))
    return evaluate_subsets(pipeline, recording, SUBSETS)


def same(found: dict[str, Any], wanted: dict[str, dict[str, Any]], recordings: int) -> None:
    """Bit for bit, but for sums of confidences, which depend on the order of additions."""
    assert set(found) == set(wanted)
    for subset, scores in wanted.items():
        own = dict(found[subset])
        assert own.pop("recordings") == recordings
        per_class = scores["per_class"]
        assert own.keys() == scores.keys() and own["per_class"].keys() == per_class.keys()
        for name, value in scores.items():
            if name != "per_class":
                assert own[name] == pytest.approx(value, rel=1e-12), name
        for name, values in per_class.items():
            assert own["per_class"][name] == values


def test_scores_of_all_are_those_of_the_recordings_joined(
    batch: Run, fleet: Path, bundle: Path, tmp_path: Path
) -> None:
    found = batch(task="evaluate", subsets="all", recordings=[f"folder:{fleet}/drives/*"])
    assert found["status"] == 0 and found["unsummed"] == {}
    wanted = joined(bundle, fleet / "drives/one", fleet / "drives/two")
    same(found["scores"], wanted, 2)
    assert "all recordings together" in found["said"]
    rows = pq.read_table(tmp_path / "out/scores.parquet").to_pylist()
    assert {row["recording"] for row in rows} == {""}
    (miou,) = (
        r["value"]
        for r in rows
        if (r["subset"], r["class"], r["score"]) == ("rgb+depth", "", "miou")
    )
    assert miou == wanted["rgb+depth"]["miou"]
    singles = [
        r["value"]
        for r in rows_in(tmp_path / "out")
        if (r["subset"], r["class"], r["score"]) == ("rgb+depth", "", "miou")
    ]
    assert len(singles) == 2 and miou != pytest.approx(float(np.mean(singles)), abs=1e-9)


def test_a_job_that_goes_on_sums_what_was_done_before(
    batch: Run, fleet: Path, bundle: Path, tmp_path: Path
) -> None:
    batch(task="evaluate", subsets="all", recordings=[f"folder:{fleet}/drives/one"])
    found = batch(task="evaluate", subsets="all", recordings=[f"folder:{fleet}/drives/*"])
    assert found["skipped"] == 1 and found["done"] == 1
    same(found["scores"], joined(bundle, fleet / "drives/one", fleet / "drives/two"), 2)
    (first, *_) = sorted((tmp_path / "out/counted").iterdir())
    first.unlink()  # as of a job before recordings were counted
    again = batch(task="evaluate", subsets="all", recordings=[f"folder:{fleet}/drives/*"])
    assert again["done"] == 1 and again["scores"] == found["scores"]


def test_what_was_counted_and_is_damaged_gives_no_sum(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    fields = {"task": "evaluate", "recordings": [f"folder:{fleet}/drives/*"]}
    whole = batch(**fields)
    (first, *_) = sorted((tmp_path / "out/counted").iterdir())
    content = first.read_bytes()
    about = json.dumps({"info": {}, "subsets": {"rgb": 3}}).encode()
    others = [content[: len(content) // 2], b"", b"PK\x05\x06" + bytes(18)]
    for number in range(len(others) + 1):
        if number < len(others):
            first.write_bytes(others[number])
        else:
            np.savez(tmp_path / "other.npz", about=np.frombuffer(about, np.uint8))
            first.write_bytes((tmp_path / "other.npz").read_bytes())
        found = batch(**fields)
        assert found["status"] == 3 and found["scores"] == {}
        ((name, line),) = found["failed"].items()
        assert name.startswith("scores of all with") and "\n" not in line and "remove it" in line
        assert not (tmp_path / "out/scores.parquet").exists()
    first.unlink()
    assert batch(**fields)["scores"] == whole["scores"]


def test_recordings_of_other_classes_are_not_summed(batch: Run, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_recording(tmp_path / "drives" / name, 6, seed)
    about = tmp_path / "drives/two/dataset.yaml"
    content = yaml.safe_load(about.read_text())
    assert "c2" in about.read_text()
    about.write_text(yaml.safe_dump(json.loads(json.dumps(content).replace('"c2"', '"other"'))))
    found = batch(task="evaluate", recordings=["folder:drives/*"])
    assert found["status"] == 0, found["error"]
    assert found["unsummed"] == {"segmentation": "the recordings differ in classes or kind of data"}
    (scores,) = found["scores"].values()
    assert "miou" not in scores and scores["ap50"] is not None and scores["frames"] == 12
    assert "no segmentation scores of all recordings together" in found["said"] + found["error"]
