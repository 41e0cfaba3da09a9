"""Every package that a command may lack is in the extra that its message names."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from perception.errors import MissingDependencyError
from perception.extras import EXTRAS, explain, require

ROOT = Path(__file__).parents[2]


def requirements(extra: str) -> set[str]:
    """Names of the packages that an extra brings, those of extras within it included."""
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = content["project"]["optional-dependencies"]
    found = set()
    for line in extras[extra]:
        inner = re.match(r"anysense\[([^\]]+)\]", line)
        if inner:
            for name in inner[1].split(","):
                found |= requirements(name.strip())
        else:
            found.add(re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-"))  # type: ignore[index]
    return found


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_the_extra_brings_the_module(module: str) -> None:
    distributions = packages_distributions().get(module)
    if not distributions:
        pytest.skip(f"{module} is not installed here")
    brought = requirements(EXTRAS[module])
    if module == "google":  # protobuf, which comes with onnx
        assert "onnx" in brought
        return
    names = {d.lower().replace("_", "-") for d in distributions}
    assert any(
        n == b or n.startswith(f"{b}-") or b.startswith(f"{n}-") for n in names for b in brought
    )


@pytest.mark.parametrize("extra", ["train", "tensorrt", "tensorrt-rtx"])
def test_what_exports_has_onnx(extra: str) -> None:
    assert "onnx" in requirements(extra)


def test_what_is_missing_and_what_is_ours() -> None:
    missing = ModuleNotFoundError("No module named 'rosbags'", name="rosbags.highlevel")
    assert explain(missing) == "rosbags is not installed (pip install 'anysense[bags]')"
    assert explain(ModuleNotFoundError("no", name="perception.nothing")) is None
    assert explain(ImportError("cannot import name")) is None


def test_a_package_that_is_there_and_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("rerun") is not None:
        pytest.skip("rerun is installed here")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"^the view needs rerun \(pip install"):
        require("the view", "rerun")
    (tmp_path / "rerun.py").write_text("raise OSError('libx.so: cannot open')")
    with pytest.raises(MissingDependencyError, match=r"needs rerun, which cannot be loaded: libx"):
        require("the view", "rerun")
