"""Clouds as other programs and drivers write them, right or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters.headerless import parse_bin
from perception.adapters.lzf import decompress_lzf
from perception.adapters.pcd import parse_pcd
from perception.adapters.pointcloud import PointField, decode_pointcloud2
from perception.errors import AnySenseError, EncodingError, InputError
from perception.sensors.lidar.decode import load_lidar

XYZ = [PointField(n, o, 7) for n, o in (("x", 0), ("y", 4), ("z", 8))]


def scan(points: int, seed: int = 0) -> np.ndarray:
    """x, y, z in metres to all sides and intensity in 0..1."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(-40, 40, (points, 3)), rng.random(points)])


def header(fields: str, sizes: str, types: str, counts: str, points: int, **more: str) -> bytes:
    lines = {"FIELDS": fields, "SIZE": sizes, "TYPE": types, "COUNT": counts,
             "WIDTH": str(points), "HEIGHT": "1", "POINTS": str(points), **more}  # fmt: skip
    return "".join(f"{k} {v}\n" for k, v in lines.items()).encode() + b"DATA binary\n"


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([">f4", "<f8", ">f8", "<f2", "<i2", "<i4"]),
    st.sampled_from([3, 4]),
    st.integers(0, 2**32 - 1),
)
def test_values_of_another_type_are_no_coordinates(dtype: str, columns: int, seed: int) -> None:
    table = scan(480, seed)[:, :columns]
    stored = (table * 1000 if "i" in dtype else table).astype(dtype)
    with pytest.raises(EncodingError, match="no coordinates in metres|a point but"):
        parse_bin(stored.tobytes(), 4)


def test_millimetres_are_no_metres() -> None:
    with pytest.raises(EncodingError, match="millimetres"):
        parse_bin((scan(480) * [1000, 1000, 1000, 1]).astype("<f4").tobytes(), 4)


def test_three_columns_are_not_read_as_four(tmp_path: Path) -> None:
    stored = scan(480)[:, :3].astype("<f4")
    stored.tofile(tmp_path / "a.bin")
    with pytest.raises(EncodingError, match="does not hold 4 float32 a point but 3"):
        load_lidar(tmp_path / "a.bin")
    assert np.array_equal(load_lidar(tmp_path / "a.bin", 3).data[:, :3], stored)


@pytest.mark.parametrize("unknown", [-1.0, 0.0])
@pytest.mark.parametrize("no_return", [0.0, np.nan, np.inf, 3.4e38])
def test_what_sensors_write_for_nothing_is_no_nonsense(unknown: float, no_return: float) -> None:
    table = scan(480).astype("<f4")
    table[:, 3] = unknown
    table[100:400, :3] = no_return
    assert np.array_equal(parse_bin(table.tobytes(), 4), table, equal_nan=True)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8"])
def test_files_of_integers_say_no_scale(tmp_path: Path, dtype: str) -> None:
    cloud = np.abs(scan(20) * 10).astype(dtype)
    np.save(tmp_path / "a.npy", cloud)
    np.savez(tmp_path / "a.npz", points=cloud)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(EncodingError, match="scale is not known"):
            load_lidar(tmp_path / name)


def test_a_count_of_zero_takes_no_place() -> None:
    """As PCL writes the points of Ouster's driver."""
    table = np.zeros(9, [("xyz", "<f4", 3), ("_", "u1", 4), ("i", "<f4"), ("__", "u1", 7)])
    table["xyz"], table["i"] = scan(9)[:, :3], 0.5
    content = header("x y z _ intensity noise _", "4 4 4 1 4 2 1", "F F F U F U U",
                     "1 1 1 4 1 0 7", 9) + table.tobytes()  # fmt: skip
    got = parse_pcd(content)
    assert np.array_equal(got[:, :3], table["xyz"]) and (got[:, 3] == 0.5).all()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"FIELDS": "x y z x"}, "several fields x"),
        ({"COUNT": "1 1 0 1"}, "z has COUNT 0"),
        ({"COUNT": "1 2 1 1"}, "y has COUNT 2"),
        ({"WIDTH": "3"}, "9 POINTS, but 3x1"),
        ({"HEIGHT": "2"}, "9 POINTS, but 9x2"),
    ],
)
def test_headers_that_contradict_themselves(changes: dict[str, str], what: str) -> None:
    fields = {"fields": "x y z intensity", "counts": "1 1 1 1"}
    fields |= {k.lower().replace("count", "counts"): v for k, v in changes.items() if k[0] in "FC"}
    more = {k: v for k, v in changes.items() if k[0] in "WH"}
    content = header(sizes="4 4 4 4", types="F F F F", points=9, **fields, **more) + bytes(300)
    with pytest.raises(EncodingError, match=what):
        parse_pcd(content)


def test_a_row_step_of_the_whole_cloud_is_passed_over() -> None:
    """Drivers of stereo cameras forget it when they turn a cloud into rows."""
    cloud = scan(12)[:, :3].astype("<f4")
    got = decode_pointcloud2(
        XYZ, cloud.tobytes(), width=4, height=3, point_step=12, row_step=12 * 12
    )
    assert np.array_equal(got[:, :3], cloud)
    with pytest.raises(InputError, match="has 156 bytes"):  # more than the points: rows may be long
        decode_pointcloud2(
            XYZ, cloud.tobytes() + bytes(12), width=4, height=3, point_step=12, row_step=144
        )


