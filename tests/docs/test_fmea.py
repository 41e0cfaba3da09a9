"""The page of faults is that of the code, and has a row for every one of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import get_args, get_type_hints

sys.path.insert(0, str(Path(__file__).parent))

import fmea

from perception import errors
from perception.corruptions import DELIVERY, faults_of
from perception.errors import AnySenseError
from perception.runtime import encoding_lanes, reactions, recovery
from perception.runtime.arrival import Disposition
from perception.runtime.result import EngineEvent, HealthState, Lateness, PipelineState
from perception.sensors.names import OURS

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_code() -> None:
    assert fmea.page() == fmea.tables(), "python tests/docs/fmea.py writes them anew"


def test_every_state_and_event_has_a_row() -> None:
    assert set(reactions.HEALTH) == set(get_args(HealthState))
    assert set(reactions.STATES) == set(get_args(PipelineState))
    assert set(reactions.EVENTS) == set(get_args(get_type_hints(EngineEvent)["kind"]))
    left_out = {n for n, t in get_type_hints(Lateness).items() if t in (tuple[str, ...], int)}
    assert set(reactions.LATE) == left_out - {"level"}


def test_numbers_are_those_of_the_code() -> None:
    stalled = reactions.HEALTH["stalled"].detection
    assert (
        f"{encoding_lanes.USUAL} times" in stalled
        and f"to {encoding_lanes.PATIENCE_S:g} s" in stalled
    )
    resting = reactions.EVENTS["resting"]
    assert f"more than {recovery._MOST_FAILURES} failures" in resting.detection
    assert [float(n) for n in re.findall(r"\d+", resting.reaction)] == list(recovery._REST_S)


def test_every_fate_of_a_sample_has_a_row() -> None:
    """Those that the collector has, and all that the stream counts besides."""
    text = "".join(
        (ROOT / f"perception/runtime/{n}.py").read_text("utf-8") for n in ("core", "stream")
    )
    counted = set(re.findall(r'(?:_settle_fate|_refuse|refuse)\([^"()]*"(\w+)"', text))
    counted |= set(re.findall(r'fate = "(\w+)"', text))
    counted |= set(re.findall(r'update\((?:\(|\{)"received"(?:, |: \w+, )"(\w+)"', text))
    counted |= set(re.findall(r'waiting\.fate = None, "(\w+)"', text))
    assert {"used", "failed", "unusable", "undecodable", "superseded", "early", "closed"} <= counted
    assert set(reactions.FATES) == counted | set(get_args(Disposition)) - {"accepted"}


def test_every_error_has_a_row() -> None:
    own = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, AnySenseError)]
    bare = [e for e in own if e is not AnySenseError and not issubclass(e, tuple(reactions.ERRORS))]
    assert not bare and set(reactions.ERRORS) <= set(own)


def test_every_fault_of_a_sensor_was_tried() -> None:
    for kind in OURS:
        assert set(fmea.found_in_content(kind)) == set(faults_of(kind))
    assert set(fmea.found_in_delivery()) == set(DELIVERY)


def test_what_bears_a_states_name_comes_to_that_state() -> None:
    for kind in OURS:
        for fault, states in fmea.found_in_content(kind).items():
            if fault in reactions.HEALTH:
                assert states == {fault: 1}, kind
    for fault, by_severity in fmea.found_in_delivery().items():
        if fault in reactions.HEALTH:
            (one,) = by_severity.values()
            assert one.noticed[0] == f"`{fault}`" and one.states == ("degraded",) and not one.used


def test_no_fault_of_one_sensor_silences_the_other() -> None:
    for fault, by_severity in fmea.found_in_delivery().items():
        for one in by_severity.values():
            assert set(one.states) <= {"full", "degraded"}, fault
