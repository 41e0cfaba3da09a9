"""Commands on sensors of a kind that another distribution brings, as on ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from laser_kind import scan
from onnx import helper
from small_bundles import FEATURES, GRID, SmallBundles

from perception.bags.files import messages_of, write_bag
from perception.cli.main import main
from perception.data.folder import FolderRecording, FolderWriter
from perception.data.layout import FolderInfo
from perception.viz.overlay import draw_sample

pytestmark = pytest.mark.usefixtures("laser")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    small = SmallBundles(tmp_path)
    encoder = small.model(
        [helper.make_node("Conv", ["image", "w"], ["f"], strides=[8, 8])],
        {"image": [1, 1, *GRID]},
        {"f": [1, FEATURES, GRID[0] // 8, GRID[1] // 8]},
        {"w": np.ones((FEATURES, 1, 1, 1), np.float32)},
    )
    inputs = {"front": ("rgb", "camera"), "bumper": ("laser", "scanner")}
    return small.named(inputs, graphs={"encoder_scanner.onnx": encoder})


@pytest.fixture
def recording(tmp_path: Path) -> FolderRecording:
    sensors = {"front": "rgb", "bumper": "laser"}
    content = {"name": "r", "sensors": sensors, "height": 24, "width": 32}
    with FolderWriter(tmp_path / "r", FolderInfo.model_validate(content)) as writer:
        for index in range(4):
            color = np.random.default_rng(index).integers(0, 255, (24, 32, 3), np.uint8)
            stamp = 10**9 + index * 10**8
            writer.add(f"{index:03}", {"front": color, "bumper": scan(index)}, stamp_ns=stamp)
    return FolderRecording(tmp_path / "r")


def run(bundle: Path, out: Path, root: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    given = (
        "--sensor",
        f"front={root}/front/000.png",
        "--sensor",
        f"bumper={root}/bumper/000.scan",
    )
    words = ["run", "--bundle", str(bundle), "--out", str(out), "--device", "cpu", *given]
    status, path = main([*words, *arguments]), out / "result.json"
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_run(bundle: Path, recording: FolderRecording, tmp_path: Path) -> None:
    status, result = run(bundle, tmp_path / "a", recording.root)
    assert status == 0 and result["used"] == ["front", "bumper"] and result["state"] == "full"
    assert result["health"] == {"front": "ok", "bumper": "ok"}
    far = ("--hint", "bumper.least_range_m=99", "--hint", "bumper.unit=metres")
    status, result = run(bundle, tmp_path / "b", recording.root, *far)
    assert status == 0 and result["used"] == ["front"] and result["health"]["bumper"] == "dark"


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("bumper", "'bumper' is not SENSOR.NAME=VALUE"),
        ("bumper.unit", "is not SENSOR.NAME=VALUE"),
        ("least_range_m=3", "is not SENSOR.NAME=VALUE"),
        ("rear.unit=metres", "--hint: 'rear' is not among front, bumper"),
        ("bumper.scale=1", "laser takes no 'scale' (one of least_range_m, unit)"),
        ("front.unit=kelvin", "rgb takes no 'unit'"),
        ("bumper.unit=feet", "unit 'feet' is unknown (one of auto, metres)"),
        ("bumper.least_range_m=-1", "--hint least_range_m: must be"),
        ("bumper.least_range_m=near", "--hint least_range_m: must be"),
    ],
)
def test_hints_that_make_no_sense(
    bundle: Path,
    recording: FolderRecording,
    tmp_path: Path,
    hint: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(bundle, tmp_path / "a", recording.root, "--hint", hint)[0] == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_hint_is_for_one_sensor(tmp_path: Path) -> None:
    """Two depth cameras of other steps."""
    twins = {"left": ("depth", "depth"), "right": ("depth", "depth")}
    bundle = SmallBundles(tmp_path).named(twins)
    cv2.imwrite(str(tmp_path / "d.png"), np.full((24, 32), 3000, np.uint16))
    words = ["run", "--bundle", str(bundle), "--device", "cpu", "--out", str(tmp_path / "o")]
    words += [f"--sensor={n}={tmp_path}/d.png" for n in twins]
    assert main([*words, "--depth-scale", "1e-6", "--hint", "right.scale=0.001"]) == 0
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert result["used"] == ["right"] and result["health"]["left"] == "dark"


def test_replay(bundle: Path, recording: FolderRecording, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    bag = tmp_path / "bag"
    write_bag(bag, messages_of(recording))
    words = ["replay", str(bag), "--bundle", str(bundle), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "a"), "--overlays"]) == 0
    rows = [json.loads(r) for r in (tmp_path / "a" / "status.jsonl").read_text().splitlines()]
    assert [row["used"] for row in rows] == [["front", "bumper"]] * 4
    assert len(list((tmp_path / "a").glob("overlay_*.png"))) == 4
    far = ("--hint", "bumper.least_range_m=99")
    assert main([*words, "--out", str(tmp_path / "b"), *far]) == 0
    rows = [json.loads(r) for r in (tmp_path / "b" / "status.jsonl").read_text().splitlines()]
    assert {tuple(row["used"]) for row in rows} == {("front",)}
    topics = ("--topic", "nose=/sensors/bumper/points", "--input", "nose=bumper")
    assert main([*words, "--out", str(tmp_path / "c"), *topics]) == 0
    rows = [json.loads(r) for r in (tmp_path / "c" / "status.jsonl").read_text().splitlines()]
    assert {tuple(row["used"]) for row in rows} == {("nose",)}


def test_view(
    bundle: Path, recording: FolderRecording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("foxglove")
    from perception.cli import view

    shown: dict[str, list[np.ndarray]] = {}
    original = view.FoxgloveViewer.image

    def image(self: Any, topic: str, picture: np.ndarray, stamp_ns: int) -> None:
        shown.setdefault(topic, []).append(picture)
        original(self, topic, picture, stamp_ns)

    monkeypatch.setattr(view.FoxgloveViewer, "image", image)
    words = ["view", "--bundle", str(bundle), "--data", f"folder:{recording.root}"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path / "o.mcap")]) == 0
    wanted = draw_sample(recording.frame(2)["bumper"])
    assert np.array_equal(shown["/sensors/bumper"][2], wanted) and wanted.any()
    assert len(shown["/overlay"]) == 4


def test_it_is_not_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "make-sim", "--out", str(tmp_path / "o"), "--sensors", "front=rgb,nose=laser"]
    assert main(words) == 2
    assert "nose is a laser, which is not simulated" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()
