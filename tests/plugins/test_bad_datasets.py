"""A data set of another distribution that is broken in some way: one line that names it, and status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distributions import anysense, written

from perception import plugins
from perception.cli.main import main
from perception.data.registry import open_recording, parse_data_argument
from perception.errors import ConfigError

READER = """
import numpy as np
from perception.data.base import Boxes, ClassInfo, Recording, RecordingInfo, Truth
from perception.frame import Frame, Sample

class Made(Recording):
    def __init__(self, root, split="all", count: int = 3):
        classes = (ClassInfo(0, "a", (0, 0, 0)),)
        info = RecordingInfo("made", "Made", {"rgb": "rgb"}, classes, classes)
        super().__init__(root, info, [str(i) for i in range(count)])

    def frame(self, index):
        picture = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
        return Frame({"rgb": Sample("rgb", picture, index)})

    def truth(self, index):
        return Truth(np.zeros((32, 32), np.uint8), Boxes.of([[0, 0, 9, 9]], [0]))
"""
"""A reader without fault; each case below changes one thing."""


def bring(site: Path, *changes: tuple[str, str]) -> None:
    code = READER
    for old, new in changes:
        assert code.count(old) >= 1
        code = code.replace(old, new)
    written(site, "sets", {"anysense.datasets": {"made": "brought_sets:Made"}}, code)


def test_one_without_fault_is_checked_described_and_takes_its_options(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(site)
    assert main(["data", "check", f"made:{tmp_path}"]) == 0
    assert main(["data", "info", f"made,count=2:{tmp_path}"]) == 0
    assert "frames 2" in capsys.readouterr().out
    assert len(open_recording("made,count=2", tmp_path, count=7)) == 7
    assert len(open_recording(*parse_data_argument(f"made,count=5:{tmp_path}"))) == 5


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("made,cuont=2", "does not take cuont (it takes count)"),
        ("made,count", "'count' is not OPTION=VALUE"),
        ("made,count=1,count=2", "a second time"),
        ("made,=1", "'=1' is not OPTION=VALUE"),
        ("made,split=val", "does not take split"),
        ("made,count=[", "not YAML"),
        ("msrs,labels=ultraviolet", "unknown labels"),
        ("folder,rows=3", "folder data does not take these options"),
    ],
)
def test_options_that_a_reader_does_not_take_are_refused(
    site: Path, tmp_path: Path, kind: str, said: str
) -> None:
    bring(site)
    (tmp_path / "dataset.yaml").write_text(
        "schema: 1\nname: x\nmodalities: [rgb]\nwidth: 32\nheight: 32\nrate_hz: 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        open_recording(kind, tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("super().__init__(root", "raise OSError('tape\\nlost') #"), "OSError: tape"),
        (("super().__init__(root", "print(root"), "does not call Recording.__init__"),
        (("class Made(Recording)", "class Made"), "takes no split"),
        (("class Made(Recording)", "Made = 3\nclass Other(Recording)"), "is a int, not a reader"),
        (("import numpy", "import nympy"), "No module named 'nympy'"),
        (("class Made", "class Maid"), "has no attribute 'Made'"),
    ],
)
def test_a_reader_that_cannot_be_opened(
    site: Path,
    tmp_path: Path,
    change: tuple[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What is no recording has no `super` that takes arguments.
    more = [("super().__init__(root, info,", "print(root, info,")] if "class Made" in change else []
    swap = [("split=", "part=")] if change[1] == "class Made" else []
    bring(site, change, *more, *swap)
    assert main(["data", "check", f"made:{tmp_path}"]) == 2
    line = capsys.readouterr().err
    assert said in line and "sets 1.0" in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('return Frame({"rgb"', "raise IndexError(index) #"), "IndexError: 0"),
        (('return Frame({"rgb"', "return None #"), "gave a NoneType, not a Frame"),
        (('return Frame({"rgb"', 'return Frame({"fir"'), "has rgb fir, which is not listed"),
        (("return Truth(", "return 1 #"), "gave a int, not a Truth"),
        (("return Truth(", "return 1 / 0 #"), "ZeroDivisionError"),
        (("np.zeros((32, 32), np.uint8)", "np.ones((32, 32), np.uint8)"), "labels hold class 1"),
        (("np.zeros((32, 32), np.uint8)", "np.zeros((32, 32))"), "no (H, W) array of uint8"),
        (("np.zeros((32, 32), np.uint8)", "[[0]]"), "no (H, W) array of uint8"),
        (("9]], [0])", "9]], [1])"), "boxes hold class 1"),
        (("9]], [0])", "9]], [0, 0])"), "differ in number"),
        (("9]], [0])", "9]], [-1])"), "boxes hold class -1"),
    ],
)
def test_a_reader_whose_frames_or_truth_are_wrong(
    site: Path,
    tmp_path: Path,
    change: tuple[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring(site, change)
    assert main(["data", "check", f"made:{tmp_path}"]) == 2
    assert said in " ".join(capsys.readouterr().out.split())
    recording = open_recording("made", tmp_path)
    with pytest.raises(plugins.AnySenseError) as caught:
        recording.frame(0)
        recording.truth(0)
    assert said in str(caught.value) and "made data of sets 1.0" in str(caught.value)


def test_the_doctor_says_which_plug_ins_there_are_and_what_ails_them(tmp_path: Path) -> None:
    site = tmp_path / "site"
    written(site, "sets", {"anysense.datasets": {"made": "brought_sets:Made"}}, READER)
    written(
        site,
        "broken",
        {
            "anysense.models": {"deep": "brought_broken:DEEP", "anyfuse": "brought_broken:DEEP"},
            "anysense.methods": {"shallow": "brought_nowhere:SHALLOW"},
        },
        "DEEP = 'deep'",
    )
    done = anysense(["doctor", "--json"], tmp_path, site)
    assert done.returncode == 0, done.stderr
    found = {c["name"]: c for c in json.loads(done.stdout)["checks"] if c["group"] == "plug-in"}
    assert found["datasets made"]["status"] == "ok"
    assert found["datasets made"]["detail"] == "sets 1.0"
    assert "is no subclass of FusionModel" in found["models deep"]["detail"]
    assert "AnySense has a model of that name" in found["models anyfuse"]["detail"]
    assert "No module named 'brought_nowhere'" in found["methods shallow"]["detail"]
    assert all(found[n]["status"] == "broken" for n in set(found) - {"datasets made"})
    assert all(c["detail"].startswith("broken 1.0: ") for n, c in found.items() if " made" not in n)
    done = anysense(["models"], tmp_path, site)
    assert done.returncode == 0 and "anyfuse" in done.stdout
    assert "model 'deep' of broken 1.0" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_what_a_plug_in_raises_where_nobody_looks_for_it_is_still_one_line(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(site, ("super().__init__(root, info", "super().__init__(root, info"))
    with (site / "brought_sets.py").open("a") as file:
        file.write("\n    def tags(self, index):\n        raise KeyError('tape')\n")
    assert main(["data", "info", f"made:{tmp_path}"]) == 2
    line = capsys.readouterr().err
    assert "brought_sets of sets 1.0: KeyError: 'tape'" in line and line.count("\n") == 1
