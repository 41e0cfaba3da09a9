"""Nested tables of numbers, compared."""

from __future__ import annotations

import math
from typing import Any

import pytest


def assert_same_numbers(one: Any, other: Any, most: float = 1e-9) -> None:
    """Every number of the first is that of the other, to `most`; None and NaN are one."""
    if isinstance(one, dict):
        for name, value in one.items():
            assert_same_numbers(value, other[name], most)
    elif one is None or (isinstance(one, float) and math.isnan(one)):
        assert other is None or math.isnan(other)
    else:
        assert other == pytest.approx(one, abs=most)
