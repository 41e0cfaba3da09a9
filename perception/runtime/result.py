"""What the pipeline gives for one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perception.frame import Modality

PipelineState = Literal["full", "degraded", "hold", "stop"]
"""full: all of the bundle's modalities; degraded: some; hold: the last result goes on being given
because nothing usable came; stop: nothing usable came for too long."""


@dataclass(frozen=True)
class Detections:
    """2D boxes of one image, best first.

    Attributes:
        xyxy: (N, 4) float32, left, top, right, bottom in source pixels.
        scores: (N,) float32 in 0..1.
        class_ids: (N,) int64, indices into the bundle's detection classes.
    """

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]

    @staticmethod
    def empty() -> Detections:
        """No box."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        )

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Result:
    """The pipeline's answer for one frame.

    Attributes:
        labels: (H, W) uint8 class ids in the source image's size, or None without segmentation.
            This and the next two are None also where `Pipeline.wanted` leaves them out.
        confidence: (H, W) float32 in 0..1, the probability of the label, derated when degraded.
        boxes: detections, or None without a detection head.
        used: modalities that this result was computed from, in canonical order.
        present: modalities that came with the frame.
        state: see `PipelineState`.
        health: by modality, `ok`, `late`, `lost`, `frozen`, `dark`, `saturated`, `malformed` or
            `skewed`.
        stamp_ns: stamp of the newest sample used (of the held result in state hold).
        ages_ns: by used modality, how much older its sample is than the newest one.
        timings: milliseconds by step: `check_<m>`, `preprocess_<m>`, `encode_<m>`, `fuse`,
            `postprocess`, `total`.
        backend: name of the inference backend that ran; several joined by '+' when another had to
            take over some of the graphs.
        warnings: one line for every sample that was not usable.
        images: by name, (H, W, C) uint8 pictures that the model makes besides, in the source image's
            size; `fused` is RGB.
    """

    labels: NDArray[np.uint8] | None
    confidence: NDArray[np.float32] | None
    boxes: Detections | None
    used: tuple[Modality, ...]
    present: tuple[Modality, ...]
    state: PipelineState
    health: dict[Modality, str]
    stamp_ns: int
    ages_ns: dict[Modality, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    backend: str = ""
    warnings: tuple[str, ...] = ()
    images: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def engine_ms(self) -> float:
        """Milliseconds spent inside inference engines."""
        return sum(
            (v for k, v in self.timings.items() if k == "fuse" or k.startswith("encode_")), 0.0
        )

    @property
    def total_ms(self) -> float:
        """Milliseconds of the whole call."""
        return self.timings.get("total", 0.0)

    @property
    def overhead_ms(self) -> float:
        """Milliseconds spent on everything but inference."""
        return max(0.0, self.total_ms - self.engine_ms)
