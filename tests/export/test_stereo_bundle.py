"""Two cameras of a kind for real: simulated, trained, exported, and run with either one missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perception
from export.bundle_graphs import GraphChoice, with_graphs
from perception.cli.main import main
from perception.data.registry import open_recording
from perception.frame import Frame
from perception.runtime.bundle import Bundle
from perception.sim.generate import make_recording


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Frame, np.ndarray]]:
    root = tmp_path_factory.mktemp("stereo") / "scenes"
    sensors = {"left": "rgb", "right": "rgb", "depth": "depth"}
    make_recording(root, "scenes", 4, 900_100, size=(160, 192), sensors=sensors, progress=False)
    recording = open_recording("folder", root)
    labels = [recording.truth(i).labels for i in range(4)]
    return [(recording.frame(i), x) for i, x in enumerate(labels) if x is not None]


def test_it_is_whole_and_its_cameras_share_a_graph(stereo_bundle: Path) -> None:
    manifest = Bundle.open(stereo_bundle).manifest
    assert manifest.inputs.encoders == {"depth": "depth", "left": "camera", "right": "camera"}
    assert set(manifest.graphs.encoders) == {"camera", "depth"}
    assert sum(p.stat().st_size for p in stereo_bundle.iterdir()) < 2_000_000
    assert main(["bundle", "verify", str(stereo_bundle)]) == 0


@pytest.mark.parametrize("there", [("left", "right"), ("left",), ("right",)])
def test_either_camera_may_be_missing(
    there: tuple[str, ...], stereo_bundle: Path, frames: list[tuple[Frame, np.ndarray]]
) -> None:
    pipeline = perception.Pipeline.load(stereo_bundle, "onnxruntime", threads=1)
    right = []
    for frame, labels in frames:
        pipeline.reset()
        result = pipeline(Frame({n: frame[n] for n in there}, frame.stamp_ns))
        assert result.used == there and result.labels is not None
        assert result.reference == there[0] and result.labels.shape == labels.shape
        right.append(np.mean((result.labels == labels)[labels < 255]))
    assert np.mean(right) > 0.5


def test_it_gets_graphs_of_its_own(stereo_bundle: Path, tmp_path: Path) -> None:
    choice = GraphChoice(single=True, subsets=(("left", "right"), ("right",)))
    errors = with_graphs(Bundle.open(stereo_bundle), tmp_path / "out", choice, 1)
    assert set(errors) == {"single", "left+right", "right"} and max(errors.values()) < 1e-5
