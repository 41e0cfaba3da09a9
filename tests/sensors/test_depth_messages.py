"""Depth of messages: floats that are metres already are not copied, the others become what they mean."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perception.adapters.image import RawImage
from perception.sensors.depth.decode import decode_depth

VALUES = st.sampled_from([0.5, 3.0, 80.0, np.nan, np.inf, -np.inf, 0.0, -0.0, -2.0])


@given(st.lists(VALUES, min_size=1, max_size=12))
def test_floats_that_are_no_metres_become_nan(values: list[float]) -> None:
    sent = np.array(values, np.float32)
    before = sent.tobytes()
    got = decode_depth(RawImage(1, len(values), "32FC1", sent.view(np.uint8)))
    want = [np.nan if -np.inf < v <= 0 else v for v in values]
    np.testing.assert_array_equal(got[0], np.array(want, np.float32))
    assert sent.tobytes() == before


def test_metres_are_a_view_of_the_message() -> None:
    sent = np.array([0.5, np.nan, 3.0, np.inf], np.float32)
    got = decode_depth(RawImage(2, 2, "32FC1", sent.view(np.uint8)))
    assert np.shares_memory(got, sent)
