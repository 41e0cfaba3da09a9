"""A job from its start to its end: what is done is left alone, what fails is named, the rest is worked on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from perception.errors import AnySenseError, ConfigError, DataError, names_hint
from perception.evaluation.robustness import METHODS
from perception.evaluation.summed import Summed
from perception.files.limits import MAX_ARRAY_BYTES
from perception.fleet.job import Job, digest
from perception.fleet.judging import score_rows
from perception.fleet.keeping import COLUMNS, Choice, wanted_of
from perception.fleet.labels import LABEL_FOLDERS, LABELS
from perception.fleet.manifest import kept_parquet, manifest_parquet
from perception.fleet.places import Place, UnwritableError
from perception.fleet.plan import Chunk, Source, sources_of
from perception.fleet.rows import parquet_of, rows_of
from perception.fleet.work import (
    COUNTED,
    DONE,
    KEPT,
    ROWS,
    Extract,
    Look,
    Outcome,
    Task,
    Worker,
    versions,
)
from perception.sensors.faults import SEVERITIES

JOB = "job.json"
_NEEDED = {"recording", "frames", "rows", "states", "enters", "leaves"}

Step = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it will be."""


class Executor(Protocol):
    """Who does tasks."""

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Each task once, with what came of it, in any order.

        Raises:
            ConfigError: nobody is left who could do them; what is done is done.
        """
        ...

    def close(self) -> None:
        """Let workers go."""
        ...


class Here:
    """Does tasks in this process, one after the other.

    Args:
        job: what is asked for.
    """

    def __init__(self, job: Job) -> None:
        self.worker = Worker(job)

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Each task in order."""
        for task in tasks:
            yield task, self.worker.do(task)

    def close(self) -> None:
        """Remove what was copied here."""
        self.worker.close()


@dataclass
class Report:
    """What came of a job.

    Attributes:
        recordings, chunks: how many there are.
        done, skipped: chunks that were worked on, and that had been done before.
        frames, rows: of all chunks that are done.
        failed: by chunk or recording, why nothing came of it.
        borders: chunks that did not begin as the one before ended.
        states: outputs of label, by state.
        kept: frames that were kept, by reason; `kept_frames` counts each once.
        replaced: parts of recordings that have changed, which are removed.
        old: parts in the folder that this job has no recording for.
        scores: of evaluate, those of all recordings together, by subset (`Summed.scores`).
        unsummed: tasks that have no such scores, and why.
    """

    recordings: int = 0
    chunks: int = 0
    done: int = 0
    skipped: int = 0
    frames: int = 0
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    borders: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    kept_frames: int = 0
    replaced: int = 0
    old: int = 0
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    unsummed: dict[str, str] = field(default_factory=dict)


def run_job(job: Job, executor: Executor, step: Step = lambda what, done, total: None) -> Report:
    """Do what is asked for, as far as it is not done yet.

    Args:
        job: what is asked for.
        executor: who does it.
        step: told of progress.

    Raises:
        ConfigError: the job cannot be begun, or the folder holds that of another.
        UnwritableError: the folder takes nothing more; what is done stays done.
    """
    out = Place(job.out, job.storage)
    sources = sources_of(job)
    worker = Worker(job)
    identity = worker.bundle[0] if worker.bundle else ""
    specs = worker.bundle[1].manifest.tasks.every if worker.bundle else {}
    worker.close()
    _check(job, worker.bundle[1].manifest.inputs.kinds if worker.bundle else {})
    _claim(out, job, identity)
    report = Report(recordings=len(sources))
    chunks = _looked_at(executor, sources, report, step)
    report.chunks = len(chunks)
    keys = {name.removesuffix(".json") for name in (out / DONE).names()}
    had = _with_rows(out, _records(out, keys))
    if job.task == "evaluate":  # what was done before this was counted is done again
        counted = (out / COUNTED).names()
        had = {key: record for key, record in had.items() if f"{key}.npz" in counted}
    left = [chunk for chunk in chunks if chunk.key not in had]
    report.skipped = len(chunks) - len(left)
    records = {chunk.key: had[chunk.key] for chunk in chunks if chunk.key in had}
    for number, (task, outcome) in enumerate(executor.run(left), 1):
        assert isinstance(task, Chunk)
        if outcome.error:
            report.failed[task.title] = outcome.error
        else:
            records[task.key] = outcome.record
            report.done += 1
        if outcome.fatal:
            with contextlib.suppress(UnwritableError):
                _finish(out, job, chunks, records, report)
            raise _stopped(outcome, report)
        step("working", number, len(left))
    _finish(out, job, chunks, records, report)
    _replace(out, chunks, records, had, report)
    if job.task == "evaluate":
        _sum(out, specs, [c for c in chunks if c.key in records], report)
    if job.keep is not None:
        _keep(out, job, [c for c in chunks if c.key in records], executor, report, step)
    if not (keys or records):
        # Nothing came of it: whoever mends the job need not look for another folder.
        (out / JOB).remove()
    return report


