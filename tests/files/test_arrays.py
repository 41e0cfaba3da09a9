"""NumPy's files: what the header claims is checked before anything is allocated or unpickled."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.errors import AnySenseError, DataError, EncodingError
from perception.files.arrays import parse_npy, parse_npz, read_npy


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claiming(header: str, version: int = 1, body: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["?", "u1", "<u2", ">u2", ">i4", "<f2", ">f4", "<f8", ">f8"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.booleans(),
)
def test_arrays_come_back_in_native_order(array: np.ndarray, fortran: bool) -> None:
    got = parse_npy(npy(np.asarray(array, order="F" if fortran else "C")) + b"tail")
    assert got.dtype == array.dtype.newbyteorder("=") and got.dtype.isnative
    assert got.shape == array.shape and got.flags.writeable
    assert np.array_equal(got, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no numpy array"),
        (b"\x93NUMPY", "damaged"),
        (
            claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"),
            "limit",
        ),
        (claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (40000,)}"), "ends early"),
        (claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "damaged"),
        (claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"), "damaged"),
        (claiming("{'descr': '<f4', 'fortran_order': False, 'shape': 3}"), "damaged"),
        (
            claiming("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", body=b"cos\n."),
            "object",
        ),
        (claiming("{'descr': '|S99', 'fortran_order': False, 'shape': (1,)}"), "numbers"),
        (claiming("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), "numbers"),
        (claiming("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}"), "numbers"),
        (claiming("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "numbers"),
        (
            claiming("{'descr': ('<f4', (9,)), 'fortran_order': False, 'shape': (1,)}"),
            "numbers|damaged",
        ),
        (claiming("{" * 5000), "damaged"),
        (claiming("(" * 9000 + ")" * 900), "damaged"),
        (claiming("{'shape': (1,)}"), "damaged"),
        (claiming("9" * 9000), "damaged"),
        (
            claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "0," * 70 + ")}"),
            "damaged",
        ),
        (claiming("x" * 100_000, version=2), "damaged"),
        (claiming("", version=3), "version 3"),
        (b"\x93NUMPY\x09\x09" + bytes(90), "version 9"),
    ],
)
def test_hostile_headers_give_one_line(content: bytes, what: str) -> None:
    with pytest.raises(EncodingError, match=what) as caught:
        parse_npy(content, where="a.npy", error=EncodingError)
    assert str(caught.value).startswith("a.npy: ")
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_gives_an_array_or_one_line(data: st.DataObject) -> None:
    content = bytearray(npy(np.arange(6, dtype=">u2").reshape(2, 3)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_npy(bytes(content))
    except AnySenseError as error:
        assert "\n" not in str(error)


def test_only_the_named_arrays_of_an_archive_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, points=np.ones((2, 3), ">f4"), other=np.array([{}], object))
    found = parse_npz(path.read_bytes(), ("points", "absent"), where=str(path))
    assert list(found) == ["points"]
    assert found["points"].dtype == np.float32
    with pytest.raises(DataError, match=r"a\.npz: other: .*object"):
        parse_npz(path.read_bytes(), ("other",), where=str(path))


def test_archives_that_unpack_to_too_much_are_refused() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("points.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(1100):
            member.write(bytes(2**20))
    with pytest.raises(DataError, match="unzips to more"):
        parse_npz(file.getvalue(), ("points",), where="bomb.npz")


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + bytes(60), npy(np.ones(3))])
def test_what_is_no_archive_is_named(content: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.npz: damaged zip"):
        parse_npz(content, ("points",), where="a.npz")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damaged_archive_gives_arrays_or_one_line(data: st.DataObject) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, points=np.arange(60).reshape(3, 20), ä=np.ones(2))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=4), st.just(b"")))
        content[position : position + data.draw(st.sampled_from([len(value), 0, 3]))] = value
    try:
        parse_npz(bytes(content), ("points", "ä"), where="a.npz")
    except AnySenseError as error:
        assert "\n" not in str(error)


def test_sparse_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.npy").open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(DataError, match=r"huge\.npy: 107374182400 bytes, more than the limit"):
        read_npy(tmp_path / "huge.npy")
