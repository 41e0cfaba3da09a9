"""What this machine can run, what it lacks, and the command that brings it."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perception.errors import EngineError
from perception.files.folders import scratch_folder
from perception.plugins import PluginError, examined
from perception.runtime.engines.cuda_driver import Driver, examine_driver
from perception.runtime.engines.measured import cpu_name
from perception.runtime.engines.probe import TINY_GRAPH
from perception.runtime.engines.registry import BACKENDS
from perception.runtime.shelf import entries

Status = Literal["ok", "missing", "broken"]

_CPU_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimddp": "NEON dot product",
    "bf16": "NEON BF16",
}

_ROS_INSTALL = "sudo apt install ros-jazzy-ros-base, or `make ros` in the source tree"

_JETSON_FIXES: dict[str, dict[str, str]] = {
    "5": {},
    "6": {
        "tensorrt": "sudo apt install nvidia-jetpack, and a venv with --system-site-packages",
        "onnxruntime-gpu": "pip uninstall -y onnxruntime && pip install onnxruntime-gpu "
        "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126",
    },
    "7": {
        "tensorrt": "sudo apt install nvidia-jetpack, and a venv with --system-site-packages",
        "onnxruntime-gpu": "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
    },
}
"""What brings a package on a Jetson, by JetPack, where that is not what brings it elsewhere."""

_JETPACK = {35: "5", 36: "6", 38: "7", 39: "7"}
"""JetPack's major version by the major version of Jetson Linux (L4T)."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        group: system, gpu, backend, training, robot, bundle or plug-in.
        name: what was looked at.
        status: `ok`, `missing` (not there, nothing wrong) or `broken` (there, but does not work).
        detail: version, model or reason.
        fix: the command that brings or mends it; empty when there is nothing to do.
    """

    group: str
    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Jetson:
    """A Jetson's model and software.

    Attributes:
        model: as the device tree names it.
        l4t: version of Jetson Linux, such as `36.4.3`.
        jetpack: major version of JetPack; empty when unknown.
    """

    model: str
    l4t: str
    jetpack: str


def examine(root: Path = Path("/")) -> list[Check]:
    """Look at this machine.

    Args:
        root: the root of the file system; another one only for looking at a mounted image.
    """
    driver, jetson = examine_driver(), find_jetson(root)
    build = "sudo apt install python3-dev nvidia-jetpack && " if jetson else ""
    checks = [*_system(root, jetson), *_gpu(driver, jetson)]
    checks.append(_package("gpu", "pycuda", "pycuda", f"{build}pip install pycuda"))
    checks += [_on_jetson(try_backend(name), jetson) for name in BACKENDS]
    return [*checks, *_training(driver), _robot(root), *_bundles(), *_plugins()]


def report(checks: list[Check]) -> dict[str, Any]:
    """The findings as plain values.

    Returns:
        `checks`, all of them; `usable_backends`, names for `--device`; `commands`, what would bring
        the rest, each once.
    """
    return {
        "checks": [asdict(c) for c in checks],
        "usable_backends": [c.name for c in checks if c.group == "backend" and c.status == "ok"],
        "commands": list(dict.fromkeys(c.fix for c in checks if c.fix)),
    }


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this machine is, or None."""
    release = _text(root / "etc/nv_tegra_release")
    model = _text(root / "proc/device-tree/model").strip("\0\n ")
    found = re.search(r"R(\d+)\b.*?REVISION:\s*([\d.]+)", release)
    if not found and "jetson" not in model.lower():
        return None
    l4t = f"{found[1]}.{found[2]}" if found else ""
    return Jetson(model or "Jetson", l4t, _JETPACK.get(int(found[1]), "") if found else "")


def try_backend(name: str) -> Check:
    """Run a graph of one operator on a backend."""
    try:
        backend = BACKENDS[name]
    except PluginError as error:
        return Check("backend", name, "broken", str(error), error.hint)
    if not backend.installed:
        return Check("backend", name, "missing", "not installed", backend.install)
    with scratch_folder("doctor") as folder:
        path = folder / "relu.onnx"
        path.write_bytes(TINY_GRAPH)
        x = np.array([[[[-1, 0], [1, 2]]]], np.float32)
        try:
            engine = backend.load(path, 1, 0)
            y = engine.run({"x": x})["y"]
        except EngineError as error:
            return Check("backend", name, "missing", error.message, error.hint)
        except Exception as error:  # a backend with a broken installation may raise anything
            line = (str(error).splitlines() or [type(error).__name__])[0]
            return Check("backend", name, "broken", line, backend.install)
    if not np.array_equal(y, np.maximum(x, 0)):
        return Check("backend", name, "broken", "computes wrong numbers", backend.install)
    return Check("backend", name, "ok", f"{_version(backend.module)}, runs as {engine.backend}")


def _on_jetson(check: Check, jetson: Jetson | None) -> Check:
    """The same finding with the command that mends it on a Jetson."""
    if jetson is None or check.status == "ok":
        return check
    if check.name == "tensorrt-rtx":
        return replace(check, detail="is for desktop GPUs, not for Jetson", fix="")
    fixes = _JETSON_FIXES.get(jetson.jetpack, _JETSON_FIXES["6"])
    if check.name in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        return replace(check, fix=fixes.get("onnxruntime-gpu", ""))
    if check.name == "tensorrt" and "plan" not in check.detail:
        return replace(check, fix=fixes.get("tensorrt", ""))
    return check