def test_fields_that_are_ambiguous() -> None:
    data = np.ones((2, 6), "<f4").tobytes()
    for fields, what in (
        ([*XYZ, PointField("x", 12, 7)], "several fields x"),
        ([*XYZ, PointField("Z", 12, 7)], "several fields z"),
        ([*XYZ, PointField("i", 12, 7), PointField("I", 16, 7)], "several fields i"),
        ([PointField("x", 0, 7, 3), *XYZ[1:]], "x has 3 values"),
    ):
        with pytest.raises(EncodingError, match=what):
            decode_pointcloud2(fields, data, width=2, height=1, point_step=24)
    twice = [*XYZ, XYZ[0]]  # the same place is no contradiction
    assert decode_pointcloud2(twice, data, width=2, height=1, point_step=24)[:, :3].all()


@pytest.mark.parametrize("name", ["remission", "RSSI"])
def test_other_names_of_intensity(name: str) -> None:
    data = np.array([[1, 2, 3, 51], [4, 5, 6, 255]], "<f4").tobytes()
    fields = [*XYZ, PointField(name, 12, 7)]
    got = decode_pointcloud2(fields, data, width=2, height=1, point_step=16)
    assert np.allclose(got[:, 3], [0.2, 1])


def lzf(content: bytes) -> bytes:
    """A greedy compressor: the longest of the last matches, up to 8 kB back and 264 bytes long."""
    out, literal, position = bytearray(), bytearray(), 0
    seen: dict[bytes, int] = {}

    def flush() -> None:
        for start in range(0, len(literal), 32):
            part = literal[start : start + 32]
            out.append(len(part) - 1)
            out.extend(part)
        literal.clear()

    while position < len(content):
        key = content[position : position + 3]
        start = seen.get(key, -1) if len(key) == 3 else -1
        seen[key] = position
        if start < 0 or position - start > 8192:
            literal.append(content[position])
            position += 1
            continue
        length = 3
        while length < 264 and content[position + length : position + length + 1] == (
            content[start + length : start + length + 1]
        ) and position + length < len(content):  # fmt: skip
            length += 1
        flush()
        back = position - start - 1
        out.append((min(length - 2, 7) << 5) | back >> 8)
        if length - 2 >= 7:
            out.append(length - 9)
        out.append(back & 255)
        position += length
    flush()
    return bytes(out)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 40), st.binary(max_size=40))
def test_compressed_bytes_come_back(start: bytes, times: int, end: bytes) -> None:
    content = start * times + end
    assert decompress_lzf(lzf(content), len(content)) == content
    for size in (len(content) + 1, len(content) - 1):
        with pytest.raises(EncodingError):
            decompress_lzf(lzf(content), size)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3000))
def test_any_bytes_unpack_to_that_size_or_are_damaged(content: bytes, size: int) -> None:
    try:
        assert len(decompress_lzf(content, size)) == size
    except EncodingError as error:
        assert "compressed data" in str(error)


def compressed(table: np.ndarray, **changes: str) -> bytes:
    columns = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names)
    packed = lzf(columns)
    names = " ".join(table.dtype.names)
    sizes = " ".join(str(table.dtype[n].itemsize) for n in table.dtype.names)
    types = " ".join({"f": "F", "u": "U", "i": "I"}[table.dtype[n].kind] for n in table.dtype.names)
    ones = " ".join("1" for _ in table.dtype.names)
    head = header(names, sizes, types, ones, len(table), **changes)
    head = head.replace(b"DATA binary", b"DATA binary_compressed")
    return head + struct.pack("<II", len(packed), len(columns)) + packed


@pytest.mark.parametrize("wide", ["<f4", "<f8"])
def test_compressed_points(wide: str) -> None:
    cloud = scan(700).astype("<f4")
    table = np.zeros(
        700, [("ring", "<u2"), ("z", wide), ("intensity", "<f4"), ("x", wide), ("y", wide)]
    )
    for i, name in enumerate(("x", "y", "z", "intensity")):
        table[name] = cloud[:, i]
    table["ring"] = np.arange(700) % 16
    content = compressed(table)
    assert np.array_equal(parse_pcd(content), cloud)
    assert np.array_equal(parse_pcd(content + b"tail"), cloud)
    organized = compressed(table, WIDTH="35", HEIGHT="20")
    assert np.array_equal(parse_pcd(organized), cloud)
    for end in (-1, -600, len(content) - 8000):
        with pytest.raises(AnySenseError, match="ends early|damaged|before their sizes"):
            parse_pcd(content[:end])


def test_compressed_points_that_contradict_the_header() -> None:
    table = np.ones(9, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    with pytest.raises(EncodingError, match="unpack to 108 bytes"):
        parse_pcd(compressed(table, POINTS="8", WIDTH="8"))
    whole = np.ones(9, [("x", "<i4"), ("y", "<f4"), ("z", "<f4")])
    with pytest.raises(EncodingError, match="x is an integer"):
        parse_pcd(compressed(whole))
    odd = np.ones(9, [("x", "<u8"), ("y", "<f4"), ("z", "<f4")])
    with pytest.raises(EncodingError, match="x has an unknown type"):
        parse_pcd(compressed(odd))
