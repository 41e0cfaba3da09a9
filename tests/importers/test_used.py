"""What was imported is used: trained on, exported, judged; frames that nobody labeled among the others."""

from __future__ import annotations

import json
from pathlib import Path

import foreign_sets as foreign
import pytest
import yaml
from foreign_sets import Import

from perception.cli.main import main

pytest.importorskip("torch", reason="needs torch: pip install 'anysense[train]'")


def config(root: Path, tmp_path: Path) -> Path:
    """The smallest training of masks and boxes."""
    content = {
        "name": "mine",
        "tasks": ["segmentation", "boxes2d"],
        "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 32}},
        "data": {"source": f"folder:{root}"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 64}},
        "epochs": 1,
        "validate_every": 1,
        "resolution": [{"crop": [64, 64], "scale": [0.8, 1.2], "batch": 2}],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_import_train_export_eval(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set", frames=6)
    (root / "labels/train/train0.txt").write_text("1 0.2 0.2 0.6 0.2 0.6 0.8\n0 0.7 0.7 0.2 0.2\n")
    recording = imported(f"yolo,labels=true:{root}")
    unlabeled = [n for n in recording.ids if recording.boxes(n) is None]
    assert unlabeled and len(unlabeled) < len(recording.ids)
    run, bundle, scores = tmp_path / "run", tmp_path / "bundle", tmp_path / "eval.json"
    assert main(["train", str(config(recording.root, tmp_path)), "--out", str(run)]) == 0
    assert main(["export", str(run), "--out", str(bundle)]) == 0
    data = ["--data", f"folder:{recording.root}", "--split", "val"]
    assert main(["eval", str(bundle), *data, "--json", str(scores)]) == 0
    assert "miou" in json.dumps(json.loads(scores.read_text()))


@pytest.mark.slow
def test_boxes_alone_with_frames_nobody_looked_at(imported: Import, tmp_path: Path) -> None:
    """Batches of labeled and unlabeled frames; a split without a mask."""
    root = foreign.yolo(tmp_path / "set", frames=6)
    for name in ("train1", "train3"):
        (root / f"labels/train/{name}.txt").unlink()
    recording = imported(f"yolo:{root}")
    path = config(recording.root, tmp_path)
    content = yaml.safe_load(path.read_text()) | {"tasks": ["boxes2d"]}
    path.write_text(yaml.safe_dump(content))
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
