"""A torch data set over a `Recording`: cached frames, deterministic augmentation, normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perception.data.base import Boxes, Recording
from perception.frame import Frame
from perception.geometry.projection import project_lidar
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.grid import GridMap
from perception.preprocess.normalize import (
    normalize_depth,
    normalize_lidar,
    normalize_rgb,
    normalize_thermal,
)
from perception.preprocess.sample import source_size
from perception.training.augment import RawSample, augment
from perception.training.config import CorruptionSpec, ResolutionPhase


@dataclass
class Batch:
    """A batch of training samples.

    Attributes:
        inputs: by modality, (N, C, H, W) float32.
        labels: (N, H, W) int64, 255 = ignore; None without semantic truth.
        boxes: per sample, xyxy in input pixels with class ids and ignore flags.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    boxes: list[Boxes]


def _resample(frame: Frame, modality: str, contract: PreprocessContract) -> np.ndarray[Any, Any]:
    sample = frame[modality]  # type: ignore[index]
    grid = GridMap.fit(source_size(sample), contract.grid)
    if modality == "lidar":
        assert sample.camera is not None and sample.extrinsics is not None
        image = project_lidar(
            sample.data,
            sample.camera.scaled(*grid.scale),
            sample.extrinsics,
            contract.grid.height,
            contract.grid.width,
            sensor_height_m=contract.lidar.sensor_height_m,
        )
        layers = (image.range_m, image.intensity, image.height_m, image.valid)
        return np.stack([np.where(image.valid, x, 0) for x in layers], axis=-1).astype(np.float32)
    nearest, fill = (True, np.nan) if modality == "depth" else (False, 0.0)
    return grid.to_grid(sample.data, nearest=nearest, fill=fill)


def load_raw(recording: Recording, index: int, contract: PreprocessContract) -> RawSample:
    """Frame `index` on the contract's grid, with its truth."""
    frame, truth = recording.frame(index), recording.truth(index)
    arrays = {m: _resample(frame, m, contract) for m in contract.modalities if m in frame}
    reference = frame["rgb"] if "rgb" in frame else next(iter(frame.values()))
    grid = GridMap.fit(source_size(reference), contract.grid)
    labels = boxes = None
    if truth.labels is not None:
        on_labels = GridMap.fit(truth.labels.shape, contract.grid)  # type: ignore[arg-type]
        labels = on_labels.to_grid(truth.labels, nearest=True, fill=255)
    if truth.boxes is not None:
        kept = truth.boxes
        boxes = Boxes(grid.boxes_to_grid(kept.xyxy), kept.class_ids, kept.ignore)
    unit = frame["thermal"].unit if "thermal" in frame else "counts8"
    return RawSample(labels=labels, boxes=boxes, thermal_unit=unit, **arrays)  # type: ignore[arg-type]


def normalize(sample: RawSample, contract: PreprocessContract) -> dict[str, np.ndarray[Any, Any]]:
    """Network inputs (C, H, W) of the modalities that `sample` has."""
    out: dict[str, np.ndarray[Any, Any]] = {}
    if sample.rgb is not None:
        out["rgb"] = normalize_rgb(np.ascontiguousarray(sample.rgb), contract.rgb)
    if sample.depth is not None:
        out["depth"] = normalize_depth(sample.depth, contract.depth)
    if sample.thermal is not None:
        out["thermal"] = normalize_thermal(sample.thermal, sample.thermal_unit, contract.thermal)
    if sample.lidar is not None:
        layers = np.moveaxis(sample.lidar, -1, 0)
        out["lidar"] = normalize_lidar(
            layers[0], layers[1], layers[2], layers[3] > 0.5, contract.lidar
        )
    return out


class FusionDataset(Dataset[tuple[dict[str, Any], Any, Boxes]]):
    """Augmented training samples; item `i` of epoch `e` depends on (seed, e, i) alone.

    Args:
        recording: where frames come from; all of them are kept in memory after their first use.
        contract: the preprocessing to train for.
        corruption: augmentation strengths.
        seed: base of all random choices.
    """

    def __init__(
        self,
        recording: Recording,
        contract: PreprocessContract,
        corruption: CorruptionSpec,
        seed: int,
    ) -> None:
        self.recording = recording
        self.contract = contract
        self.corruption = corruption
        self.seed = seed
        self.epoch = 0
        self.phase = ResolutionPhase()
        self._cache: dict[int, RawSample] = {}

    def __len__(self) -> int:
        return len(self.recording)

    def preload(self) -> None:
        """Read every frame now (before worker processes are forked)."""
        for index in range(len(self)):
            self.raw(index)

    def raw(self, index: int) -> RawSample:
        """Frame `index`, from memory when it was read before."""
        if index not in self._cache:
            self._cache[index] = load_raw(self.recording, index, self.contract)
        return self._cache[index]

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any, Boxes]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        sample = augment(self.raw(index), self.phase, self.corruption, rng)
        labels = None if sample.labels is None else np.ascontiguousarray(sample.labels)
        return normalize(sample, self.contract), labels, sample.boxes or Boxes.empty()


def collate(items: list[tuple[dict[str, Any], Any, Boxes]]) -> Batch:
    """Stack samples into a `Batch`."""
    inputs = {m: torch.from_numpy(np.stack([item[0][m] for item in items])) for m in items[0][0]}
    labels = None
    if items[0][1] is not None:
        labels = torch.from_numpy(np.stack([item[1] for item in items]).astype(np.int64))
    return Batch(inputs, labels, [item[2] for item in items])
