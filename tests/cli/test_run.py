"""`anysense run` with sensors that have names of their own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bundles import SmallBundles

from perception.cli.main import main

STEREO = {"left": ("rgb", "camera"), "right": ("rgb", "camera"), "range": ("depth", "depth")}


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    return SmallBundles(tmp_path).named(STEREO, name="stereo")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A picture for either camera, and a depth map."""
    rng = np.random.default_rng(0)
    found = {name: tmp_path / f"{name}.png" for name in STEREO}
    for name, path in found.items():
        depth = rng.integers(500, 9000, (48, 64), np.uint16)
        pixels = depth if name == "range" else rng.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(path), pixels)
    return found


def _run(bundle: Path, out: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    line = ["run", "--bundle", str(bundle), "--out", str(out), "--device", "cpu", *arguments]
    status = main(line)
    path = out / "result.json"
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_two_cameras_by_name(stereo: Path, files: dict[str, Path], tmp_path: Path) -> None:
    given = [word for n in ("left", "right") for word in ("--sensor", f"{n}={files[n]}")]
    status, result = _run(stereo, tmp_path / "a", *given, "--depth", str(files["range"]))
    assert status == 0
    assert result["used"] == ["left", "right", "range"] and result["state"] == "full"
    assert result["health"] == dict.fromkeys(STEREO, "ok")
    status, result = _run(stereo, tmp_path / "b", "--sensor", f"right={files['right']}")
    assert status == 0 and result["used"] == ["right"] and result["state"] == "degraded"


def test_options_of_a_kind_hold_for_its_sensors(
    stereo: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """Depth of 9 mm at most is nothing that this bundle sees."""
    near = ("--sensor", f"range={files['range']}", "--depth-scale", "0.000001")
    status, result = _run(stereo, tmp_path / "c", "--sensor", f"left={files['left']}", *near)
    assert status == 0 and result["used"] == ["left"]
    assert result["health"]["range"] == "dark"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rgb", "{left}"), "takes left, right, range, not rgb"),
        (("--sensor", "rear={left}"), "takes left, right, range, not 'rear'"),
        (("--sensor", "rgb={left}"), "takes left, right, range, not 'rgb'"),
        (("--sensor", "left"), "'left' is not NAME=FILE"),
        (("--sensor", "left="), "is not NAME=FILE"),
        (("--sensor", "left={left}", "--sensor", "left={right}"), "'left' is given twice"),
        (("--depth", "{range}", "--sensor", "range={range}"), "'range' is given twice"),
        (("--sensor", "left=none.png"), "none.png"),
        ((), "no sensor file given"),
    ],
)
def test_what_cannot_be_gives_one_line(
    stereo: Path,
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    given = [a.format(**{n: str(p) for n, p in files.items()}) for a in arguments]
    status, _ = _run(stereo, tmp_path / "d", *given)
    told = capsys.readouterr().err
    assert status == 2 and words in told
    assert len([line for line in told.splitlines() if "error" in line]) == 1
    assert "Traceback" not in told


def test_a_kind_that_several_inputs_have_asks_which(
    stereo: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = files["left"]
    assert _run(stereo, tmp_path / "out", "--rgb", str(left))[0] == 2
    hint = f"of several rgb inputs say which: --sensor left= or --sensor right={left}"
    assert hint in capsys.readouterr().err


def test_results_beside_older_ones_are_told(
    stereo: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--sensor", f"left={files['left']}")
    assert _run(stereo, tmp_path / "out", *arguments)[0] == 0
    assert "is not empty" not in "".join(capsys.readouterr())
    assert _run(stereo, tmp_path / "out", *arguments)[0] == 0
    assert "out is not empty: files of the same names are replaced" in "".join(capsys.readouterr())
