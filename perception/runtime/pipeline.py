"""The pipeline: from samples to a result, with whatever sensors there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from perception.errors import AnySenseError, BlindError, EngineError, InputError
from perception.frame import MODALITIES, Frame, Modality, Sample
from perception.preprocess.grid import GridMap
from perception.preprocess.sample import preprocess_sample, source_size
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.engines.base import Engine
from perception.runtime.health import HealthConfig, HealthMonitor, HealthState
from perception.runtime.interpret import PARTS, interpret
from perception.runtime.loading import load_pipeline_engines
from perception.runtime.networks import Encoded, Networks
from perception.runtime.policy import Policy
from perception.runtime.result import PipelineState, Result
from perception.runtime.stopwatch import Stopwatch

_SAME_CLOCK_NS = 600_000_000_000
"""Stamps not further behind the clock than this are of the clock."""


class Pipeline:
    """Runs a bundle on frames of any subset of its modalities.

    Calling it with a frame does everything at once.  With `push`, samples are encoded as they
    arrive, on the caller's thread, and `fuse` gives a result from the newest of them.  `push` and
    `fuse` may be called from different threads.  Samples and frames without a stamp get the time of
    the call.

    Use `Pipeline.load`.

    Attributes:
        expected: the modalities that state `full` and the confidence are measured against; all of
            the bundle's unless fewer sensors are built in.
        wanted: which of `PARTS` results hold; those that nobody reads need not be computed.
        min_score: least score of a box; None for what the bundle says.  Average precision wants a
            lower one than a display.
        clock: the time that samples without a stamp get, in nanoseconds; the system's.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoders: Mapping[Modality, Engine],
        fuser: Engine,
        policy: Policy,
        health: HealthConfig,
        strict: bool = False,
        *,
        min_score: float | None = None,
        trust_plans: bool = False,
        tf32: bool = True,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.policy = policy
        self.strict = strict
        self.expected = bundle.manifest.modalities
        self.wanted = PARTS
        self.min_score = min_score
        self._trust_plans, self._tf32 = trust_plans, tf32
        self.clock: Callable[[], int] = time.time_ns
        self.counters: Counter[str] = Counter()
        self.health = HealthMonitor(health)
        self._networks = Networks(self.manifest, encoders, fuser, self.counters)
        self._encoded: dict[Modality, Encoded] = {}
        self._late: set[Modality] = set()
        self._warnings: dict[Modality, str] = {}
        self._pushed: dict[str, float] = {}
        self._last: Result | None = None
        self._last_ns: int | None = None
        self._heard: tuple[int, int] | None = None  # newest stamp pushed, and when that was done
        # One lock per encoder so that sensors do not wait for each other, one for what they share,
        # always taken in this order: call, encode, shared.
        self._call_lock = threading.Lock()
        self._encode_locks = {m: threading.Lock() for m in encoders}
        self._lock = threading.RLock()

    @staticmethod
    def load(
        bundle: str | Path,
        device: str = "auto",
        *,
        threads: int | None = None,
        policy: Policy | None = None,
        health: HealthConfig | None = None,
        strict: bool = False,
        progress: Callable[[str], None] | None = None,
        min_score: float | None = None,
        trust_plans: bool = False,
        tf32: bool = True,
    ) -> Pipeline:
        """Load a bundle and its engines.

        Args:
            bundle: folder or zip of a bundle, or the name of one that comes with AnySense.
            device: `auto`, `cpu`, `cuda` or the name of a backend; see
                `perception.runtime.engines.selection.load_engines`.
            threads: CPU threads within an operator; None for all cores.
            policy: which sensors must be there and what to do when they are not.
            health: thresholds of the content checks.
            strict: raise on a sample that cannot be used, instead of going on without it.
            progress: called with a line before each graph is loaded.
            min_score: least score of a box; None for what the bundle says.
            trust_plans: run TensorRT plans in the bundle that this machine did not build, and operators
                on OpenVINO that it does not look at closely.  A plan is a program: only for bundles from
                whom you would take programs.
            tf32: on CUDA, products may be computed in TensorFloat-32, which is faster and rounds more
                (about 1e-4 of an output against 1e-6).

        Raises:
            BundleError: the bundle is missing, damaged, too new, reaches outside its folder, or its
                manifest contradicts its graphs.
            EngineError: no backend can load its graphs.
        """
        opened = Bundle.open(find_bundle(str(bundle)))
        encoders, fuser = load_pipeline_engines(
            opened, device, threads, progress, trust_plans=trust_plans, tf32=tf32
        )
        return Pipeline(
            opened,
            encoders,
            fuser,
            policy or Policy(),
            health or HealthConfig(),
            strict,
            min_score=min_score,
            trust_plans=trust_plans,
            tf32=tf32,
        )

    def use_device(self, device: str, threads: int | None = None) -> None:
        """Load all graphs anew on another device, as when a backend has failed.

        Files are compared with their checksums again.

        Raises:
            BundleError, ConfigError, EngineError: as `load`; the engines stay as they were.
        """
        encoders, fuser = load_pipeline_engines(
            self.bundle, device, threads, trust_plans=self._trust_plans, tf32=self._tf32
        )
        with self._lock:
            self._encoded.clear()
            self._networks.use(encoders, fuser)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the bundle takes."""
        return self.manifest.modalities

    @property
    def backend(self) -> str:
        """Name of the backend that runs; several joined by '+' when one had to take over."""
        return self._networks.backend

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines by modality, and `fuser`."""
        return self._networks.engines

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for every sensor whose last sample was not usable."""
        return tuple(self.lines.values())

    @property
    def lines(self) -> dict[Modality, str]:
        """The same by sensor."""
        # Copied in one step: whoever reports must not wait for an inference that holds the lock.
        return dict(self._warnings)

    def reset(self) -> None:
        """Forget all samples, health and results, as at a jump back in time."""
        with self._lock:
            self._encoded.clear()
            self._late.clear()
            self._warnings.clear()
            self._pushed.clear()
            self.health.reset()
            self._last, self._last_ns, self._heard = None, None, None

    def __call__(self, frame: Frame | Mapping[Modality, Sample]) -> Result:
        """The result for one frame; modalities that are not in it are missing.

        Args:
            frame: samples by modality; those that the bundle does not take are left aside.  Without
                any stamp, the present time is theirs.

        Raises:
            InputError, CalibrationError: only with `strict=True`, a sample cannot be used.
        """
        if not isinstance(frame, Frame):
            frame = Frame(dict(frame))
        watch = Stopwatch()
        with self._call_lock:
            now = self.clock() if frame.stamp_ns is None else frame.stamp_ns
            with self._lock:
                self._encoded.clear()
                self._warnings.clear()
                self._pushed.clear()
                self._note_time(now)
            offered = [frame[m].stamped(now) for m in self.modalities if m in frame]
            for sample in offered:
                self._take(sample, watch)
            if not self._encoded:
                # Better a sensor that has only just come back than none.
                for sample in [s for s in offered if self.health.recovering(s.modality)]:
                    self._take(sample, watch, trust=True)
            with self._lock:
                present = tuple(m for m in MODALITIES if m in frame)
                return self._finish(watch, present, now)

    def push(self, modality: Modality, sample: Sample) -> bool:
        """Encode a sample now; a later `fuse` uses it.

        Args:
            modality: its sensor.
            sample: a sample newer than the last one; one without a stamp is, and gets the clock's.

        Returns:
            True when the sample was usable.

        Raises:
            InputError: the sample is of another modality, or (with `strict`) cannot be used.
        """
        if sample.modality != modality:
            raise InputError(f"a {sample.modality} sample was pushed as {modality}", where="push")
        if modality not in self.modalities:
            self.counters["foreign"] += 1
            return False
        watch = Stopwatch()
        usable = self._take(sample, watch, in_order=True)
        with self._lock:
            self._pushed.update(watch.timings)
            if usable and self._encoded:  # another thread may have reset meanwhile
                newest = max(e.stamp_ns for e in self._encoded.values())
                self._heard = newest, time.monotonic_ns()
        return usable

    def fuse(self, now_ns: int | None = None) -> Result:
        """The result from the newest sample of each sensor that is not older than allowed.

        Args:
            now_ns: present time on the samples' clock.  None takes the clock's, if the samples'
                stamps are of it; otherwise, as for a recording, the newest stamp and the time that
                has passed since it was pushed.
        """
        watch = Stopwatch()
        with self._lock:
            now = self._present_ns() if now_ns is None else now_ns
            for modality, encoded in list(self._encoded.items()):
                age_ms = (now - encoded.stamp_ns) / 1e6
                if age_ms > self.policy.max_age_ms:
                    del self._encoded[modality]
                    self._late.add(modality)
                    line = f"{modality}: its newest sample is {age_ms:.0f} ms old"
                    self._note(modality, "late", f"{line}, the limit is {self.policy.max_age_ms:g}")
            watch.timings.update(self._pushed)
            self._pushed.clear()
            present = tuple(m for m in MODALITIES if m in self._encoded)
            return self._finish(watch, present, now)

    def encode(self, sample: Sample, *, trust: bool = False) -> Encoded | None:
        """Check, preprocess and encode a sample for `fuse_encoded`, which the caller pairs himself.

        Args:
            sample: of a modality that the bundle takes.
            trust: use it though its sensor has not recovered yet.

        Returns:
            Its features, or None when it is not usable.
        """
        watch = Stopwatch()
        sample = sample.stamped(self.clock())
        with self._encode_locks[sample.modality]:
            encoded = self._checked(sample, watch, trust)
        watch.timings.pop("wait", None)
        return None if encoded is None else replace(encoded, timings=watch.timings)

    def fuse_encoded(
        self, encoded: Mapping[Modality, Encoded], present: Collection[Modality], stamp_ns: int
    ) -> Result:
        """The result from exactly these features, in place of what `push` has kept.

        Args:
            encoded: by modality; may be empty, which gives a result in state hold or stop.
            present: modalities of which a sample came, usable or not.
            stamp_ns: present time on the samples' clock.
        """
        watch = Stopwatch()
        with self._lock:
            self._encoded = {m: encoded[m] for m in MODALITIES if m in encoded}
            return self._finish(watch, tuple(m for m in MODALITIES if m in present), stamp_ns)

    def forget_last(self) -> None:
        """Do not hold the last result any longer, as at a jump of the clock."""
        with self._lock:
            self._last = None

    def _present_ns(self) -> int:
        """The present time on the clock of the samples' stamps."""
        clock = self.clock()
        if self._heard is None:
            return clock
        newest, heard_at = self._heard
        reached = newest + time.monotonic_ns() - heard_at
        return max(reached, clock) if 0 <= clock - newest <= _SAME_CLOCK_NS else reached

    def _stamped(self, sample: Sample) -> Sample:
        """The sample with the clock's time if it has none: it is newer, though the clock may be set."""
        now, before = self.clock(), self._encoded.get(sample.modality)
        if before is not None and 0 <= before.stamp_ns - now <= self.policy.max_age_ms * 1e6:
            now = before.stamp_ns + 1
        return sample.stamped(now)

    def _note_time(self, stamp_ns: int) -> None:
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self.counters["stamp_jumps_back"] += 1
            self.health.reset()
            self._last = None
        self._last_ns = stamp_ns

    def _take(
        self, sample: Sample, watch: Stopwatch, *, in_order: bool = False, trust: bool = False
    ) -> bool:
        """Check, preprocess and encode one sample; False when it is not usable."""
        modality = sample.modality
        with self._encode_locks[modality]:
            sample = self._stamped(sample)
            if in_order and not self._is_newer(sample):
                return False
            encoded = self._checked(sample, watch, trust)
            with self._lock:
                if encoded is None:
                    self._encoded.pop(modality, None)
                    return False
                self._encoded[modality] = encoded
                self._late.discard(modality)
            return True

    def _checked(self, sample: Sample, watch: Stopwatch, trust: bool) -> Encoded | None:
        """The sample's features; None, and the reason noted, when it is not usable."""
        modality = sample.modality
        try:
            encoded = self._encode(sample, watch, trust)
        except EngineError:
            raise
        except AnySenseError as error:
            if self.strict:
                raise
            state: HealthState = "dark" if isinstance(error, BlindError) else "malformed"
            self.reject(modality, state, str(error))
            return None
        if encoded is None:
            state = self.health.state(modality)
            why = ": every sample the same; frozen_after 0 allows it" if state == "frozen" else ""
            self._note(modality, state, f"{modality}: sensor is {state}{why}")
            return None
        with self._lock:
            self._warnings.pop(modality, None)
        self.counters[f"encoded_{modality}"] += 1
        return encoded

    def _is_newer(self, sample: Sample) -> bool:
        before = self._encoded.get(sample.modality)
        if before is None or sample.time_ns > before.stamp_ns:
            return True
        if before.stamp_ns - sample.time_ns > self.policy.max_age_ms * 1e6:
            # Not a late message but a clock that was set back, as when a bag loops: start anew.
            self.counters["stamp_jumps_back"] += 1
            self.reset()
            return True
        self.counters[f"out_of_order_{sample.modality}"] += 1
        return False

    def reject(self, modality: Modality, state: HealthState, line: str) -> None:
        """Note that a sensor failed in a way that only the caller could see.

        Args:
            modality: the sensor.
            state: its state until it has recovered.
            line: what the results' warnings say.
        """
        self.health.mark(modality, state)
        self._note(modality, state, line)

    def _note(self, modality: Modality, state: str, line: str) -> None:
        with self._lock:
            self._warnings[modality] = line
            self.counters[f"{state}_{modality}"] += 1

    def _encode(self, sample: Sample, watch: Stopwatch, trust: bool) -> Encoded | None:
        modality = sample.modality
        watch.lap("wait")
        preprocess_sample(sample, self.manifest.inputs, self._networks.buffers[modality])
        watch.lap(f"preprocess_{modality}")
        healthy = trust or self.health.check(sample) == "ok"
        watch.lap(f"check_{modality}")
        if not healthy:
            return None
        features = self._networks.encode(modality)
        watch.lap(f"encode_{modality}")
        grid = GridMap.fit(source_size(sample), self.manifest.inputs.grid)
        return Encoded(features, grid, sample.time_ns)

    def _finish(self, watch: Stopwatch, present: tuple[Modality, ...], now_ns: int) -> Result:
        used = tuple(m for m in MODALITIES if m in self._encoded)
        last = self._last
        since_ms = (now_ns - last.stamp_ns) / 1e6 if last is not None else float("inf")
        state = self.policy.state(used, self.expected, since_ms)
        warnings = tuple(self._warnings.values())
        if state in ("hold", "stop"):
            return self._without_output(watch, present, state, now_ns, warnings)
        watch.lap("wait")
        outputs = self._networks.fuse(used, self._encoded)
        watch.lap("fuse")
        reference = "rgb" if "rgb" in used else used[0]
        factor = self.policy.confidence_factor(used, self.expected)
        found = interpret(
            self.manifest,
            outputs,
            self._encoded[reference].grid,
            wanted=self.wanted,
            factor=factor,
            min_score=self.min_score,
        )
        watch.lap("postprocess")
        stamp = max(self._encoded[m].stamp_ns for m in used)
        timings = watch.stop()
        timings.pop("wait", None)
        self.counters[f"frames_{state}"] += 1
        result = Result(
            found.labels,
            found.confidence,
            found.boxes,
            used,
            present,
            state,
            self._health(present),
            stamp,
            {m: stamp - self._encoded[m].stamp_ns for m in used},
            timings,
            self.backend,
            warnings,
            found.images,
        )
        self._last = result
        return result

    def _without_output(
        self,
        watch: Stopwatch,
        present: tuple[Modality, ...],
        state: PipelineState,
        now_ns: int,
        warnings: tuple[str, ...],
    ) -> Result:
        self.counters[f"frames_{state}"] += 1
        held = self._last if state == "hold" else None
        timings = watch.stop()
        timings.pop("wait", None)
        return Result(
            held.labels if held else None,
            held.confidence if held else None,
            held.boxes if held else None,
            (),
            present,
            state,
            self._health(present),
            held.stamp_ns if held else now_ns,
            {},
            timings,
            self.backend,
            warnings,
            held.images if held else {},
        )

    def _health(self, present: tuple[Modality, ...]) -> dict[Modality, str]:
        states: dict[Modality, str] = {}
        for modality in self.modalities:
            known = self.health.state(modality)
            if modality not in present and known == "ok":
                known = "late" if modality in self._late else "lost"
            states[modality] = known
        return states
