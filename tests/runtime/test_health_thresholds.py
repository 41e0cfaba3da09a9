"""Content checks at their thresholds, counted by hand: of a picture of 80x80, 10x10 pixels are looked at."""

from __future__ import annotations

import numpy as np
import pytest

from perception.frame import KINDS, Sample
from perception.runtime.health import HealthConfig, HealthMonitor

LOOKED_AT = [(y, x) for y in range(0, 80, 8) for x in range(0, 80, 8)]


def _picture(dtype: type, elsewhere: float, *groups: tuple[int, float]) -> np.ndarray:
    """`count` of the pixels that are looked at hold a value, group by group; the other pixels, another."""
    image = np.full((80, 80), elsewhere, dtype)
    places = iter(LOOKED_AT)
    for count, value in groups:
        for _ in range(count):
            image[next(places)] = value
    assert next(places, None) is None, "all hundred have a value"
    return image


def _green(elsewhere: int, *groups: tuple[int, int]) -> Sample:
    image = np.zeros((80, 80, 3), np.uint8)
    image[..., 0], image[..., 2] = 255 - elsewhere, 255 - elsewhere  # red and blue do not count
    image[..., 1] = _picture(np.uint8, elsewhere, *groups)
    return Sample("rgb", image)


def _check(sample: Sample, **config: float) -> str:
    return HealthMonitor(HealthConfig(**config)).check(sample)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("groups", "state"),
    [
        ([(100, 7)], "dark"),
        ([(99, 7), (1, 255)], "dark"),  # the 99th percentile is dark
        ([(98, 7), (2, 255)], "ok"),
        ([(98, 7), (2, 8)], "ok"),  # 8 is not below the level
        ([(98, 7), (2, 7)], "dark"),
    ],
)
def test_dark_pictures(groups: list[tuple[int, int]], state: str) -> None:
    assert _check(_green(255, *groups)) == state


@pytest.mark.parametrize(
    ("groups", "state"),
    [
        ([(100, 250)], "saturated"),
        ([(81, 250), (19, 100)], "saturated"),
        ([(80, 250), (20, 100)], "ok"),  # not more than the share
        ([(81, 249), (19, 100)], "ok"),
    ],
)
def test_saturated_pictures(groups: list[tuple[int, int]], state: str) -> None:
    assert _check(_green(100, *groups)) == state


def test_levels_and_shares_of_pictures_follow_the_configuration() -> None:
    half = _green(0, (50, 20), (50, 120))
    assert _check(half) == "ok"
    assert _check(half, dark_level=121) == "dark"
    assert _check(half, dark_level=120) == "ok"
    assert _check(half, dark_level=120, dark_percentile=50) == "dark"
    assert _check(half, dark_level=120, dark_percentile=51) == "ok"
    assert _check(half, saturated_level=120, saturated_share=0.49) == "saturated"
    assert _check(half, saturated_level=120, saturated_share=0.5) == "ok"
    assert _check(half, saturated_level=121, saturated_share=0.0) == "ok"


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_depth_needs_two_valid_pixels_of_a_hundred(nothing: float) -> None:
    for count, state in ((0, "dark"), (1, "dark"), (2, "ok"), (100, "ok")):
        groups = [(count, 0.001), (100 - count, nothing)]
        image = _picture(np.float32, 3.0 if state == "dark" else nothing, *groups)
        assert _check(Sample("depth", image)) == state
    image = _picture(np.float32, 1.0, (30, 1.0), (70, nothing))
    assert _check(Sample("depth", image), min_valid_share=0.3) == "ok"
    assert _check(Sample("depth", image), min_valid_share=0.31) == "dark"


def test_thermal_needs_more_than_the_least_spread() -> None:
    def state(spread: float, unit: str = "kelvin", **config: float) -> str:
        image = _picture(np.float32, 9.0, (99, 1.0), (1, 1.0 + spread))
        return _check(Sample("thermal", image, unit=unit), **config)

    assert state(0.0) == "dark"
    assert state(2.0**-10) == "dark"  # 0.00098
    assert state(2.0**-9) == "ok"
    assert state(0.5, min_thermal_spread=0.5) == "dark"
    assert state(0.75, min_thermal_spread=0.5) == "ok"
    for count in (99, 100):
        image = _picture(np.float32, 9.0, (count, np.nan), (100 - count, 5.0))
        assert _check(Sample("thermal", image, unit="kelvin")) == "dark"
    image = _picture(np.float32, 9.0, (98, np.inf), (1, 5.0), (1, 6.0))
    assert _check(Sample("thermal", image, unit="kelvin")) == "ok"


@pytest.mark.parametrize(
    ("unit", "value", "state"),
    [
        ("counts8", 254, "saturated"),
        ("counts8", 253, "ok"),
        ("counts16", 65534, "saturated"),
        ("counts16", 65533, "ok"),
        ("kelvin", 1e9, "ok"),  # a temperature has no end
    ],
)
def test_thermal_is_saturated_at_the_end_of_its_counts(unit: str, value: float, state: str) -> None:
    for count in (80, 81):
        image = _picture(np.float32, 9.0, (count, value), (100 - count, 5.0))
        found = _check(Sample("thermal", image, unit=unit))
        assert found == (state if count == 81 else "ok")
    # Shares are of the pixels that are valid.
    image = _picture(np.float32, 9.0, (9, value), (1, 5.0), (90, np.nan))
    assert _check(Sample("thermal", image, unit=unit)) == state


