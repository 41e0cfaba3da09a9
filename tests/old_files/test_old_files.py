"""What version 0.1.0 wrote is read, and gives the answers that it gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import perception
from perception.cli.main import main
from perception.data.folder import FolderRecording, FolderWriter
from perception.frame import KINDS, Frame, subset_name, subsets_of
from perception.geometry.rig import load_rig
from perception.runtime.bundle import Bundle

OLD = Path(__file__).parent / "schema1"
MIN_SCORE = 0.05


@pytest.fixture(scope="module")
def recording() -> FolderRecording:
    return FolderRecording(OLD / "recording")


@pytest.fixture(scope="module")
def answers() -> dict[str, NDArray[np.float32]]:
    with np.load(OLD / "answers.npz") as stored:
        return dict(stored)


def cases(recording: FolderRecording) -> Iterator[tuple[str, Frame]]:
    for index in range(len(recording)):
        frame = recording.frame(index)
        for subset in subsets_of(frame):
            kept = Frame({m: frame[m] for m in subset}, frame.stamp_ns)
            yield f"{index}/{subset_name(subset)}", kept


def assert_each_box_has_its_like(
    boxes: NDArray[np.float32], others: NDArray[np.float32], key: str
) -> None:
    for box in boxes[boxes[:, 4] > MIN_SCORE + 0.001]:
        same = others[others[:, 5] == box[5]]
        assert len(same), key
        assert np.abs(same[:, :5] - box[:5]).max(axis=1).min() < 0.02, (key, box)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_answers_of_every_subset_are_those_of_then(
    backend: str, recording: FolderRecording, answers: dict[str, NDArray[np.float32]]
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    pipeline = perception.Pipeline.load(OLD / "bundle", backend, threads=1, min_score=MIN_SCORE)
    # OpenVINO computes in bfloat16 where the processor does.
    exact = backend == "onnxruntime"
    seen = 0
    for key, frame in cases(recording):
        pipeline.reset()
        result = pipeline(frame)
        assert result.used == tuple(frame) and result.labels is not None
        assert result.confidence is not None and result.boxes is not None
        equal = np.mean(result.labels == answers[f"{key}/labels"])
        error = np.abs(result.confidence - answers[f"{key}/confidence"].astype(np.float32))
        assert equal > (0.995 if exact else 0.8), key
        assert error.mean() < (0.001 if exact else 0.05), key
        if exact:
            found = result.boxes
            columns = found.xyxy, found.scores[:, None], found.class_ids[:, None]
            boxes = np.concatenate(columns, axis=1).astype(np.float32)
            assert_each_box_has_its_like(boxes, answers[f"{key}/boxes"], key)
            assert_each_box_has_its_like(answers[f"{key}/boxes"], boxes, key)
        seen += 1
    assert seen == 37 == len(answers) // 3


def test_the_bundle_says_what_it_said() -> None:
    bundle = Bundle.open(OLD / "bundle")
    manifest, records = bundle.manifest, bundle.records
    assert manifest.name == "old-small" and manifest.version == "3" and manifest.simulated
    assert manifest.inputs.names == KINDS
    assert manifest.tasks.segmentation is not None and manifest.tasks.boxes2d is not None
    assert records.accuracy["made up val"]["subsets"]["rgb+lidar"]["miou"] == 0.25
    assert records.backends["openvino"].passed and manifest.training["licence"] == "CC0-1.0"
    assert manifest.licence.data == "CC0-1.0"
    assert manifest.tasks.boxes2d.strides == (8,) and manifest.tasks.boxes2d.nms_iou == 0.6


def test_the_rig_says_what_it_said() -> None:
    rig = load_rig(OLD / "recording" / "rig.yaml")
    assert set(rig.sensors) == set(KINDS)
    lidar = rig.sensors["lidar"]
    assert lidar.frame_id == "velodyne" and lidar.time_offset_ns == 5_000_000
    assert lidar.extrinsics is not None and lidar.camera is not None
    # Forward of the sensor is forward of the camera, 0.05 to the right, 0.1 up, 0.02 ahead.
    ahead = lidar.extrinsics.apply(np.array([[10.0, 0.0, 0.0]]))
    np.testing.assert_allclose(ahead, [[0.05, -0.1, 10.02]])
    assert lidar.camera.fx == 80.0 and lidar.camera.cx == 47.5
    assert rig.sensors["thermal"].time_offset_ns == -2_000_000


def test_the_recording_holds_what_it_held(recording: FolderRecording) -> None:
    assert [recording.stamp_ns(i) % 10**9 for i in range(3)] == [0, 10**8, 2 * 10**8]
    assert recording.tags(0) == {"night", "dark:rgb"}
    assert "thermal" not in recording.frame(1)
    frame = recording.frame(0)
    assert frame["depth"].data[10, 20] == pytest.approx(3 + 2 * np.sin(1.0) + 10 / 24, abs=0.001)
    assert frame["thermal"].data[9, 0] == pytest.approx(295.0, abs=0.01)
    assert frame["thermal"].unit == "kelvin" and frame["lidar"].data.shape == (400, 4)
    assert frame["lidar"].stamp_ns == recording.stamp_ns(0) + 5_000_000
    truth = recording.truth(1)
    assert truth.labels is not None and truth.boxes is not None
    assert truth.labels[0, [0, 40, 95]].tolist() == [0, 1, 0]
    np.testing.assert_allclose(truth.boxes.xyxy[0], [11, 8, 40, 30], atol=0.01)


def test_commands_take_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", str(OLD / "bundle")]) == 0
    assert main(["data", "check", str(OLD / "recording")]) == 0
    scores = tmp_path / "scores.json"
    data = f"folder:{OLD / 'recording'}"
    argv = ["eval", str(OLD / "bundle"), "--data", data, "--device", "cpu", "--json", str(scores)]
    assert main([*argv, "--all-subsets"]) == 0
    assert len(json.loads(scores.read_text())["subsets"]) == 15


def test_boxes_of_then_are_all_to_be_found_and_are_written_as_they_were(
    recording: FolderRecording, tmp_path: Path
) -> None:
    """Rows of five words: none is to be ignored."""
    layout = recording.layout
    with FolderWriter(tmp_path / "again", layout) as writer:
        for index, name in enumerate(recording.ids):
            boxes = recording.truth(index).boxes
            assert boxes is not None and not boxes.ignore.any()
            stored = np.loadtxt(OLD / "recording" / "boxes" / f"{name}.txt", ndmin=2)
            low, high = stored[:, 1:3] - stored[:, 3:] / 2, stored[:, 1:3] + stored[:, 3:] / 2
            size = [layout.width, layout.height] * 2
            np.testing.assert_allclose(boxes.xyxy, np.hstack([low, high]) * size, atol=1e-4)
            writer.add(name, stamp_ns=recording.stamp_ns(index), boxes=boxes)
    for path in sorted((OLD / "recording" / "boxes").iterdir()):
        assert (tmp_path / "again" / "boxes" / path.name).read_bytes() == path.read_bytes()
