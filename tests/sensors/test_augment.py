"""Random corruption in training is what it was before faults had a home of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.geometry.transforms import RigidTransform
from perception.sensors.kind import Grid
from perception.sensors.registry import kind_of

CHANCES = {"pixel_dropout": 0.5, "noise": 0.5, "exposure": 0.5, "beam_reduction": 0.5}

RECORDED = {
    "rgb": [
        (55636.658, 0, 0.815853554),
        (3625.106, 0, 0.329731716),
        (9586.312, 0, 0.711286572),
        (38890.523, 0, 0.708404363),
        (67475.214, 0, 0.369436336),
        (21123.549, 0, 0.169324003),
    ],
    "depth": [
        (891.227, 280, 0.164766611),
        (836.29, 394, 0.409199136),
        (496.323, 1317, 0.861596963),
        (694.702, 563, 0.491311276),
        (970.31, 280, 0.080836024),
        (934.839, 280, 0.28580138),
    ],
    "thermal": [
        (39716.533, 236, 0.644914217),
        (39633.07, 273, 0.523240443),
        (39679.486, 239, 0.422784673),
        (39133.703, 280, 0.094128642),
        (39541.165, 263, 0.90221508),
        (40244.968, 223, 0.87427507),
    ],
    "lidar": [
        (1033.718, 0, 0.113123071),
        (992.001, 0, 0.409199136),
        (631.923, 0, 0.532338862),
        (290.305, 0, 0.001148414),
        (1030.042, 0, 0.080836024),
        (1030.042, 0, 0.28580138),
    ],
}
"""By seed: a weighted sum, how many are NaN, and what the generator gives next; recorded before the move."""


def _values() -> dict[str, NDArray[Any]]:
    y, x = np.mgrid[:48, :64].astype(np.float32)
    hole, valid = (x * 7 + y * 5) % 11 == 0, (x * 3 + y) % 4 == 0
    lidar = np.stack([5 + x / 4 + y / 2, (x % 16) / 16, 1.7 - (y - 24) / 8, np.ones_like(x)], -1)
    return {
        "rgb": np.stack([(x * 4) % 256, (y * 5) % 256, (x + y) * 2 % 256], -1).astype(np.uint8),
        "depth": np.where(hole, np.nan, 1 + x / 8 + y / 16).astype(np.float32),
        "thermal": np.where(hole, np.nan, 290 + x / 4 - y / 8).astype(np.float32),
        "lidar": (lidar * valid[..., None]).astype(np.float32),
    }


@pytest.mark.parametrize("kind", RECORDED)
def test_the_same_draws_in_the_same_order_give_the_same_values(kind: str) -> None:
    augment = kind_of(kind).augment
    assert augment is not None
    for seed, (weighted, lost, following) in enumerate(RECORDED[kind]):
        rng, given = np.random.default_rng(seed), _values()[kind]
        before = given.copy()
        layers = {"image": given}
        if kind == "lidar":
            names = ("range_m", "intensity", "height_m", "valid")
            layers = dict(zip(names, np.moveaxis(given, -1, 0), strict=True))
        found_layers = augment(Grid(layers), CHANCES, rng).layers
        out = np.stack(list(found_layers.values()), axis=-1).reshape(given.shape)
        np.testing.assert_array_equal(given, before)
        assert out.dtype == given.dtype and out.shape == given.shape
        found = np.nansum(out.astype(np.float64).ravel() * (np.arange(out.size) % 97)) / 1e3
        assert found == pytest.approx(weighted, rel=1e-5)
        assert np.isnan(out.astype(float)).sum() == lost
        assert rng.random() == pytest.approx(following, abs=1e-9)


THINNER = {**dict.fromkeys(CHANCES, 0.0), "fewer_beams": 1.0}
ELEVATIONS = np.radians(np.arange(-16, 16)) + 1e-3
"""Of the 32 beams of a LiDAR."""


def scan() -> NDArray[np.float32]:
    """90 returns of each beam, 10 m away."""
    turn, up = np.meshgrid(np.radians(np.arange(0, 360, 4)), ELEVATIONS)
    flat = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)], -1)
    return np.concatenate([10 * flat.reshape(-1, 3), np.ones((turn.size, 1))], 1).astype(np.float32)


def beams_left(points: NDArray[Any]) -> NDArray[np.int64]:
    """The beams that have returns, which have all of theirs."""
    up = np.arcsin(points[:, 2] / np.linalg.norm(points[:, :3], axis=1))
    beams, counts = np.unique(np.abs(up[:, None] - ELEVATIONS).argmin(1), return_counts=True)
    assert (counts == 90).all()
    return beams


@pytest.mark.parametrize("layers", ["points", "range"])
def test_a_lidar_with_fewer_beams_has_every_so_many(layers: str) -> None:
    augment = kind_of("lidar").augment
    assert augment is not None
    points, steps = scan(), set()
    for seed in range(40):
        if layers == "points":
            grid = Grid({"points": points}, own=RigidTransform.identity())
            left = beams_left(augment(grid, THINNER, np.random.default_rng(seed)).layers["points"])
        else:
            shape = (32, 90)
            values = {
                "range_m": np.full(shape, 10, np.float32),
                "intensity": np.ones(shape, np.float32),
                "height_m": points[:, 2].reshape(shape),
                "valid": np.ones(shape, np.float32),
            }
            made = augment(Grid(values), THINNER, np.random.default_rng(seed)).layers
            assert ((made["valid"] > 0) == (made["range_m"] > 0)).all()
            left = beams_left(points[(made["valid"] > 0).ravel()])
        (step,) = set(np.diff(left)) or {32}
        assert len(left) == 32 // step
        steps.add(int(step))
    assert steps == {2, 4, 8, 16, 32}
