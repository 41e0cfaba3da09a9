"""perception_node with backends that break, which no installed one does on demand.

`ANYSENSE_TEST_BREAK` says how: `load` gives the first backend of `device: cuda` graphs that are cut
off; `run` makes that backend fail after some inferences; `switch:FILE` makes the CPU backend fail, at
loading as well as running, while FILE exists; `slow:SECONDS` makes every inference take so long;
`hang:FILE` makes the encoder of rgb not answer while FILE exists.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anysense_ros.perception_node import main

from perception.errors import EngineError
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.registry import BACKENDS

FIRST, CPU = "onnxruntime-cuda", "onnxruntime-cpu"
RUNS = 20


class WornOut(OnnxRuntimeEngine):
    """Runs for a while on the CPU under the first backend's name, then fails for good."""

    def __init__(self, path: Path, threads: int | None, device: int) -> None:
        super().__init__(path, "cpu", threads)
        self.backend = FIRST

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.runs > RUNS:
            raise RuntimeError("device lost")
        return super().infer(feeds)


class Switched(OnnxRuntimeEngine):
    """Fails while a file exists."""

    switch = Path()

    def __init__(self, path: Path, threads: int | None, device: int) -> None:
        if self.switch.exists():
            raise EngineError("device is gone", where=str(path))
        super().__init__(path, "cpu", threads)

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.switch.exists():
            raise RuntimeError("device lost")
        return super().infer(feeds)


class Slow(OnnxRuntimeEngine):
    """Takes its time."""

    seconds = 0.0

    def __init__(self, path: Path, threads: int | None, device: int) -> None:
        super().__init__(path, "cpu", threads)

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        time.sleep(self.seconds)
        return super().infer(feeds)


class Hanging(OnnxRuntimeEngine):
    """One graph does not answer while a file exists."""

    switch = Path()

    def __init__(self, path: Path, threads: int | None, device: int) -> None:
        super().__init__(path, "cpu", threads)
        self._hangs = path.name == "encoder_rgb.onnx"

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        while self._hangs and self.switch.exists():
            time.sleep(0.05)
        return super().infer(feeds)


def cut_off(path: Path, threads: int | None, device: int) -> Engine:
    """Load half of a graph's file."""
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / path.name
        content = path.read_bytes()
        half.write_bytes(content[: len(content) // 2])
        return OnnxRuntimeEngine(half, "cpu", threads)


def arrange(how: str) -> None:
    """Replace backends in this process."""
    if how == "load":
        BACKENDS.own[FIRST] = replace(BACKENDS[FIRST], load=cut_off)
    elif how == "run":
        BACKENDS.own[FIRST] = replace(BACKENDS[FIRST], load=WornOut)
    elif how.startswith("slow:"):
        Slow.seconds = float(how.removeprefix("slow:"))
        BACKENDS.own[CPU] = replace(BACKENDS[CPU], load=Slow)
    elif how.startswith("hang:"):
        Hanging.switch = Path(how.removeprefix("hang:"))
        BACKENDS.own[CPU] = replace(BACKENDS[CPU], load=Hanging)
    else:
        Switched.switch = Path(how.removeprefix("switch:"))
        BACKENDS.own[CPU] = replace(BACKENDS[CPU], load=Switched)


if __name__ == "__main__":
    arrange(os.environ["ANYSENSE_TEST_BREAK"])
    sys.exit(main())
