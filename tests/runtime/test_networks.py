"""What a fuser is fed: features, what stands for absent sensors, and who is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perception.frame import Sample
from perception.runtime.pipeline import Pipeline


@pytest.mark.parametrize("open_sizes", [(0,), (2, 3), (0, 2, 3)])
def test_a_fuser_that_leaves_sizes_open_does_without_absent_sensors(
    small: Any, rgb: Sample, open_sizes: tuple[int, ...]
) -> None:
    """Zeros stand for them, of any size that goes with the others'."""
    graph = small.fuser(("rgb", "depth"))
    (absent,) = (i for i in graph.graph.input if i.name == "depth_f")
    for place in open_sizes:
        absent.type.tensor_type.shape.dim[place].dim_param = f"n{place}"
    both = ("rgb", "depth")
    fixed = Pipeline.load(small(both), "cpu", threads=1)({"rgb": rgb})
    path = small(both, graphs={"fuser.onnx": graph}, name="open")
    found = Pipeline.load(path, "cpu", threads=1)({"rgb": rgb})
    assert found.used == fixed.used == ("rgb",)
    assert np.array_equal(found.labels, fixed.labels)
    assert np.array_equal(found.confidence, fixed.confidence)
