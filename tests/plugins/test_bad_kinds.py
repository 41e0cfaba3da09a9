"""A kind of sensor of another distribution that is broken in some way: one line that names it, and status 2;
where other sensors are left, results go on without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from distributions import written
from small_bundles import GRID, SmallBundles

from perception import Pipeline, sample_of
from perception.cli.main import main
from perception.frame import Sample

GOOD = """
import numpy as np
from perception.errors import InputError
from perception.files.arrays import read_npy
from perception.frame import Sample
from perception.sensors.kind import Grid, KindSpec, SensorKind, TensorSpec

class Spec(KindSpec):
    gain: float = 1.0

def tensors(spec, view):
    return {"image": TensorSpec((1, view.height, view.width))}

def validate(sample):
    if sample.data.ndim != 2:
        raise InputError("no (H, W)", where=sample.sensor)

def resample(sample, input):
    small = np.zeros((input.view.height, input.view.width), np.float32)
    small[:] = sample.data.mean()
    return Grid({"image": small})

def normalize(grid, input, out):
    out["image"][0] = grid.image * input.preprocess.gain

def from_file(path, hints):
    return Sample("sonar", read_npy(path))

SONAR = SensorKind(
    name="sonar", spec=Spec, tensors=tensors, validate=validate, resample=resample,
    normalize=normalize, from_file=from_file, suffixes=(".npy",),
)
"""

KINDS = {"rgb": ("rgb", "rgb"), "sonar": ("sonar", "sonar")}


def bring(site: Path, old: str = "", new: str = "") -> None:
    assert old in GOOD
    code = GOOD.replace(old, new)
    written(site, "made", {"anysense.sensors": {"sonar": "brought_made:SONAR"}}, code)


def frame() -> dict[str, Sample]:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (*GRID, 3), dtype=np.uint8)
    return {"rgb": sample_of("rgb", picture), "sonar": Sample("sonar", rng.random(GRID))}


def command(bundle: Path, folder: Path, *sensors: str) -> list[str]:
    cv2.imwrite(str(folder / "a.png"), frame()["rgb"].data)
    np.save(folder / "a.npy", frame()["sonar"].data)
    files = {"rgb": folder / "a.png", "sonar": folder / "a.npy"}
    words = ["run", "--bundle", str(bundle), "--out", str(folder / "out")]
    return words + [w for name in sensors for w in ("--sensor", f"{name}={files[name]}")]


def test_one_without_fault_is_an_input_as_ours_are(
    site: Path, small: SmallBundles, tmp_path: Path
) -> None:
    bring(site)
    pipeline = Pipeline.load(small.named(KINDS), "onnxruntime-cpu")
    for names in (("rgb", "sonar"), ("sonar",), ("rgb",)):
        given = {name: frame()[name] for name in names}
        result = pipeline(given)
        assert result.used == names and result.labels is not None and not result.warnings
    assert main(command(small.named(KINDS), tmp_path, "rgb", "sonar")) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import numpy as np", "import nympy as np", "No module named 'nympy'"),
        ("SONAR = SensorKind(", "SONAR = dict(", "is a dict"),
        ('name="sonar"', 'name="radar"', "its record is called 'radar'"),
        ("validate=validate, ", "", "missing 1 required"),
        ("resample=resample", "resample=None", "resample is None, which is no function"),
        ("spec=Spec", "spec=dict", "spec is dict"),
        ("spec=Spec", "spec=Spec()", "which is no class"),
        ('return {"image": TensorSpec', "return [TensorSpec", "SyntaxError"),
        ("TensorSpec((1, view.height, view.width))", "(1, 32, 64)", "tensors gave image"),
        ("(1, view.height, view.width)", "(1, view.height / 2, 3)", "of shape"),
        ("view.height, view.width))", 'view.height, view.width), "float16")', "float16"),
        ('suffixes=(".npy",)', 'suffixes=".npy"', "suffixes is"),
    ],
)
def test_one_that_cannot_be_used_is_named_when_the_bundle_is_opened(
    site: Path,
    small: SmallBundles,
    tmp_path: Path,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring(site)
    bundle = small.named(KINDS)
    (site / "brought_made.py").write_text(GOOD.replace(old, new))
    forget()
    assert main(command(bundle, tmp_path, "rgb", "sonar")) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "made 1.0" in line and "Traceback" not in line
    assert line.count("\n") == 0, line


def forget() -> None:
    import importlib
    import sys

    from perception.sensors.registry import KINDS as REGISTRY

    REGISTRY._loaded.pop("sonar", None)
    sys.modules.pop("brought_made", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("if sample.data.ndim != 2", "if sample.date", "AttributeError"),
        ("return Grid(", "return dict(", "resample gave dict, not Grid"),
        ("small[:] = sample.data.mean()", "raise RuntimeError('echo')", "RuntimeError: echo"),
        ('out["image"][0] = ', 'out["picture"][0] = ', "KeyError: 'picture'"),
        ('out["image"][0] = grid.image', 'out["image"][0] = grid.image[:3]', "ValueError"),
        ("* input.preprocess.gain", "* float('nan')", "nan"),
    ],
)
def test_one_that_fails_with_a_sample_leaves_the_others(
    site: Path,
    small: SmallBundles,
    tmp_path: Path,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring(site, old, new)
    bundle = small.named(KINDS)
    if ("from_file" not in said and "return " not in old) or "Grid" in old:
        result = Pipeline.load(bundle, "onnxruntime-cpu")(frame())
        assert result.used == ("rgb",) and result.labels is not None
        assert [w.sensor for w in result.warnings] == ["sonar"]
        assert said.lower() in str(result.warnings[0].text).lower()
    assert main(command(bundle, tmp_path, "sonar")) == 2
    lines = " ".join("".join(capsys.readouterr()).split())
    assert said.lower() in lines.lower() and "Traceback" not in lines


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return Sample(", "return (", "from_file gave tuple, not Sample"),
        ('return Sample("sonar", read_npy(path))', "return 1 / 0", "ZeroDivisionError"),
        ('return Sample("sonar"', 'return Sample("rgb"', "rgb"),
    ],
)
def test_one_that_reads_no_file_says_so(
    site: Path,
    small: SmallBundles,
    tmp_path: Path,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring(site, old, new)
    assert main(command(small.named(KINDS), tmp_path, "rgb", "sonar")) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "sonar" in line and line.count("\n") == 0, line


def test_a_thing_of_any_type_where_a_sample_is_wanted(site: Path, small: SmallBundles) -> None:
    bring(site)
    pipeline = Pipeline.load(small.named(KINDS), "onnxruntime-cpu")
    odd: list[Any] = [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 0)), np.array(["a"])]
    for data in odd:
        result = pipeline({**frame(), "sonar": Sample("sonar", data)})
        assert result.labels is not None and "Traceback" not in str(result.warnings)
