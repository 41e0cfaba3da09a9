"""The wheel: what lies where in it, and the name `anysense` in the source tree."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import anysense
import perception

ROOT = Path(__file__).parents[2]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    pytest.importorskip("setuptools")
    spec = spec_from_file_location("anysense_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_of_moved_packages_are_moved(setup: ModuleType) -> None:
    source = (
        "from export.qdq import quantize\n"
        "from exports import x\nfrom .export import y\nfrom perception.cli.export import z\n"
        "def f():\n    ü = 'ü'; from calibration import (\n        kitti,\n    )\n"
        "build = 'export.engine_builder:build_plans'\n"
        "text = 'export.this is no reference'\nfile = 'export.yaml'\n"
    )
    moved = setup.moved_imports(source, "m.py")
    assert moved == source.replace("from export.qdq", "from anysense.export.qdq").replace(
        "from calibration", "from anysense.calibration"
    ).replace("'export.engine", "'anysense.export.engine")


def test_an_import_that_cannot_be_moved_stops_the_build(setup: ModuleType) -> None:
    for line in ("import export.qdq", "import os, calibration as c"):
        with pytest.raises(SystemExit, match=r"m\.py:1"):
            setup.moved_imports(line, "m.py")


def test_nothing_in_the_wheel_imports_the_common_names(setup: ModuleType) -> None:
    packages, places = setup.layout(editable=False)
    assert {p.split(".")[0] for p in packages} == {"perception", "anysense"}
    assert places["anysense.export"] == "export"
    for top in ("perception", "export", "calibration", "anysense"):
        for path in (ROOT / top).rglob("*.py"):
            moved = setup.moved_imports(path.read_text(encoding="utf-8"), str(path))
            for node in ast.walk(ast.parse(moved)):
                if isinstance(node, ast.ImportFrom) and not node.level:
                    assert (node.module or "").split(".")[0] not in setup.MOVED, path


NOT_TO_BE_SHIPPED = {"calibration/registration/matcher.onnx"}
"""Weights that learned from data for research use: `register` says so where they are not."""


def test_files_beside_modules_are_in_the_wheel() -> None:
    """A style sheet that pyproject.toml does not name works in a clone alone."""
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    named = content["tool"]["setuptools"]["package-data"]
    for top in ("perception", "export", "calibration", "anysense"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                inner = path.relative_to(ROOT / top)
                shipped = any(inner.match(pattern) for pattern in named.get(top, ()))
                assert shipped != (path.relative_to(ROOT).as_posix() in NOT_TO_BE_SHIPPED), path


def test_an_editable_install_leaves_all_where_it_is(setup: ModuleType) -> None:
    packages, places = setup.layout(editable=True)
    assert {p.split(".")[0] for p in packages} == {"perception", "anysense", *setup.MOVED}
    assert not places


def test_the_alias_has_all_names_for_people_and_type_checkers() -> None:
    assert sorted(anysense.__all__) == sorted(perception.__all__)
    for name in anysense.__all__:
        assert getattr(anysense, name) is getattr(perception, name)
    assert anysense.__version__ == perception.__version__
    assert set(anysense.__all__) <= set(dir(anysense))
    with pytest.raises(AttributeError, match="'anysense' has no attribute 'nothing'"):
        _ = anysense.nothing
    tree = ast.parse((ROOT / "anysense/__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {a.asname for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == set(perception.__all__)
    assert (ROOT / "anysense/py.typed").is_file()


def test_modules_under_both_names_are_one() -> None:
    code = (
        "import sys, anysense, anysense.export.bundle_folder as a\n"
        "import export.bundle_folder as b, calibration.kitti as c\n"
        "from anysense.calibration import kitti\n"
        "assert a is b and c is kitti and anysense.export is sys.modules['export']\n"
        "assert b.__name__ == b.__spec__.name == 'export.bundle_folder', b.__spec__\n"
        "try:\n    import anysense.runtime\nexcept ModuleNotFoundError: pass\n"
        "else: raise SystemExit('modules of perception are no modules of anysense')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=CLEAN)


def test_python_m() -> None:
    words = [sys.executable, "-m", "anysense", "--version"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=CLEAN)
    assert done.stdout == f"anysense {perception.__version__}\n"


def test_importing_is_light() -> None:
    """What takes long is imported when it is asked for: neither NumPy nor OpenCV, nor an engine."""
    code = (
        "import sys, time\nstart = time.process_time()\nimport perception, anysense\n"
        "taken = time.process_time() - start\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'pydantic', 'yaml', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert taken < 0.25, taken\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=CLEAN)


@pytest.mark.slow
def test_the_wheel_in_a_bare_environment(tmp_path: Path) -> None:
    """As `make extras` does: needs a package index."""
    words = [sys.executable, ROOT / "tests/extras.py", tmp_path / "extras", "wheel"]
    done = subprocess.run(words, capture_output=True, text=True, env=CLEAN)
    assert done.returncode == 0, done.stdout + done.stderr
