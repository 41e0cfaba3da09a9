"""How a pipeline's accuracy fares when sensors are missing, partly missing, noisy, spoilt, late or frozen."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from perception.corruptions import corrupt, severity_of
from perception.data.base import Recording, Truth
from perception.errors import ConfigError, DataError, names_hint
from perception.evaluation.evaluate import LOW_SCORE, Scorer, judged_subsets
from perception.evaluation.past import Past
from perception.evaluation.robustness_report import Measured, Robustness
from perception.evaluation.space import FailingClouds, finds_in_space, space_rows, unreached
from perception.evaluation.variants import (
    FROZEN,
    LATE,
    Damage,
    Failure,
    Given,
    Harm,
    Plan,
    make_plan,
)
from perception.frame import Frame, Sample
from perception.geometry.motion import Odometry
from perception.runtime.health import HealthMonitor
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.sensors.faults import SEVERITIES
from perception.sensors.registry import kind_of
from perception.tasks.registry import judged
from perception.tasks.registry import shown as shown_scores

SCENARIOS, SPACE = "scenarios", "space"
TABLES: Mapping[str, str] = {
    SCENARIOS: "missing, partly missing and noisy sensors, and every fault of one sensor by severity",
    SPACE: "of bundles that find boxes in space: failures of the sensors round a vehicle by amounts",
}
"""What can be measured."""

LEAVE_OUT, FEED = "leave-out", "feed"
METHODS: Mapping[str, str] = {
    LEAVE_OUT: "a sensor whose content is found dead, saturated or frozen is left out, as the runtime does",
    FEED: "everything that can be read is fed, whatever the checks of the content say",
}
"""What is done with a sensor that has failed."""

_Key = tuple[object, ...]
_Used = tuple[tuple[str, Harm | None], ...]
"""The sensors that a result is computed from, and what is wrong with each."""


@dataclass(frozen=True)
class RobustnessOptions:
    """What is tried, and how much of it.

    Attributes:
        frames: how many of the recording's, evenly spread; None for all.
        corruptions, severities: see `make_plan`.
        seed: of what is random in the faults.
        methods: of `METHODS`; each gives an answer of its own.
        stills: the frames are no sequence, whatever the recording says.
        tables: of `TABLES`; that of boxes in space is left out of bundles that find none.

    Raises:
        ConfigError: a method or table is unknown, or there is none.
    """

    frames: int | None = None
    corruptions: tuple[str, ...] | None = None
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    methods: tuple[str, ...] = (LEAVE_OUT,)
    stills: bool = False
    tables: tuple[str, ...] = (SCENARIOS,)

    def __post_init__(self) -> None:
        for word, given, known in (
            ("method", self.methods, METHODS),
            ("table", self.tables, TABLES),
        ):
            for name in given:
                if name not in known:
                    what = f"'{name[:40]}' is no {word}"
                    raise ConfigError(what, where=word, hint=names_hint(name, known))
        if not self.methods or not self.severities or not self.tables:
            raise ConfigError("at least one is needed", where="methods, severities, tables")
        if self.frames is not None and self.frames < 1:
            raise ConfigError("must be at least 1", where="frames")


def plan_of(pipeline: Pipeline, recording: Recording, options: RobustnessOptions) -> Plan:
    """What `measure_robustness` will try.

    Raises:
        ConfigError: the recording has none of the bundle's sensors, a fault or severity is unknown, or the
            table of boxes in space alone is wanted of a bundle that finds none.
    """
    subsets = judged_subsets(pipeline.manifest, recording.info)
    kinds = {name: pipeline.kinds[name] for name in subsets[0]}
    plan = make_plan(kinds, subsets, corruptions=options.corruptions, severities=options.severities)
    if SCENARIOS not in options.tables:
        whole: dict[tuple[object, ...], Given] = {
            ("subset", frozenset(kinds)): dict.fromkeys(kinds)
        }
        plan = Plan(plan.sensors, plan.subsets[:1], whole, scenarios=False)
    if SPACE not in options.tables:
        return plan
    if not finds_in_space(pipeline.manifest):
        if plan.scenarios:
            return plan
        what = "finds no boxes in space on a grid on the ground"
        raise ConfigError(what, where=f"bundle {pipeline.manifest.name}", hint="tables: scenarios")
    rows, lacking = space_rows(kinds, pipeline.reference(kinds))
    given = {**plan.given, **{row.key: own for row, own in rows.items()}}
    return replace(plan, given=given, lacking={**plan.lacking, **lacking}, space=tuple(rows))


def measure_robustness(
    pipeline: Pipeline,
    recording: Recording,
    options: RobustnessOptions | None = None,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Robustness]:
    """Judge a pipeline by a recording while its sensors fail in all the ways that a plan has.

    A frame that lacks a sensor which is to be given says nothing there.  Frames are judged one by one, none
    knowing of the one before; only that a sensor is frozen is found out from those before.

    Args:
        pipeline: the bundle's.
        recording: frames with truth; all of them, as those between the judged ones may be needed.
        options: None for the usual ones.
        on_step: told what is being done, how far it is, and how far it will be.

    Returns:
        One for each of the methods.

    Raises:
        ConfigError: bundle and recording have no sensor or class in common, or a fault is unknown.
        DataError: the recording has no labels.
        EngineError: the backend failed.
    """
    options = options or RobustnessOptions()
    run = _Run(pipeline, recording, options)
    chosen = _spread(len(recording), options.frames)
    total = len(chosen) * len(run.plan.given)
    with run.prepared():
        for number, index in enumerate(chosen):
            done = number * len(run.plan.given)
            for step in run.judge(index):
                on_step(pipeline.manifest.name, done + step, total)
    return [run.found(method, len(chosen)) for method in options.methods]


def _spread(count: int, wanted: int | None) -> list[int]:
    if wanted is None or wanted >= count:
        return list(range(count))
    return [i * count // wanted for i in range(wanted)]


class _Run:
    """All scorers of a plan, and what is needed to fill them."""

    def __init__(self, pipeline: Pipeline, recording: Recording, options: RobustnessOptions):
        self._pipeline, self._recording, self._options = pipeline, recording, options
        self.plan = plan_of(pipeline, recording, options)
        self._past = Past(recording) if recording.sequential and not options.stills else None
        views = pipeline.manifest.inputs.views(pipeline.inputs)
        self._clouds = FailingClouds(recording, self._past, views)
        known = self._clouds.trajectory if self.plan.space else None
        self._odometry = None if known is None else Odometry.of(known)
        self._scorers = {
            (method, key): Scorer(pipeline, recording)
            for method in options.methods
            for key in self.plan.given
        }
        self._beside: dict[tuple[str, _Key], Scorer] = {}
        """Of all sensors in order, on the frames alone for which the past is known."""
        self._kinds = pipeline.kinds

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The pipeline gives what is judged, and afterwards again what it gave before."""
        pipeline, first = self._pipeline, next(iter(self._scorers.values()))
        before = pipeline.wanted, pipeline.min_score, pipeline.odometry
        pipeline.wanted, pipeline.min_score, pipeline.odometry = first.parts, LOW_SCORE, None
        try:
            yield
        finally:
            pipeline.reset()
            pipeline.wanted, pipeline.min_score, pipeline.odometry = before

    def judge(self, index: int) -> Iterator[int]:
        """Give one frame in all ways, and say how many of them are done."""
        shown = _Shown(
            self._pipeline, self._recording, index, self._past, self._options.seed, self._clouds
        )
        truth = self._recording.truth(index)
        clean: dict[tuple[str, ...], Result] = {}
        for number, (key, given) in enumerate(self.plan.given.items(), 1):
            knows = any(isinstance(h, Failure) and h.odometry for h in given.values())
            self._pipeline.odometry = self._odometry if knows else None
            if shown.can_give(given):
                results = dict[_Used, Result]()
                for method in self._options.methods:
                    used = shown.used(given, healthy_only=method == LEAVE_OUT)
                    result = results.get(used) or self._known(clean, used)
                    if result is None:
                        result = shown.answer(used)
                        self._keep(clean, used, result)
                    results[used] = result
                    self._scorers[method, key].add(result, truth, shown.clean)
                    self._count_beside(method, key, given, clean, shown, truth)
            if key[0] in ("fault", "space"):
                shown.forget(given)
            yield number

    @staticmethod
    def _known(clean: Mapping[tuple[str, ...], Result], used: _Used) -> Result | None:
        whole = all(damage is None for _, damage in used)
        return clean.get(tuple(sensor for sensor, _ in used)) if whole else None

    @staticmethod
    def _keep(clean: dict[tuple[str, ...], Result], used: _Used, result: Result) -> None:
        if all(damage is None for _, damage in used):
            clean[tuple(sensor for sensor, _ in used)] = result

    def _count_beside(
        self,
        method: str,
        key: _Key,
        given: Given,
        clean: dict[tuple[str, ...], Result],
        shown: _Shown,
        truth: Truth,
    ) -> None:
        if not any(shown.is_past(s, d) for s, d in given.items()):
            return
        self._pipeline.odometry = None
        used = shown.used(dict.fromkeys(given), healthy_only=method == LEAVE_OUT)
        result = self._known(clean, used) or shown.answer(used)
        if (method, key) not in self._beside:
            self._beside[method, key] = Scorer(self._pipeline, self._recording)
        self._beside[method, key].add(result, truth, shown.clean)

    def found(self, method: str, frames: int) -> Robustness:
        """What one method came to.

        Raises:
            DataError: no frame with all sensors had truth.
        """
        tasks = self._pipeline.manifest.tasks.every
        names = judged(tasks)
        rows = {
            key: Measured.of(
                self._scorers[method, key],
                self._beside.get((method, key)),
                shown_scores(tasks) if key[0] == "space" else names,
            )
            for key in self.plan.given
        }
        full = rows["subset", frozenset(self.plan.sensors)]
        titles = {n: title for n, title in names.items() if full.scores.get(n) is not None}
        info = self._recording.info
        if not titles:
            what = "has no frame with all sensors of the bundle" if not full.frames else None
            raise DataError(what or "has no labels to judge by", where=info.name)
        manifest = self._pipeline.manifest
        return Robustness(
            bundle=manifest.name,
            version=manifest.version,
            backend=self._pipeline.backend,
            data=info.name,
            simulated=info.simulated,
            frames=frames,
            seed=self._options.seed,
            method=method,
            titles=titles,
            lacking=next(iter(self._scorers.values())).lacking,
            plan=replace(self.plan, lacking={**self.plan.lacking, **self._unreached(rows)}),
            rows={key: row for key, row in rows.items() if row.frames},
            told=self._clouds.told(),
        )

    def _unreached(self, rows: Mapping[_Key, Measured]) -> dict[str, str]:
        """Why a fault was tried on no frame, by sensor and fault."""
        reasons = {}
        for sensor, faults in self.plan.faults.items():
            for fault, levels in faults.items():
                if any(rows["fault", sensor, fault, level].frames for level in levels):
                    continue
                about_time = Damage(fault, 1).age_s is not None
                if about_time and self._past is None:
                    why = "no sequence"
                elif about_time:
                    assert self._past is not None
                    why = f"no frame so long before: they are {self._past.step_s:g} s apart"
                else:
                    why = "the samples have nothing that it changes, such as a calibration"
                reasons[f"{sensor} {fault}"] = why
        for row in self.plan.space:
            if not rows[row.key].frames:
                reasons[row.name] = unreached(row, self._recording)
        return reasons


