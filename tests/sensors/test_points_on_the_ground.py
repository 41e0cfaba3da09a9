"""What points on the ground grid become where somebody has changed them on the way, and where nobody has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ground_bundles import SURROUND, cloud, surround_rig

from perception.frame import Sample
from perception.geometry.grid import BirdseyeSpec, ViewSpec
from perception.preprocess.contract import InputSpec
from perception.preprocess.sample import empty_tensors, on_grid, preprocess_sample
from perception.sensors.ground import Fallen
from perception.sensors.kind import Grid

GROUND = BirdseyeSpec(x=(-12.8, 12.8), y=(-12.8, 12.8))


@pytest.fixture
def spec() -> InputSpec:
    view = ViewSpec(height=64, width=64, type="birdseye", birdseye=GROUND)
    return InputSpec(kind="lidar", view=view)


@pytest.fixture
def sample() -> Sample:
    assert SURROUND["roof"][0] == "lidar"
    found = surround_rig().attach(cloud((5.0, 3.0), (-4.2, -6.6), (1.0, 9.0)))
    rng = np.random.default_rng(0)
    more = rng.uniform((-14, -14, -1, 0), (14, 14, 3, 1), (3000, 4)).astype(np.float32)
    return replace(found, data=np.concatenate([found.data[:, :4], more]))


def filled(grid: Grid, spec: InputSpec) -> list[bytes]:
    out = {name: array[0] for name, array in empty_tensors(spec).items()}
    spec.sensor.normalize(grid, spec, out)
    return [array.tobytes() for array in out.values()]


def test_the_cells_that_are_known_give_what_the_points_give(
    spec: InputSpec, sample: Sample
) -> None:
    grid = on_grid(sample, spec)
    assert isinstance(grid.layers, Fallen) and not grid.layers.read
    straight = filled(grid, spec)
    assert not grid.layers.read
    assert straight == [a.tobytes() for a in preprocess_sample(sample, spec).values()]
    assert straight == filled(Grid(dict(grid.layers)), spec)


def test_points_that_were_changed_in_place_fall_where_they_are(
    spec: InputSpec, sample: Sample
) -> None:
    grid = on_grid(sample, spec)
    before = filled(grid, spec)
    grid.layers["points"][:, 0] -= 3.0
    after = filled(grid, spec)
    assert after != before
    assert after == filled(Grid({"points": grid.layers["points"].copy()}), spec)


def test_there_is_no_other_layer(spec: InputSpec, sample: Sample) -> None:
    layers = on_grid(sample, spec).layers
    assert list(layers) == ["points"] and len(layers) == 1
    with pytest.raises(KeyError):
        layers["cells"]