def _check(job: Job, inputs: Mapping[str, str]) -> None:
    """Refuse what no recording could be asked for, before any is worked on.

    Raises:
        ConfigError: a sensor, method or severity that there is none of.
    """
    pair = None if job.keep is None else job.keep.disagreement
    known = list(dict.fromkeys((*inputs, *inputs.values(), *job.inputs, *job.topics)))
    for name in (name for names in (pair.between if pair else ()) for name in names):
        if name not in known:
            hint = names_hint(name, known)
            raise ConfigError(f"there is no '{name}'", where="keep.disagreement", hint=hint)
    if job.task != "robustness":
        return
    for method in job.robustness.methods:
        if method not in METHODS:
            hint = names_hint(method, METHODS)
            raise ConfigError(f"'{method}' is no method", where="robustness.methods", hint=hint)
    for severity in job.robustness.severities:
        if severity not in SEVERITIES:
            what = f"{severity} is none of {min(SEVERITIES)} to {max(SEVERITIES)}"
            raise ConfigError(what, where="robustness.severities")


def _sum(out: Place, specs: Mapping[str, Any], chunks: list[Chunk], report: Report) -> None:
    """Scores of all recordings together, from what was counted of each, in the order of the job."""
    summed = Summed(specs)
    for chunk in chunks:
        place = out / COUNTED / f"{chunk.key}.npz"
        try:
            summed.add(place.read(MAX_ARRAY_BYTES), place.url)
        except DataError as error:  # it may be counted in part: no sum is better than a wrong one
            hint = "remove it, and the recording is judged anew"
            report.failed[f"scores of all with {chunk.source.name}"] = f"{error} ({hint})"
            (out / "scores.parquet").remove()
            return
    report.scores, report.unsummed = summed.scores(), summed.left
    rows = score_rows("", report.scores)
    (out / "scores.parquet").write(parquet_of("evaluate", rows))


def _stopped(outcome: Outcome, report: Report) -> AnySenseError:
    done = report.done + report.skipped
    hint = f"{done} of {report.chunks} chunks are done and stay so; the same command goes on"
    return UnwritableError(outcome.error, hint=hint)


def _claim(out: Place, job: Job, bundle: str) -> None:
    """Note what the folder is for, or refuse one that is for something else.

    Raises:
        ConfigError: it is.
    """
    own = {
        "job": digest([job.answers, bundle]),
        "answers": job.answers,
        "bundle": bundle,
        **versions(),
    }
    place = out / JOB
    content = place.read() if place.exists() else b""
    if not content:  # as a loss of power leaves it, too; what is done names its job by its keys
        place.write(json.dumps(own, indent=2).encode())
        return
    try:
        there = json.loads(content)
        same = there["job"] == own["job"]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("is no note of a job", where=place.url, hint="another out") from error
    if not same:
        raise ConfigError(
            f"holds what came of another job: {_difference(there, own)}",
            where=out.url,
            hint="another out, or empty it",
        )


