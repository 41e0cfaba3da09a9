"""Plans: engines that TensorRT built ahead of time, kept in a bundle's `engines/` folder.

A plan file is a line of magic, a JSON header of known length, and the plan as TensorRT made it.  The
header says what the plan was built from and for, and holds its SHA-256: what is wrong, stale, cut off
or changed is found before TensorRT, which runs what a plan holds, sees a byte of it.  This finds
damage; whose a plan is, `built_here` knows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perception.errors import EngineError
from perception.files.containers import Container
from perception.files.limits import MAX_ARCHIVE_BYTES
from perception.files.writing import write_bytes
from perception.runtime.bundle import Bundle, GraphSource
from perception.runtime.engines import built_here
from perception.runtime.signatures import PLAN, PLANS

FOLDER, SUFFIX = PLANS, PLAN

_LOG = logging.getLogger("anysense.engines")

_MAGIC = b"ANYSENSE PLAN 1\n"
_MAX_HEADER = 1 << 20


class PlanHeader(BaseModel):
    """What a plan was built from and for.

    Attributes:
        kind: the backend that it was built for.
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

    kind: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
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
    path = folder / header.file
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, plan_file(header, plan), error=EngineError)
    return path


def plan_file(header: PlanHeader, plan: bytes) -> bytes:
    """The content of a plan's file."""
    complete = header.model_copy(
        update={"plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)}
    )
    text = complete.model_dump_json().encode()
    return _MAGIC + len(text).to_bytes(4, "little") + text + plan


@dataclass(frozen=True)
class PlanFile:
    """A plan's file in a folder or zip."""

    files: Container
    name: str

    def __str__(self) -> str:
        return self.files.where(self.name)

    def built_here(self) -> built_here.Note | None:
        """What is noted of it, when this machine built it.

        Raises:
            EngineError: the file is none, or damaged.
        """
        content = self.content()
        return built_here.look_up(self.check(content)[0].onnx_sha256, content)

    def content(self) -> bytes:
        """The whole file.

        Raises:
            AnySenseError: of the container's class: it is missing, or a link.
        """
        return self.files.read(self.name, MAX_ARCHIVE_BYTES)

    def header(self) -> PlanHeader:
        """Its header.

        Raises:
            EngineError: the file is none, or damaged.
        """
        return _split(str(self), self.content())[0]

    def check(self, content: bytes) -> tuple[PlanHeader, bytes]:
        """Header and plan of the file's content, checked against each other.

        Raises:
            EngineError: the file is none, damaged or cut off.
        """
        where = str(self)
        header, plan = _split(where, content)
        if len(plan) != header.plan_bytes:
            raise EngineError("plan is cut off", where=where, hint=_AGAIN)
        if hashlib.sha256(plan).hexdigest() != header.plan_sha256:
            raise EngineError("plan does not match its checksum", where=where, hint=_AGAIN)
        if self.name.split("/")[-1] != header.file:
            raise EngineError("plan's header is another one's", where=where, hint=_AGAIN)
        return header, plan

    def fits(self, onnx_sha256: str) -> PlanHeader:
        """Its header, once the whole is checked, and that it was built from this graph.

        Raises:
            EngineError: it is damaged or stale.
        """
        header, _ = self.check(self.content())
        if header.onnx_sha256 != onnx_sha256:
            raise EngineError("plan was built from another graph", where=str(self), hint=_AGAIN)
        return header


_AGAIN = "build it again with anysense export --engine"


def _split(where: str, content: bytes) -> tuple[PlanHeader, bytes]:
    start = len(_MAGIC) + 4
    size = int.from_bytes(content[len(_MAGIC) : start], "little")
    if not content.startswith(_MAGIC) or size > _MAX_HEADER or len(content) < start + size:
        raise EngineError("is no plan, or damaged", where=where, hint=_AGAIN)
    try:
        header = PlanHeader.model_validate_json(content[start : start + size])
    except ValidationError as error:
        raise EngineError("plan's header is damaged", where=where, hint=_AGAIN) from error
    return header, content[start + size :]


def plans_for(graph: Path | GraphSource, kind: str) -> list[PlanFile]:
    """Plan files beside a graph, newest first.

    Raises:
        AnySenseError: of the container's class: a link lies among them.
    """
    source = GraphSource.of(graph)
    start = f"{FOLDER}/{source.stem}.{kind}."
    return [plan for plan in _plans_in(source.files) if plan.name.startswith(start)]


def _plans_in(files: Container) -> list[PlanFile]:
    return [PlanFile(files, name) for name in files.names(FOLDER) if name.endswith(SUFFIX)]


def verify_plans(bundle: Bundle) -> int:
    """Check all plans of a bundle.

    Returns:
        How many there are.

    Raises:
        EngineError: names the first that is damaged or stale.
        BundleError: a link lies among them.
    """
    files = all_plans(bundle)
    for file in files:
        file.fits(bundle.manifest.files.get(file.header().graph, ""))
    return len(files)


def all_plans(bundle: Bundle) -> list[PlanFile]:
    """The plans of a bundle, by name.

    Raises:
        BundleError: a link lies among them.
    """
    return sorted(_plans_in(bundle.files), key=lambda plan: plan.name)


def keep_built(folder: Path, header: PlanHeader, plan: bytes, *, host_code: bool = False) -> Path:
    """Write a plan that was built just now, and note that this machine did so.

    Args:
        folder: where to.
        header: what it was built from and for.
        plan: as TensorRT made it.
        host_code: it was built to bring code of its own for the CPU.
    """
    path = write_plan(folder, header, plan)
    note = built_here.Note(host_code)
    if not built_here.note(header.onnx_sha256, plan_file(header, plan), note):
        _LOG.warning(
            "%s: cannot be noted as built here, in %s; it will only run with --trust-plans",
            path.name,
            built_here.folder_name(),
        )
    return path


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