def test_a_cloud_needs_fifty_returns() -> None:
    cloud = np.ones((60, 4), np.float32)
    assert _check(Sample("lidar", cloud[:50])) == "ok"
    assert _check(Sample("lidar", cloud[:49])) == "dark"
    cloud[50:, :3] = 0  # no returns
    assert _check(Sample("lidar", cloud)) == "ok"
    cloud[49, :3] = 0
    assert _check(Sample("lidar", cloud)) == "dark"
    assert _check(Sample("lidar", cloud), min_points=49) == "ok"


# From sample to sample


GOOD, DARK = _green(100, (100, 100)), _green(0, (100, 0))


def _moving() -> Sample:
    _moving.value = (_moving.value + 1) % 90  # type: ignore[attr-defined]
    return _green(100, (100, 100 + _moving.value))  # type: ignore[attr-defined]


_moving.value = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_failed_sensor_is_trusted_after_so_many_good_samples_in_a_row(after: int) -> None:
    monitor = HealthMonitor(HealthConfig(recover_after=after))
    assert monitor.check(DARK) == "dark"
    assert not monitor.recovering("rgb")
    for _ in range(after - 1):
        assert monitor.check(_moving()) == "dark"
        assert monitor.recovering("rgb")
    assert monitor.check(DARK) == "dark"  # and the count begins anew
    assert not monitor.recovering("rgb")
    states = [monitor.check(_moving()) for _ in range(after + 1)]
    assert states == ["dark"] * (after - 1) + ["ok", "ok"]
    assert not monitor.recovering("rgb")


def test_two_good_samples_are_enough_by_default() -> None:
    monitor = HealthMonitor()
    assert [monitor.check(s) for s in (DARK, _moving(), _moving())] == ["dark", "dark", "ok"]


def test_one_failure_gives_way_to_another() -> None:
    monitor = HealthMonitor()
    bright = _green(255, (100, 255))
    assert [monitor.check(s) for s in (DARK, bright, DARK)] == ["dark", "saturated", "dark"]


def test_states_of_sensors_do_not_mix_and_can_be_forgotten() -> None:
    monitor = HealthMonitor()
    assert {m: monitor.state(m) for m in KINDS} == dict.fromkeys(KINDS, "lost")
    assert not monitor.recovering("rgb")
    monitor.check(DARK)
    monitor.mark("depth", "malformed")
    assert [monitor.state(m) for m in KINDS] == ["dark", "malformed", "lost", "lost"]
    monitor.check(_moving())
    assert [monitor.recovering(m) for m in KINDS] == [True, False, False, False]
    monitor.mark("rgb", "late")
    assert monitor.state("rgb") == "late" and not monitor.recovering("rgb")
    assert [monitor.check(_moving()) for _ in range(2)] == ["late", "ok"]
    monitor.reset()
    assert monitor.state("rgb") == "lost"


# Frozen


def _seen(config: HealthConfig, stamps_ms: list[float]) -> list[str]:
    monitor = HealthMonitor(config)
    data = GOOD.data
    return [monitor.check(Sample("rgb", data, round(t * 1e6))) for t in stamps_ms]


def test_frozen_at_the_third_equal_sample_and_after_three_tenths_of_a_second() -> None:
    assert _seen(HealthConfig(), [0, 150, 300]) == ["ok", "ok", "frozen"]
    assert _seen(HealthConfig(), [0, 150, 299.999999]) == ["ok", "ok", "ok"]
    assert _seen(HealthConfig(), [0, 300]) == ["ok", "ok"]
    assert _seen(HealthConfig(), [0, 1, 2, 300]) == ["ok", "ok", "ok", "frozen"]
    assert _seen(HealthConfig(frozen_after=2, frozen_ms=10), [5, 15]) == ["ok", "frozen"]
    assert _seen(HealthConfig(frozen_after=1, frozen_ms=0), [5, 5]) == ["ok", "frozen"]


def test_equal_samples_are_counted_from_the_last_change() -> None:
    monitor = HealthMonitor()
    for stamp in (0, 200):
        assert monitor.check(Sample("rgb", GOOD.data, stamp * 10**6)) == "ok"
    other = GOOD.data.copy()
    other[3, 5, 1] ^= 1  # not among the pixels that the other checks look at
    states = [monitor.check(Sample("rgb", other, t * 10**6)) for t in (400, 550, 699, 700)]
    assert states == ["ok", "ok", "ok", "frozen"]


def test_what_is_bad_anyway_is_not_called_frozen() -> None:
    monitor = HealthMonitor()
    states = [monitor.check(Sample("rgb", DARK.data, i * 10**9)) for i in range(6)]
    assert states == ["dark"] * 6
