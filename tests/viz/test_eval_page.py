"""The page of `anysense eval --html`: scores, and frames with the truth and what was found."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from ground_bundles import ground_bundle
from ground_scenes import Scenes, write_scenes

from perception.cli.main import main

INPUTS = {f"cam_{n}": ("rgb", "camera") for n in ("front", "left", "right", "rear")}
INPUTS = {**INPUTS, "lidar": ("lidar", "cloud")}
QUIET = ["--device", "onnxruntime-cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle that finds boxes on the ground, and a recording."""
    folder = tmp_path_factory.mktemp("page")
    return ground_bundle(folder / "bundle", INPUTS), write_scenes(Scenes(5), folder / "data")


def _pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    read = [cv2.imdecode(np.frombuffer(base64.b64decode(f), np.uint8), 1) for f in found]
    assert all(picture is not None for picture in read)
    return read  # type: ignore[return-value]


def test_boxes_in_space_are_shown_with_the_truth(around: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = around
    page, scores = tmp_path / "page.html", tmp_path / "scores.json"
    line = ["eval", str(bundle), "--data", f"folder:{data}", "--html", str(page), *QUIET]
    assert main([*line, f"--json={scores}"]) == 0
    text = page.read_text("utf-8")
    (row,) = json.loads(scores.read_text())["subsets"].values()
    assert f"<td>{100 * row['map3d']:.1f}</td>" in text
    assert "thin white lines are the truth" in text and "rgb(220, 40, 40)" in text
    shown = _pictures(text)
    assert len(shown) == 5 and text.count("<figcaption>") == 5
    assert len({picture.shape for picture in shown}) == 1
    # From above, on the right, the truth of each frame is drawn: white where no point and no box is.
    white = [(p[:, -660:] > 200).all(axis=2).sum() for p in shown]
    assert min(white) > 300


def test_some_frames_of_each_subset(around: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = around
    page = tmp_path / "page.html"
    line = ["eval", str(bundle), "--data", f"folder:{data}", "--html", str(page), *QUIET]
    assert main([*line, "--all-subsets"]) == 0
    text = page.read_text("utf-8")
    assert len(_pictures(text)) == 6 * 3
    told = re.findall(r"<figcaption>[^<]*, ([^<:]*): \w+</figcaption>", text)
    assert len(dict.fromkeys(told)) == 6 and all(told.count(t) == 3 for t in told)


def test_labels_and_boxes_are_shown_below_the_truth(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    line = ["eval", str(tiny_bundle), "--data", f"folder:{simulated}", "--limit", "3"]
    assert main([*line, "--html", str(page), *QUIET]) == 0
    text = page.read_text("utf-8")
    assert "Above the truth" in text and "miou" in text
    for picture in _pictures(text):
        top, bottom = picture[:96, :128].astype(int), picture[96:192, :128].astype(int)
        assert np.abs(top - bottom).mean() > 2  # the truth is not what an untrained bundle says


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--html", "page.txt"], "must end in .html"),
        (["--html", "folder.html"], "is a folder"),
        (["--html", "page.html", "--backends", "onnxruntime-cpu"], "--html"),
    ],
)
def test_a_page_that_cannot_be_is_one_line(
    options: list[str],
    told: str,
    around: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, data = around
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    assert main(["eval", str(bundle), "--data", f"folder:{data}", *options]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.splitlines()) == 1