class _Shown:
    """One frame, in all the ways in which its sensors can be given."""

    def __init__(
        self,
        pipeline: Pipeline,
        recording: Recording,
        index: int,
        past: Past | None,
        seed: int,
        clouds: FailingClouds,
    ) -> None:
        self._pipeline, self._past, self._index = pipeline, past, index
        self._clouds = clouds
        self._ground = {s for s, i in pipeline.inputs.items() if _on_ground(pipeline, i)}
        self._views = pipeline.manifest.inputs.views(pipeline.inputs)
        self._recording = recording
        frame = recording.seen(index, self._views)
        self._now = pipeline.clock() if frame.stamp_ns is None else frame.stamp_ns
        self.clean = {s: frame[s].stamped(self._now) for s in pipeline.sensors if s in frame}
        self._seed = (seed, zlib.crc32(recording.ids[index].encode()))
        self._samples: dict[tuple[str, Harm | None], Sample | None] = {}
        self._encoded: dict[tuple[str, Harm | None], Encoded | None] = {}
        self._healthy: dict[tuple[str, Harm | None], bool] = {}
        self._frames: dict[int, Frame] = {}

    def is_past(self, sensor: str, damage: Harm | None) -> bool:
        """Whether the damage is that what is seen is old."""
        if isinstance(damage, Failure):
            return damage.what == LATE
        own = kind_of(self._pipeline.kinds[sensor]).faults
        return damage is not None and damage.age_s is not None and damage.fault not in own

    def can_give(self, given: Given) -> bool:
        """Whether the frame has all these sensors, and what is wrong with them can be shown."""
        return all(self._sample(sensor, damage) is not None for sensor, damage in given.items())

    def forget(self, given: Given) -> None:
        """Do not keep what this way alone needs: spoilt samples and their features."""
        for entry in given.items():
            if entry[1] is not None:
                self._samples.pop(entry, None)
                self._encoded.pop(entry, None)
                self._healthy.pop(entry, None)

    def used(self, given: Given, *, healthy_only: bool) -> _Used:
        """Of the sensors that are given, those that a result is computed from."""
        return tuple(
            (sensor, given[sensor])
            for sensor in self._pipeline.sensors
            if sensor in given
            and (not healthy_only or self._is_healthy(sensor, given[sensor]))
            and self._features(sensor, given[sensor]) is not None
        )

    def answer(self, used: _Used) -> Result:
        """The result from exactly these."""
        pipeline = self._pipeline
        pipeline.reset()  # frames of a data set are no stream: held results must not leak
        encoded, samples = dict[str, Encoded](), dict[str, Sample]()
        for sensor, damage in used:
            features, sample = self._features(sensor, damage), self._sample(sensor, damage)
            assert features is not None and sample is not None
            encoded[sensor], samples[sensor] = features, sample
        enough = pipeline.usable(encoded)
        about = Result(
            present=tuple(samples),
            stamp_ns=self._now,
            samples={s: samples[s] for s in enough},
            source_ns={s: encoded[s].stamp_ns for s in enough},
            output_ns=self._now,
            arrived_ns=self._now,
            fresh=frozenset(enough),
        )
        return pipeline.fuse(encoded, about)

    def _sample(self, sensor: str, damage: Harm | None) -> Sample | None:
        key = sensor, damage
        if key not in self._samples:
            self._samples[key] = self._made(sensor, damage)
        return self._samples[key]

    def _made(self, sensor: str, damage: Harm | None) -> Sample | None:
        clean = self.clean.get(sensor)
        if clean is None or damage is None:
            return clean
        if isinstance(damage, Failure):
            return self._clouds.made(self._index, clean, damage)
        if self.is_past(sensor, damage):
            return self._old(sensor, damage)
        severity = severity_of(clean.kind, damage.fault)
        own = self._seed[0], zlib.crc32(sensor.encode())
        still = severity is not None and severity.still
        seed = own if still else (*own, self._seed[1])
        spoilt = corrupt(clean, damage.fault, damage.severity, seed)
        return None if _same(clean, spoilt, sensor in self._ground) else spoilt

    def _old(self, sensor: str, damage: Damage) -> Sample | None:
        """What the sensor saw some time before, under the present stamp."""
        assert damage.age_s is not None
        index = None if self._past is None else self._past.before(self._index, damage.age_s)
        if index is None:
            return None
        if index not in self._frames:
            self._frames[index] = self._recording.seen(index, self._views)
        sample = self._frames[index].get(sensor)
        return None if sample is None else replace(sample, stamp_ns=self.clean[sensor].stamp_ns)

    def _features(self, sensor: str, damage: Harm | None) -> Encoded | None:
        """None where the sample cannot be read, or its kind says that it shows nothing at all."""
        key = sensor, damage
        if key not in self._encoded:
            sample = self._sample(sensor, damage)
            assert sample is not None
            found = self._pipeline.encode(sample, trust=True)
            self._encoded[key] = found if isinstance(found, Encoded) else None
        return self._encoded[key]

    def _is_healthy(self, sensor: str, damage: Harm | None) -> bool:
        key = sensor, damage
        if key not in self._healthy:
            sample = self._sample(sensor, damage)
            assert sample is not None
            monitor = HealthMonitor(self._pipeline.health.config)
            state = monitor.check(sample)
            if isinstance(damage, Damage) and damage.fault == FROZEN and self._past is not None:
                monitor.reset()
                assert damage.age_s is not None
                for stamp in self._past.stamps_since(self._index, damage.age_s):
                    state = monitor.check(replace(sample, stamp_ns=stamp))
            self._healthy[key] = state == "ok"
        return self._healthy[key]


