"""Which samples are let in: encoded, or turned away with a word about why."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from perception.errors import AnySenseError, BlindError, EngineError, InputError, names_hint
from perception.frame import Sample
from perception.plugins import PluginError
from perception.runtime.encoding import SampleEncoder
from perception.runtime.health import HealthMonitor
from perception.runtime.networks import Encoded
from perception.runtime.result import HealthState, SensorWarning
from perception.runtime.stopwatch import Stopwatch


class Admission:
    """Encodes samples, or says what is wrong with them.  Safe to use from several threads.

    Args:
        encoder: of the pipeline.
        health: what samples show is noted there.
        counters: `encoded_<sensor>` and `<state>_<sensor>` are counted there.
        order: the sensors in whose pixels a result may be, the first of those used wins.
        strict: raise on a sample that cannot be used.
    """

    def __init__(
        self,
        encoder: SampleEncoder,
        health: HealthMonitor,
        counters: Counter[str],
        order: Sequence[str],
        strict: bool,
    ) -> None:
        self._encoder, self._health, self._counters = encoder, health, counters
        self._order, self._strict = order, strict
        self._lock = threading.Lock()  # for what is counted, never while a network runs

    def reference(self, used: Collection[str]) -> str | None:
        """Of some sensors, the one in whose pixels a result from them is; None for none."""
        return next((s for s in self._order if s in used), None)

    def encode(
        self, sample: Sample, watch: Stopwatch, *, trust: bool, admit: bool = True, **about: Any
    ) -> Encoded | SensorWarning | None:
        """As `Pipeline.encode`, with laps of a watch; `about` is for `SampleEncoder.encode`.

        Raises:
            EngineError: the backend failed.
            InputError, CalibrationError: only where that is strict, it cannot be used.
        """
        sensor = sample.sensor
        try:
            encoded = self._encoder.encode(sample, watch, trust=trust, admit=admit, **about)
        except EngineError:
            raise
        except AnySenseError as error:
            if self._strict:
                raise
            blind, broken = isinstance(error, BlindError), isinstance(error, PluginError)
            return self.reject(sensor, "dark" if blind else "malformed", str(error), broken)
        if encoded is not None:
            with self._lock:
                self._counters[f"encoded_{sensor}"] += 1
            return encoded
        state = self._health.state(sensor)
        if not admit and state == "ok":
            return None
        why = ": every sample the same; frozen_after 0 allows it" if state == "frozen" else ""
        return self._warn(sensor, state, f"{sensor}: sensor is {state}{why}")

    def encode_frame(
        self, offered: Mapping[str, Sample], watch: Stopwatch, *, later: bool = False
    ) -> tuple[dict[str, Encoded], dict[str, SensorWarning]]:
        """By sensor, the features of one moment's samples, and what is wrong with the others.

        Args:
            offered: by sensor, with stamps.
            watch: laps are taken.
            later: as for `SampleEncoder.encode`.

        Raises:
            EngineError, InputError, CalibrationError: as `encode`.
        """
        encoded: dict[str, Encoded] = {}
        warnings: dict[str, SensorWarning] = {}
        order = self._leading_first(offered)
        lead = self.reference(offered)
        at_ns = None if lead is None else offered[lead].time_ns
        for trust in (False, True):
            for sensor in order:
                # Better a sensor that has only just come back than none.
                if trust and not self._health.recovering(sensor):
                    continue
                found = self.encode(
                    offered[sensor],
                    watch,
                    trust=trust,
                    reference=self.reference(encoded) or sensor,
                    others=[offered[s] for s in encoded],
                    at_ns=at_ns,
                    later=later,
                )
                if isinstance(found, Encoded):
                    encoded[sensor] = found
                    warnings.pop(sensor, None)
                elif found is not None:
                    warnings[sensor] = found
            if encoded:
                break
        return encoded, warnings

    def foreign(self, names: Iterable[str]) -> dict[str, SensorWarning]:
        """What to say of a frame of which no sensor is the bundle's, as when a name is mistyped.

        Raises:
            InputError: only where that is strict, that.
        """
        found = {}
        for name in names:
            hint = names_hint(name, tuple(self._encoder.inputs))
            error = InputError("no sensor of the bundle", where=name, hint=hint)
            if self._strict:
                raise error
            found[name] = SensorWarning(name, "malformed", str(error))
        return found

    def reject(
        self, sensor: str, state: HealthState, line: str, broken: bool = False
    ) -> SensorWarning:
        """As `Pipeline.reject`."""
        self._health.mark(sensor, state)
        return self._warn(sensor, state, line, broken)

    def healths(self, present: Collection[str]) -> dict[str, HealthState]:
        """By sensor, its state in a frame of these: one that is missing is lost."""
        states: dict[str, HealthState] = {}
        for sensor in self._encoder.inputs:
            known = self._health.state(sensor)
            states[sensor] = "lost" if sensor not in present and known == "ok" else known
        return states

    def _leading_first(self, offered: Mapping[str, Sample]) -> list[str]:
        """The sensors in the order of encoding: where pictures are to be warped, first the one onto which,
        then those that measure distances."""
        if not self._encoder.aligner.concerns(offered.values()):
            return list(offered)
        lead = self.reference(offered)
        specs, inputs = self._encoder.manifest.inputs, self._encoder.inputs
        near = {s for s in offered if specs[inputs[s]].sensor.distances}
        return sorted(offered, key=lambda s: (s != lead, s not in near))

    def _warn(
        self, sensor: str, state: HealthState, line: str, broken: bool = False
    ) -> SensorWarning:
        with self._lock:
            self._counters[f"{state}_{sensor}"] += 1
        return SensorWarning(sensor, state, line, broken)
