"""Which recordings there are, and the chunks that they are worked on in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.bags.files import sensor_topics
from perception.bags.parts import Span, parts_of_bag
from perception.bags.survey import Survey, survey
from perception.data.base import Recording
from perception.data.registry import READERS, kind_name, open_recording, options_of
from perception.errors import ConfigError, DataError, names_hint
from perception.fleet.job import FORMAT, Job, digest, kind_and_place
from perception.fleet.places import Place
from perception.frame import KINDS
from perception.importers.bag import sensors_of
from perception.runtime.manifest import BundleManifest
from perception.runtime.wiring import match_inputs

BAG = "bag"
_LONGEST_NAME = 200
"""Bytes, as folders are called so; file systems take 255."""
_NAMING = "topics: {{{}: {}}}"


@dataclass(frozen=True)
class Source:
    """A recording.

    Attributes:
        name: by which results name it, unique in the job.
        kind: `bag`, or that of a reader, with its options.
        place: where it is.
    """

    name: str
    kind: str
    place: Place

    @property
    def is_bag(self) -> bool:
        """Whether its messages are played as a stream."""
        return self.kind == BAG


@dataclass(frozen=True)
class Wired:
    """Which topics of a bag are which sensors, and what is known of its times.

    Attributes:
        topics: by sensor.
        inputs: by sensor, the bundle's input.
        kinds: by sensor.
        known: the timing.
    """

    topics: Mapping[str, str]
    inputs: Mapping[str, str]
    kinds: Mapping[str, str]
    known: Survey


@dataclass(frozen=True)
class Chunk:
    """A part of a recording that a worker takes at a time.

    Attributes:
        source: the recording.
        identity: what tells that it is the same.
        number, of: which of how many, from 0.
        part: of a bag the time, of other recordings the numbers of frames; None for all of it.
        key: of what comes out: the same for the same content, job and bundle.
        wired: of a bag.
        mark: sizes and times of its files when it was looked at.
    """

    source: Source
    identity: str
    number: int
    of: int
    part: Span | None
    key: str
    wired: Wired | None = None
    mark: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.source.name}, part {self.number + 1} of {self.of}"

    def follows(self, other: Chunk) -> bool:
        """Whether it begins where the other ends, with nothing between."""
        if self.source != other.source or self.part is None or other.part is None:
            return False
        return self.part.start_ns == other.part.end_ns


def sources_of(job: Job) -> list[Source]:
    """The recordings of a job, in order of its patterns.

    Raises:
        ConfigError: a pattern fits nothing, is of an unknown kind, or two recordings would have one name.
        DataError: a place cannot be read.
    """
    found: list[Source] = []
    seen: set[str] = set()
    out = job.out.rstrip("/")
    for text in job.recordings:
        kind, place = _kind_of(text)
        pattern = Place(place, job.storage)
        pattern.system  # noqa: B018  # no use in trying each recording where there is none
        fitting = [p for p in pattern.glob() if not p.name.startswith(".")]
        if fitting != [pattern]:  # what a job left beside its recordings is none of them
            fitting = [p for p in fitting if not f"{p.url}/".startswith(f"{out}/")]
        store = pattern.bucket or pattern.protocol
        if fitting == [pattern] and store not in seen:  # of patterns it was asked just now
            pattern.look()
            seen.add(store)
        if not fitting:
            pattern.check_bucket()
            raise ConfigError("fits no file or folder", where=text)
        base = re.split(r"[*?\[]", pattern.path)[0]
        base = base[: base.rfind("/") + 1] if fitting != [pattern] else ""
        found += [Source(_name(p, base), kind, p) for p in fitting]
    once = list({source.place.url: source for source in found}.values())
    counts = Counter(source.name for source in once)
    double = next((name for name, count in counts.items() if count > 1), None)
    if double is not None:
        both = " and ".join(s.place.url for s in once if s.name == double)
        raise ConfigError(f"{both} would both be called {double}", where="recordings")
    for source in once:
        if job.task in ("evaluate", "robustness") and source.is_bag:
            hint = "import it first, or give KIND:DIR"
            raise ConfigError("a bag has no truth to judge by", where=source.place.url, hint=hint)
    return once


def _kind_of(text: str) -> tuple[str, str]:
    kind, place = kind_and_place(text)
    if not kind:
        return BAG, text
    if kind_name(kind) not in READERS:
        raise ConfigError(
            f"'{kind[:40]}' is no kind of data",
            where=text,
            hint=f"{names_hint(kind_name(kind), READERS)}; bags have none",
        )
    options_of(kind)
    return kind, place


def _name(place: Place, base: str) -> str:
    """Of the part of the path that the pattern left open, else of the last part."""
    rest = place.path[len(base) :] if base and place.path.startswith(base) else place.name
    if not base and place.local is None:
        rest = place.name
    rest = re.sub(r"\.(mcap|db3)$", "", rest.strip("/"))
    name = re.sub(r"[^\w.-]", "_", rest).strip(".")[:150]
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore") or "recording"


def chunks_of(
    job: Job, source: Source, identity: str, here: Path, bundle: tuple[str, BundleManifest] | None
) -> list[Chunk]:
    """Look at a recording, and cut it into chunks.

    Args:
        job: what is asked for.
        source: the recording.
        identity: of its content.
        here: where it lies on this machine.
        bundle: the identity of the bundle and its manifest, where there is one.

    Raises:
        AnySenseError: it cannot be read, or has none of the bundle's sensors.
    """
    wired = None
    if job.task in ("evaluate", "robustness", "encode"):
        parts: list[Span | None] = [None]
        _look(job, source, here)
    elif source.is_bag:
        assert bundle is not None
        wired = wired_by(job, here, bundle[1])
        length_ns = round(job.chunk_s * 1e9)
        known = None if wired.known.by_stamps else parts_of_bag(here, length_ns)
        parts = [None] if known is None else [*known]
    else:
        assert bundle is not None
        recording = open_recording(source.kind, here)
        if not recording.info.shared(bundle[1].inputs.kinds):
            takes = ", ".join(bundle[1].inputs.names)
            raise ConfigError(f"bundle {bundle[1].name} takes {takes}, none is there")
        parts = [*_frames(recording, job.chunk_s)]
    named = [identity, job.answers, bundle and bundle[0], source.kind, FORMAT]
    return [
        Chunk(source, identity, i, len(parts), part, _key(source, named, part), wired)
        for i, part in enumerate(parts)
    ]


def _key(source: Source, named: list[Any], part: Span | None) -> str:
    span = None if part is None else [part.start_ns, part.end_ns]
    return digest([source.name, *named, span])[:32]


def _look(job: Job, source: Source, here: Path) -> None:
    if source.is_bag:
        if job.encode == "mcap":
            raise DataError("is a bag already", hint="encode: folder")
        kinds, given = sensors_of(job.topics)
        sensor_topics(here, given, kinds or None, _NAMING)
    else:
        open_recording(source.kind, here)


def wired_by(job: Job, bag: Path, manifest: BundleManifest) -> Wired:
    """Topics and inputs of a bag's sensors, see `match_inputs`.

    Raises:
        ConfigError: an input is not known, or the bag has none of the bundle's sensors.
        DataError: the bag cannot be read, or lacks a topic.
    """
    inputs = manifest.inputs.kinds
    matched = match_inputs({}, inputs, job.inputs)
    kinds = {k: k for k in KINDS} | {sensor: inputs[name] for sensor, name in matched.items()}
    takes = f"bundle {manifest.name} takes {', '.join(inputs)}"
    for name in job.topics:
        if name not in kinds:
            raise ConfigError(
                f"{takes}, not {name}", where="topics", hint=f"inputs: {{{name}: INPUT}}"
            )
    found = sensor_topics(bag, job.topics, kinds, _NAMING)
    matched = match_inputs({s: kinds[s] for s in found}, inputs, job.inputs)
    there = {s: t for s, t in found.items() if s in matched}
    if not there:
        raise ConfigError(f"{takes}, the bag has none of them", where=str(bag))
    return Wired(there, matched, kinds, survey(bag, there))


def _frames(recording: Recording, chunk_s: float) -> list[Span]:
    """Numbers of frames, in parts of a time."""
    starts, first = [0], recording.stamp_ns(0)
    for index in range(1, len(recording)):
        stamp = recording.stamp_ns(index)
        if stamp - first >= chunk_s * 1e9 or stamp < first:
            starts.append(index)
            first = stamp
    return [Span(a, b) for a, b in zip(starts, [*starts[1:], len(recording)], strict=True)]
