"""Samples of bare arrays: every kind and encoding, and what is no array of them."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import perception
from perception import sample_of
from perception.adapters.image import RGB_DECODERS, RawImage, decode_colors
from perception.errors import AnySenseError, EncodingError, InputError
from perception.frame import KINDS, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

RNG = np.random.default_rng(0)
BGR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
PLANES = ("nv12", "nv21", "nv24")  # whose rows are not those of the picture


def _said(kind: str, array: Any, *arguments: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        sample_of(kind, array, *arguments, sensor="nose", **options)
    line = str(caught.value)
    assert line.startswith("nose: ") and "\n" not in line and len(line) < 500, line
    return line


def test_it_is_public_and_keeps_what_it_is_told() -> None:
    camera, pose = CameraModel(8, 6, 5, 5, 4, 3), RigidTransform.identity()
    found = perception.sample_of(
        "rgb", BGR, "bgr8", stamp_ns=7, sensor="cam_left", frame_id="optical", camera=camera,
        extrinsics=pose,
    )  # fmt: skip
    assert (found.kind, found.sensor, found.stamp_ns) == ("rgb", "cam_left", 7)
    assert (found.frame_id, found.encoding, found.unit) == ("optical", "bgr8", "")
    assert found.camera is camera and found.extrinsics is pose
    plain = sample_of("rgb", BGR)
    assert (plain.sensor, plain.stamp_ns, plain.encoding) == ("rgb", None, "rgb8")
    assert np.array_equal(plain.data, BGR)


def _arrays(channels: int, dtype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    sides = st.integers(1, 12), st.integers(1, 12)
    return st.tuples(*sides).flatmap(lambda s: npst.arrays(dtype, (*s, channels)))


@given(array=_arrays(3, "u1"))
def test_bgr_is_rgb_the_other_way_round(array: np.ndarray[Any, Any]) -> None:
    one, other = sample_of("rgb", array, "bgr8"), sample_of("rgb", array[..., ::-1], "rgb8")
    assert np.array_equal(one.data, other.data) and np.array_equal(one.data, array[..., ::-1])
    assert one.data.dtype == np.uint8 and one.data.shape == array.shape


@given(array=_arrays(4, "u1"))
def test_alpha_is_left_out(array: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(sample_of("rgb", array, "rgba8").data, array[..., :3])
    assert np.array_equal(sample_of("rgb", array, "bgra8").data, array[..., 2::-1])


@pytest.mark.parametrize("encoding", [e for e in RGB_DECODERS if e not in PLANES])
def test_an_array_is_what_the_message_of_its_bytes_is(encoding: str) -> None:
    dtype = np.uint16 if "16" in encoding else np.uint8
    tried = []
    for channels in (1, 2, 3, 4):
        array = RNG.integers(0, np.iinfo(dtype).max, (6, 8, channels)[: 2 + (channels > 1)], dtype)
        try:
            found = sample_of("rgb", array, encoding)
        except InputError:
            assert f"is not {encoding}" in _said("rgb", array, encoding)
            continue
        tried.append(channels)
        assert np.array_equal(found.data, decode_colors(RawImage(6, 8, encoding, array.tobytes())))
        for other in (array.astype(array.dtype.newbyteorder(">")), np.asfortranarray(array)):
            assert np.array_equal(sample_of("rgb", other, encoding).data, found.data)
        wrong = array.astype(np.uint16 if dtype is np.uint8 else np.uint8)
        assert f"is not {encoding}" in _said("rgb", wrong, encoding)
    assert len(tried) == 1  # no encoding fits arrays of several layouts


def test_gray_and_bayer() -> None:
    gray = sample_of("rgb", BGR[..., 0], "mono8").data
    assert (gray == BGR[..., :1]).all() and gray.shape == (6, 8, 3)
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 200  # red alone in an RGGB pattern
    found = sample_of("rgb", mosaic, "bayer_rggb8").data[3, 3]
    assert found.tolist() == [200, 0, 0]


@given(array=npst.arrays("u2", (5, 7)))
def test_depth_counts_millimetres_and_nothing_is_nan(array: np.ndarray[Any, Any]) -> None:
    for encoding in ("", "16UC1", "mono16"):
        found = sample_of("depth", array, encoding)
        assert found.data.dtype == np.float32 and found.unit == ""
        assert np.array_equal(np.isnan(found.data), array == 0)
        there = array > 0
        assert np.allclose(found.data[there], array[there] / 1000, rtol=1e-6)


def test_depth_in_metres_is_taken_as_it_is() -> None:
    meters = np.array([[1.5, np.nan, np.inf, -np.inf]], np.float32)
    for encoding in ("", "32FC1"):
        assert np.array_equal(sample_of("depth", meters, encoding).data, meters, equal_nan=True)
    assert sample_of("depth", meters.astype(np.float64)).data.dtype == np.float32


def test_thermal_has_the_unit_of_its_dtype_unless_said() -> None:
    for dtype, unit in ((np.uint8, "counts8"), (np.uint16, "counts16"), (np.float32, "kelvin")):
        array = np.full((3, 4), 200, dtype)
        found = sample_of("thermal", array)
        assert (found.unit, found.data.dtype) == (unit, np.float32)
        assert np.array_equal(found.data, np.full((3, 4), 200, np.float32))
    centi = sample_of("thermal", np.full((3, 4), 29315, np.uint16), "mono16", unit="centikelvin")
    assert centi.unit == "kelvin" and centi.data == pytest.approx(293.15)


def test_clouds_are_four_columns_with_intensity_as_a_share() -> None:
    cloud = np.array([[1, 2, 3, 255], [4, 5, 6, 0], [0, 0, 0, 9]], np.float64)
    found = sample_of("lidar", cloud)
    assert found.encoding == "xyzi" and found.data.dtype == np.float32
    assert found.data.tolist() == [[1, 2, 3, 1], [4, 5, 6, 0]]  # (0, 0, 0) is no return
    assert sample_of("lidar", cloud[:, :3]).data[:, 3].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("rgb", BGR),
        ("depth", WIDE),
        ("depth", WIDE.astype(np.float32)),
        ("thermal", WIDE),
        ("thermal", WIDE.astype(np.float32) + 1),
        ("lidar", WIDE[:, :4].astype(np.float32)),
    ],
)
def test_layout_and_byte_order_mean_nothing(kind: str, array: np.ndarray[Any, Any]) -> None:
    spread = np.zeros([2 * s for s in array.shape], array.dtype)
    spread[tuple(slice(None, None, 2) for _ in array.shape)] = array
    fixed = array.copy()
    fixed.flags.writeable = False
    views = [
        np.asfortranarray(array),
        array[::-1].copy()[::-1],
        spread[tuple(slice(None, None, 2) for _ in array.shape)],
        fixed,
        array.astype(array.dtype.newbyteorder(">")),
        array.astype(array.dtype.newbyteorder("<")),
    ]
    wanted, before = sample_of(kind, array).data, array.copy()
    for view in views:
        found = sample_of(kind, view).data
        assert np.array_equal(found, wanted, equal_nan=kind != "rgb")
        assert found.dtype == wanted.dtype and found.dtype.isnative
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    ("kind", "array", "options", "message"),
    [
        ("rgb", BGR[..., 0], {}, r"uint8 \(6, 8\) is not rgb8 \(\(H, W, 3\) uint8\)"),
        ("rgb", BGR, {"encoding": "bgra8"}, "is not bgra8"),
        ("rgb", BGR, {"encoding": "bayer_rggb8"}, r"is not bayer_rggb8 \(\(H, W\) uint8\)"),
        ("rgb", BGR, {"encoding": "yuv422"}, r"is not yuv422 \(\(H, W, 2\) uint8\)"),
        ("rgb", BGR, {"encoding": "rgb16"}, r"is not rgb16 \(\(H, W, 3\) uint16\)"),
        ("rgb", BGR, {"encoding": "hsv"}, "unknown color encoding 'hsv'"),
        ("rgb", BGR, {"unit": "kelvin"}, "rgb has no unit, got 'kelvin'"),
        ("rgb", BGR.astype(np.float32), {}, r"float32 \(6, 8, 3\) is not rgb8"),
        ("rgb", BGR[None], {}, r"shape \(1, 6, 8, 3\) is no picture .*data\[0\]"),
        ("rgb", BGR[:0], {}, r"shape \(0, 8, 3\) is no picture .*empty"),
        ("rgb", BGR.tolist(), {}, "data is a list, expected a numpy array"),
        ("rgb", np.ma.array(BGR, mask=BGR > 9), {}, "masked array"),
        ("depth", WIDE[..., None], {}, r"shape \(6, 8, 1\), expected \(H, W\)"),
        ("depth", WIDE, {"encoding": "32FC1"}, "32FC1 is float32, the array is uint16"),
        ("depth", WIDE, {"encoding": "mono8"}, "unknown encoding 'mono8' .*16UC1"),
        ("depth", WIDE, {"unit": "m"}, "depth has no unit"),
        ("depth", WIDE.astype(np.int64), {}, "int64"),
        ("depth", np.ma.array(WIDE, mask=WIDE > 9), {}, "masked array"),
        ("thermal", BGR, {}, r"shape \(6, 8, 3\), expected \(H, W\)"),
        ("thermal", WIDE, {"unit": "celsius"}, "unknown unit 'celsius'"),
        ("thermal", WIDE, {"unit": "kelvin"}, "uint16 values cannot be kelvin"),
        ("thermal", WIDE.astype(np.int16), {}, "int16"),
        ("thermal", WIDE, {"encoding": "mono8"}, "mono8 is uint8, the array is uint16"),
        ("lidar", WIDE[:, :2].astype(float), {}, r"shape \(6, 2\), expected \(N, 3\)"),
        ("lidar", np.zeros((3, 4), complex), {}, "dtype complex128"),
        ("lidar", np.zeros(3, [("x", "f4")]), {}, "shape"),
        ("lidar", WIDE[:, :4].astype(float), {"encoding": "bgr8"}, "unknown encoding 'bgr8'"),
        ("lidar", np.ma.array(np.ones((2, 4)), mask=np.eye(2, 4)), {}, "masked array"),
    ],
)
def test_what_is_no_array_of_these_is_said_by_the_sensors_name(
    kind: str, array: Any, options: dict[str, str], message: str
) -> None:
    options = dict(options)
    assert re.search(message, _said(kind, array, options.pop("encoding", ""), **options))


@pytest.mark.parametrize("sensor", ["t", "the", "d", "depth2", "rgb8", "r"])
def test_the_line_begins_with_the_sensor_and_no_longer_name(sensor: str) -> None:
    for kind, array in (("thermal", BGR), ("depth", BGR), ("rgb", WIDE), ("lidar", WIDE)):
        with pytest.raises(InputError) as caught:
            sample_of(kind, array, sensor=sensor)
        assert str(caught.value).startswith(f"{sensor}: ")


def test_unknown_kinds_and_stamps_that_are_none() -> None:
    with pytest.raises(InputError, match="unknown kind of sensor 'sonar' .*rgb, depth"):
        sample_of("sonar", BGR)
    with pytest.raises(InputError, match=r"nose: stamp_ns .*round\(seconds \* 1e9\)"):
        sample_of("rgb", BGR, sensor="nose", stamp_ns=1.5)  # type: ignore[arg-type]
    assert issubclass(EncodingError, AnySenseError)


_DTYPES = st.one_of(
    npst.scalar_dtypes(),
    st.sampled_from([np.dtype(t) for t in ("u1", "u2", ">u2", "f4", ">f4", "f8", "i2", "O", "S3")]),
    st.just(np.dtype([("x", "f4"), ("y", "f4")])),
)
_KNOWN = [*RGB_DECODERS, "", "16UC1", "32FC1", "xyzi", "hsv", "RGB8", "é"]


@given(
    kind=st.sampled_from(KINDS),
    array=_DTYPES.flatmap(
        lambda d: npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9).map(
            lambda s: np.zeros(s, d) if d.kind in "OSUMmV" else RNG.integers(0, 2, s).astype(d)
        )
    ),
    encoding=st.sampled_from(_KNOWN),
    unit=st.sampled_from(["", "", "kelvin", "counts8", "auto", "centikelvin", "x"]),
)
@settings(max_examples=600)
def test_any_array_is_a_sound_sample_or_refused_in_one_line(
    kind: str, array: np.ndarray[Any, Any], encoding: str, unit: str
) -> None:
    try:
        found = sample_of(kind, array, encoding, unit=unit, sensor="nose")
    except InputError as error:
        assert str(error).startswith("nose: ") and "\n" not in str(error)
        return
    assert isinstance(found, Sample) and found.sensor == "nose"
    wanted = {"rgb": (3, np.uint8), "lidar": (2, np.float32)}.get(kind, (2, np.float32))
    assert (found.data.ndim, found.data.dtype) == wanted
    assert found.unit in (("counts8", "counts16", "kelvin") if kind == "thermal" else ("",))


def test_an_opencv_picture_is_what_it_looks_like() -> None:
    _, png = cv2.imencode(".png", BGR)
    read = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert np.array_equal(sample_of("rgb", read, "bgr8").data, BGR[..., ::-1])