def _difference(there: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    if there.get("bundle") != own["bundle"]:
        return "the bundle differs"
    before = there.get("answers")
    before = before if isinstance(before, dict) else {}
    names = [name for name, value in own["answers"].items() if before.get(name) != value]
    return f"{', '.join(names) or 'something'} differs"


def _looked_at(
    executor: Executor, sources: list[Source], report: Report, step: Step
) -> list[Chunk]:
    """The chunks of all recordings that can be read, in the order of these."""
    found: dict[str, tuple[Chunk, ...]] = {}
    for number, (task, outcome) in enumerate(executor.run([Look(s) for s in sources]), 1):
        assert isinstance(task, Look)
        if outcome.error:
            report.failed[task.source.name] = outcome.error
        found[task.source.name] = outcome.chunks
        step("looking at recordings", number, len(sources))
    return [chunk for source in sources for chunk in found.get(source.name, ())]


def _finish(
    out: Place, job: Job, chunks: list[Chunk], records: Mapping[str, Any], report: Report
) -> None:
    """Count, compare borders, and write the manifest and what whole recordings need."""
    for chunk in chunks:
        record = records.get(chunk.key)
        if record is not None:
            report.frames += record["frames"]
            report.rows += record["rows"]
            report.states.update(record["states"])
    report.borders = [c.title for c in _unlike(chunks, records)]
    (out / "manifest.parquet").write(
        manifest_parquet(chunks, records, report.failed, set(report.borders))
    )
    if job.task == "label" and job.files:
        _frame_lists(out, [c for c in chunks if c.key in records])


def _unlike(chunks: list[Chunk], records: Mapping[str, Any]) -> Iterator[Chunk]:
    """Chunks whose results just before them are not what the chunk before gave at its end."""
    for before, chunk in pairwise(chunks):
        one, other = records.get(before.key), records.get(chunk.key)
        if chunk.follows(before) and one and other and one["leaves"] != other["enters"]:
            yield chunk


def _replace(
    out: Place,
    chunks: list[Chunk],
    records: Mapping[str, Any],
    had: Mapping[str, Any],
    report: Report,
) -> None:
    """Remove parts of recordings that have changed and are done anew, and count those of other recordings."""
    open_ = {chunk.source.name for chunk in chunks if chunk.key not in records}
    names = {chunk.source.name for chunk in chunks} - open_
    anew = set[str]()
    for key in sorted(had.keys() - {chunk.key for chunk in chunks}):
        if had[key]["recording"] in names:
            done = out / DONE / f"{key}.json"
            # The rows first: a part without them is done anew.
            (out / ROWS / f"{key}.parquet").remove()
            (out / COUNTED / f"{key}.npz").remove()
            done.remove()
            report.replaced += 1
            anew.add(had[key]["recording"])
        else:
            report.old += 1
    for name in sorted(anew):
        _forget_frames(out / LABELS / name)


def _forget_frames(labels: Place) -> None:
    """Remove labels and boxes of frames that a recording no longer has."""
    if not (labels / "frames.csv").exists():
        return
    lines = csv.reader(io.StringIO((labels / "frames.csv").read(MAX_ARRAY_BYTES).decode()))
    there = {line[0] for line in lines if line}
    for folder in LABEL_FOLDERS:
        for file in sorted((labels / folder).names()):
            if file.rpartition(".")[0] not in there:
                (labels / folder / file).remove()


def _frame_lists(out: Place, chunks: list[Chunk]) -> None:
    """`frames.csv` of each recording's labels, from its rows."""
    by_recording: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_recording[chunk.source.name].append(chunk)
    for name, own in by_recording.items():
        if not (out / LABELS / name / "dataset.yaml").exists():
            continue
        lines = io.StringIO()
        write = csv.writer(lines)
        write.writerow(("id", "stamp_ns", "tags"))
        for _, rows in _rows(out, own, ("frame", "stamp_ns")):
            write.writerows((row["frame"], row["stamp_ns"], "") for row in rows)
        (out / LABELS / name / "frames.csv").write(lines.getvalue().encode())


def _rows(
    out: Place, chunks: Iterable[Chunk], columns: tuple[str, ...]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Keys of chunks and their rows, in order, a chunk at a time."""
    for name, content in (out / ROWS).read_each(f"{chunk.key}.parquet" for chunk in chunks):
        yield name.removesuffix(".parquet"), rows_of(content, str(out / ROWS / name), columns)


def _records(out: Place, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What chunks that are done left, by key; one that cannot be understood is not done."""
    found = {}
    for name, content in (out / DONE).read_each(f"{key}.json" for key in sorted(keys)):
        try:
            record = json.loads(content)
        except ValueError:
            continue
        if isinstance(record, dict) and record.keys() >= _NEEDED:
            found[name.removesuffix(".json")] = record
    return found


def _with_rows(out: Place, records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those whose rows are there; a loss of power leaves files without anything in them, or none."""
    sizes = (out / ROWS).files() if records and (out / ROWS).exists() else {}
    there = {name for name, known in sizes.items() if known.get("size") != 0}
    return {key: record for key, record in records.items() if f"{key}.parquet" in there}


def _keep(
    out: Place, job: Job, chunks: list[Chunk], executor: Executor, report: Report, step: Step
) -> None:
    """Choose from the rows, and have recordings made of what is chosen."""
    assert job.keep is not None
    choice = Choice(job.keep)
    for number, (key, found) in enumerate(_rows(out, chunks, COLUMNS), 1):
        for row in found:
            choice.add({**row, "chunk": key})
        step("choosing", number, len(chunks))
    rows = choice.rows
    content = kept_parquet(rows)
    report.kept.update(row["reason"] for row in rows)
    wanted = wanted_of(rows)
    sources = {chunk.source.name: chunk.source for chunk in chunks}
    for name in sorted(sources.keys() - wanted.keys()):  # what another choice had left
        (out / KEPT / name).remove()
    place = out / "kept.parquet"
    holding = {row["chunk"] for row in rows}
    tasks = [
        Extract(
            sources[name],
            tuple(c for c in chunks if c.source.name == name and c.key in holding),
            own,
        )
        for name, own in wanted.items()
    ]
    for number, (task, outcome) in enumerate(executor.run(tasks), 1):
        assert isinstance(task, Extract)
        if outcome.error:
            report.failed[f"kept frames of {task.source.name}"] = outcome.error
        report.kept_frames += outcome.record.get("frames", 0)
        if outcome.fatal:
            raise _stopped(outcome, report)
        step("writing what is kept", number, len(tasks))
    place.write(content)
