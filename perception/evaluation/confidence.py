"""Confidence by subset of sensors: fitted on some of a recording's scenes, judged on the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perception.data.base import Recording
from perception.errors import ConfigError, DataError
from perception.evaluation.dealing import Dealt, Half
from perception.evaluation.elsewhere import truth_seen_by
from perception.evaluation.evaluate import LOW_SCORE, Scorer, judged_subsets
from perception.frame import Frame, Sample, subset_name
from perception.metrics.fitted import Fitted
from perception.runtime.bundle import Bundle
from perception.runtime.manifest import BundleManifest, check_manifest
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import MANIFEST
from perception.runtime.result import Result
from perception.runtime.wiring import FUSER
from perception.tasks.registry import TASKS
from perception.tasks.spec import TaskSpec
from perception.tasks.task import TemperatureFit

Subset = tuple[str, ...]

DIGITS = 4
"""To which what is found is rounded, so that what is judged is what is written."""


@dataclass(frozen=True)
class CalibratedConfidence:
    """What came of it.

    Attributes:
        manifest: of the bundle with the temperatures that were found, beside those of other subsets.
        temperatures: by task and subset, the temperature or other map of scores.
        fitted, judged: the halves of the recording; with `folds` all of it, both.
        before, after: by subset, what the frames to judge by say of the bundle without and with them.
        backend: that computed it.
        folds: into how many parts scenes were dealt out, each judged by what was fitted to the others; None
            where the one half was fitted to and the other judged.
    """

    manifest: BundleManifest
    temperatures: Mapping[str, Mapping[str, Fitted]]
    fitted: Half
    judged: Half
    before: Mapping[str, Scorer]
    after: Mapping[str, Scorer]
    backend: str
    folds: int | None = None


def calibrate_confidence(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[Subset] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    block: int | None = None,
    folds: int | None = None,
    version: str | None = None,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> CalibratedConfidence:
    """Find temperatures for subsets of a bundle's sensors, and what they are worth.

    Args:
        pipeline: the bundle's; on the backend that is the reference, as a rule.
        recording: frames that the bundle was not trained on, with truth.
        subsets: of the sensors; None for all that are judged of the bundle.
        tasks: whose confidence, and what is judged; None for all that have temperatures, and all.
        block: see `perception.evaluation.dealing.dealt_out`.
        folds: for few frames: scenes are dealt out to so many parts, each is judged by what was fitted to
            the others, and the bundle gets what was fitted to all; None to fit to one half and judge by
            the other.
        version: of the bundle with the temperatures; None for the next one, see `next_version`.
        on_step: told what is being done, how far it is and how far it will be.

    Raises:
        ConfigError: no task of the bundle has temperatures, its graph gives labels only, or bundle and
            recording have no class or sensor in common.
        DataError: there are too few scenes, or a part of them lacks truth for a subset.
        EngineError: the backend failed.
    """
    manifest, info = pipeline.manifest, recording.info
    dealt = Dealt.of(recording, folds, block)
    chosen = judged_subsets(manifest, info) if subsets is None else list(subsets)
    makers = _makers(pipeline, recording, tasks)
    version = next_version(manifest.version) if version is None else version
    fitted = _fitted(pipeline, dealt, chosen, makers, on_step)

    def tempered(parts: tuple[int, ...]) -> BundleManifest:
        return with_fitted(manifest, fitted[parts], version, str(pipeline.bundle.path / MANIFEST))

    before, after = (
        {subset_name(one): Scorer(pipeline, recording) for one in chosen} for _ in range(2)
    )
    for scorer in (*before.values(), *after.values()) if tasks is not None else ():
        scorer.meters = {n: meter for n, meter in scorer.meters.items() if n in makers}
    done, frames, numbers = 0, len(dealt.judged.recording), range(len(dealt.parts))
    for others, own in dealt.rounds(numbers):
        changed, part = _with_manifest(pipeline, tempered(others)), dealt.parts[own].recording
        for index in range(len(part)):
            _judge(((pipeline, before), (changed, after)), part, index, chosen)
            done += 1
            on_step("judging", done, frames)
    for name, scorer in after.items():
        if not any(len(m.confidence or ()) for m in scorer.meters.values()):
            raise DataError(f"the half to judge by has no truth for {name}", where=info.name)
    given = dealt.to_fit(numbers)
    return CalibratedConfidence(
        tempered(given),
        fitted[given],
        dealt.fitted,
        dealt.judged,
        before,
        after,
        pipeline.backend,
        dealt.folds,
    )


def _makers(
    pipeline: Pipeline, recording: Recording, tasks: Sequence[str] | None
) -> dict[str, Callable[..., TemperatureFit | None]]:
    """By task that the recording judges, what finds its temperatures."""
    manifest = pipeline.manifest
    for name in tasks or ():
        if name not in manifest.tasks:
            known = ", ".join(manifest.tasks)
            raise ConfigError(
                f"has no task '{name}'", where=f"bundle {manifest.name}", hint=f"it has {known}"
            )
    found = {
        n: make
        for n in manifest.tasks
        if (tasks is None or n in tasks)
        and (make := TASKS[n].temperature_fit) is not None
        and n in Scorer(pipeline, recording).meters
    }
    if not found:
        asked = "task of it" if tasks is None else "such task"
        raise ConfigError(
            f"no {asked} that has temperatures is judged by {recording.info.kind} data",
            where=f"bundle {manifest.name}",
            hint=f"tasks with temperatures: {', '.join(n for n in TASKS if TASKS[n].temperature_fit)}",
        )
    return found


def _fitted(
    pipeline: Pipeline,
    dealt: Dealt,
    subsets: Sequence[Subset],
    makers: Mapping[str, Callable[..., TemperatureFit | None]],
    on_step: Callable[[str, int, int], None],
) -> dict[tuple[int, ...], dict[str, dict[str, Fitted]]]:
    """By numbers of the parts that are fitted to together, what fits their frames, by task and subset."""
    recording, numbers = dealt.fitted.recording, range(len(dealt.parts))
    sizes = [len(part.recording) for part in dealt.parts]
    owner = {name: n for n in numbers for name in dealt.parts[n].recording.ids}
    specs = pipeline.manifest.tasks
    fits: dict[tuple[int, ...], dict[tuple[str, Subset], TemperatureFit]] = {
        parts: {
            (name, subset): made
            for name, make in makers.items()
            for subset in subsets
            if (made := make(specs[name], recording.info, sum(sizes[n] for n in parts))) is not None
        }
        for parts in (dealt.to_fit(numbers), *(others for others, _ in dealt.rounds(numbers)))
    }
    for index, name in enumerate(recording.ids):
        open_ = [one for parts, one in fits.items() if owner[name] in parts]
        _take(pipeline, recording, index, subsets, open_)
        on_step("fitting", index + 1, len(recording))
    return {n: _results(one, recording.info.name, pipeline.inputs) for n, one in fits.items()}


def _take(
    pipeline: Pipeline,
    recording: Recording,
    index: int,
    subsets: Sequence[Subset],
    fits: Sequence[Mapping[tuple[str, Subset], TemperatureFit]],
) -> None:
    """Show the outputs for a frame's subsets to what is being fitted to them."""
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    frame, truth = recording.seen(index, views), recording.truth(index)
    encoded = _encoded(pipeline, frame, {s for subset in subsets for s in subset})
    for subset in subsets:
        reference = pipeline.reference(subset)
        if not set(subset) <= set(encoded) or reference is None:
            continue
        if not recording.sees_labels(views.get(reference, reference)):
            continue
        parts = pipeline.onto(reference, {s: encoded[s] for s in subset}, frame)
        outputs = pipeline.outputs(parts)
        seen = truth_seen_by(
            reference, recording.info.labels_of, truth, frame, pipeline.aligner.config
        )
        for one in fits:
            for (_, own), fit in one.items():
                if own == subset:
                    fit.add(outputs, parts[reference].grid, seen)


