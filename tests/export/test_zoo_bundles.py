"""A zoo model from checkpoint to pipeline: the bundle runs like AnyFuse's, its picture comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.bundle_writer import ExportOptions, export_bundle
from perception.cli.main import main
from perception.data import open_recording
from perception.runtime.pipeline import Pipeline
from perception.tasks.pictures import as_picture
from perception.training.building import build_from_config, describe_recording
from perception.training.checkpoint import save_checkpoint
from perception.training.config import TrainConfig


def test_pictures_are_brought_to_the_source_s_size() -> None:
    image = np.zeros((3, 4, 6), np.float32)
    image[0] = 2.0  # beyond the range: clipped
    picture = as_picture(image, (8, 12))
    assert picture.shape == (8, 12, 3) and picture.dtype == np.uint8
    assert (picture[..., 0] == 255).all() and not picture[..., 1:].any()
    assert as_picture(image[:1], (8, 12)).shape == (8, 12, 1)


@pytest.mark.slow
def test_segmif_runs_in_the_pipeline_and_gives_the_fused_picture(
    simulated: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    recording = open_recording("folder", simulated)
    config = TrainConfig.model_validate(
        {
            "name": "fused",
            "tasks": ["segmentation"],
            "model": {
                "name": "segmif",
                "pretrained": False,
                "options": {"width": 0.25, "decoder_width": 32, "edge": True},
                "start_from": ["runs/earlier"],
            },
            "data": {"source": f"folder:{simulated}"},
            "preprocess": {
                "modalities": ["rgb", "thermal"],
                "grid": {"height": 64, "width": 96},
            },
        }
    )
    model = build_from_config(config, recording.info, pretrained=False)
    progress = {"epoch": 0, "recording": describe_recording(recording.info)}
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, config, model, dict(model.state_dict()), None, progress)
    rows = export_bundle(path, tmp_path / "bundle", ExportOptions())
    assert max(row.max_abs for row in rows) < 1e-3
    pipeline = Pipeline.load(tmp_path / "bundle")
    assert pipeline.manifest.training["start"] == "runs earlier"
    assert pipeline.manifest.images == ("fused",)
    frame = recording.frame(0)
    pipeline.wanted = frozenset({"labels"})
    assert pipeline(frame).images == {}, "nobody reads them"
    pipeline.wanted = pipeline.parts
    pipeline.reset()
    for subset in (("rgb", "thermal"), ("thermal",)):
        result = pipeline(frame.without(*(m for m in frame if m not in subset)))
        pipeline.reset()
        assert result.used == subset and result.labels is not None
        assert result.images["fused"].shape == (96, 128, 3)
    # An untrained network gives about the mean of both pictures, so that without colour it is gray.
    gray = result.images["fused"].astype(int)
    assert np.abs(gray[..., 0] - gray[..., 2]).max() <= 2
    out = tmp_path / "out"
    files = ["--rgb", str(simulated / "rgb/000000.png")]
    assert main(["run", "--bundle", str(tmp_path / "bundle"), *files, "--out", str(out)]) == 0
    assert (out / "image_fused.png").is_file()
