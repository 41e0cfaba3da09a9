"""A chunk's results: of a bag as a stream gives them, of other recordings frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from perception.adapters.calibration import MessageCalibration
from perception.bags.ahead import ahead
from perception.bags.parts import memory_ns, play_part
from perception.bags.playback import Playback
from perception.bags.storage import Bag
from perception.data.registry import open_recording
from perception.fleet.job import Job
from perception.fleet.plan import Chunk, Wired
from perception.frame import Frame
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.drift import DriftPolicy
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

_LEAST_DEADLINE_NS = 80_000_000
_LEAST_FRAMES = 12
_QUARTER = 4
"""What the last quarter of the time before a chunk gives is compared with what the chunk before gave."""


@dataclass(frozen=True)
class Shown:
    """A result of a chunk, or of the time just before or at its end.

    Attributes:
        name: of the frame.
        result: it.
        own: it is of this chunk, and not of the one before.
        enters: it is of the time just before the chunk.
        leaves: it is of the time just before the next one.
    """

    name: str
    result: Result
    own: bool
    enters: bool = False
    leaves: bool = False


def shown(
    job: Job, chunk: Chunk, here: Path, pipeline: Pipeline, opened: Bag | None = None
) -> Iterator[Shown]:
    """The results of a chunk that were made of any sample, in order, and of the time just before.

    Args:
        job: what is asked for.
        chunk: which part of which recording.
        here: where the recording lies on this machine.
        pipeline: for the sensors of the recording.
        opened: the recording, where it is an open bag.

    Raises:
        AnySenseError: the recording cannot be read, or the backend failed.
    """
    pipeline.reset()
    pipeline.aligner.forget()  # what cameras another recording had must not matter
    if chunk.wired is None:
        yield from _of_frames(job, chunk, here, pipeline)
    else:
        yield from _of_bag(job, chunk, chunk.wired, opened or here, pipeline)


def playback_of(job: Job, wired: Wired, pipeline: Pipeline) -> Playback:
    """A stream on a bag, with the timing of the bag, as `anysense replay` has it."""
    topics, kinds, known = wired.topics, wired.kinds, wired.known
    own = {sensor: kinds[sensor] for sensor in topics}
    own |= {k: kind for k, kind in kinds.items() if k == kind and k not in own.values()}
    views = pipeline.manifest.inputs.views(dict(wired.inputs))
    oldest = known.transform_age_ns
    ground = pipeline.manifest.inputs.grounded(dict(wired.inputs))
    calibration = MessageCalibration("auto", "", oldest, own, views, job.align != "off", ground)
    calibration.load(job.rig)
    most = round(pipeline.policy.max_age_ms * 1e6)
    timing = known.timing({m: calibration.offset_ns(m) for m in topics}, most)
    deadline = known.deadline_ns(_LEAST_DEADLINE_NS, most)
    drift = DriftPolicy() if job.keep is not None and job.keep.misaligned else None
    stream = StreamCore(pipeline, StreamSettings(timing, deadline, drift=drift))
    return Playback(stream, topics, calibration, known, ahead=True)


def _of_bag(
    job: Job, chunk: Chunk, wired: Wired, here: Path | Bag, pipeline: Pipeline
) -> Iterator[Shown]:
    playback = playback_of(job, wired, pipeline)
    if chunk.part is None:
        for result in playback.run(here.path if isinstance(here, Bag) else here):
            if result.samples:
                yield Shown(_stamped(result), result, True)
        return
    before = max(memory_ns(playback), round(job.warm_up_s * 1e9), _drift_ns(playback))
    edge, start, end = before // _QUARTER, chunk.part.start_ns, chunk.part.end_ns
    for result, own in play_part(playback, here, chunk.part, before, edge):
        if result.samples:
            at = result.arrived_ns
            enters, leaves = start - edge <= at < start, end - edge <= at < end
            yield Shown(_stamped(result), result, own, enters, leaves)


def _drift_ns(playback: Playback) -> int:
    """How long the watch for sensors that do not fit the rig takes to say so."""
    policy = playback.stream.drift.policy
    if policy is None:
        return 0
    return round(2 * policy.period_s * policy.looks * policy.held * 1e9)


def _stamped(result: Result) -> str:
    """A name that does not depend on where a chunk begins."""
    return f"{result.output_ns:020d}"


def _of_frames(job: Job, chunk: Chunk, here: Path, pipeline: Pipeline) -> Iterator[Shown]:
    recording = open_recording(chunk.source.kind, here)
    pipeline.expected = pipeline.sensors  # a bag before may have had fewer
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    part = chunk.part
    first, last = (0, len(recording)) if part is None else (part.start_ns, part.end_ns)
    begin = first
    if recording.sequential:
        since = recording.stamp_ns(first) - round(_warm_s(job, pipeline) * 1e9)
        while begin > 0 and (
            first - begin < _LEAST_FRAMES or recording.stamp_ns(begin - 1) >= since
        ):
            begin -= 1
    edge = (_LEAST_FRAMES + _QUARTER - 1) // _QUARTER
    seen = ((index, recording.seen(index, views)) for index in range(begin, last))
    with closing(ahead(seen, _bytes_of)) as read:
        for index, frame in read:
            if not recording.sequential:
                pipeline.reset()
            kept = Frame({m: s for m, s in frame.items() if m in pipeline.sensors}, frame.stamp_ns)
            near = recording.sequential and first - edge <= index
            result = pipeline(kept, answered=near or index >= first)
            if result.used and (near or index >= first):
                enters = near and index < first
                leaves = recording.sequential and last - edge <= index
                yield Shown(recording.ids[index], result, index >= first, enters, leaves)


def _bytes_of(seen: tuple[int, Frame]) -> int:
    return sum(sample.data.nbytes for sample in seen[1].values())


def _warm_s(job: Job, pipeline: Pipeline) -> float:
    """Of frames: how long content is looked at before it is frozen, and the last result held."""
    least = max(pipeline.health.config.frozen_ms, pipeline.policy.hold_ms) / 1e3
    return max(job.warm_up_s, 2 * least)