def _results(
    fits: Mapping[tuple[str, Subset], TemperatureFit], where: str, named: Mapping[str, str]
) -> dict[str, dict[str, Fitted]]:
    """By task and subset of the inputs (by sensor in `named`), what was found."""
    found: dict[str, dict[str, Fitted]] = {}
    by_task: dict[str, list[TemperatureFit]] = {}
    for (name, _), fit in fits.items():
        by_task.setdefault(name, []).append(fit)
    lines = {name: iter(type(own[0]).together(own)) for name, own in by_task.items()}
    for (name, subset), fit in fits.items():
        fitted = next(lines[name])
        if fitted is None and fit.judged():
            continue
        if fitted is None:
            what = f"the half to fit to has no truth for {name} from {subset_name(subset)}"
            raise DataError(what, where=where)
        inputs = subset_name(named[s] for s in subset)
        found.setdefault(name, {})[inputs] = fitted.rounded(DIGITS)
    if not found:
        hint = "frames with more to see, or a lower threshold"
        raise DataError("nothing was said of it that could be fitted to", where=where, hint=hint)
    return found


def _encoded(
    pipeline: Pipeline, frame: Mapping[str, Sample], names: set[str]
) -> dict[str, Encoded]:
    """Features of the frame's usable samples, each taken for itself."""
    pipeline.reset()
    there = [s for s in pipeline.sensors if s in names and s in frame]
    found = {s: pipeline.encode(frame[s]) for s in there}
    return {s: features for s, features in found.items() if isinstance(features, Encoded)}


