"""Node processes in a ROS domain of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PATIENCE_S = 180.0
"""How long to wait for what should come at once: test machines are shared, and discovery is slow."""


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait for a condition, and return what it gave."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout_s:.0f} s for {what}")


class NodeProcess:
    """An installed console script of `anysense_ros`, or a Python file, with a parameter file."""

    def __init__(
        self,
        executable: str,
        folder: Path,
        domain: int,
        parameters: dict[str, Any],
        *arguments: str,
        name: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = name or executable
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        self.log_path = folder / f"{name}.log"
        start = (
            [sys.executable, executable] if executable.endswith(".py") else [_installed(executable)]
        )
        command = [*start, "--ros-args", "--params-file", str(file)]
        command += ["-r", f"__node:={name}", *arguments]
        self._log = self.log_path.open("w")
        self.process = subprocess.Popen(
            command, env=environment(domain, folder), stdout=self._log, stderr=subprocess.STDOUT
        )

    @property
    def log(self) -> str:
        """What the process has printed."""
        return self.log_path.read_text(errors="replace")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Signal the process and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end on signal {number}:\n{self.log}") from None
        finally:
            self._log.close()

    def rss(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0


def environment(domain: int, folder: Path) -> dict[str, str]:
    """The environment of a node: its own domain, on this machine only, log files in the folder."""
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(folder / "ros_log"),
        "ROS_PYTHON_CHECK_FIELDS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _installed(executable: str) -> str:
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / "anysense_ros" / executable
        if path.is_file():
            return str(path)
    found = shutil.which(executable)
    assert found, f"{executable} is not installed"
    return found
