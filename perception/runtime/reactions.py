"""What can go wrong at run time, how it is noticed, what is done, and what is put out: one row for each.

docs/fmea.md is made from these tables.  They have a row for every health state, fate of a sample, event
of the engines, state of the output and step that is taken when results are late, and tests hold them to
that.  Numbers are the defaults of the code that acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perception.errors import (
    BundleError,
    CalibrationError,
    ConfigError,
    DataError,
    DeadlineExceededError,
    EngineError,
    InputError,
    LostRankError,
    MissingDependencyError,
    ParityError,
)
from perception.runtime.arrival import SensorTiming
from perception.runtime.arrival_health import LATE_AFTER
from perception.runtime.drift import DriftPolicy
from perception.runtime.health import HealthConfig
from perception.runtime.lateness import LatePolicy
from perception.runtime.policy import Policy
from perception.runtime.settings import StreamSettings


@dataclass(frozen=True)
class Reaction:
    """What becomes of one fault.

    Attributes:
        detection: by what it is noticed, and how soon.
        reaction: what is done about it.
        output: what leaves meanwhile, and what it says.
    """

    detection: str
    reaction: str
    output: str


_HEALTH, _TIMING, _POLICY = HealthConfig(), SensorTiming(), Policy()
_LATE, _STREAM, _DRIFT = LatePolicy(1.0), StreamSettings({}), DriftPolicy()

_LEFT_OUT = (
    f"left out, its encoder does not run; trusted again after {_HEALTH.recover_after} good samples, "
    "or at once when no other is left"
)
_GOES_ON = "`degraded` from the others, it is named in `warnings`; `hold`, then `stop` where too few are left"

HEALTH: Mapping[str, Reaction] = {
    "ok": Reaction("nothing speaks against it", "used", "`full`, when all are"),
    "late": Reaction(
        f"{LATE_AFTER} samples in a row come when newer groups have left",
        "late samples are turned away; the sensor's last features are used while they are younger than "
        f"`max_age_ms` ({_POLICY.max_age_ms:g} ms)",
        _GOES_ON,
    ),
    "lost": Reaction(
        f"no message for its timeout ({_TIMING.timeout_ns / 1e6:g} ms, or what its rate says); in a single "
        "frame: it is not there",
        f"no group waits for it; {_LEFT_OUT}",
        _GOES_ON,
    ),
    "frozen": Reaction(
        f"the same bytes in {_HEALTH.frozen_after} samples and for {_HEALTH.frozen_ms:g} ms by their stamps; "
        "or the same stamp again and again for its timeout",
        _LEFT_OUT,
        _GOES_ON,
    ),
    "dark": Reaction(
        f"its kind's check of each sample: a picture whose percentile {_HEALTH.dark_percentile:g} is below "
        f"{_HEALTH.dark_level:g} of 255, depth with under {100 * _HEALTH.min_valid_share:g} % of its pixels, "
        f"a thermal picture of one value, fewer than {_HEALTH.min_points} returns",
        _LEFT_OUT,
        _GOES_ON,
    ),
    "saturated": Reaction(
        f"more than {100 * _HEALTH.saturated_share:g} % of a picture at {_HEALTH.saturated_level} "
        "of 255 or above",
        _LEFT_OUT,
        _GOES_ON,
    ),
    "malformed": Reaction(
        "decoding, or the kind's check of dtype, shape, unit and calibration, of each sample",
        f"{_LEFT_OUT}; with `strict` an error instead",
        _GOES_ON,
    ),
    "skewed": Reaction(
        f"stamps that lie more than {_STREAM.max_lead_ns / 1e6:g} ms ahead of their arrival, or further "
        "from it than `max_skew_ms`, where that is set",
        f"turned away, so that the others' groups do not suffer; {_LEFT_OUT}",
        _GOES_ON,
    ),
    "stalled": Reaction(
        "its encoder takes 20 times as long as usual, 1 to 5 s",
        "no group waits for it; its samples count as failed until the encoder answers",
        _GOES_ON,
    ),
    "misaligned": Reaction(
        "where drift is watched: its edges lie beside those of its camera, turned by more than "
        f"{_DRIFT.most_deg:g} degrees or as if stamped {_DRIFT.most_ms:g} ms otherwise, and by more than 3 "
        f"sigma, in {_DRIFT.held} verdicts of {_DRIFT.looks} looks, one each {_DRIFT.period_s:g} s",
        "used all the same; with `leave_out` left out until as many verdicts are within",
        "unchanged, the estimate is named in `warnings`; with `leave_out` `degraded` from the others",
    ),
}
"""By health state of a sensor."""

FATES: Mapping[str, Reaction] = {
    "used": Reaction("", "", "a result was computed from it"),
    "superseded": Reaction(
        "a newer sample of its sensor came first, or its group gave no result",
        "given up for the newer one",
        "unchanged",
    ),
    "duplicate": Reaction("its sensor's stamp again", "turned away", "unchanged"),
    "late": Reaction(
        "its group, or a newer sample of its sensor, has left",
        f"turned away; {LATE_AFTER} in a row make the sensor `late`",
        "unchanged",
    ),
    "skewed": Reaction(
        "its stamp cannot be believed", "turned away; the sensor is `skewed`", _GOES_ON
    ),
    "foreign": Reaction("no sensor of that name", "turned away", "unchanged"),
    "undecodable": Reaction(
        "its message cannot be decoded", "counted; the sensor is `malformed`", _GOES_ON
    ),
    "unusable": Reaction(
        "its content or its sensor's health speaks against it", "left out, as its sensor", _GOES_ON
    ),
    "failed": Reaction(
        "the backend failed, or an encoder did not answer", "given up", "see events of the engines"
    ),
    "shed": Reaction(
        "its sensor is left out for want of time", "not encoded", "`degraded`, `lateness` says so"
    ),
    "early": Reaction("it came before there was a pipeline", "counted", "`stop`: loading"),
    "closed": Reaction("it was not looked at when the stream ended", "counted", "none"),
}
"""By what is counted of each sample; all of them together are `received`."""

EVENTS: Mapping[str, Reaction] = {
    "fallback": Reaction(
        "the backend raises, or gives NaN or infinity from finite inputs",
        "the next backend takes over for good, and computes the same frame again",
        "as before; `backend` and one line say so",
    ),
    "failed": Reaction(
        "the backend raises, and there is none in reserve",
        "all graphs are loaded anew, compared with their checksums",
        "the frame is lost; the next one is computed",
    ),
    "reloaded": Reaction("after `failed`", "work goes on", "as before"),
    "resting": Reaction(
        "more than 3 failures in a row",
        "the next attempt after 1 s, then 2, 5, 10 and 30 s",
        "none but status: `stop`, with the reason; samples count as failed",
    ),
    "stuck": Reaction(
        "a run takes longer than `engine_timeout_s`, and cannot be ended",
        "it keeps its thread; graphs are loaded anew, or the node restarts, as `engine.stuck` says",
        "the frame is lost; the next one is computed",
    ),
}
"""By kind of `EngineEvent`."""

STATES: Mapping[str, Reaction] = {
    "full": Reaction("all expected sensors are usable", "", "all that was asked for"),
    "degraded": Reaction(
        f"some are, at least `minimum` ({_POLICY.minimum}) and all `required`",
        "the graphs leave absent inputs out",
        "all that was asked for, its confidence calibrated for these sensors or lowered by `derating`",
    ),
    "hold": Reaction(
        f"too few are, for up to `hold_ms` ({_POLICY.hold_ms:g} ms) since the last result",
        "nothing is computed",
        "the last result again, with its stamp; in a stream every "
        f"{_STREAM.heartbeat_ns / 1e6:g} ms",
    ),
    "stop": Reaction(
        "too few are for longer",
        "nothing is computed",
        "no labels or boxes: the robot must not rely on any",
    ),
}
"""By `PipelineState`."""

LATE: Mapping[str, Reaction] = {
    "sensors": Reaction(
        f"{_LATE.after} results later than the deadline, or one later than twice of it",
        "the dearest sensor that is not required is left out, then another",
        "`degraded`; `lateness` names what was left out",
    ),
    "parts": Reaction(
        "still late", "optional outputs are not computed", "the rest; `lateness` names them"
    ),
    "dropped": Reaction(
        "still late",
        "of frames that wait the oldest are let go",
        "fewer results; `lateness` counts them",
    ),
}
"""By field of `Lateness`, in the order in which the steps are taken; only with a deadline."""

ERRORS: Mapping[type[Exception], Reaction] = {
    BundleError: Reaction(
        "checksums, signature, schema, and graphs against the manifest, before a backend sees them",
        "not loaded; a pipeline that runs goes on with what it has",
        "none: one line says which file",
    ),
    ConfigError: Reaction(
        "ranges and names, before anything is loaded", "not started", "none: one line"
    ),
    CalibrationError: Reaction(
        "of each sample that needs a calibration", "the sensor is `malformed`", _GOES_ON
    ),
    InputError: Reaction("of each sample", "the sensor is `malformed` or `dark`", _GOES_ON),
    EngineError: Reaction("loading or running a graph", "see events of the engines", "see there"),
    DeadlineExceededError: Reaction(
        "a run that takes longer than `engine_timeout_s`, loading longer than `load_timeout_s`",
        "it is ended; see events of the engines",
        "see there",
    ),
    MissingDependencyError: Reaction(
        "a package that is asked for is not there",
        "not started",
        "none: one line with the pip command",
    ),
    DataError: Reaction(
        "reading a recording", "the command ends, or leaves the file out", "one line"
    ),
    ParityError: Reaction(
        "graphs compared with the model when they are exported", "no bundle is written", "one line"
    ),
    LostRankError: Reaction(
        "a training by several processes hears nothing from one of them",
        "all of them end; the step that all had made is kept",
        "one line",
    ),
}
"""By class of error, those that derive from one included."""
