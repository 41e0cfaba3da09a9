"""Depth and thermal files whose stored numbers mean something else than they seem to."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.sensors.depth.decode import load_depth
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.samples import file_remarks
from perception.sensors.thermal.decode import load_thermal, thermal_from_array


def png(samples: np.ndarray, bits: int) -> bytes:
    """A gray PNG of 1, 2, 4 or 8 bits."""
    planes = np.unpackbits(samples.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(planes.reshape(len(samples), -1), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    size = struct.pack(">IIBBBBB", samples.shape[1], len(samples), bits, 0, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_depth_steps_are_the_stored_samples(tmp_path: Path, bits: int) -> None:
    steps = np.random.default_rng(bits).integers(0, 2**bits, (9, 13))
    (tmp_path / "a.png").write_bytes(png(steps, bits))
    got = load_depth(tmp_path / "a.png", 0.5).data
    assert np.array_equal(got, np.where(steps > 0, steps * 0.5, np.nan), equal_nan=True)
    gray = load_rgb(tmp_path / "a.png").data[..., 1]  # a picture's samples fill the range
    assert np.array_equal(gray, steps * (255 // (2**bits - 1)))


@pytest.mark.parametrize("nothing", [0.0, -9999.0, -273.15, np.inf])
def test_temperatures_of_nothing_are_no_value(tmp_path: Path, nothing: float) -> None:
    kelvin = np.full((6, 8), 300, np.float32)
    kelvin[2] = nothing
    np.save(tmp_path / "a.npy", kelvin)
    got = load_thermal(tmp_path / "a.npy")
    assert got.unit == "kelvin"
    assert np.isnan(got.data[2]).all() and (np.delete(got.data, 2, 0) == 300).all()


def test_degrees_celsius_are_left_to_be_told() -> None:
    celsius = np.linspace(-20, 30, 12).reshape(3, 4)
    values, _ = thermal_from_array(celsius)
    assert np.array_equal(values, celsius.astype(np.float32))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("most", "told"), [(0, False), (200, True), (4095, True), (4096, False)])
def test_colors_of_fewer_bits_than_stored_are_told(
    tmp_path: Path, suffix: str, most: int, told: bool
) -> None:
    path = tmp_path / f"a{suffix}"
    image = np.full((6, 8, 3), most // 2, np.uint16)
    image[2, 3, 1] = most
    cv2.imwrite(str(path), image)
    found = file_remarks(path, "rgb")
    assert bool(found) == told and all(f"up to {most}: " in text for text in found)
    cv2.imwrite(str(path), np.full((6, 8), most // 2, np.uint16))
    assert file_remarks(path, "thermal") == file_remarks(path, "depth") == []
    cv2.imwrite(str(path), np.full((6, 8, 3), 9, np.uint8))
    assert file_remarks(path, "rgb") == []
