"""`anysense robustness` as a user meets it: a table, JSON, a page, a picture, and one line of refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from perception.cli.main import main
from perception.evaluation.published import RIVALS

EIGHT = {
    "clean_full", "mean_subsets", "min_subsets", "emm", "rmm", "nm", "corruptions", "retained",
}  # fmt: skip
FAST = ("--corruptions", "fog,dark,frozen,extrinsics", "--severities", "2,5", "--threads", "1")


def _anysense(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_two_methods_with_everything_that_is_written(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    numbers, page, picture = (tmp_path / n for n in ("n.json", "a folder/page.html", "radar.png"))
    done = _anysense(
        "robustness", tiny_bundle, "--data", f"folder:{simulated}", "--frames", "2", *FAST,
        "--method", "leave-out,feed", "--device", "onnxruntime-cpu",
        "--json", numbers, "--html", page, "--picture", picture,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "EMM p = 0.05" in said and "RMM r = 0.3" in said and "NM mid" in said
    assert "lidar fog" in said and "not measured" in said
    content = json.loads(numbers.read_text())
    assert set(content) >= EIGHT and content["method"] == "leave-out"
    [other] = content["compared"]
    assert set(other) >= EIGHT and other["method"] == "feed"
    scores = set(content["scores"])
    assert scores == {"miou", "ap50"}
    for key in EIGHT:
        assert set(content[key]) == scores
    for score in scores:
        assert set(content["emm"][score]) == {"0.05", "0.1", "0.2"}
        assert set(content["rmm"][score]) == {"0.1", "0.3", "0.5"}
        assert set(content["nm"][score]) == {"low", "mid", "high"}
        faults = content["corruptions"][score]
        assert set(faults["lidar"]) == {"fog", "dark", "frozen", "extrinsics"}
        assert set(faults["lidar"]["fog"]) == {"2", "5", "mean", "retained", "frames"}
        assert set(faults["lidar"]["dark"]) == {"always", "mean", "retained", "frames"}
        kept = content["retained"][score]
        assert set(kept) == {"mean_subsets", "min_subsets", "emm", "rmm", "nm", "corruptions"}
    assert "rgb extrinsics" in content["not_measured"] and content["simulated"] is True
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 2 and "The recording is simulated" in html
    for rival in RIVALS:
        assert (
            f"<tr class='other'><th>{rival.name}</th><td>mIoU</td><td>other: DELIVER, 4 sensors"
            in html
        )
    assert re.search(r"Not measured</th><td>[^<]*rgb extrinsics", html)
    drawn = cv2.imread(str(picture))
    assert drawn is not None and min(drawn.shape[:2]) > 500


def test_two_bundles_and_names_that_are_no_markup(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    code = main(
        ["robustness", str(tiny_bundle), "--against", str(tiny_bundle), "--data", f"folder:{simulated}",
         "--frames", "1", "--corruptions", "rain", "--severities", "3", "--device", "onnxruntime-cpu",
         "--threads", "1", "--html", str(page), "--json"]
    )  # fmt: skip
    assert code == 0
    content = json.loads(capsys.readouterr().out)
    [other] = content["compared"]
    assert {k: other[k] for k in EIGHT} == {k: content[k] for k in EIGHT}  # it is the same bundle
    assert "(1)" in page.read_text() and "(2)" in page.read_text()
    assert "<script" not in page.read_text()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--corruptions", "fogg"], "did you mean 'fog'"),
        (["--corruptions", "lost"], "messages on their way"),
        (["--corruptions", ","], "names nothing"),
        (["--severities", "0,3"], "'0' is none of 1 to 5"),
        (["--severities", "all"], "none of 1 to 5"),
        (["--method", "leaveout"], "did you mean 'leave-out'"),
        (["--method", ""], "names nothing"),
        (["--frames", "0"], "--frames"),
        (["--seed", "-1"], "--seed"),
        (["--html", "page.txt"], "must end in .html"),
        (["--picture", "radar.jpg"], "must end in .png"),
        (["--against", "no-such-bundle"], "no-such-bundle"),
        (["--methods", "feed"], "did you mean '--method'"),
        (["--tables", "spaces"], "did you mean 'space'"),
        (["--tables", "scenarios,space"], "finds no boxes in space"),
        (["--tables", " "], "names nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tiny_bundle: Path,
    simulated: Path,
    given: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = main(["robustness", str(tiny_bundle), "--data", f"folder:{simulated}", *given])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    assert code == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1 and "Traceback" not in said


def test_data_without_truth(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(simulated, bare, ignore=shutil.ignore_patterns("labels", "boxes"))
    given = ["--frames", "1", "--corruptions", "dark", "--threads", "1"]
    code = main(["robustness", str(tiny_bundle), "--data", f"folder:{bare}", *given])
    said = capsys.readouterr().err
    assert code == 2 and "has no labels to judge by" in said and "Traceback" not in said
