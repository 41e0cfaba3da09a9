"""The pipeline: from the samples of one frame to a result, with whatever sensors there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from perception.errors import ConfigError, InputError
from perception.frame import Frame, Kind, Sample
from perception.geometry.motion import Odometry
from perception.geometry.rig import BASE_FRAME
from perception.plugins import PluginError
from perception.runtime.admission import Admission
from perception.runtime.alignment import Aligner, Alignment
from perception.runtime.bundle import Bundle
from perception.runtime.encoding import SampleEncoder
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.health import HealthConfig, HealthMonitor
from perception.runtime.interpret import interpret
from perception.runtime.later import LaterMapping
from perception.runtime.loading import EngineChoices, opened_bundle
from perception.runtime.networks import Encoded, Networks
from perception.runtime.novelty import unfamiliar
from perception.runtime.policy import Policy
from perception.runtime.result import EngineEvent, HealthState, Result, SensorWarning
from perception.runtime.stopwatch import Stopwatch
from perception.runtime.time_limit import LOAD_TIMEOUT_S
from perception.runtime.wiring import wired_inputs
from perception.tasks.registry import every_part, wanted_parts


class Pipeline:
    """Runs a bundle on frames of any subset of its inputs.  Safe to call from several threads.

    Inference holds no lock: a backend that hangs keeps only its caller.  Samples and frames without a
    stamp get the time of the call.

    Use `Pipeline.load`.

    Attributes:
        sensors: their names, in the order of the bundle's inputs.
        inputs: by sensor, the bundle's input that it is for.
        parts: what results may hold, of all tasks of the bundle and of those that follow from them.
        expected: the sensors that state `full` and the confidence are measured against; all of
            `sensors` unless fewer are built in.
        wanted: which of `parts` results hold; those that nobody reads need not be computed.  At first
            all but those that are computed on request only, `boxes3d`, `points` and `energy`.
        spared: of `wanted`, what is left out for want of time; a stream sees to it.
        min_score: least score of a box; None for what the bundle says.  Average precision wants a
            lower one than a display.
        decodes_later: values of results are computed from the network's outputs when somebody looks at
            them, on that one's thread, with what goes wrong then; `timings` do not hold that.
        points_stride: where points are made of a depth image, every such row and column is taken.
        base_frame: the name of the vehicle's base frame, in which boxes on the ground are.
        on_problem: told of a plug-in's task that fails, which is then left out of the result; None: it
            raises.  A stream takes it.
        choices: what engines it has been given.
        aligner: brings sensors that stand or look elsewhere to the reference's pixels.
        clock: the time that samples without a stamp get, in nanoseconds; the system's.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoders: Mapping[str, Engine],
        fuser: Engine,
        policy: Policy,
        health: HealthConfig,
        strict: bool = False,
        *,
        sensors: Mapping[str, str] | None = None,
        wanted: Collection[str] | None = None,
        min_score: float | None = None,
        choices: EngineChoices | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.policy = policy
        self.inputs = wired_inputs(self.manifest.inputs.kinds, sensors)
        self.sensors = tuple(self.inputs)
        self.expected = self.sensors
        policy.check(self.sensors)
        self.parts = every_part(self.manifest.tasks.every)
        self.wanted = wanted_parts(self.manifest.tasks.every, wanted)
        if min_score is not None and not (isinstance(min_score, Real) and 0 <= min_score <= 1):
            raise ConfigError(f"{min_score!r} is not within 0 and 1", where="min_score")
        self.min_score: float | None = min_score
        self.spared: frozenset[str] = frozenset()
        self.decodes_later = False
        self.points_stride = 2
        self.base_frame = BASE_FRAME
        self.on_problem: Callable[[PluginError], None] | None = None
        self.choices = choices or EngineChoices()
        self.clock: Callable[[], int] = time.time_ns
        self.counters: Counter[str] = Counter()
        self.health = HealthMonitor(health)
        timeout_s = self.choices.engine_timeout_s
        self._networks = Networks(self.manifest, encoders, fuser, self.counters, timeout_s)
        self._last: Result | None = None
        self._last_ns: int | None = None
        self._lock = threading.Lock()  # for these two and the counters, never while a network runs
        named = {name: sensor for sensor, name in self.inputs.items()}
        order = [named[n] for n in self.manifest.reference_order() if n in named]
        specs = {sensor: self.manifest.inputs[name] for sensor, name in self.inputs.items()}
        self.aligner = Aligner(specs, order, alignment or Alignment())
        self._encoder = SampleEncoder(
            self.manifest, self.inputs, self._networks, self.aligner, self.health
        )
        self._admission = Admission(self._encoder, self.health, self.counters, order, strict)

    @staticmethod
    def load(
        bundle: str | Path | Bundle,
        device: str = "auto",
        *,
        sensors: Mapping[str, str] | None = None,
        threads: int | None = None,
        policy: Policy | None = None,
        health: HealthConfig | None = None,
        strict: bool = False,
        progress: Callable[[str], None] | None = None,
        wanted: Collection[str] | None = None,
        min_score: float | None = None,
        trust_plans: bool = False,
        tf32: bool = True,
        engine_timeout_s: float | None = None,
        load_timeout_s: float | None = LOAD_TIMEOUT_S,
        require_signature: bool = False,
        trust: str | Path | None = None,
        alignment: Alignment | None = None,
    ) -> Pipeline:
        """Load a bundle and its engines.

        Args:
            bundle: folder or zip of a bundle, or the name of one that comes with AnySense; or one that is
                open already.
            device: `auto`, `cpu`, `cuda` or the name of a backend; see
                `perception.runtime.engines.selection.load_engines`.
            sensors: by name of a sensor, the input of the bundle that it is for; None for sensors that
                are called as the inputs.
            threads: CPU threads within an operator; None for all cores.
            policy: which sensors must be there and what to do when they are not.
            health: thresholds of the content checks.
            strict: raise on a sample that cannot be used, instead of going on without it.
            progress: called with a line before each graph is loaded.
            wanted: what results hold, of `parts`; None for all but `boxes3d`, `points` and `energy`.
            min_score: least score of a box; None for what the bundle says.
            trust_plans: run TensorRT plans in the bundle that this machine did not build, and operators
                on OpenVINO that it does not look at closely.  A plan is a program: only for bundles from
                whom you would take programs.
            tf32: on CUDA, products may be computed in TensorFloat-32, which is faster and rounds more
                (about 1e-4 of an output against 1e-6).
            engine_timeout_s: how long one run of a graph may take, after which it is ended and
                `DeadlineExceededError` raised; None for as long as it takes.  A run that cannot be
                ended keeps its thread, and the graphs are loaded anew for the next frame.
            load_timeout_s: the same of loading a graph on the CPU, and of its first run.
            require_signature, trust: as for `Bundle.open`.
            alignment: what is done with pictures of cameras that stand or look otherwise than the
                reference.

        Raises:
            BundleError: the bundle is missing, damaged, too new, reaches outside its folder, its
                manifest contradicts its graphs, or its signature is missing or does not fit.
            ConfigError: a sensor is for no input, for that of another, or required and not there.
            EngineError: no backend can load its graphs; `DeadlineExceededError`: not in that time.
        """
        choices = EngineChoices(
            device, threads, trust_plans, tf32, engine_timeout_s, load_timeout_s
        )
        opened = opened_bundle(bundle, require_signature, trust)
        wired = wired_inputs(opened.manifest.inputs.kinds, sensors)
        (policy or Policy()).check(wired)
        return Pipeline(
            opened,
            *choices.load(opened, progress),
            policy or Policy(),
            health or HealthConfig(),
            strict,
            sensors=sensors,
            wanted=wanted,
            min_score=min_score,
            choices=choices,
            alignment=alignment,
        )

    def use_device(self, device: str, threads: int | None = None) -> None:
        """Load all graphs anew on another device, as when a backend has failed.

        Files are compared with their checksums again.

        Raises:
            BundleError, ConfigError, EngineError: as `load`; the engines stay as they were.
        """
        choices = replace(self.choices, device=device, threads=threads)
        self._networks.use(*choices.load(self.bundle))
        self.choices = choices

    @property
    def odometry(self) -> Odometry | None:
        """How the vehicle moves, by which points on the ground are brought to the output's stamp; None:
        nobody says it, and all are where they were measured."""
        return self._encoder.odometry

    @odometry.setter
    def odometry(self, value: Odometry | None) -> None:
        self._encoder.odometry = value

    @property
    def stuck(self) -> bool:
        """Whether a run that could not be ended has made the engines useless until they are loaded anew."""
        return self._networks.stuck

    def _renew(self) -> None:
        self._networks.renew(lambda: self.choices.load(self.bundle))

    @property
    def backend(self) -> str:
        """Name of the backend that runs; several joined by '+' when one had to take over."""
        return self._networks.backend

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines by input, and `fuser`."""
        return self._networks.engines

    def on_event(self, call: Callable[[EngineEvent], None]) -> None:
        """Have `call` told when another backend takes over from one that fails."""
        self._networks.on_event = call

    @property
    def kinds(self) -> dict[str, Kind]:
        """By sensor, its kind."""
        return {sensor: self.manifest.inputs[name].kind for sensor, name in self.inputs.items()}

    def warm_up(self) -> None:
        """Run every graph on nothing, so that the first frame need not wait for what is made then.

        Raises:
            EngineError: the backend failed.
        """
        self._networks.warm_up(tuple(self.inputs.values()), self.wanted)

    def reset(self) -> None:
        """Forget health and results, as at a jump back in time."""
        with self._lock:
            self.health.reset()
            self._last, self._last_ns = None, None
            self.aligner.lead = None

    def forget_last(self) -> None:
        """Do not hold the last result any longer, as at a jump of the clock."""
        with self._lock:
            self._last = None

    def reference(self, used: Collection[str]) -> str | None:
        """The sensor in whose pixels a result from these is given; None for none."""
        return self._admission.reference(used)

    def __call__(self, frame: Frame | Mapping[str, Sample], *, answered: bool = True) -> Result:
        """The result for one frame; sensors that are not in it are missing.

        Args:
            frame: samples by sensor; those that the bundle does not take are left aside, and told where
                there are no others.  Without any stamp, the present time is theirs.
            answered: as for `fuse`.

        Raises:
            InputError, CalibrationError: only with `strict=True`, a sample cannot be used.
            InputError: something in the frame is no `Sample`; `perception.sample_of` makes one.
        """
        self._renew()
        if not isinstance(frame, Frame):
            if not isinstance(frame, Mapping):
                raise InputError(
                    f"a bare {type(frame).__name__}, expected a frame: samples by sensor",
                    hint="{'rgb': perception.sample_of('rgb', array, 'bgr8')}",
                )
            frame = Frame(dict(frame))
        watch = Stopwatch()
        now = self.clock() if frame.stamp_ns is None else frame.stamp_ns
        self._note_time(now)
        offered = {s: frame[s].stamped(now) for s in self.sensors if s in frame}
        encoded, warnings = self._admission.encode_frame(offered, watch, later=not answered)
        if not offered:
            warnings = self._admission.foreign(frame)
        watch.timings.pop("wait", None)
        used = self.usable(encoded)
        stamps = {s: encoded[s].stamp_ns for s in used}
        about = Result(
            present=tuple(frame),
            health=self._admission.healths(frame),
            stamp_ns=now,
            warnings=tuple(warnings.values()),
            samples={s: offered[s] for s in used},
            source_ns=stamps,
            output_ns=now,
            coverage=len(used) / len(self.expected),
            spread_ns=max(stamps.values(), default=0) - min(stamps.values(), default=0),
            arrived_ns=now,
            fresh=frozenset(used),
        )
        return self._finish(encoded, about, watch, answered)

    def encode(
        self,
        sample: Sample,
        *,
        trust: bool = False,
        admit: bool = True,
        others: Iterable[Sample] = (),
        later: bool = False,
    ) -> Encoded | SensorWarning | None:
        """Check, preprocess and encode a sample for `fuse`.  From any thread, in each sensor's order.

        Args:
            sample: of one of `sensors`.
            trust: use it though its sensor has not recovered yet.
            admit: False to check it only, as while its sensor is not trusted for other reasons.
            others: samples of the same moment; where the sensor has to be warped, the distances of one
                that measures them are used.
            later: its encoder runs when `fuse` needs what comes out, if it ever does.

        Returns:
            Its features; or why it is not usable; or None where it is only checked, and well.

        Raises:
            EngineError: the backend failed.
            InputError, CalibrationError: only with `strict=True`, it cannot be used.
        """
        self._renew()
        watch = Stopwatch()
        sample = sample.stamped(self.clock())
        found = self._admission.encode(
            sample, watch, trust=trust, admit=admit, others=others, later=later
        )
        watch.timings.pop("wait", None)
        return replace(found, timings=watch.timings) if isinstance(found, Encoded) else found

    def fuse(
        self, encoded: Mapping[str, Encoded], about: Result, *, answered: bool = True
    ) -> Result:
        """The result from exactly these features.

        Args:
            encoded: by sensor; may be empty, which gives a result in state hold or stop.
            about: what else the result shall say, of the samples those that are `usable`; its `stamp_ns`
                is the present time on the samples' clock, `timings` are of their encoding, and
                `output_ns` is for want of output.
            answered: False where nobody looks at the result: all that later ones depend on is noted, but no
                network runs, and it has no values.

        Raises:
            EngineError: the backend failed.
        """
        self._renew()
        return self._finish(encoded, about, Stopwatch(about.timings), answered)

    def onto(
        self, reference: str, encoded: Mapping[str, Encoded], samples: Mapping[str, Sample]
    ) -> Mapping[str, Encoded]:
        """Features on the grid of one sensor's picture, as `fuse` brings them there by itself.

        Args:
            reference: that sensor.
            encoded: by sensor.
            samples: of what they were encoded.

        Raises:
            EngineError: the backend failed.
        """
        return self._encoder.realigned(encoded, reference, samples, Stopwatch())

    def outputs(self, encoded: Mapping[str, Encoded]) -> dict[str, Tensor]:
        """All outputs of the fuser from exactly these features, before any task is decoded.

        Args:
            encoded: by sensor; at least one.

        Raises:
            EngineError: the backend failed.
        """
        return self._networks.fuse({self.inputs[s]: e.computed for s, e in encoded.items()})

    def reject(
        self, sensor: str, state: HealthState, line: str, broken: bool = False
    ) -> SensorWarning:
        """Note that a sample's content is of no use, as only the caller could see.

        Args:
            sensor: its name.
            state: its state until it has recovered.
            line: what results say about it.
            broken: see `SensorWarning`.
        """
        return self._admission.reject(sensor, state, line, broken)

    def _note_time(self, stamp_ns: int) -> None:
        with self._lock:
            if self._last_ns is not None and stamp_ns < self._last_ns:
                self.counters["stamp_jumps_back"] += 1
                self.health.reset()
                self._last = None
            self._last_ns = stamp_ns

    def usable(self, encoded: Mapping[str, Encoded]) -> tuple[str, ...]:
        """The sensors that a result from these features is computed from: none where they do not do."""
        there = tuple(s for s in self.sensors if s in encoded)
        return there if self.policy.enough(there) else ()

    def _finish(
        self,
        encoded: Mapping[str, Encoded],
        about: Result,
        watch: Stopwatch,
        answered: bool,
    ) -> Result:
        there = tuple(s for s in self.sensors if s in encoded)
        last = self._last
        since_ms = (about.stamp_ns - last.stamp_ns) / 1e6 if last is not None else float("inf")
        state = self.policy.state(there, self.expected, since_ms)
        used = self.usable(encoded)
        reference = self.reference(used)
        values: Mapping[str, Any] = {}
        stamp, output_ns = about.stamp_ns, about.output_ns
        watch.lap("wait")
        encoded = {s: encoded[s] for s in used}
        if answered:
            encoded = self._encoder.realigned(encoded, reference, about.samples, watch)
            encoded = {s: one.computed for s, one in encoded.items()}
        used = tuple(s for s in used if s in encoded)
        novelty = {s: n for s in used if (n := encoded[s].novelty) is not None}
        far = unfamiliar(novelty)
        placed = {s: line for s in used if (line := encoded[s].placed)}
        warnings = (*about.warnings, *far, *self.aligner.warnings())
        about = replace(about, novelty=novelty, warnings=warnings, placed=placed)
        with self._lock:
            self.counters.update(f"unfamiliar_{w.sensor}" for w in far)
        if reference is not None:
            if answered:
                values = self._answer(
                    encoded, replace(about, used=used, reference=reference), watch
                )
            stamp = max(encoded[s].stamp_ns for s in used)
            output_ns = about.source_ns[reference]
        elif last is not None and state == "hold":
            values, stamp = last.values, last.stamp_ns
        timings = watch.stop()
        timings.pop("wait", None)
        result = replace(
            about,
            values=values,
            used=used,
            state=state,
            stamp_ns=stamp,
            ages_ns={s: stamp - encoded[s].stamp_ns for s in used},
            timings=timings,
            backend=self.backend,
            reference=reference,
            output_ns=output_ns,
        )
        with self._lock:
            self.counters[f"frames_{state}"] += 1
            if reference is not None:
                self._last, self.aligner.lead = result, reference
        return result

    def _answer(
        self, encoded: Mapping[str, Encoded], about: Result, watch: Stopwatch
    ) -> Mapping[str, Any]:
        watch.lap("wait")
        used = about.used
        wanted = self.wanted - self.spared
        outputs = self._networks.fuse({self.inputs[s]: encoded[s] for s in used}, wanted)
        watch.lap("fuse")
        familiarity = self.policy.familiarity(about.novelty.values())
        decode = partial(
            interpret,
            self.manifest,
            outputs,
            wanted,
            self.on_problem,
            reference=about.reference,
            grids={s: encoded[s].grid for s in used},
            samples={s: sample for s in used if (sample := about.samples.get(s)) is not None},
            fresh=about.fresh,
            inputs=tuple(self.inputs[s] for s in used),
            confidence=self.policy.confidence_factor(used, self.expected) * familiarity,
            familiarity=familiarity,
            min_score=self.min_score,
            stride=self.points_stride,
            placed=frozenset(about.placed),
            base_frame=self.base_frame,
        )
        if self.decodes_later:
            return LaterMapping(decode)
        found = decode()
        watch.lap("postprocess")
        return found
