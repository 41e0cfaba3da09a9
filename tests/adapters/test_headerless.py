"""Clouds without a header: the number of columns is told, and contents that contradict it are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters.headerless import COLUMNS, columns_of, parse_bin
from perception.errors import EncodingError, InputError
from perception.sensors.lidar.decode import load_lidar


def cloud(points: int, columns: int, seed: int = 0) -> np.ndarray:
    """x, y, z, intensity, ring, time as far as `columns` goes."""
    rng = np.random.default_rng(seed)
    parts = [
        *rng.uniform((2, -5, -1.5), (30, 5, 2), (points, 3)).T,
        rng.integers(0, 256, points),
        rng.integers(0, 32, points),
        rng.uniform(0, 0.1, points),
    ]
    return np.column_stack(parts[:columns]).astype("<f4")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.pcd.bin", 5),
        ("A.PCD.BIN", 5),
        ("a.bin", 4),
        ("a.BIN", 4),
        ("pcd.bin", 4),
        ("a.pcd", None),
    ],
)
def test_the_name_tells_the_columns(tmp_path: Path, name: str, told: int | None) -> None:
    assert columns_of(tmp_path / name) == told
    if told:
        stored = cloud(400, told)
        stored.tofile(tmp_path / name)
        got = load_lidar(tmp_path / name).data
        assert np.array_equal(got[:, :3], stored[:, :3])
        assert np.allclose(got[:, 3], stored[:, 3] / 255)


@pytest.mark.parametrize("columns", [3, 4, 5, 6])
def test_columns_may_be_said(tmp_path: Path, columns: int) -> None:
    stored = cloud(240, columns)
    stored.tofile(tmp_path / "a.bin")
    got = load_lidar(tmp_path / "a.bin", columns).data
    assert np.array_equal(got[:, :3], stored[:, :3])
    assert np.array_equal(got[:, 3] > 0, stored[:, 3] > 0 if columns > 3 else np.zeros(240, bool))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(4, 5), (5, 4), (4, 6), (5, 6), (6, 5)]),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_another_number_of_columns_is_noticed(
    pair: tuple[int, int], blocks: int, seed: int
) -> None:
    told, real = pair
    content = cloud(blocks * 60, real, seed).tobytes()  # a multiple of all
    with pytest.raises(EncodingError, match=f"{told} float32 a point but {real}.*lidar-columns"):
        parse_bin(content, told)
    assert len(parse_bin(content, real)) == blocks * 60


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 5]), st.integers(0, 400), st.integers(0, 2**32 - 1))
def test_what_was_told_is_taken_when_nothing_proves_it_wrong(
    told: int, points: int, seed: int
) -> None:
    """Odd values, as long as no other reading makes more sense."""
    rng = np.random.default_rng(seed)
    stored = rng.normal(0, 30, (points, told)).astype("<f4")
    stored[:, 3] *= 1e6 * np.sign(stored[:, 3])  # else it might be three columns
    assert np.array_equal(parse_bin(stored.tobytes(), told), stored)
    honest = cloud(points, told, seed)
    assert np.array_equal(parse_bin(honest.tobytes(), told), honest)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_three_columns_are_told_from_intensities(blocks: int, seed: int) -> None:
    points = 60 * blocks
    coordinates = np.random.default_rng(seed).uniform(-40, 40, (points, 3)).astype("<f4")
    with pytest.raises(EncodingError, match="does not hold 4 float32 a point but 3"):
        parse_bin(coordinates.tobytes(), 4)
    assert np.array_equal(parse_bin(coordinates.tobytes(), 3), coordinates)
    # Whoever writes -1 for an unknown intensity, or values that are no coordinates, means four.
    for intensities in (
        np.resize([-1, 0, 0.5], points),
        np.resize([-1, -2, -3, -4, -5, -6], points),  # half a dozen codes
        np.linspace(-1e6, 1e6, points),
    ):
        stored = cloud(points, 4, seed)
        stored[:, 3] = intensities
        assert np.array_equal(parse_bin(stored.tobytes(), 4), stored)


@pytest.mark.parametrize("kind", [">f4", "<i4", ">i4", "<i8"])
def test_values_of_another_type_are_no_coordinates(kind: str) -> None:
    stored = (1000 * cloud(240, 4)).astype(kind)
    with pytest.raises(EncodingError, match="no coordinates in metres"):
        parse_bin(stored.tobytes(), 4)


@pytest.mark.parametrize("columns", [3, 4, 5, 6])
def test_a_file_that_makes_sense_in_several_ways_is_taken_as_told(columns: int) -> None:
    for value in (0.0, 5.0):
        stored = np.full((60, columns), value, "<f4")
        assert np.array_equal(parse_bin(stored.tobytes(), columns), stored[:, :5])
    few = cloud(5, 4)  # five points prove nothing
    assert np.array_equal(parse_bin(few.tobytes(), 5), few.reshape(4, 5))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_what_follows_the_intensity_may_be_large(blocks: int, seed: int) -> None:
    stored = cloud(60 * blocks, 5, seed)
    stored[:, 4] = np.arange(len(stored)) * 1e5  # times in nanoseconds
    assert np.array_equal(parse_bin(stored.tobytes(), 5), stored)
    with pytest.raises(EncodingError, match="does not hold 4 float32 a point but 5"):
        parse_bin(stored.tobytes(), 4)


def test_a_size_that_does_not_fit_says_what_would(tmp_path: Path) -> None:
    cloud(7, 5).tofile(tmp_path / "a.bin")
    with pytest.raises(
        EncodingError, match=r"a\.bin: 140 bytes are no multiple of 4.*\(5 would fit"
    ):
        load_lidar(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(bytes(123))
    with pytest.raises(EncodingError, match="none of 4, 5 and 6 would fit"):
        load_lidar(tmp_path / "a.bin")


@pytest.mark.parametrize("columns", [COLUMNS[0] - 1, 0, -4, COLUMNS[-1] + 1])
def test_impossible_columns_are_refused(columns: int) -> None:
    with pytest.raises(EncodingError, match=re.escape(f"{columns} columns")):
        parse_bin(bytes(64), columns)


def test_as_many_columns_as_the_command_line_takes() -> None:
    for columns in (3, 16):
        stored = np.full((4, columns), 2.0, "<f4")
        assert np.array_equal(parse_bin(stored.tobytes(), columns), stored[:, :5])
    with pytest.raises(EncodingError, match="17 columns, expected 3 to 16"):
        parse_bin(bytes(17 * 4), 17)


def test_more_points_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.files.limits.MAX_POINTS", 10)
    assert len(parse_bin(bytes(160), 4)) == 10
    with pytest.raises(InputError, match="11 points"):
        parse_bin(bytes(176), 4)


@pytest.mark.realdata
def test_real_clouds(real_data: Path, tmp_path: Path) -> None:
    nuscenes = real_data / "nuscenes_frame" / "LIDAR_TOP.pcd.bin"
    kitti = real_data / "kitti_object_000008" / "000008.bin"
    got = load_lidar(nuscenes).data
    assert len(got) > 30_000 and np.abs(got[:, :3]).max() < 150
    assert 0 < np.median(got[:, 3]) < 1
    points = load_lidar(kitti).data
    assert len(points) > 15_000 and np.abs(points[:, :3]).max() < 150
    (tmp_path / "other.bin").write_bytes(nuscenes.read_bytes())
    (tmp_path / "other.pcd.bin").write_bytes(kitti.read_bytes()[: len(points) // 5 * 80])
    for name in ("other.bin", "other.pcd.bin"):
        with pytest.raises(EncodingError, match="a point but"):
            load_lidar(tmp_path / name)
