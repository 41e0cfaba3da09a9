"""A task of another distribution that is broken in some way: one line that names it, and status 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from distributions import written
from onnx import helper
from small_bundles import GRID, SmallBundles, fuser

from perception import Pipeline, sample_of
from perception.cli.main import main
from perception.plugins import PluginError

GOOD = """
import numpy as np
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Meter, Task

class Spec(TaskSpec):
    gain: float = 1.0

def forms(spec, grid):
    return ({"peaks": (1, grid[1] // 8)},)

def decode(tensors, ctx):
    return float(tensors["peaks"].max()) * ctx.spec.gain

def to_dict(value, spec):
    return {"peak": value}

def draw(picture, value, spec, opacity):
    return picture // 2

def files(value, spec):
    return {"peak": np.zeros((4, 4), np.uint8)}

PEAK = Task(name="peak", spec=Spec, forms=forms, decode=decode, to_dict=to_dict, draw=draw, files=files)
"""


def bring(site: Path, old: str = "", new: str = "") -> None:
    assert old in GOOD
    code = GOOD.replace(old, new)
    written(site, "made", {"anysense.tasks": {"peak": "brought_made:PEAK"}}, code)


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    """Segmentation, and the largest feature of each column as `peaks`."""
    graph = fuser(("rgb",), presence=("rgb",), separator=".")
    axes = onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    graph.graph.initializer.append(axes)
    graph.graph.node.append(helper.make_node("ReduceMax", ["fused", "axes"], ["peaks"], keepdims=0))
    peaks = helper.make_tensor_value_info("peaks", onnx.TensorProto.FLOAT, [1, GRID[1] // 8])
    graph.graph.output.append(peaks)

    def edit(content: dict[str, Any]) -> None:
        content["tasks"]["peak"] = {"gain": 2.0}

    return small.named({"rgb": ("rgb", "rgb")}, graphs={"fuser.onnx": graph}, edit=edit)


@pytest.fixture
def run(bundle: Path, tmp_path: Path) -> list[str]:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    out = str(tmp_path / "out")
    return ["run", "--bundle", str(bundle), "--rgb", str(tmp_path / "a.png"), "--out", out]


def test_one_without_fault_is_run_drawn_and_written(
    site: Path, run: list[str], tmp_path: Path
) -> None:
    bring(site)
    assert main(run) == 0
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert found["peak"] > 0 and "segmentation" in found
    assert (tmp_path / "out/peak.png").is_file()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import numpy as np", "import nympy as np", "No module named 'nympy'"),
        ("PEAK = Task(", "PEAK = dict(", "is a dict"),
        ('name="peak"', 'name="peek"', "its name is 'peek'"),
        ("spec=Spec, ", "", "missing 1 required"),
        ("decode=decode, ", "", "missing 1 required"),
        ("spec=Spec", "spec=dict", "spec is dict, which is no TaskSpec"),
        ("decode=decode", "decode=3", "decode is 3, which is no function"),
        ("return ({", "return [{", "SyntaxError"),
        ('return ({"peaks": (1, grid[1] // 8)},)', "return None", "forms gave None, not a tuple"),
        ('return ({"peaks": (1, grid[1] // 8)},)', "return ()", "forms gave (), not a tuple"),
        ('return ({"peaks": (1, grid[1] // 8)},)', "return 1 / 0", "ZeroDivisionError"),
        ("return float(", "return float(tensors['valleys']) + float(", "KeyError: 'valleys'"),
        ('return {"peak": value}', "return value", "to_dict gave float, not dict"),
        ('return {"peak": value}', 'return {"peak": {1, 2}}', "peak: set, which JSON"),
        ('return {"peak": value}', "return {1: value}", "the key 1, which is no text"),
        ("return picture // 2", "return None", "draw gave NoneType"),
        ("return picture // 2", "return picture[..., 0]", "draw gave"),
        ("return picture // 2", "return picture / 2", "draw gave"),
        ('return {"peak": np', "return [np", "SyntaxError"),
        ("np.zeros((4, 4), np.uint8)", "[[1]]", "files gave"),
        ("np.zeros((4, 4), np.uint8)", "np.zeros((4, 4, 4, 4))", "files gave"),
        ('return {"peak": np', 'return {"../peak": np', "files gave"),
    ],
)
def test_one_that_is_broken(
    site: Path, run: list[str], old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(site, old, new)
    assert main(run) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "made 1.0" in line and "Traceback" not in line
    assert line.count("\n") == 0, line


def test_a_program_gets_an_error_that_names_it(site: Path, bundle: Path) -> None:
    bring(site, "return float(", "return int('one') + float(")
    pipeline = Pipeline.load(bundle, "onnxruntime-cpu")
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    with pytest.raises(PluginError, match=r"task 'peak' of made 1.0: ValueError: invalid literal"):
        pipeline({"rgb": sample_of("rgb", picture)})
    pipeline.wanted = frozenset({"labels"})
    assert pipeline({"rgb": sample_of("rgb", picture)}).labels is not None
