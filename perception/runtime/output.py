"""What a stream gives: outputs, and reports on its sensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from perception.frame import Modality, Sample
from perception.runtime.health import HealthState
from perception.runtime.result import Result


@dataclass(frozen=True)
class SensorReport:
    """A sensor's state and the fate of its samples.

    Attributes:
        health: `ok`, `late`, `lost`, `frozen`, `dark`, `saturated`, `malformed` or `skewed`.
        silent_ms: time since its last message, NaN when there was none.
        received: all samples; received = used + superseded + rejected + waiting.
        used: samples that a result was computed from.
        superseded: samples that a newer one replaced, or whose group gave no result.
        rejected: late, duplicate, skewed, malformed, dark, frozen or otherwise unusable samples,
            and those that were lost to a failing engine.
        waiting: encoded samples in open groups, or of groups that gave no output of their own.
        line: what there is to say about it; empty when all is well.
        offset_ms: how far its stamps lie ahead of the receiver's clock when they arrive (behind it
            when negative), NaN when that is not known.
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


@dataclass(frozen=True)
class Output:
    """A result and what it came from.

    Attributes:
        result: the pipeline's answer; its `health` is the stream's, its `timings` include encoding,
            and its `ages_ns` are against `stamp_ns` of the newest sample used.
        samples: those used, by modality, with stamps on the reference clock.
        reference: the modality whose pixels the result is given in; None without output.
        stamp_ns: that sample's stamp on its own clock, which rises from output to output of an
            epoch.  Without output the present time on the sensors' clock: the last output's stamp
            and the time since, or before the first the receiver's clock; never the same twice.
        reason: `complete`, `deadline`, `flush`, or `heartbeat` for a result without any sample.
        coverage: share of the sensors' weights in it.
        spread_ns: between the oldest and newest sample of the group.
        arrived_ns: when the last of its samples arrived, on the caller's clock.
        fresh: the modalities whose sample was in no output before.
        source_ns: by modality used, its sample's stamp on its own clock.
        epoch: rises at every jump of the sensors' clock.
    """

    result: Result
    samples: Mapping[Modality, Sample]
    reference: Modality | None
    stamp_ns: int
    reason: str
    coverage: float
    spread_ns: int
    arrived_ns: int
    fresh: frozenset[Modality] = frozenset()
    source_ns: Mapping[Modality, int] = field(default_factory=dict)
    epoch: int = 0
