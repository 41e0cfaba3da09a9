"""Content checks: frozen needs the same bytes under a stamp that goes on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.frame import KINDS, Kind, Sample
from perception.runtime.health import HealthConfig, HealthMonitor

MS = 1_000_000


def _data(kind: Kind) -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "rgb":
        return random.integers(20, 220, (40, 60, 3), np.uint8)
    if kind == "lidar":
        return random.uniform(1, 9, (500, 4)).astype(np.float32)
    return random.uniform(1, 9, (40, 60)).astype(np.float32)


def _states(config: HealthConfig, period_ms: int, count: int, kind: Kind = "rgb") -> list[str]:
    monitor, data = HealthMonitor(config), _data(kind)
    unit = "kelvin" if kind == "thermal" else ""
    return [monitor.check(Sample(kind, data, i * period_ms * MS, unit=unit)) for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("period", "first"), [(33, 10), (100, 3), (1000, 2)])
def test_frozen_takes_a_number_of_samples_and_a_time(kind: Kind, period: int, first: int) -> None:
    states = _states(HealthConfig(frozen_after=3, frozen_ms=300), period, 20, kind)
    assert states.index("frozen") == first
    assert set(states[:first]) == {"ok"} and set(states[first:]) == {"frozen"}


def test_frozen_can_be_turned_off() -> None:
    assert set(_states(HealthConfig(frozen_after=0), 100, 100)) == {"ok"}


def test_a_stamp_that_stands_is_no_sign_of_a_frozen_picture() -> None:
    assert set(_states(HealthConfig(), 0, 20)) == {"ok"}


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    at=st.floats(0, 1, exclude_max=True),
    every=st.integers(1, 6),
)
def test_one_other_byte_is_enough(kind: Kind, at: float, every: int) -> None:
    """Wherever in the data it is: the quick look at a share of the bytes must not decide alone."""
    monitor, data = HealthMonitor(HealthConfig(frozen_after=3, frozen_ms=300)), _data(kind)
    flat = data.view(np.uint8).reshape(-1)
    where = int(at * flat.size) // 4 * 4  # the lowest byte of a number
    unit = "kelvin" if kind == "thermal" else ""
    states = []
    for index in range(30):
        if index % every == 0:
            flat[where] ^= 1
        states.append(monitor.check(Sample(kind, data.copy(), index * 100 * MS, unit=unit)))
    assert ("frozen" in states) == (every >= 4)


def test_what_moves_again_recovers() -> None:
    monitor, data = HealthMonitor(), _data("rgb")
    for index in range(10):
        state = monitor.check(Sample("rgb", data, index * 100 * MS))
    assert state == "frozen"
    random = np.random.default_rng(0)
    after = [
        monitor.check(Sample("rgb", random.integers(20, 220, (40, 60, 3), np.uint8), i * MS))
        for i in range(3)
    ]
    assert after == ["frozen", "ok", "ok"]
