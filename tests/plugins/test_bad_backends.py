"""A backend of another distribution that is broken in some way: one line that names it, status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributions import written
from small_bundles import SmallBundles

from perception import Frame, Pipeline, sample_of
from perception.cli.main import main
from perception.errors import AnySenseError

GOOD = """
from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import Engine
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine

class Made(Engine):
    def __init__(self, graph):
        self._inner = OnnxRuntimeEngine(graph, "cpu", 1)
        self.backend, self.inputs, self.outputs = "made", self._inner.inputs, self._inner.outputs

    def infer(self, feeds):
        return self._inner.infer(feeds)

MADE = Backend(load=lambda graph, threads, gpu: Made(graph), module="onnxruntime", install="pip install made")
"""


def bring(site: Path, old: str = "", new: str = "") -> None:
    assert old in GOOD
    code = GOOD.replace(old, new)
    written(site, "made", {"anysense.backends": {"made": "brought_made:MADE"}}, code)


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    return small()


def test_one_without_fault_runs(site: Path, bundle: Path) -> None:
    bring(site)
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    frame = Frame({"rgb": sample_of("rgb", picture)})
    result = Pipeline.load(bundle, device="made")(frame)
    wanted = Pipeline.load(bundle, device="onnxruntime-cpu")(frame)
    assert result.backend == "made" and (result.labels == wanted.labels).all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import OnnxRuntimeEngine", "import NoSuchEngine", "cannot import name"),
        ("MADE = Backend(", "MADE = dict(", "is dict, not a Backend"),
        ("class Made(Engine)", "class Made", "gave Made, not an Engine"),
        ('self._inner = OnnxRuntimeEngine(graph, "cpu", 1)', "raise KeyError('lib')", "KeyError"),
        ("self.backend, self.inputs", "self._b, self.inputs", "has no backend"),
        ("self.outputs = ", "self._o = ", "has no outputs"),
        ("return self._inner.infer(feeds)", "return 1 / 0", "division by zero"),
        ("return self._inner.infer(feeds)", "return None", "gave NoneType, not a mapping"),
        ("return self._inner.infer(feeds)", "return {}", "gave no such output"),
        (
            "return self._inner.infer(feeds)",
            "return {n: v.tolist() for n, v in self._inner.infer(feeds).items()}",
            "gave list, not an array",
        ),
        (
            "return self._inner.infer(feeds)",
            "return {n: v[..., :1] for n, v in self._inner.infer(feeds).items()}",
            "gave float32 (",
        ),
        (
            "return self._inner.infer(feeds)",
            "return {n: v * float('nan') for n, v in self._inner.infer(feeds).items()}",
            "NaN",
        ),
    ],
)
def test_one_that_is_broken(
    site: Path,
    bundle: Path,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring(site, old, new)
    assert main(["bench", str(bundle), "--device", "made", "--frames", "1", "--warmup", "0"]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "made" in line and "Traceback" not in line
    assert line.count("\n") == 0, line


def test_auto_passes_over_one_that_cannot_be_imported(
    site: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bring(site, "import OnnxRuntimeEngine", "import NoSuchEngine")
    pipeline = Pipeline.load(bundle, device="cpu")
    assert pipeline.backend == "onnxruntime-cpu"
    with pytest.raises(AnySenseError, match=r"backend 'made' of made 1.0: ImportError"):
        Pipeline.load(bundle, device="made")
