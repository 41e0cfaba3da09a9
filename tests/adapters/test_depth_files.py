"""Depth and thermal files: units go by dtype, whatever the container, byte order or way in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from perception.data import open_recording
from perception.errors import EncodingError, InputError
from perception.sensors.depth.decode import depth_from_array, load_depth
from perception.sensors.thermal.decode import load_thermal, thermal_from_array

STEPS = np.array([[0, 1, 500], [1234, 40000, 65535]], np.uint16)
METERS = np.where(STEPS > 0, STEPS * 0.00025, np.nan)


def write(path: Path, array: np.ndarray, order: str = "<") -> None:
    if path.suffix == ".npy":
        np.save(path, array.astype(array.dtype.newbyteorder(order)))
    elif path.suffix == ".png":
        assert cv2.imwrite(str(path), array)
    else:
        tifffile.imwrite(path, array, photometric="minisblack", byteorder=order)


FILES = [("a.png", "<"), ("a.npy", "<"), ("a.npy", ">"), ("a.tif", "<"), ("a.TIFF", ">")]


@pytest.mark.parametrize(("name", "order"), FILES)
def test_integers_are_steps_of_the_scale(tmp_path: Path, name: str, order: str) -> None:
    write(tmp_path / name, STEPS, order)
    sample = load_depth(tmp_path / name, 0.00025)
    assert np.allclose(sample.data, METERS, equal_nan=True, rtol=1e-6)
    assert sample.encoding == "16UC1"
    assert np.allclose(load_depth(tmp_path / name).data, METERS * 4, equal_nan=True, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize(("name", "order"), FILES[1:])
def test_floats_are_metres_whatever_the_scale(
    tmp_path: Path, name: str, order: str, dtype: str
) -> None:
    write(tmp_path / name, METERS.astype(dtype), order)
    for scale in (None, 0.00025):
        got = load_depth(tmp_path / name, scale, 0.04).data
        assert np.array_equal(got, METERS.astype(dtype).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("dtype", ["i2", ">i2", "i4", "u4", "u1"])
def test_other_integers_need_a_scale(dtype: str) -> None:
    steps = np.array([[0, 50], [100, 7]]).astype(dtype)
    with pytest.raises(InputError, match="the scale is not known"):
        depth_from_array(steps)
    got = depth_from_array(steps, 0.01)
    assert np.allclose(got, [[np.nan, 0.5], [1.0, 0.07]], equal_nan=True)
    if steps.dtype.kind == "i":
        assert np.isnan(depth_from_array(-steps, 0.01)).all()


@pytest.mark.parametrize(("name", "order"), FILES)
def test_the_folder_format_takes_its_scale_to_every_integer_file(
    tmp_path: Path, name: str, order: str
) -> None:
    (tmp_path / "depth").mkdir()
    info = {"schema": 1, "name": "t", "modalities": ["depth"], "height": 2, "width": 3}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(info | {"depth_scale": 0.00025}))
    (tmp_path / "frames.csv").write_text("id,stamp_ns,tags\na,1,\nb,2,\n")
    write(tmp_path / "depth" / name.lower(), STEPS, order)
    got = open_recording("folder", tmp_path).frame(0)["depth"].data
    assert np.allclose(got, METERS, equal_nan=True, rtol=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_thermal_of_either_byte_order(tmp_path: Path, order: str) -> None:
    counts = np.array([[0, 29815], [30000, 1]], np.uint16)
    for name in ("a.npy", "a.tif"):
        write(tmp_path / name, counts, order)
        sample = load_thermal(tmp_path / name)
        assert (sample.unit, sample.encoding) == ("counts16", "16UC1")
        assert np.array_equal(sample.data, counts)
        kelvin = load_thermal(tmp_path / name, "centikelvin").data
        assert np.allclose(kelvin, [[np.nan, 298.15], [300, 0.01]], equal_nan=True)
        write(tmp_path / name, counts.astype(np.float32) / 100, order)
        assert load_thermal(tmp_path / name).unit == "kelvin"
    assert thermal_from_array(counts.astype(">u2"))[1] == "counts16"


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_thermal_of_int16_needs_a_unit(dtype: str) -> None:
    counts = np.array([[0, 29815], [30000, 1]], dtype)
    with pytest.raises(InputError, match="int16, whose unit is not known"):
        thermal_from_array(counts)
    assert np.array_equal(thermal_from_array(counts, unit="counts16")[0], counts)
    assert thermal_from_array(counts, unit="centikelvin")[0][1, 0] == pytest.approx(300)
    with pytest.raises(InputError, match="negative values cannot be centikelvin"):
        thermal_from_array(-counts, unit="centikelvin")
    with pytest.raises(InputError, match="dtype int32"):
        thermal_from_array(counts.astype(np.int32), unit="counts16")


@pytest.mark.parametrize("shape", [(1, 8, 9), (8, 9, 1), (8, 9, 3), (8,), (0, 4), ()])
@pytest.mark.parametrize("load", [load_depth, load_thermal])
def test_arrays_of_another_shape_are_named_with_it(tmp_path: Path, load, shape) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "a.npy", np.full(shape, 300, np.float32))
    with pytest.raises(EncodingError) as caught:
        load(tmp_path / "a.npy")
    assert f"a.npy: shape {shape}, expected (H, W)" in str(caught.value)
    if 1 in shape:
        assert "data[" in str(caught.value)


def test_depth_in_colors_is_refused(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint16).reshape(3, 4) + 700
    cv2.imwrite(str(tmp_path / "gray.png"), np.dstack([gray] * 3))
    assert np.allclose(load_depth(tmp_path / "gray.png").data, gray * 1e-3)
    cv2.imwrite(str(tmp_path / "color.png"), np.dstack([gray, gray, gray + 1]))
    with pytest.raises(EncodingError, match="color-mapped"):
        load_depth(tmp_path / "color.png")