def _judge(
    ways: Sequence[tuple[Pipeline, Mapping[str, Scorer]]],
    recording: Recording,
    index: int,
    subsets: Sequence[Subset],
) -> None:
    """Count what pipelines of the same graphs answer to a frame; each sensor is encoded once for all."""
    first = ways[0][0]
    views = first.manifest.inputs.views(first.inputs)
    frame, truth = recording.seen(index, views), recording.truth(index)
    encoded = _encoded(first, frame, {s for subset in subsets for s in subset})
    for pipeline, scorers in ways:
        least, wanted = pipeline.min_score, pipeline.wanted
        pipeline.min_score = LOW_SCORE
        for subset in subsets:
            if not set(subset) <= set(frame):
                continue
            scorer = scorers[subset_name(subset)]
            pipeline.wanted = scorer.parts
            pipeline.reset()
            own = {s: encoded[s] for s in subset if s in encoded}
            scorer.add(pipeline.fuse(own, _about(pipeline, own, frame)), truth, frame)
        pipeline.min_score, pipeline.wanted = least, wanted
        pipeline.reset()


def _about(pipeline: Pipeline, encoded: Mapping[str, Encoded], frame: Frame) -> Result:
    """What a result of these features says besides what comes out."""
    used = pipeline.usable(encoded)
    stamps = {s: encoded[s].stamp_ns for s in used}
    now = max(stamps.values(), default=0)
    return Result(
        present=tuple(encoded),
        stamp_ns=now,
        samples={s: frame[s].stamped(now) for s in used},
        source_ns=stamps,
        output_ns=now,
        arrived_ns=now,
        fresh=frozenset(used),
    )


def _with_manifest(pipeline: Pipeline, manifest: BundleManifest) -> Pipeline:
    """The same engines under another manifest with the same graphs."""
    bundle = pipeline.bundle
    engines = dict(pipeline.engines)
    fuser = engines.pop(FUSER)
    return Pipeline(
        Bundle(bundle.files, manifest, bundle.records),
        engines,
        fuser,
        pipeline.policy,
        pipeline.health.config,
        sensors=pipeline.inputs,
        choices=pipeline.choices,
    )


def with_temperatures(
    manifest: BundleManifest,
    temperatures: Mapping[str, Mapping[str, float]],
    version: str,
    where: str,
) -> BundleManifest:
    """A manifest with further temperatures, or others for the same subsets.

    Args:
        manifest: as it was.
        temperatures: by task and subset.
        version: the new one's.
        where: its file, for messages.

    Raises:
        BundleError: it would be no manifest: a version is no short text, or a subset none of its inputs.
        ValueError: a task has no temperatures, or one is out of range.
    """
    specs = {n: manifest.tasks[n].with_temperatures(added) for n, added in temperatures.items()}
    return _with_specs(manifest, specs, version, where)


def with_fitted(
    manifest: BundleManifest,
    found: Mapping[str, Mapping[str, Fitted]],
    version: str,
    where: str,
) -> BundleManifest:
    """The same with whatever was fitted, by task and subset; see `with_temperatures`."""
    specs = {n: manifest.tasks[n].with_fitted(own) for n, own in found.items()}
    return _with_specs(manifest, specs, version, where)


def _with_specs(
    manifest: BundleManifest, specs: Mapping[str, TaskSpec], version: str, where: str
) -> BundleManifest:
    content: dict[str, Any] = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, changed in specs.items():
        content["tasks"][name] = changed.model_dump(mode="json", exclude_none=True)
    return check_manifest({**content, "version": version}, where)


def next_version(version: str) -> str:
    """The number after it where it is a whole one, otherwise it and `-calibrated`."""
    whole = version.isascii() and version.isdigit()
    return str(int(version) + 1) if whole else f"{version}-calibrated"
