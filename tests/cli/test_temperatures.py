"""`anysense bundle temperatures` as a user meets it: real processes, files, one-line errors."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.arguments import recorded_command
from perception.cli.main import main
from perception.runtime.bundle import Bundle, record


def _anysense(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_bundle_with_temperatures(tiny_bundle: Path, simulated: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_bundle, source)
    record(source, accuracy={"before": {"subsets": {"rgb": {"miou": 0.5, "ece": 0.9}}}})
    held = {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()}
    out, numbers, picture = (tmp_path / n for n in ("out", "a folder/n.json", "a folder/p.png"))
    done = _anysense(
        "bundle", "temperatures", source, "--data", f"folder:{simulated}", "--block", "1",
        "--limit", "4", "--out", out, "--json", numbers, "--picture", picture, "--threads", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fitted to 2 frames of 2 scenes, judged by 2 of 2 others" in " ".join(
        done.stdout.split()
    )
    assert {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()} == held
    assert _anysense("bundle", "verify", out).returncode == 0
    old, new = Bundle.open(source), Bundle.open(out)
    assert new.manifest.files == old.manifest.files
    assert new.manifest.version == "2"
    content = json.loads(numbers.read_text())
    assert set(content["subsets"]) == {"+".join(s) for s in old.manifest.subsets}
    spec = new.manifest.tasks.segmentation
    assert spec is not None
    assert spec.temperatures == {s: row["temperature"] for s, row in content["subsets"].items()}
    entry = new.records.accuracy["simulated drive all half of the scenes"]
    assert entry["command"] == (
        f"anysense bundle temperatures {source} --data folder:{simulated} --block 1 --limit 4 --out OUT"
    )
    for subset, row in content["subsets"].items():
        kept = entry["subsets"][subset]
        for name in ("ece", "ece_before", "aurc", "aurc_before", "temperature", "miou"):
            assert kept[name] == pytest.approx(row[name], abs=6e-5)
        bins = content["reliability"]["after"][subset]["segmentation"]
        assert sum(bins["count"]) == sum(
            content["reliability"]["before"][subset]["segmentation"]["count"]
        )
        assert 0 <= bins["as_large_by_chance"] <= 1
    told = [n for n in content["notes"] if "how often chance alone would make ece as large" in n]
    beyond = [s for s, row in content["subsets"].items() if row["ece"] > 0.05]
    assert len(told) == bool(beyond) and all(f"{s} " in told[0] for s in beyond)
    assert new.records.accuracy["before"] == {"subsets": {"rgb": {"miou": 0.5}}}
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape[1] > 3 * 300 and len(np.unique(drawn)) > 10
    # What the new bundle says of itself when it is evaluated is what was judged.
    judged = _anysense(
        "eval", out, "--data", f"folder:{simulated}", "--subset", "rgb", "--json", numbers
    )
    assert judged.returncode == 0 and "ece" in judged.stdout and "box_aurc" in judged.stdout
    row = json.loads(numbers.read_text())["subsets"]["rgb"]
    assert 0 <= row["ece"] <= 1 and 0 <= row["aurc"] <= 1


def test_a_bundle_whose_confidence_was_judged_in_parts(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    out, numbers = tmp_path / "out", tmp_path / "n.json"
    done = _anysense(
        "bundle", "temperatures", tiny_bundle, "--data", f"folder:{simulated}", "--block", "1",
        "--limit", "3", "--folds", "3", "--task", "segmentation", "--out", out, "--json", numbers,
        "--threads", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "fitted to 3 frames of 3 scenes, judged in 3 parts" in said
    content = json.loads(numbers.read_text())
    assert content["folds"] == 3 and content["judged"]["frames"] == 3
    entry = Bundle.open(out).records.accuracy["simulated drive all in 3 parts"]
    assert "--folds 3 --task segmentation" in entry["command"]
    assert all(row["frames"] == 3 for row in entry["subsets"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["BUNDLE", "--data", "folder:DATA", "--out", "BUNDLE", "--block", "1"],
            "--out: is the source",
        ),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT"], "one scene"),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--folds", "3"], "too few for 3"),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--folds", "1"], "--folds"),
        (
            ["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--block", "1", "--task", "boxes"],
            "has no task 'boxes'",
        ),
        (["BUNDLE", "--data", "folder:DATA", "--out", "DATA", "--block", "1"], "is no bundle"),
        (["BUNDLE", "--data", "folder:nowhere", "--out", "OUT"], "nowhere"),
        (["nowhere", "--data", "folder:DATA", "--out", "OUT"], "no such bundle"),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--picture", "p.bmp"], ".png"),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--block", "0"], "--block"),
        (
            [
                "BUNDLE",
                "--data",
                "folder:DATA",
                "--out",
                "OUT",
                "--block",
                "7",
                "--version",
                "a\tb",
            ],
            "version",
        ),
        (["BUNDLE", "--data", "folder:DATA", "--out", "OUT", "--json", "DATA"], "is a folder"),
    ],
)
def test_what_is_wrong_is_one_line(
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def filled(word: str) -> str:
        for name, path in (("BUNDLE", tiny_bundle), ("DATA", simulated), ("OUT", tmp_path / "o")):
            word = word.replace(name, str(path))
        return word

    try:
        code = main(["bundle", "temperatures", *map(filled, arguments), "--threads", "1"])
    except SystemExit as error:  # argparse's
        code = error.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("anysense: error: ") and message in line
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("eval B --data k:d --record --json", "eval B --data k:d"),
        ("eval B --json --data k:d", "eval B --data k:d"),
        ("-qv eval B --json=x --json 'a b' --threads 2 --split val", "eval B --split val"),
        (
            "bundle temperatures B --out 'a b' --block 3",
            "bundle temperatures B --out OUT --block 3",
        ),
        ("bundle temperatures B --out=/x --picture p.png", "bundle temperatures B --out OUT"),
        ("eval 'a b' --verbose", "eval 'a b'"),
    ],
)
def test_the_command_that_a_record_names(
    typed: str, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be typed again, and says nothing of where results went on this machine."""
    monkeypatch.setattr(sys, "argv", ["anysense", *shlex.split(typed)])
    assert recorded_command() == f"anysense {recorded}"
