"""The rules of a deployment, against their statement in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import ConfigError, InputError
from perception.frame import KINDS
from perception.runtime.policy import Policy

sensors = st.sets(st.sampled_from(KINDS))


@given(
    usable=sensors,
    wanted=sensors,
    required=sensors,
    minimum=st.integers(1, 4),
    hold_ms=st.sampled_from([0.0, 1.0, 500.0]),
    since=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5, 499.9, 500.0, 500.1, math.inf]),
)
def test_the_state_is_what_the_rules_say(
    usable: set[str],
    wanted: set[str],
    required: set[str],
    minimum: int,
    hold_ms: float,
    since: float,
) -> None:
    policy = Policy(required=tuple(required), minimum=minimum, hold_ms=hold_ms)
    lacking = [m for m in required if m not in usable]
    if lacking or len(usable) < minimum:
        expected = "stop" if since > hold_ms else "hold"
    else:
        expected = "degraded" if wanted - usable else "full"
    assert policy.state(usable, wanted, since) == expected
    assert policy.enough(usable) is (expected in ("full", "degraded"))


@given(used=sensors, wanted=sensors, derating=st.floats(0.1, 1.0))
def test_confidence_falls_with_every_sensor_that_is_missing(
    used: set[str], wanted: set[str], derating: float
) -> None:
    factor = Policy(derating=derating).confidence_factor(used, wanted)
    expected = 1.0
    for _ in wanted - used:
        expected *= derating
    assert factor == pytest.approx(expected)
    assert factor <= 1.0


def test_unless_told_otherwise_any_sensor_will_do() -> None:
    policy = Policy()
    for sensor in KINDS:
        assert policy.state({sensor}, KINDS, math.inf) == "degraded"
        assert policy.confidence_factor({sensor}, KINDS) == 1.0
    assert policy.state(KINDS, KINDS, math.inf) == "full"
    # A result may stand for half a second, and features for a fifth of one: as documented.
    assert policy.state((), KINDS, 500.0) == "hold"
    assert policy.state((), KINDS, 500.1) == "stop"
    assert policy.max_age_ms == 200.0


@pytest.mark.parametrize(
    "good",
    [
        {"minimum": 1},
        {"max_age_ms": 0.001},
        {"hold_ms": 0.0},
        {"derating": 1.0},
        {"derating": 1e-9},
        {"required": ("rgb", "lidar")},
    ],
)
def test_rules_at_their_bounds_are_taken(good: dict[str, object]) -> None:
    Policy(**good)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"minimum": 0}, "must be positive"),
        ({"minimum": -1}, "must be positive"),
        ({"max_age_ms": 0.0}, "must be positive"),
        ({"max_age_ms": -1.0}, "must be positive"),
        ({"max_age_ms": math.nan}, "must be positive"),
        ({"hold_ms": -0.001}, "not negative"),
        ({"hold_ms": math.nan}, "not negative"),
        ({"derating": 0.0}, r"in \(0, 1\]"),
        ({"derating": 1.001}, r"in \(0, 1\]"),
        ({"derating": -0.5}, r"in \(0, 1\]"),
        ({"derating": math.nan}, r"in \(0, 1\]"),
    ],
)
def test_rules_that_make_no_sense_are_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"policy: .*{message}"):
        Policy(**bad)  # type: ignore[arg-type]


def test_an_unknown_sensor_cannot_be_required() -> None:
    with pytest.raises(InputError, match="policy.required: .*'so nar'"):
        Policy(required=("rgb", "so nar"))


def test_more_sensors_than_there_are_cannot_be_required() -> None:
    policy = Policy(required=("rgb",), minimum=2)
    policy.check(("rgb", "depth"))
    for sensors, line in (
        (("rgb",), "policy.minimum: there is only 1 sensor"),
        (("depth", "lidar"), "policy.required: 'rgb' is not among depth, lidar"),
    ):
        with pytest.raises(ConfigError, match=f"^{line}$"):
            policy.check(sensors)
    with pytest.raises(ConfigError, match=r"^--minimum: there are only 2 sensors$"):
        Policy(minimum=3).check(("rgb", "depth"), ("--require", "--minimum"))
