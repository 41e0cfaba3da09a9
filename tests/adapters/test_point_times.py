"""When each point of a cloud was measured: fields of drivers, files, bags, and points that are lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters.point_times import LONGEST_S, NAMES, seconds_from
from perception.adapters.pointcloud import (
    DATATYPES,
    PointField,
    decode_pointcloud2,
    decode_timed_pointcloud2,
)
from perception.bags.messages import parse, sample_message
from perception.errors import EncodingError, InputError
from perception.frame import Sample
from perception.sensors.kind import Hints
from perception.sensors.lidar.decode import from_message, load_lidar
from perception.sensors.lidar.faults import FAULTS, apply
from perception.sensors.lidar.preprocess import validate
from perception.sensors.lidar.recordings import to_file

STAMP = 1_700_000_000_123_456_789
OFFSETS = np.array([0.0, 0.011, 0.052, 0.0999])

# name, datatype of PointField, what a driver writes for an offset in seconds
FORMS: dict[str, tuple[str, int, Any]] = {
    "ouster": ("t", 6, lambda s: np.round(s * 1e9)),
    "velodyne": ("time", 7, lambda s: s - 0.1),
    "hesai": ("timestamp", 8, lambda s: STAMP * 1e-9 + s),
    "robosense": ("timestamp", 8, lambda s: STAMP * 1e-9 + s - 0.1),
    "livox": ("offset_time", 6, lambda s: np.round(s * 1e9)),
    "livox_clock": ("timestamp", 8, lambda s: STAMP + np.round(s * 1e9)),
    "autoware": ("time_stamp", 6, lambda s: np.round(s * 1e9)),
    "autoware_old": ("time_stamp", 8, lambda s: STAMP * 1e-9 + s),
}
SHIFTED = {"velodyne": -0.1, "robosense": -0.1}


def cloud(
    name: str, code: int, values: np.ndarray, big: bool = False, xyz: np.ndarray | None = None
) -> dict[str, Any]:
    """A cloud whose points lie at (1, 2, 3), (2, 2, 3), ... if it is not said."""
    if xyz is None:
        xyz = np.column_stack([np.arange(len(values)) + 1.0, *np.full((2, len(values)), 2.0)])
    mark = ">" if big else "<"
    kind = np.dtype(
        {"names": ["x", "y", "z", name], "formats": [*[mark + "f4"] * 3, mark + DATATYPES[code]],
         "offsets": [0, 4, 8, 17], "itemsize": 26}
    )  # fmt: skip
    table = np.zeros(len(values), kind)
    for axis, column in zip("xyz", xyz.T, strict=True):
        table[axis] = column
    table[name] = values
    fields = [PointField(n, 4 * i, 7) for i, n in enumerate("xyz")]
    fields.append(PointField(name, 17, code))
    return {
        "fields": fields, "data": table.tobytes(), "width": len(values), "height": 1,
        "point_step": 26, "is_bigendian": big,
    }  # fmt: skip


@pytest.mark.parametrize("driver", FORMS)
@pytest.mark.parametrize("big", [False, True])
def test_what_drivers_write_becomes_seconds_from_the_stamp(driver: str, big: bool) -> None:
    name, code, written = FORMS[driver]
    layout = cloud(name, code, written(OFFSETS), big)
    points, times = decode_timed_pointcloud2(**layout, stamp_ns=STAMP)
    assert times is not None and times.dtype == np.float32
    # float64 seconds of a clock have steps of 0.24 us
    assert np.allclose(times, OFFSETS + SHIFTED.get(driver, 0.0), atol=1e-6)
    assert (points == decode_pointcloud2(**layout)).all()


@pytest.mark.parametrize("driver", ["hesai", "livox_clock"])
def test_times_of_a_clock_need_the_stamp_of_that_clock(driver: str) -> None:
    name, code, written = FORMS[driver]
    layout = cloud(name, code, written(OFFSETS))
    for stamp in (None, 0, STAMP + 2 * 10**9):
        points, times = decode_timed_pointcloud2(**layout, stamp_ns=stamp)
        assert times is None and len(points) == 4


def test_times_of_points_that_are_no_return_go_with_them() -> None:
    xyz = np.array([[1.0, 2, 3], [0, 0, 0], [np.nan, 1, 1], [4, 5, 6]])
    values = np.array([0.01, np.nan, -1e9, 0.04])
    points, times = decode_timed_pointcloud2(**cloud("time", 7, values, xyz=xyz), stamp_ns=STAMP)
    assert points[:, 0].tolist() == [1, 4]
    assert times is not None and np.allclose(times, [0.01, 0.04])


@pytest.mark.parametrize(
    ("name", "code", "values"),
    [
        ("time", 7, [0.0, np.nan, 0.1, 0.2]),
        ("time", 7, [0.0, np.inf, 0.1, 0.2]),
        ("time", 7, [np.inf, 0.0, 0.1, 0.2]),
        ("timestamp", 8, [1e300, 0.0, 0.1, 0.2]),
        ("time", 7, [0.0, 5.0, 0.1, 0.2]),  # no scan takes so long
        ("t", 6, [0, 1, 2, 4_000_000_000]),
        ("timestamp", 8, [0.0, 0.0, 0.0, 1.7e9]),
        ("ring", 7, [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_what_tells_nothing_is_not_taken_for_times(
    name: str, code: int, values: list[float]
) -> None:
    layout = cloud(name, code, np.array(values))
    points, times = decode_timed_pointcloud2(**layout, stamp_ns=STAMP)
    assert times is None and len(points) == 4


@pytest.mark.parametrize(
    "wrong", [PointField("t", 24, 6), PointField("t", 17, 99), PointField("t", 17, 6, 3)]
)
def test_a_field_of_times_that_cannot_be_read_costs_no_points(wrong: PointField) -> None:
    layout = cloud("t", 6, np.zeros(4))
    layout["fields"][-1] = wrong
    points, times = decode_timed_pointcloud2(**layout, stamp_ns=STAMP)
    assert times is None and len(points) == 4
    empty = {**layout, "data": b"", "width": 0}
    assert decode_timed_pointcloud2(**empty, stamp_ns=STAMP)[1] is None


@settings(deadline=None)
@given(
    count=st.integers(1, 40),
    name=st.sampled_from(NAMES),
    code=st.sampled_from(sorted(DATATYPES)),
    stamp=st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    data=st.data(),
)
def test_any_values_are_times_within_a_scan_or_none(
    count: int, name: str, code: int, stamp: int | None, data: st.DataObject
) -> None:
    raw = data.draw(st.binary(min_size=8 * count, max_size=8 * count))
    values = np.frombuffer(raw, DATATYPES[code])[:count]
    points, times = decode_timed_pointcloud2(**cloud(name, code, values), stamp_ns=stamp)
    assert len(points) == count
    if times is not None:
        assert times.shape == (count,) and (np.abs(times) <= LONGEST_S).all()


@given(
    st.lists(st.integers(-(10**9) + 1, 10**9 - 1), min_size=1, max_size=20),
    st.integers(10**18, 4 * 10**18),
)
def test_whole_nanoseconds_of_a_clock_are_exact(offsets: list[int], stamp: int) -> None:
    values = np.array([stamp + offset for offset in offsets], np.int64)
    found = seconds_from(values, stamp)
    assert found is not None and np.array_equal(
        found, (np.array(offsets) * 1e-9).astype(np.float32)
    )


def test_where_other_clocks_begin() -> None:
    for kind in ("f8", "i8"):
        values = np.array([10**17, 10**17 + 2 * 10**7], kind)
        found = seconds_from(values, 10**17)  # the first nanoseconds of a clock
        assert found is not None and np.allclose(found, [0, 0.02])
    found = seconds_from(np.array([1e8, 1e8 + 0.5]), 10**17)  # the first seconds of one
    assert found is not None and np.allclose(found, [0, 0.5])
    just_below = np.array([9.99e16], np.float64)
    assert seconds_from(just_below, int(9.99e16)) is None  # too many seconds for any stamp
    assert seconds_from(np.array([2**63 + 5, 2**63 + 6], np.uint64), 2**62) is None
    assert seconds_from(np.array([2**62, 2**62 + 7], np.uint64), 2**62) is not None


def test_a_scan_takes_no_longer_than_a_second() -> None:
    for sign in (1, -1):
        assert seconds_from(np.array([0.0, sign * LONGEST_S]), 0) is not None
        assert seconds_from(np.array([0.0, sign * np.nextafter(LONGEST_S, 2)]), 0) is None
    assert seconds_from(np.array([10**9], np.int64), 0) is not None
    assert seconds_from(np.array([10**9 + 1], np.int64), 0) is None


def test_large_clouds_are_read_to_their_end() -> None:
    whole = np.arange(50_000, dtype=np.uint32) * 2_000
    found = seconds_from(whole, None)
    assert found is not None and np.array_equal(found, (whole * 1e-9).astype(np.float32))
    whole[-1] = 3_000_000_000
    assert seconds_from(whole, None) is None
    assert seconds_from(np.zeros(0, np.uint32), None).tolist() == []  # type: ignore[union-attr]


def _sample(count: int = 500) -> Sample:
    rng = np.random.default_rng(3)
    points = rng.uniform([4, -9, -2, 0], [40, 9, 2, 1], (count, 4)).astype(np.float32)
    times = rng.uniform(-0.1, 0.0, count).astype(np.float32)
    points[:, 3] = (times * -10).clip(0, 1)  # so that a point knows its time
    return Sample("lidar", points, STAMP, "lidar", times=times)


def _fits(sample: Sample) -> bool:
    assert sample.times is not None and sample.times.shape == (len(sample.data),)
    return bool(np.allclose(sample.data[:, 3], sample.times * -10, atol=1e-6))


def test_a_message_of_ours_says_them_again() -> None:
    sample = _sample()
    message = parse(sample_message("/lidar/points", sample, "lidar"))
    assert [field.name for field in message.fields] == ["x", "y", "z", "intensity", "time"]
    found = from_message(message, Hints())
    assert _fits(found) and np.array_equal(found.data, sample.data)
    bare = parse(sample_message("/lidar/points", replace(sample, times=None), "lidar"))
    assert [field.name for field in bare.fields] == ["x", "y", "z", "intensity"]
    assert from_message(bare, Hints()).times is None


def test_a_file_of_ours_says_them_again(tmp_path: Path) -> None:
    sample = _sample()
    data = sample.data.copy()
    data[5:9, :3] = 0
    to_file(replace(sample, data=data), tmp_path / "0.npz", Hints())
    found = load_lidar(tmp_path / "0.npz")
    assert _fits(found) and len(found.data) == len(data) - 4
    far = load_lidar(tmp_path / "0.npz", least_range_m=20.0)
    assert _fits(far) and 0 < len(far.data) < len(found.data)


@pytest.mark.parametrize(
    ("time", "what"),
    [
        (np.zeros(3), r"times are float64 \(3,\)"),
        (np.full(500, np.nan), "a time of a point is not finite"),
        (np.zeros(500, bool), "times are bool"),
        (np.full(500, 1e300), "a time of a point is not finite"),
    ],
)
def test_a_file_with_wrong_times_is_named(tmp_path: Path, time: np.ndarray, what: str) -> None:
    np.savez(tmp_path / "0.npz", points=_sample().data, time=time)
    with pytest.raises(EncodingError, match=what) as caught:
        load_lidar(tmp_path / "0.npz")
    assert "0.npz" in str(caught.value)


def test_a_stamp_beside_points_is_no_time_of_points(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", points=_sample().data, time=np.float64(1.7e9))
    assert load_lidar(tmp_path / "0.npz").times is None


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("severity", [1, 5])
def test_points_that_are_lost_take_their_times_along(fault: str, severity: int) -> None:
    sample = _sample()
    found = apply(fault, sample, "sample", severity, np.random.default_rng(0))
    times = found.times
    assert times is not None and times.shape == (len(found.data),)
    known = {float(t): row for t, row in zip(sample.times, sample.data, strict=True)}  # type: ignore[arg-type]
    for time, row in zip(times, found.data, strict=True):
        was = known[float(time)]
        # along its ray, wherever on it
        assert np.allclose(
            row[:3] / np.linalg.norm(row[:3]), was[:3] / np.linalg.norm(was[:3]), atol=1e-4
        )


def test_times_of_another_number_of_points_are_refused() -> None:
    sample = _sample()
    assert sample.times is not None
    with pytest.raises(InputError, match="times of 500 points"):
        validate(replace(sample, times=sample.times[:-1]))
