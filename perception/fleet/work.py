"""A worker: looks at recordings, works on chunks, and puts what comes out in its place before it says so."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import perception
from perception.bags.storage import Bag, open_bag
from perception.errors import AnySenseError, DataError
from perception.fleet.behind import Behind
from perception.fleet.copies import Copies
from perception.fleet.job import Job, digest
from perception.fleet.judging import evaluated, tried
from perception.fleet.keeping import Wanted, write_kept
from perception.fleet.labels import LabelFiles
from perception.fleet.places import PASSING, Place, UnwritableError
from perception.fleet.plan import Chunk, Source, chunks_of
from perception.fleet.playing import Shown, shown
from perception.fleet.rows import Row, label_row, parquet_of
from perception.fleet.subsets import Comparison
from perception.fleet.transcoding import ENCODED, transcode
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.free_memory import give_back
from perception.runtime.pipeline import Pipeline

ROWS, DONE, KEPT, COUNTED = "rows", "done", "kept", "counted"
_SCRATCH = "anysense-fleet-"


@dataclass(frozen=True)
class Look:
    """Look at a recording: gives its chunks."""

    source: Source


@dataclass(frozen=True)
class Extract:
    """Write the frames of a recording that are kept."""

    source: Source
    chunks: tuple[Chunk, ...]
    wanted: Wanted


Task = Look | Chunk | Extract


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        error: why nothing did, in one line; empty where all is well.
        fatal: there is no use in going on with others.
        chunks: of a recording that was looked at.
        record: of a chunk, what the manifest says of it; of an extraction, how many frames there are.
    """

    error: str = ""
    fatal: bool = False
    chunks: tuple[Chunk, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """What must be alike on all that work on a job, and what else the manifest names."""
    return {
        "anysense": perception.__version__,
        "code": code_digest(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 of the package's own source, so that two installations of one version can be told apart."""
    root = Path(perception.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


class Worker:
    """Does tasks one after the other; engines are loaded once, for as long as sensors are wired alike.

    Args:
        job: what is asked for.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.out = job, Place(job.out, job.storage)
        self.loads = 0
        self._pipeline: tuple[Any, Pipeline] | None = None
        self._compared: Comparison | None = None
        self._copies: Copies | None = None
        self._behind = Behind()
        self._open: tuple[Any, Bag] | None = None
        self._opened = ExitStack()
        _forget_dead()
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))

    def close(self) -> None:
        """Remove what was made on this machine; copies go with the last worker of it."""
        self._behind.close()
        self._opened.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._copies is not None:
            self._copies.close()

    @cached_property
    def bundle(self) -> tuple[str, Bundle] | None:
        """The bundle and its identity: SHA-256 of its manifest, which names that of its graphs.

        Raises:
            BundleError: it cannot be opened.
        """
        if not self.job.bundle:
            return None
        opened = Bundle.open(find_bundle(self.job.bundle), verify=False)
        return digest(opened.manifest.model_dump(mode="json")), opened

    @property
    def given(self) -> str:
        """SHA-256 of what this machine has of the job: its bundle, and what its rig's file says.

        Raises:
            AnySenseError: one cannot be read.
        """
        return digest([self.job.answers, self.bundle and self.bundle[0]])

    def do(self, task: Task) -> Outcome:
        """Do a task; whatever is wrong with a recording is said in the outcome."""
        try:
            if isinstance(task, Look):
                return Outcome(chunks=tuple(self._look(task.source)))
            if isinstance(task, Extract):
                return Outcome(record=self._extract(task))
            return Outcome(record=self._work(task))
        except UnwritableError as error:
            return Outcome(str(error), fatal=True)
        except AnySenseError as error:
            return Outcome(str(error))
        except MemoryError:
            return Outcome("not enough memory")
        except Exception as error:  # one recording must not cost those of the others
            line = next(iter(str(error).splitlines()), "")[:300]
            return Outcome(f"internal error: {type(error).__name__}: {line}")
        finally:
            # What threads leave in pieces adds to that of the next, for some hundred chunks.
            give_back()

    def _look(self, source: Source) -> list[Chunk]:
        mark = _mark_of(source)  # before all of it is read, which takes a while
        identity = source.place.identity(self.job.identity)
        bundle = None if self.bundle is None else (self.bundle[0], self.bundle[1].manifest)
        with self._here(source, identity) as here, _unchanged(source, mark):
            found = chunks_of(self.job, source, identity, here, bundle)
        return [replace(chunk, mark=mark) for chunk in found]

    def _work(self, chunk: Chunk) -> dict[str, Any]:
        started, computed, task = time.perf_counter(), time.process_time(), self.job.task
        with self._here(chunk.source, chunk.identity) as here, self._folder() as folder:
            record: dict[str, Any] = {"frames": 0, "states": {}, "enters": "", "leaves": ""}
            counted = b""
            with _unchanged(chunk.source, chunk.mark):
                if task == "label":
                    rows = self._label(chunk, here, folder, record)
                elif task == "encode":
                    rows = transcode(self.job, chunk.source, here, folder)
                elif task == "evaluate":
                    rows, counted = evaluated(self.job, chunk.source, here, self._loaded({}))
                else:
                    rows = tried(self.job, chunk.source, here, self._loaded({}))
            if counted:
                (self.out / COUNTED / f"{chunk.key}.npz").write(counted)
            if task == "encode":  # what it held before it changed
                (self.out / ENCODED / chunk.source.name).remove()
            for inner in sorted(folder.iterdir()):
                (self.out / inner.name).put(inner, move=True)
        (self.out / ROWS / f"{chunk.key}.parquet").write(parquet_of(task, rows))
        record["frames"] = record["frames"] or sum(row.get("frames", 0) for row in rows[:1])
        record |= {
            "recording": chunk.source.name,
            "place": chunk.source.place.url,
            "input": chunk.identity,
            "number": chunk.number,
            "of": chunk.of,
            "key": chunk.key,
            "bundle": self.bundle[0] if self.bundle else "",
            "rows": len(rows),
            "seconds": round(time.perf_counter() - started, 3),
            "cpu_seconds": round(time.process_time() - computed, 3),
            "host": platform.node(),
            **versions(),
        }
        # The last thing that is written: without it, the chunk is not done.
        (self.out / DONE / f"{chunk.key}.json").write(json.dumps(record).encode())
        return record

    def _label(self, chunk: Chunk, here: Path, folder: Path, record: dict[str, Any]) -> list[Row]:
        pipeline = self._loaded(_renamed(chunk))
        rows: list[Row] = []
        states: Counter[str] = Counter()
        edges: dict[str, list[Row]] = {"enters": [], "leaves": []}
        name = chunk.source.name
        files = LabelFiles(folder, name, pipeline) if self.job.files else None

        def take(one: Shown, differ: float | None) -> None:
            row = label_row(name, one.name, one.result, pipeline.manifest, differ)
            for edge in edges:
                if getattr(one, edge):
                    edges[edge].append({**row, "disagreement": None})
            if one.own:
                rows.append(row)
                states[one.result.state] += 1
                if files is not None:
                    files.add(one.name, one.result)

        with self._behind as behind:
            for one in shown(self.job, chunk, here, pipeline, self._bag_of(chunk)):
                differ = None
                if self._compared is not None and one.own:
                    differ = self._compared.of(one.result)
                if one.own or one.enters or one.leaves:
                    behind.do(take, one, differ)
        record |= {"frames": len(rows), "states": dict(states)}
        record |= {edge: digest(found) for edge, found in edges.items()}
        return rows

    def _extract(self, task: Extract) -> dict[str, Any]:
        if not task.chunks:
            return {"frames": 0}
        identity = task.chunks[0].identity
        with self._here(task.source, identity) as here, self._folder() as folder:
            pipeline = self._loaded(_renamed(task.chunks[0]))
            results = (
                (one.name, one.result)
                for chunk in task.chunks
                for one in shown(self.job, chunk, here, pipeline)
                if one.own and one.name in task.wanted.reasons
            )
            with _unchanged(task.source, task.chunks[0].mark):
                count = write_kept(results, task.wanted, folder / task.source.name, pipeline)
            (self.out / KEPT / task.source.name).remove()  # what another choice had left
            (self.out / KEPT).put(folder)
        return {"frames": count}

    def _loaded(self, inputs: dict[str, str]) -> Pipeline:
        """The pipeline for sensors that are wired like this."""
        key = tuple(inputs.items())
        if self._pipeline is None or self._pipeline[0] != key:
            assert self.bundle is not None
            job, opened = self.job, self.bundle[1]
            wanted: dict[str, Any] = {"threads": job.workers.cpus, "sensors": inputs or None}
            pipeline = Pipeline.load(opened, job.device, **wanted)
            pipeline.decodes_later = job.task == "label"  # by the thread that makes rows
            self.loads += 1
            keep = job.keep
            between = keep.disagreement.between if keep and keep.disagreement else None
            self._compared = None
            if between is not None:
                self._compared = Comparison(Pipeline.load(opened, job.device, **wanted), between)
            self._pipeline = key, pipeline
        return self._pipeline[1]

    def _bag_of(self, chunk: Chunk) -> Bag | None:
        """A bag of this machine, open from its first chunk to its last: what is in it is looked up once."""
        here = chunk.source.place.local
        if here is None or chunk.part is None or not chunk.source.is_bag:
            return None
        key = here, chunk.identity, _change_of(here)
        if self._open is None or self._open[0] != key:
            self._open = None
            self._opened.close()
            self._open = key, self._opened.enter_context(open_bag(here))
        return self._open[1]

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """An empty folder for what is then put in its place."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            yield Path(folder)

    @contextmanager
    def _here(self, source: Source, identity: str) -> Iterator[Path]:
        """Where a recording lies on this machine: itself, or a copy that all workers here share."""
        local = source.place.local
        if local is not None:
            yield local
            return
        if self._copies is None:
            most = self.job.workers.copies_gb
            self._copies = Copies(None if most is None else round(most * 1e9))
        with self._copies.of(source.place, identity) as here:
            yield here


def _renamed(chunk: Chunk) -> dict[str, str]:
    """By sensor its input; none where all are called alike, as in recordings that are no bags."""
    inputs = dict(chunk.wired.inputs) if chunk.wired else {}
    return inputs if any(sensor != name for sensor, name in inputs.items()) else {}


@contextmanager
def _unchanged(source: Source, mark: str) -> Iterator[None]:
    """What is read inside is of the recording that was looked at.

    Args:
        source: the recording.
        mark: `_mark_of` of that time; nothing where that is not known.

    Raises:
        DataError: it has changed since; what was read may be of both.
    """
    try:
        yield
    except (UnwritableError, MemoryError):
        raise
    except Exception as error:
        try:
            now = _mark_of(source)
        except AnySenseError:  # out of reach
            raise error from None
        if not mark or now in ("", mark):  # nothing: it is gone, as the error says
            raise
        raise _changed(source) from error
    else:
        if mark and _mark_of(source) != mark:
            raise _changed(source)


def _mark_of(source: Source) -> str:
    """What tells in a moment that a recording has changed; nothing where it is gone, or that takes long.

    Of a folder here it is sizes and times of what lies directly in it, and so which files there are deeper.
    """
    local = source.place.local
    if local is None:
        return source.place.identity("stat") if source.is_bag else ""
    with suppress(OSError, ValueError):  # said by what reads it
        found = _change_of(local)
        return digest(found) if found else ""
    return ""


def _changed(source: Source) -> DataError:
    hint = "the same command does it anew"
    return DataError("has changed since it was looked at", where=source.place.url, hint=hint)


def _change_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a file, or of those directly in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple(
        (f.name, f.stat().st_size, f.stat().st_mtime_ns)
        for f in files
        if f.exists() and not f.name.endswith(PASSING)
    )


def _forget_dead() -> None:
    """Remove what workers that were killed have left on this machine; `Copies` does so itself."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        number = folder.name[len(_SCRATCH) :].partition("-")[0]  # none of the copies'
        if number.isdigit() and not Path(f"/proc/{number}").exists() and Path("/proc").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
