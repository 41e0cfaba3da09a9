"""Clouds of messages and arrays are those of the slow definition to the last bit, in whatever layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters.pointcloud import (
    DATATYPES,
    PointField,
    decode_pointcloud2,
    points_from_array,
)
from perception.frame import scale_intensity
from perception.geometry import scratch
from tests.slow_lidar import points_slowly, scale_intensity_slowly

CODES = {name: code for code, name in DATATYPES.items()}
OFFSETS = {
    "side by side": (0, 4, 8, 12, 16),
    "velodyne": (0, 4, 8, 12, 22),
    "padded": (0, 4, 8, 16, 32),
    "unaligned": (1, 5, 9, 13, 19),
    "turned": (8, 4, 0, 12, 16),
    "apart": (0, 8, 16, 24, 40),
}
"""Of x, y, z and intensity, and the step from point to point."""

INTENSITIES: dict[str, Any] = {
    "f4": (0.0, 0.5, 1.0, -0.0),
    "f4 ": (0.0, 0.3, 1.2, 200.0),
    "f4  ": (-3.0, 0.3, 70000.0, 900.0),
    "f4   ": (np.nan, np.inf, 0.25, -np.inf),
    "f8": (1e300, 0.5, 3.0, np.nan),
    "u1": (0, 3, 200, 255),
    "i1": (-128, 3, 100, 127),
    "u2": (0, 3, 40000, 65535),
    "u4": (0, 1, 300, 2**32 - 1),
    "i4": (-5, 0, 1, 1),
}


def _columns(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    cloud = rng.uniform(-9, 9, (count, 3)).astype(np.float32)
    share = rng.choice([0, 0.1, 0.9])
    cloud[rng.random(count) < share] = rng.choice([0, np.nan, np.inf, 0.004, 1e30])
    return list(cloud.T)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 9, 100, 777]),
    st.sampled_from(sorted(OFFSETS)),
    st.sampled_from([None, *INTENSITIES]),
    st.booleans(),
    st.sampled_from([0.01, 0.0, 2.5]),
    st.sampled_from([8, 64, 2**15]),
)
def test_a_message_is_decoded_as_defined(
    seed: int,
    count: int,
    layout: str,
    intensity: str | None,
    big: bool,
    least_range_m: float,
    block: int,
) -> None:
    rng = np.random.default_rng(seed)
    table = _columns(rng, count)
    kinds = ["f4", "f4", "f4"]
    if intensity is not None:
        kinds.append(intensity.strip())
        table.append(rng.choice(np.array(INTENSITIES[intensity], kinds[3]), count))
    *offsets, step = OFFSETS[layout]
    raw = np.zeros(count * (step + 4), np.uint8)
    order = ">" if big else "<"
    form = {
        "names": ["x", "y", "z", "intensity"][: len(kinds)],
        "formats": [order + kind for kind in kinds],
        "offsets": offsets[: len(kinds)],
        "itemsize": step + 4,
    }
    points = raw.view(np.dtype(form))
    with np.errstate(all="ignore"):
        for name, values in zip(form["names"], table, strict=True):
            points[name] = values
        fields = [
            PointField(n, o, CODES[k])
            for n, o, k in zip(form["names"], form["offsets"], kinds, strict=True)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scratch, "BLOCK", block)
            got = decode_pointcloud2(
                fields,
                raw.tobytes(),
                width=count,
                height=1,
                point_step=step + 4,
                is_bigendian=big,
                least_range_m=least_range_m,
            )
        want = points_slowly(table, least_range_m)
    assert got.dtype == np.float32 and got.flags.c_contiguous and got.shape == want.shape
    assert got.tobytes() == want.tobytes()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 5, 300]),
    st.integers(3, 5),
    st.sampled_from(["<f4", ">f4", "f8", "f2", "i4", "u1", "i2"]),
    st.sampled_from("CF"),
)
def test_an_array_is_taken_as_defined(
    seed: int, count: int, columns: int, dtype: str, order: Any
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.uniform(-9, 90, (count, columns)).round(1).astype(dtype, order=order)
    want = points_slowly([array[:, i] for i in range(min(4, columns))], 0.01)
    before = array.tobytes()
    assert points_from_array(array).tobytes() == want.tobytes()
    assert array.tobytes() == before


@pytest.mark.parametrize("more", [-1, 0, 1, 50_000])
def test_clouds_of_several_blocks_are_no_different(more: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.uniform(-9, 9, (scratch.BLOCK + more, 4)).astype(np.float32)
    array[::7, :3] = 0
    array[-1, 3] = 300.0  # what one says, goes for all
    want = points_slowly(list(array.T), 0.01)
    assert points_from_array(array).tobytes() == want.tobytes()


@given(st.sampled_from(sorted(INTENSITIES)), st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_intensities_are_scaled_as_defined(name: str, seed: int, count: int) -> None:
    values = np.random.default_rng(seed).choice(np.array(INTENSITIES[name], name.strip()), count)
    with np.errstate(all="ignore"):
        want = scale_intensity_slowly(values)
    assert scale_intensity(values).tobytes() == want.tobytes()