def _on_ground(pipeline: Pipeline, name: str) -> bool:
    return pipeline.manifest.inputs[name].view.birdseye is not None


def _same(clean: Sample, spoilt: Sample, on_ground: bool) -> bool:
    """Whether a fault changed nothing that is ever looked at."""
    if spoilt is clean:
        return True
    camera = clean.camera is not spoilt.camera
    apart = camera or clean.extrinsics is not spoilt.extrinsics
    if on_ground:
        pictures = kind_of(clean.kind).has_picture
        apart = clean.pose is not spoilt.pose or (pictures and camera)
    floats = np.issubdtype(clean.data.dtype, np.floating)
    return not apart and np.array_equal(clean.data, spoilt.data, equal_nan=bool(floats))


def measure_all(
    pipelines: Sequence[Pipeline],
    recording: Recording,
    options: RobustnessOptions,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Robustness]:
    """`measure_robustness` of several bundles on the same frames; refuses before it works.

    Raises:
        ConfigError, DataError, EngineError: as `measure_robustness`.
    """
    for pipeline in pipelines:
        plan_of(pipeline, recording, options)
        Scorer(pipeline, recording)
    found: list[Robustness] = []
    for pipeline in pipelines:
        found += measure_robustness(pipeline, recording, options, on_step)
    return found
