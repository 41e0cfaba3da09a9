"""The stream of batches: the same with any workers, over epochs and phases, and wherever it is taken up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from perception.data.registry import open_recording
from perception.errors import ConfigError
from perception.training.batches import SensorBatches
from perception.training.config import TrainConfig
from perception.training.dataset import Batch, FusionDataset, collate
from perception.training.loading import BatchLoader, EpochBatches

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
PHASES = [
    {"crop": [64, 64], "scale": [0.8, 1.2], "batch": 3},
    {"from_epoch": 2, "crop": [32, 64], "scale": [1.0, 1.0], "batch": 2},
]


def _data(root: Path, config: TrainConfig) -> FusionDataset:
    recording = open_recording("folder", root, split="train")
    data = FusionDataset(recording, config.preprocess, config.corruption, config.seed)
    data.preload()
    return data


def _bytes(batch: Batch) -> list[bytes]:
    arrays = [batch.inputs[name] for name in sorted(batch.inputs)]
    arrays += [batch.truths[name] for name in sorted(batch.truths)]
    return [str(a.shape).encode() + np.ascontiguousarray(a).tobytes() for a in arrays]


def _as_once(data: FusionDataset, config: TrainConfig, epoch: int, workers: int) -> Iterator[Batch]:
    """A loader of one epoch alone, as runs of earlier versions had."""
    data.epoch, data.phase = epoch, config.phase(epoch)
    sensors = [data.modalities(index) for index in range(len(data))]
    order = torch.Generator().manual_seed(config.seed * 100003 + epoch)
    yield from DataLoader(
        data,
        batch_sampler=SensorBatches(sensors, data.phase.batch, order),
        generator=order,
        collate_fn=collate,
        num_workers=workers,
    )


@pytest.mark.parametrize("lacks", [set(), {("depth", 1), ("depth", 4), ("rgb", 2)}])
def test_the_stream_is_the_one_of_loaders_of_single_epochs(
    lacks: set[tuple[str, int]], record: Record, configure: Configure
) -> None:
    root = record(13, lacks=lacks)
    config = configure(root, epochs=4, resolution=PHASES, seed=3)
    data = _data(root, config)
    wanted = [[_bytes(b) for b in _as_once(data, config, e, 0)] for e in range(4)]
    assert len({len(epoch) for epoch in wanted}) > 1  # phases have batches of their own
    data.epoch, data.phase = 99, config.phase(0)  # which nothing here may look at
    for workers in (0, 2):
        own = config.model_copy(update={"workers": workers})
        loader = BatchLoader(data, own)
        found = [[_bytes(b) for b in loader.epoch(e)] for e in range(4)]
        assert found == wanted
        for epoch, skip in ((2, 0), (1, 2), (3, 1), (1, len(wanted[1]))):
            again = BatchLoader(data, own)
            for later in range(epoch, 4):
                some = [_bytes(b) for b in again.epoch(later, skip if later == epoch else 0)]
                assert some == wanted[later][skip if later == epoch else 0 :]
        assert _bytes(loader.again(2, 1)) == wanted[2][1]


def test_loaders_of_single_epochs_with_workers_gave_the_same(
    record: Record, configure: Configure
) -> None:
    root = record(8)
    config = configure(root, epochs=2, resolution=PHASES)
    data = _data(root, config)
    for epoch in range(2):
        one, other = ([_bytes(b) for b in _as_once(data, config, epoch, w)] for w in (0, 2))
        assert one == other


def test_workers_stay_until_the_stream_is_left_or_changed(
    record: Record, configure: Configure
) -> None:
    root = record(8)
    config = configure(root, epochs=4, workers=2)
    loader = BatchLoader(_data(root, config), config)

    def workers() -> set[int]:
        return {w.pid for w in loader._batches._workers}  # type: ignore[union-attr]

    list(loader.epoch(0))
    first = workers()
    assert len(first) == 2
    assert all(os.getpgid(pid) != os.getpgid(0) for pid in first)
    list(loader.epoch(1))
    assert workers() == first
    stream = loader.epoch(2)
    next(stream)
    stream.close()
    list(loader.epoch(2))  # from its beginning
    assert not workers() & first
    longer = config.lasting(8)
    loader.change(longer)
    assert len(list(loader.epoch(6))) == loader.steps(6) > 0
    last = workers()
    loader.close()
    for pid in last:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_stream_goes_on_beyond_the_epochs_that_were_foreseen(
    record: Record, configure: Configure
) -> None:
    root = record(4)
    config = configure(root, epochs=1)
    loader = BatchLoader(_data(root, config), config)
    assert [len(list(loader.epoch(e))) for e in range(3)] == [2, 2, 2]


def test_fewer_frames_than_a_batch_are_told(record: Record, configure: Configure) -> None:
    root = record(3)
    config = configure(root, resolution=[{"crop": [64, 96], "batch": 4}])
    loader = BatchLoader(_data(root, config), config)
    with pytest.raises(ConfigError, match=r"resolution.batch: \d training frames are fewer"):
        next(loader.epoch(0))


@given(
    epochs=st.integers(1, 5),
    first=st.integers(0, 4),
    skip=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
    frames=st.lists(st.sampled_from([("rgb",), ("rgb", "depth")]), min_size=3, max_size=20),
)
def test_taking_up_anywhere_leaves_the_order(
    epochs: int, first: int, skip: int, seed: int, frames: list[tuple[str, ...]]
) -> None:
    config = TrainConfig.model_validate(
        {
            "name": "a",
            "tasks": ["segmentation"],
            "data": {"source": "folder:x"},
            "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}},
            "resolution": PHASES,
            "seed": seed,
            "epochs": epochs,
        }
    )
    whole = EpochBatches(frames, config, range(epochs))
    first = min(first, epochs - 1)
    skip = min(skip, len(whole.of(first)))
    before = sum(len(whole.of(e)) for e in range(first))
    part = list(EpochBatches(frames, config, range(first, epochs), skip))
    assert part == list(whole)[before + skip :]
