"""A frame with every kind of sensor that comes along."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.data import open_recording
from perception.frame import Frame


@pytest.fixture(scope="session")
def frame(simulated: Path) -> Frame:
    """A simulated street."""
    return open_recording("folder", simulated).frame(0)
