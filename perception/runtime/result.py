"""What is given for one frame: by a pipeline for one that it is handed, by a stream for what came in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perception.frame import Sample
from perception.tasks.values import TaskValues

PipelineState = Literal["full", "degraded", "hold", "stop"]
"""full: all expected sensors; degraded: some; hold: the last result goes on being given because
nothing usable came; stop: nothing usable came for too long."""

HealthState = Literal[
    "ok",
    "late",
    "lost",
    "frozen",
    "dark",
    "saturated",
    "malformed",
    "skewed",
    "stalled",
    "misaligned",
]


@dataclass(frozen=True)
class SensorWarning:
    """Why a sensor's samples are not used, or what else is wrong with it.

    Attributes:
        sensor: its name.
        state: its health.
        text: one line for people, which names the sensor.
        broken: it is not the sensor but the plug-in for its kind that fails.
    """

    sensor: str
    state: HealthState
    text: str
    broken: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to the engines.

    Attributes:
        kind: `fallback` (another backend took over from one that failed), `failed` (there was none to
            take over), `reloaded` (all were loaded anew), `resting` (that did not help; there is no
            output until the next attempt), `stuck` (a run took longer than allowed and could not be
            ended: it keeps a thread of this process).
        text: one line for people.
        backend: what runs now.
    """

    kind: Literal["fallback", "failed", "reloaded", "resting", "stuck"]
    text: str
    backend: str = ""


@dataclass(frozen=True)
class Lateness:
    """How a result stands to its deadline, and what was left out for it.

    Attributes:
        latency_ms: from the arrival of its newest sample to the result.
        deadline_ms: how long that may take.
        level: how many steps are taken; 0: nothing is left out.
        sensors: those that were left out.
        parts: of results, those that were left out.
        dropped: how many frames were let go since the result before.
    """

    latency_ms: float
    deadline_ms: float
    level: int = 0
    sensors: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def late(self) -> bool:
        """Whether it took longer than allowed."""
        return self.latency_ms > self.deadline_ms

    @property
    def line(self) -> str:
        """One line for people; empty where all is well."""
        frames = f"{self.dropped} frame{'s' * (self.dropped != 1)}" if self.dropped else ""
        left = ", ".join(filter(None, (*self.sensors, *self.parts, frames)))
        if not self.late and not left:
            return ""
        head = f"late: {self.latency_ms:.0f} ms" if self.late else f"{self.latency_ms:.0f} ms"
        without = f"; left out: {left}" if left else ""
        return f"{head}, deadline {self.deadline_ms:.0f} ms{without}"


@dataclass(frozen=True)
class Result(TaskValues):
    """The answer for one frame.  Sensors are named in the order of the bundle's inputs.

    Attributes:
        values: by task, what it gives, where the bundle has it and `Pipeline.wanted` does not leave it
            out; `labels`, `confidence`, `boxes`, `boxes3d`, `points` and `images` are of it.
        used: sensors that this result was computed from.
        present: sensors of which a sample came with the frame, usable or not.
        state: see `PipelineState`.
        health: by sensor, `ok`, `late`, `lost`, `frozen`, `dark`, `saturated`, `malformed`, `skewed`,
            `stalled` (its encoder does not answer) or `misaligned` (it does not fit its camera as the rig
            says; it is used all the same unless the `DriftPolicy` leaves it out).
        stamp_ns: stamp of the newest sample used (of the held result in state hold).
        ages_ns: by used sensor, how much older its sample is than the newest one.
        timings: milliseconds by step: `check_<s>`, `preprocess_<s>`, `warp_<s>`, `encode_<s>`,
            `fuse`, `postprocess`, `total`.
        backend: name of the inference backend that ran; several joined by '+' when another had to
            take over some of the graphs.
        warnings: for every sensor with which something is wrong.
        samples: those used, by sensor; of a stream with stamps on the reference clock.
        reference: the sensor whose pixels the result is given in; None without output.
        output_ns: that sample's stamp on its own clock, which rises from result to result of an
            epoch.  Without output the present time on the sensors' clock: the last output's stamp
            and the time since, or before the first the receiver's clock; never the same twice.
        reason: `call` of a pipeline; of a stream `complete`, `deadline`, `flush`, or `heartbeat`
            for a result without any sample.
        coverage: share of the sensors' weights in it.
        spread_ns: between the oldest and newest sample of the frame.
        arrived_ns: when the last of its samples arrived, on the caller's clock.
        fresh: the sensors whose sample was in no result before.
        source_ns: by sensor used, its sample's stamp on its own clock.
        epoch: rises at every jump of the sensors' clock.
        lateness: of a stream with a deadline, how this stands to it, and what was left out for it.
        placed: by sensor used whose picture was warped onto that of the reference, how, in words.
        novelty: by sensor used, how far what it shows is from what its encoder was trained on, where the
            bundle can tell: beyond 1 it is far, see `perception.runtime.novelty`.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    used: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    state: PipelineState = "stop"
    health: Mapping[str, HealthState] = field(default_factory=dict)
    stamp_ns: int = 0
    ages_ns: Mapping[str, int] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    backend: str = ""
    warnings: tuple[SensorWarning, ...] = ()
    samples: Mapping[str, Sample] = field(default_factory=dict)
    reference: str | None = None
    output_ns: int = 0
    reason: str = "call"
    coverage: float = 0.0
    spread_ns: int = 0
    arrived_ns: int = 0
    fresh: frozenset[str] = frozenset()
    source_ns: Mapping[str, int] = field(default_factory=dict)
    epoch: int = 0
    lateness: Lateness | None = None
    novelty: Mapping[str, float] = field(default_factory=dict)
    placed: Mapping[str, str] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether it took longer than the stream's deadline allows; False without one."""
        return self.lateness is not None and self.lateness.late

    @property
    def far(self) -> tuple[str, ...]:
        """The sensors used that are far from training."""
        return tuple(sensor for sensor, novelty in self.novelty.items() if novelty > 1)

    @property
    def lines(self) -> tuple[str, ...]:
        """The warnings as text."""
        return tuple(w.text for w in self.warnings)

    @property
    def engine_ms(self) -> float:
        """Milliseconds spent inside inference engines."""
        return sum(
            (v for k, v in self.timings.items() if k == "fuse" or k.startswith("encode_")), 0.0
        )

    @property
    def total_ms(self) -> float:
        """Milliseconds of the whole call."""
        return self.timings.get("total", 0.0)

    @property
    def overhead_ms(self) -> float:
        """Milliseconds spent on everything but inference."""
        return max(0.0, self.total_ms - self.engine_ms)


@dataclass(frozen=True)
class SensorReport:
    """A sensor's state and the fate of its samples.

    Attributes:
        health: see `Result.health`.
        silent_ms: time since its last message, NaN when there was none.
        received: all samples; received = used + superseded + rejected + waiting.
        used: samples that a result was computed from.
        superseded: samples that a newer one replaced, or whose group gave no result.
        rejected: late, duplicate, skewed, malformed, dark, frozen or otherwise unusable samples,
            those that were left out for want of time, and those that were lost to a failing engine or
            had not been looked at by the end.
        waiting: encoded samples in open groups, or of groups that gave no output of their own.
        line: what there is to say about it; empty when all is well.
        offset_ms: how far its stamps lie ahead of the receiver's clock when they arrive (behind it
            when negative), NaN when that is not known.
        broken: see `SensorWarning.broken`.
    """

    health: HealthState
    silent_ms: float
    received: int
    used: int
    superseded: int
    rejected: int
    waiting: int
    line: str = ""
    offset_ms: float = math.nan
    broken: bool = False
