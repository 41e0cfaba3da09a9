"""Validation during training: a score for every subset, from the PyTorch model itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.data.base import IGNORE_LABEL, Boxes
from perception.frame import subset_name, subsets_of
from perception.metrics.detection import ScoredBoxes, average_precision
from perception.tasks.boxes2d import decode_detections
from perception.training.config import TrainConfig
from perception.training.dataset import FusionDataset, network_inputs
from perception.training.precision import autocast


def whole_frame(dataset: FusionDataset, index: int, device: torch.device) -> dict[str, Tensor]:
    """Network inputs (1, C, H, W) of a frame, unaugmented, by name."""
    arrays = network_inputs(dataset.raw(index), dataset.contract)
    return {
        m: torch.from_numpy(a)[None].to(device, memory_format=torch.channels_last)
        for m, a in arrays.items()
    }


@torch.no_grad()
def validate(
    model: nn.Module, dataset: FusionDataset, config: TrainConfig, device: torch.device
) -> dict[str, dict[str, float]]:
    """Scores by subset name: `miou` with a semantic head, `ap50` and `ap` with a detection head.

    Runs at the full resolution of the bundle's grid; semantic scores are taken at half of it.  A subset
    is judged on the frames that have all of its sensors and truth: `frames`.  Scores of none are NaN.
    """
    model.eval()
    meters = {s: Meters(dataset, config.tasks) for s in subsets_of(config.preprocess.modalities)}
    for index in range(len(dataset)):
        inputs = whole_frame(dataset, index, device)
        for subset, meter in meters.items():
            if not set(subset) <= inputs.keys():
                continue
            with autocast(device, config.precision):
                output = model({m: inputs[m] for m in subset})
            meter.add(index, output)
    return {subset_name(s): meter.scores() for s, meter in meters.items()}


def has_pixels(labels: NDArray[np.uint8] | None) -> bool:
    """Whether one pixel of (H, W) labels counts."""
    return labels is not None and bool((labels != IGNORE_LABEL).any())


class Meters:
    """Collects predictions against the truth of one subset.

    Args:
        dataset: holds the truth.
        tasks: which heads are scored.
    """

    def __init__(self, dataset: FusionDataset, tasks: Sequence[str]) -> None:
        self.dataset = dataset
        self.tasks = tasks
        info = dataset.recording.info
        self.confusion = np.zeros((len(info.seg_classes),) * 2, np.int64)
        self.det_classes = len(info.det_classes)
        self.detections: list[tuple[ScoredBoxes, Boxes]] = []
        self.frames = 0

    def add(self, index: int, output: object) -> None:
        """Count the output, of a batch of one, for frame `index`."""
        truth = self.dataset.raw(index)
        labeled = "segmentation" in self.tasks and has_pixels(truth.labels)
        self.frames += labeled or ("detection" in self.tasks and truth.boxes is not None)
        if "segmentation" in self.tasks and truth.labels is not None:
            logits: Tensor = output.seg_logits.float()  # type: ignore[attr-defined]
            half = torch.nn.functional.interpolate(
                logits, scale_factor=2.0, mode="bilinear", align_corners=False
            )
            labels = half.argmax(1)[0].cpu().numpy()
            wanted = truth.labels[::2, ::2]
            known = wanted != IGNORE_LABEL
            classes = len(self.confusion)
            pairs = wanted[known].astype(np.int64) * classes + labels[known]
            self.confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        if "detection" in self.tasks and truth.boxes is not None:
            maps = {
                s: (c[0].float().cpu().numpy(), b[0].float().cpu().numpy())
                for s, (c, b) in output.detections.items()  # type: ignore[attr-defined]
            }
            self.detections.append((decode_detections(maps, score_threshold=0.01), truth.boxes))

    def scores(self) -> dict[str, float]:
        """`frames`, those with truth; `miou`, `ap50` and `ap` as far as they were asked for.

        A score of which there is no truth is NaN.
        """
        out: dict[str, float] = {"frames": self.frames}
        if "segmentation" in self.tasks:
            hit = np.diag(self.confusion)
            union = self.confusion.sum(0) + self.confusion.sum(1) - hit
            seen = self.confusion.sum(1) > 0
            out["miou"] = float(np.mean(hit[seen] / union[seen])) if seen.any() else np.nan
        if "detection" in self.tasks:
            result = average_precision(self.detections, self.det_classes)
            out["ap50"], out["ap"] = result.ap50, result.ap
        return out
