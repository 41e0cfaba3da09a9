"""Point cloud layouts and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters import PointField, decode_pointcloud2, points_from_array
from perception.adapters.pointcloud import DATATYPES
from perception.errors import AnySenseError, DataError, EncodingError, InputError
from perception.sensors.depth.decode import load_depth
from perception.sensors.lidar.decode import load_lidar
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.thermal.decode import load_thermal

FLOATS = {7: "f4", 8: "f8"}


@settings(max_examples=80, deadline=None)
@given(
    order=st.permutations(["x", "y", "z", "intensity", "ring"]),
    gaps=st.lists(st.integers(0, 9), min_size=6, max_size=6),
    kind=st.sampled_from(sorted(FLOATS)),
    intensity=st.sampled_from([2, 4, 7]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 3)),
    row_padding=st.integers(0, 11),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_field_layout_gives_the_same_points(
    order: list[str],
    gaps: list[int],
    kind: int,
    intensity: int,
    size: tuple[int, int],
    row_padding: int,
    big: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    width, height = size
    codes = {"x": kind, "y": kind, "z": kind, "intensity": intensity, "ring": 4}
    offsets, position = {}, 0
    for name, gap in zip(order, gaps, strict=False):
        position += gap
        offsets[name] = position
        position += np.dtype(DATATYPES[codes[name]]).itemsize
    step = position + gaps[-1]
    mark = ">" if big else "<"
    dtype = np.dtype(
        {
            "names": order,
            "formats": [mark + DATATYPES[codes[n]] for n in order],
            "offsets": [offsets[n] for n in order],
            "itemsize": step,
        }
    )
    table = np.zeros((height, width), dtype)
    for name in "xyz":
        table[name] = rng.normal(0, 20, (height, width))
    table["x"][0, 0] = np.nan
    top = {2: 255, 4: 65535, 7: 1.0}[intensity]
    table["intensity"] = rng.uniform(0, top, (height, width))
    rows = np.zeros((height, width * step + row_padding), np.uint8)
    rows[:, : width * step] = table.view(np.uint8).reshape(height, -1)
    fields = [PointField(n, offsets[n], codes[n]) for n in order]
    got = decode_pointcloud2(
        fields,
        rows.tobytes(),
        width=width,
        height=height,
        point_step=step,
        row_step=rows.shape[1],
        is_bigendian=big,
    )
    wanted = np.stack([table[n].astype(np.float32).ravel() for n in "xyz"], axis=1)[1:]
    assert np.allclose(got[:, :3], wanted, rtol=1e-6)
    assert np.allclose(
        got[:, 3], table["intensity"].ravel()[1:].astype(np.float64) / top, atol=1e-5
    )


@given(
    st.lists(
        st.builds(
            PointField,
            st.sampled_from(["x", "y", "z", "q"]),
            st.integers(-4, 30),
            st.integers(0, 9),
        ),
        max_size=5,
    ),
    st.binary(max_size=200),
    *[st.one_of(st.integers(-2, 20), st.sampled_from([2**24, 2**31, 2**32 - 1]))] * 4,
)
def test_any_cloud_message_decodes_or_gives_a_typed_error(
    fields: list[PointField], data: bytes, width: int, height: int, point_step: int, row_step: int
) -> None:
    try:
        decode_pointcloud2(
            fields,
            data,
            width=width,
            height=height,
            point_step=point_step,
            row_step=max(0, row_step),
        )
    except AnySenseError as error:
        assert "\n" not in str(error)


def test_arrays_of_three_to_five_columns() -> None:
    cloud = np.array([[1, 2, 3, 0.5, 7], [np.nan, 0, 0, 0, 0], [4, 5, 6, 1.0, 8]])
    assert points_from_array(cloud).tolist() == [[1, 2, 3, 0.5], [4, 5, 6, 1.0]]
    assert points_from_array(cloud[:, :3])[:, 3].tolist() == [0, 0]
    assert points_from_array(cloud * [1, 1, 1, 255, 1])[0, 3] == pytest.approx(0.5)


@pytest.mark.parametrize("form", ["ascii", "binary"])
def test_pcd_files(tmp_path: Path, form: str) -> None:
    cloud = np.array([[1, 2, 3, 0.25], [4, 5, 6, 0.75]], np.float32)
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        f"WIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA {form}\n"
    ).encode()
    body = cloud.tobytes()
    if form == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in cloud.tolist()).encode()
    (tmp_path / "a.pcd").write_bytes(header + body)
    assert np.allclose(load_lidar(tmp_path / "a.pcd").data, cloud)


def test_cloud_files_agree(tmp_path: Path) -> None:
    cloud = np.random.default_rng(0).uniform(0, 1, (20, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", cloud)
    np.savez(tmp_path / "b.npz", points=cloud)
    cloud.tofile(tmp_path / "c.bin")
    for name in ("a.npy", "b.npz", "c.bin"):
        assert np.allclose(load_lidar(tmp_path / name).data, cloud)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".bin", ".pcd", ".xyz"])
@pytest.mark.parametrize("content", [b"", b"garbage\n" * 9, b"DATA binary\n"])
def test_damaged_cloud_files_are_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    try:
        assert len(load_lidar(path).data) in (0, 4)  # an empty .bin is an empty cloud
        assert suffix == ".bin"
    except EncodingError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("load", [load_rgb, load_depth, load_thermal, load_lidar])
def test_missing_and_wrong_files_are_named(tmp_path: Path, load) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="nothing"):
        load(tmp_path / "nothing.npz")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(EncodingError, match=r"text\.png"):
        load(tmp_path / "text.png")


XYZ = [PointField(n, 4 * i, 7) for i, n in enumerate("xyz")]


def _decode(table: np.ndarray, fields: list[PointField], **changes: int) -> np.ndarray:
    options = {"width": len(table), "height": 1, "point_step": table.dtype.itemsize} | changes
    return decode_pointcloud2(fields, table.tobytes(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "stored", "want"),
    [
        (2, [0, 51, 255], [0, 0.2, 1]),  # uint8 of 255
        (1, [0, 127, -5], [0, 1, 0]),  # int8 of 127
        (4, [0, 13107, 65535], [0, 0.2, 1]),  # uint16 of 65535
        (3, [0, 32767, -3], [0, 1, 0]),  # int16 of 32767
        (6, [0, 51, 255], [0, 0.2, 1]),  # wider integers as floats
        (5, [0, 1, 0], [0, 1, 0]),
        (7, [0, 0.25, 1.0], [0, 0.25, 1]),  # floats up to 1 are as they are
        (7, [0, 51, 255], [0, 0.2, 1]),  # and beyond, of 255
        (7, [0, 1.01, 0.5], [0, 1.01 / 255, 0.5 / 255]),
        (8, [0, 13107, -1], [0, 0.2, 0]),  # beyond that, of 65535, as Ouster's
        (6, [0, 256, 70000], [0, 256 / 65535, 1]),
        (7, [np.nan, np.inf, 0.5], [0, 0, 0.5]),
    ],
)
@pytest.mark.parametrize("name", ["intensity", "reflectivity", "signal", "i", "Intensity"])
def test_intensity_is_scaled_by_its_type(
    name: str, code: int, stored: list[float], want: list[float]
) -> None:
    table = np.zeros(3, np.dtype([("xyz", "<f4", 3), ("i", "<" + DATATYPES[code])]))
    table["xyz"] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    table["i"] = stored
    got = _decode(table, [*XYZ, PointField(name, 12, code)])
    assert got[:, :3].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert np.allclose(got[:, 3], want, atol=1e-6)


def test_without_intensity_it_is_zero_and_of_several_the_first_known_counts() -> None:
    table = np.zeros(1, np.dtype([("xyz", "<f4", 3), ("a", "u1"), ("b", "u1")]))
    table["xyz"], table["a"], table["b"] = [1, 2, 3], 51, 102
    assert _decode(table, XYZ).tolist() == [[1, 2, 3, 0]]
    both = [*XYZ, PointField("reflectivity", 12, 2), PointField("intensity", 13, 2)]
    assert _decode(table, both)[0, 3] == np.float32(0.4)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"width": -1}, "-1x1"),
        ({"height": -1}, "2x-1"),
        ({"width": -1, "height": -1}, "-1x-1"),
        ({"point_step": -12}, "step -12"),
        ({"point_step": 0}, "0 bytes has 24"),
        ({"row_step": 23}, "2x1 points with step 12"),
        ({"width": 3}, "3x1 points of 12 bytes has 24"),
        ({"height": 2}, "2x2 points of 12 bytes has 24"),
        ({"height": 2, "row_step": 2**31}, "has 24 bytes"),
        ({"width": 2**31, "height": 2**31}, "outside 0"),
    ],
)
def test_sizes_that_contradict_the_bytes_are_refused(changes: dict[str, int], what: str) -> None:
    table = np.ones((2, 3), "<f4").view(np.dtype([("xyz", "<f4", 3)])).reshape(2)
    with pytest.raises(InputError, match=what):
        _decode(table, XYZ, **changes)


def test_sizes_that_just_fit_are_taken() -> None:
    table = (
        np.arange(1, 13, dtype="<f4").reshape(4, 3).view(np.dtype([("xyz", "<f4", 3)])).reshape(4)
    )
    whole = _decode(table, XYZ)
    assert np.array_equal(_decode(table, XYZ, width=2, height=2), whole)
    assert np.array_equal(_decode(table, XYZ, width=2, height=2, row_step=24), whole)
    assert np.array_equal(_decode(table, XYZ, width=1, height=2, row_step=36), whole[[0, 3]])
    for empty in ({"width": 0}, {"height": 0, "width": 9}):
        assert _decode(table, XYZ, **empty).shape == (0, 4)
    assert decode_pointcloud2([], b"", width=0, height=0, point_step=0).shape == (0, 4)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ([*XYZ[:2]], "no field z"),
        ([PointField("x", 0, 5), *XYZ[1:]], "x is an integer"),
        ([PointField("x", 0, 9), *XYZ[1:]], "x has unknown datatype 9"),
        ([PointField("x", 0, 0), *XYZ[1:]], "x has unknown datatype 0"),
        ([PointField("x", -1, 7), *XYZ[1:]], "x lies outside"),
        ([PointField("x", 9, 7), *XYZ[1:]], "x lies outside"),
        ([PointField("x", 5, 8), *XYZ[1:]], "x lies outside"),
        ([*XYZ, PointField("intensity", 12, 2)], "intensity lies outside"),
    ],
)
def test_wrong_fields_are_named(fields: list[PointField], what: str) -> None:
    table = np.ones((2, 3), "<f4").view(np.dtype([("xyz", "<f4", 3)])).reshape(2)
    with pytest.raises(EncodingError, match=what):
        _decode(table, fields)


def test_fields_may_fill_the_point_to_its_last_byte() -> None:
    table = np.zeros(1, np.dtype([("x", "<f8"), ("y", "<f8"), ("z", "<f8")]))
    table["x"], table["y"], table["z"] = 1, 2, 3
    fields = [PointField(n, o, 8) for n, o in (("X", 0), ("Y", 8), ("Z", 16))]
    assert _decode(table, fields).tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 6), (1, 4, 3)])
def test_arrays_of_another_shape_are_no_cloud(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(N, 3\), \(N, 4\) or \(N, 5\)"):
        points_from_array(np.ones(shape))


@pytest.mark.parametrize("dtype", [np.complex64, bool, "S4", object])
def test_arrays_of_no_numbers_are_no_cloud(dtype: object) -> None:
    with pytest.raises(InputError, match="expected numbers"):
        points_from_array(np.ones((4, 3)).astype(dtype))  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "i4", "f2"])
def test_arrays_of_any_numbers_are_a_cloud(dtype: str) -> None:
    cloud = np.array([[1, 2, 3, 0.5], [4, 5, 6, 1]]).astype(dtype)
    got = points_from_array(cloud)
    assert got.dtype == np.float32 and got.dtype.isnative
    assert got[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
