"""The doctor: what it says of this machine is what can be seen from here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from backends import register

from perception.errors import EngineError
from perception.runtime import doctor
from perception.runtime.engines import registry
from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import Engine
from perception.runtime.engines.cuda_driver import examine_driver


def test_the_command_prints_json_that_agrees_with_the_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perception.cli.main", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    checks = {c["name"]: c for c in found["checks"]}
    assert checks["onnxruntime-cpu"]["status"] == "ok"
    assert version("onnxruntime") in checks["onnxruntime-cpu"]["detail"]
    assert ("openvino" in found["usable_backends"]) is (find_spec("openvino") is not None)
    assert (checks["PyTorch"]["status"] == "missing") is (find_spec("torch") is None)
    for check in found["checks"]:
        assert check["status"] in ("ok", "missing", "broken")
        assert "\n" not in check["detail"]
        if check["status"] == "missing":
            assert check["fix"] or check["detail"], check
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "folder" in done.stderr


def test_a_backend_that_lies_or_breaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = registry.BACKENDS["onnxruntime-cpu"]

    class Wrong(Engine):
        def __init__(self, path: Path) -> None:
            self._inner = genuine.load(path, 1, 0)
            self.backend, self.inputs = "wrong", self._inner.inputs
            self.outputs = self._inner.outputs

        def infer(self, feeds):  # type: ignore[no-untyped-def]
            return {n: v + 1 for n, v in self._inner.infer(feeds).items()}

    def absent(path: Path, threads: int | None, device: int) -> Engine:
        raise EngineError("no device", hint="buy one")

    def crash(path: Path, threads: int | None, device: int) -> Engine:
        raise OSError("libfoo.so: undefined symbol\nmore")

    for load, status, detail in (
        (lambda path, *_: Wrong(path), "broken", "computes wrong numbers"),
        (absent, "missing", "no device"),
        (crash, "broken", "libfoo.so: undefined symbol"),
    ):
        register(monkeypatch, "x", Backend(load, "numpy", "install x"))
        check = doctor.try_backend("x")
        assert (check.status, check.detail) == (status, detail)
        assert check.fix in ("buy one", "install x")
    missing = Backend(crash, "no_such_module_at_all", "pip install it")
    register(monkeypatch, "x", missing)
    assert doctor.try_backend("x").fix == "pip install it"


@pytest.mark.parametrize(
    ("release", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64", "6"),
        ("# R35 (release), REVISION: 5.0, GCID: 1, BOARD: t186ref, EABI: aarch64", "5"),
        ("# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64", "7"),
    ],
)
def test_a_jetson_is_known_by_its_files(release: str, jetpack: str, tmp_path: Path) -> None:
    assert doctor.find_jetson(tmp_path) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(release)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano\0")
    found = doctor.find_jetson(tmp_path)
    assert found is not None
    assert (found.model, found.jetpack) == ("NVIDIA Jetson Orin Nano", jetpack)
    checks = {c.name: c for c in doctor.examine(tmp_path)}
    assert checks["Jetson"].detail.startswith("NVIDIA Jetson Orin Nano, L4T 3")
    assert "nvidia-jetpack" in checks["pycuda"].fix or checks["pycuda"].status == "ok"
    # The index's own packages are for desktops; JetPack 5 is too old for any of them.
    assert (checks["Jetson"].status == "broken") is (jetpack == "5")
    if checks["tensorrt"].status != "ok":
        assert ("nvidia-jetpack" in checks["tensorrt"].fix) is (jetpack != "5")
    if checks["onnxruntime-cuda"].status != "ok":
        assert ("jp6" in checks["onnxruntime-cuda"].fix) is (jetpack == "6")
    if checks["tensorrt-rtx"].status != "ok":
        assert "desktop" in checks["tensorrt-rtx"].detail and not checks["tensorrt-rtx"].fix


def test_ros_that_is_installed_but_not_sourced_is_told(tmp_path: Path) -> None:
    if find_spec("rclpy") is not None:
        pytest.skip("ROS is sourced here")
    (tmp_path / "opt/ros/kilted").mkdir(parents=True)
    checks = {c.name: c for c in doctor.examine(tmp_path)}
    assert checks["ROS 2"].fix == "source /opt/ros/kilted/setup.bash"


def test_a_missing_driver_is_an_answer() -> None:
    found = examine_driver("libcuda-that-is-not-there.so")
    assert not found.gpus and "no NVIDIA driver" in found.problem