def _jetson_check(jetson: Jetson) -> Check:
    detail = f"{jetson.model}, L4T {jetson.l4t or 'unknown'}, JetPack {jetson.jetpack or '?'}"
    if jetson.jetpack == "5":
        return Check(
            "system",
            "Jetson",
            "broken",
            f"{detail}: its Python 3.8 and TensorRT 8 are too old",
            "flash JetPack 6 (Orin), or export for another runtime with --serve",
        )
    return Check("system", "Jetson", "ok", detail)


def _system(root: Path, jetson: Jetson | None) -> list[Check]:
    info = _text(root / "proc/cpuinfo")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    fast = [label for flag, label in _CPU_FLAGS.items() if flag in flags]
    memory = re.search(r"MemTotal:\s*(\d+)", _text(root / "proc/meminfo"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = platform.python_version()
    old = sys.version_info < (3, 10)
    checks = [
        Check("system", "system", "ok", f"{platform.system()} {platform.machine()}"),
        Check("system", "Python", "broken" if old else "ok", python),
        Check("system", "CPU", "ok", f"{cpu_name()}, {cores} cores; {', '.join(fast) or '-'}"),
    ]
    if memory:
        checks.append(Check("system", "memory", "ok", f"{int(memory[1]) / 2**20:.0f} GiB"))
    if jetson is not None:
        checks.append(_jetson_check(jetson))
    return checks


def _gpu(driver: Driver, jetson: Jetson | None) -> list[Check]:
    install = "sudo apt install nvidia-jetpack" if jetson else "sudo ubuntu-drivers install"
    if driver.problem:
        status: Status = "broken" if driver.cuda or "start" in driver.problem else "missing"
        return [Check("gpu", "NVIDIA GPU", status, driver.problem, install)]
    return [
        Check("gpu", "NVIDIA driver", "ok", f"up to CUDA {driver.cuda}"),
        *(
            Check(
                "gpu",
                f"GPU {gpu.index}",
                "ok",
                f"{gpu.name}, compute capability {gpu.compute_capability}, "
                f"{gpu.memory_bytes / 2**30:.1f} GiB{' shared' if gpu.integrated else ''}",
            )
            for gpu in driver.gpus
        ),
    ]


def _package(group: str, module: str, title: str, fix: str) -> Check:
    try:
        there = find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        return Check(group, title, "missing", "not installed", fix)
    return Check(group, title, "ok", _version(module))


def _training(driver: Driver) -> list[Check]:
    train = "pip install 'anysense[train]'"
    torch = _package("training", "torch", "PyTorch", train)
    if torch.status == "ok" and driver.gpus and "+cpu" in torch.detail:
        fix = "pip install --force-reinstall torch"
        torch = Check("training", "PyTorch", "broken", f"{torch.detail} beside a GPU", fix)
    return [
        torch,
        _package("training", "onnx", "onnx", "pip install 'anysense[export]'"),
        _package("training", "mujoco", "simulator", "pip install 'anysense[sim]'"),
        _package("training", "matplotlib", "charts", "pip install 'anysense[viz]'"),
    ]


def _robot(root: Path) -> Check:
    distro = os.environ.get("ROS_DISTRO", "")
    if find_spec("rclpy") is not None:
        return Check("robot", "ROS 2", "ok", distro or "rclpy without ROS_DISTRO")
    installed = sorted(p.name for p in (root / "opt/ros").glob("*") if p.is_dir())
    if installed:
        fix = f"source /opt/ros/{installed[-1]}/setup.bash"
        return Check("robot", "ROS 2", "missing", f"{installed[-1]} is not sourced", fix)
    return Check("robot", "ROS 2", "missing", "not installed", _ROS_INSTALL)


def _bundles() -> list[Check]:
    """The bundles that are found by name, with what may be done with them."""
    return [
        Check("bundle", one.name, "broken", one.problem, "copy it again, or remove it")
        if one.problem
        else Check(
            "bundle",
            one.name,
            "ok",
            f"{', '.join(one.sensors)}; {'may' if one.may_ship else 'may not'} be part of a product "
            f"(weights: {one.weights}; data: {one.data})"
            f"{'; on openvino: ' if one.doubts else ''}{one.doubts}",
        )
        for one in entries()
    ]


def _plugins() -> list[Check]:
    """What other distributions bring, each imported: one that cannot be is broken, and says why."""
    return [
        Check("plug-in", f"{p.group} {p.name}", "broken", f"{p.distribution}: {p.problem}")
        if p.problem
        else Check("plug-in", f"{p.group} {p.name}", "ok", p.distribution)
        for p in examined()
    ]


def _version(module: str) -> str:
    names = {"tensorrt_rtx": ("tensorrt-rtx-cu13",)}
    for name in (*names.get(module, ()), module, f"{module}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "installed"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
