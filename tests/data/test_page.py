"""The page of `data check --html`: counts, samples, examples of remarks, and names that are no markup."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.data import open_recording
from perception.data.base import Boxes, Truth
from perception.viz.recording_page import draw_truth


@pytest.fixture
def copy(simulated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated, tmp_path / "copy"))


def page_of(root: Path, tmp_path: Path, *options: str, status: int = 0) -> str:
    path = tmp_path / "page.html"
    assert main(["data", "check", str(root), "--html", str(path), *options]) == status
    return path.read_text(encoding="utf-8")


def pictures_in(page: str) -> list[np.ndarray]:
    found = re.findall("data:image/jpeg;base64,([^']+)", page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(f), np.uint8), -1) for f in found]


def test_counts_and_samples(copy: Path, tmp_path: Path) -> None:
    recording = open_recording("folder", copy)
    boxes = sum(len(recording.truth(i).boxes.xyxy) for i in range(len(recording)))
    page = page_of(copy, tmp_path, "--samples", "4")
    assert "<th>train</th><th>val</th><th>all</th>" in page
    assert "<tr><th>frames</th><td>12</td><td>2</td><td>14</td></tr>" in page
    assert "<tr><th>boxes in space of</th>" in page
    flat = page[: page.index("boxes in space of")]
    counts = re.findall(
        "<tr><th>(?:person|vehicle)</th>(?:<td>.*?</td>){2}<td>([0-9,]+)</td>", flat
    )
    assert sum(int(n.replace(",", "")) for n in counts) == boxes > 0
    pictures = pictures_in(page)
    assert (
        len(pictures) == 4 * 6
    )  # frames and sensors; boxes in space in the picture, and from above
    assert all(p is not None and p.shape[1] in (128, 352, 440) for p in pictures)
    assert "http" not in page  # it needs nothing else


def test_a_remark_has_its_example(copy: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(copy / "rgb/000001.png"), np.full((50, 50, 3), 7, np.uint8))
    for name in ("000003", "000004"):
        (copy / f"labels/{name}.png").unlink()
    (copy / "thermal/000005.png").write_bytes(b"torn")
    page = page_of(copy, tmp_path, "--samples", "1", status=2)
    remarks = page[page.index("Remarks") : page.index("<h2>Samples")]
    assert "2 of 14 frames have no file and so are not labeled" in remarks
    for name in ("000001", "000003", "000004", "000005"):
        assert f"<b>{name}</b>" in remarks
    assert "class='fault'" in remarks  # what cannot be drawn says why


def test_names_are_no_markup(copy: Path, tmp_path: Path) -> None:
    info = yaml.safe_load((copy / "dataset.yaml").read_text())
    info["name"] = "<script>alert(1)</script>"
    info["seg_classes"][0]["name"] = "<b>'x'"
    (copy / "dataset.yaml").write_text(yaml.safe_dump(info))
    page = page_of(copy, tmp_path)
    assert "<script" not in page and "<b>'x'" not in page
    assert "&lt;script&gt;" in page


def test_pictures_beside(copy: Path, tmp_path: Path) -> None:
    page = page_of(copy, tmp_path, "--samples", "2", "--pictures-beside")
    assert "base64" not in page
    names = re.findall("src='(.*?)'", page)
    assert len(names) == 12 and all((tmp_path / name).is_file() for name in names)


def test_a_recording_of_any_kind(simulated: Path, tmp_path: Path) -> None:
    assert "14 frames" in page_of(Path(f"folder:{simulated}"), tmp_path)


def test_labels_and_boxes_are_where_they_are(simulated: Path) -> None:
    recording = open_recording("folder", simulated)
    labels = np.full((96, 128), 255, np.uint8)
    labels[10:20, 30:40] = 2
    truth = Truth(labels, Boxes.of([[64, 48, 100, 80]], [0]), (96, 128))
    plain = np.full((192, 256, 3), 100, np.uint8)  # a picture twice as large
    drawn = draw_truth(plain, truth, recording)
    color = recording.info.seg_classes[2].color
    assert np.allclose(drawn[30, 70], np.add(color, 100) / 2, atol=1)
    assert (drawn[5, 5] == 100).all()
    edge = drawn[120, 128].astype(int) - recording.info.det_classes[0].color
    assert np.abs(edge).max() < 40  # lines are smooth


def test_an_impossible_place_is_told_first(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(simulated), "--html", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
