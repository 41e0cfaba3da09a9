"""Plans: engines that TensorRT built ahead of time, kept in a bundle's `engines/` folder.

A plan file is a line of magic, a JSON header of known length, and the plan as TensorRT made it.  The
header says what the plan was built from and for, and holds its SHA-256: what is wrong, stale, cut off
or changed is found before TensorRT, which runs what a plan holds, sees a byte of it.  Like the
checksums of a bundle this finds damage; it is no protection from someone who can write to the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perception.errors import EngineError
from perception.runtime.bundle import Bundle

FOLDER, SUFFIX = "engines", ".plan"
PlanKind = Literal["tensorrt", "tensorrt-rtx"]

_MAGIC = b"ANYSENSE PLAN 1\n"
_MAX_HEADER = 1 << 20


class PlanHeader(BaseModel):
    """What a plan was built from and for.

    Attributes:
        kind: which TensorRT built it.
        graph: file name of the ONNX graph.
        onnx_sha256: of that file.
        precision: fp32, fp16, int8 or mixed.
        shapes: by input.
        builder: TensorRT's version.
        compute_capabilities: GPUs it runs on, such as `8.6`.
        gpu: name of the GPU it was built on; empty when built ahead of time for any.
        driver: newest CUDA version of the driver it was built with; empty likewise.
        options: what else the builder was told.
        plan_sha256, plan_bytes: of the plan.
        seconds: how long it took to build.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: PlanKind
    graph: str
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Literal["fp32", "fp16", "int8", "mixed"]
    shapes: dict[str, tuple[int, ...]]
    builder: str
    compute_capabilities: tuple[str, ...]
    gpu: str = ""
    driver: str = ""
    options: dict[str, str] = Field(default_factory=dict)
    plan_sha256: str = ""
    plan_bytes: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for all that decides what the plan is."""
        identity = self.model_dump(mode="json", exclude={"plan_sha256", "plan_bytes", "seconds"})
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def file(self) -> str:
        """Name of the plan's file."""
        return f"{Path(self.graph).stem}.{self.kind}.{self.key}{SUFFIX}"


def write_plan(folder: Path, header: PlanHeader, plan: bytes) -> Path:
    """Write a plan into `folder`; a reader sees the whole file or none."""
    complete = header.model_copy(
        update={"plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)}
    )
    text = complete.model_dump_json().encode()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as partial:
        partial.write(_MAGIC + len(text).to_bytes(4, "little") + text + plan)
        partial.flush()
        os.fsync(partial.fileno())
    os.chmod(partial.name, 0o644)
    path = folder / header.file
    os.replace(partial.name, path)
    return path


def read_header(path: Path) -> PlanHeader:
    """The header of a plan file.

    Raises:
        EngineError: the file is none, or damaged.
    """
    return _split(path, path.read_bytes() if path.is_file() else b"")[0]


def read_plan(path: Path) -> tuple[PlanHeader, bytes]:
    """Header and plan, checked against each other.

    Raises:
        EngineError: the file is none, damaged or cut off.
    """
    header, plan = _split(path, path.read_bytes() if path.is_file() else b"")
    if len(plan) != header.plan_bytes:
        raise EngineError("plan is cut off", where=str(path), hint=_AGAIN)
    if hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        raise EngineError("plan does not match its checksum", where=str(path), hint=_AGAIN)
    if path.name != header.file:
        raise EngineError("plan's header is another one's", where=str(path), hint=_AGAIN)
    return header, plan


_AGAIN = "build it again with anysense export --engine"


def _split(path: Path, content: bytes) -> tuple[PlanHeader, bytes]:
    start = len(_MAGIC) + 4
    size = int.from_bytes(content[len(_MAGIC) : start], "little")
    if not content.startswith(_MAGIC) or size > _MAX_HEADER or len(content) < start + size:
        raise EngineError("is no plan, or damaged", where=str(path), hint=_AGAIN)
    try:
        header = PlanHeader.model_validate_json(content[start : start + size])
    except ValidationError as error:
        raise EngineError("plan's header is damaged", where=str(path), hint=_AGAIN) from error
    return header, content[start + size :]


def plans_for(onnx: Path, kind: PlanKind) -> list[Path]:
    """Plan files beside a graph, newest first."""
    found = (onnx.parent / FOLDER).glob(f"{onnx.stem}.{kind}.*{SUFFIX}")
    return sorted(found, key=lambda p: p.stat().st_mtime_ns, reverse=True)


def check_plan(path: Path, onnx_sha256: str) -> PlanHeader:
    """Check a plan wholly, and that it was built from the graph that is there now.

    Raises:
        EngineError: it is damaged or stale.
    """
    header, _ = read_plan(path)
    if header.onnx_sha256 != onnx_sha256:
        raise EngineError("plan was built from another graph", where=str(path), hint=_AGAIN)
    return header


def verify_plans(bundle: Bundle) -> int:
    """Check all plans of a bundle.

    Returns:
        How many there are.

    Raises:
        EngineError: names the first that is damaged or stale.
    """
    paths = sorted((bundle.path / FOLDER).glob(f"*{SUFFIX}"))
    for path in paths:
        header = read_header(path)
        check_plan(path, bundle.manifest.files.get(header.graph, ""))
    return len(paths)


@contextmanager
def locked(folder: Path, name: str, patience_s: float = 3600.0) -> Iterator[None]:
    """Hold the right to build the plan `name`; other processes wait, one that dies lets go.

    Raises:
        EngineError: another process held it for longer than `patience_s`.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    deadline = time.monotonic() + patience_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineError(
                        "another process has been building it for too long", where=str(path)
                    ) from None
                time.sleep(0.05)
        yield
