"""Bundles that find boxes on the ground, judged by a recording on disk: `anysense eval` and `robustness`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ground_bundles import SIZE, SURROUND, cloud, ground_bundle, picture, surround_rig

from perception.cli.main import main
from perception.data.base import ClassInfo, TruthBoxes3d
from perception.data.folder import FolderWriter, folder_info

CARS = [[(5.2, 2.8), (-4.4, -6.8)], [(-2.0, 5.2), (8.4, -3.6)], [(6.0, 6.0), (-6.8, 0.4)]]
"""By frame the middles of cells of the network's answer, where its boxes are."""

ROOF_M = 1.7


def _recording(root: Path, moved: float = 0.0, frame: str = "roof") -> Path:
    """Cars of the bundle's own size and speed; in the roof's frame, whose place the rig knows."""
    sensors = {name: kind for name, (kind, _) in SURROUND.items()}
    info = folder_info(
        name="yard",
        sensors=sensors,
        size=SIZE,
        seg_classes=(),
        det_classes=(ClassInfo(0, "person", (1, 2, 3)), ClassInfo(1, "car", (3, 2, 1))),
        boxes3d_frame=frame,
    )
    with FolderWriter(root, info, surround_rig()) as writer:
        for i, places in enumerate(CARS):
            samples = {n: picture(n, seed=i).data for n, kind in sensors.items() if kind == "rgb"}
            samples["roof"] = cloud(*places).data
            low = ROOF_M if frame == "roof" else 0.0
            boxes = TruthBoxes3d.of(
                [[x + moved, y, 0.8 - low] for x, y in places],
                [[4.0, 1.8, 1.6]] * 2, [0.0] * 2, [1] * 2, velocity=[[2, 0]] * 2, points=[8] * 2,
                frame="" if frame == "base" else frame,
            )  # fmt: skip
            writer.add(f"{i}", samples, stamp_ns=i * 10**8, boxes3d=boxes)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_bundle(tmp_path_factory.mktemp("accuracy") / "surround")


def _scores(bundle: Path, root: Path, out: Path, sensor: str = "roof") -> dict[str, Any]:
    line = ["eval", str(bundle), "--data", f"folder:{root}", "--subset", sensor, f"--json={out}"]
    assert main([*line, "--device", "onnxruntime-cpu", "--threads", "1"]) == 0
    scores: dict[str, Any] = json.loads(out.read_text())["subsets"][sensor]
    return scores


@pytest.mark.parametrize("frame", ["roof", "base"])
def test_boxes_where_they_are_score_1(frame: str, bundle: Path, tmp_path: Path) -> None:
    yard, out = _recording(tmp_path / "yard", frame=frame), tmp_path / "out.json"
    roof = _scores(bundle, yard, out)
    assert roof["judged"] == 3
    # Boxes of low scores come after all that is right: of the last point of recall they leave something.
    assert 0.98 < roof["map3d"] <= 1 + 1e-9
    assert roof["trans3d"] == pytest.approx(1, abs=0.02)
    assert [roof[k] for k in ("scale3d", "orient3d", "vel3d")] == pytest.approx([1] * 3, abs=1e-3)
    assert roof["per_class"].keys() == {"car"}
    # A dark picture shows nothing, but boxes of low scores are everywhere, and some are right by chance.
    assert _scores(bundle, yard, out, "front")["map3d"] < 0.01


def test_boxes_in_space_belong_to_no_camera(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever sensors see them, and wherever these look: nothing is brought to anybody's pixels."""
    yard, out = _recording(tmp_path / "yard"), tmp_path / "out.json"
    for sensor in ("left", "back", "roof"):
        found = _scores(bundle, yard, out, sensor)
        assert found["judged"] == 3 and "moved" not in found
        assert json.loads(out.read_text())["notes"] == []
    assert "pixels" not in capsys.readouterr().out


def test_boxes_that_are_off_lose_what_nuscenes_takes(bundle: Path, tmp_path: Path) -> None:
    """By 1.5 m: right within 2 and 4 m, wrong within 0.5 and 1 m."""
    found = _scores(bundle, _recording(tmp_path / "yard", moved=1.5), tmp_path / "out.json")
    assert 0.49 < found["map3d"] <= 0.5 + 1e-9
    assert found["per_class"]["car"]["trans_err"] == pytest.approx(1.5, abs=0.02)
    assert found["trans3d"] == 0


@pytest.mark.slow
def test_robustness_says_the_same_of_what_is_left(bundle: Path, tmp_path: Path) -> None:
    yard, out = _recording(tmp_path / "yard"), tmp_path / "out.json"
    alone = _scores(bundle, yard, out)
    line = ["robustness", str(bundle), "--data", f"folder:{yard}", f"--json={out}"]
    line += ["--corruptions", "noise", "--severities", "3", "--device", "onnxruntime-cpu"]
    assert main([*line, "--threads", "1"]) == 0
    found = json.loads(out.read_text())
    assert found["scores"] == {"map3d": "mAP 3D"}
    left = found["subsets"]["map3d"]
    assert left["roof"] == pytest.approx(alone["map3d"], abs=1e-5)
    assert left["front+left+back+right"] < 0.01
    assert "front" in found["corruptions"]["map3d"]
