"""Latency of a pipeline by subset of modalities, all subsets in turn within one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from perception.frame import Frame, Modality, Sample, subset_name, subsets_of
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.pipeline import Pipeline


def synthetic_frame(pipeline: Pipeline, seed: int) -> Frame:
    """A frame of random but plausible content for every modality of the bundle, at its grid's size.

    Latency does not depend on what the pictures show; every frame differs, or the sensor would be
    taken for frozen.
    """
    rng = np.random.default_rng(seed)
    grid = pipeline.manifest.inputs.grid
    size = (grid.height, grid.width)
    camera = CameraModel(
        grid.width, grid.height, grid.width, grid.width, grid.width / 2, grid.height / 2
    )
    samples: dict[Modality, Sample] = {}
    for modality in pipeline.modalities:
        if modality == "rgb":
            data = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            samples[modality] = Sample("rgb", data, seed)
        elif modality == "depth":
            depth = rng.uniform(1, 5, size).astype(np.float32)
            samples[modality] = Sample("depth", depth, seed)
        elif modality == "thermal":
            counts = rng.integers(0, 250, size).astype(np.float32)
            samples[modality] = Sample("thermal", counts, seed, unit="counts8")
        else:
            # Already in the camera's axes, spread over its field of view like a 64-beam turn.
            points = rng.uniform((-10, -2, 2, 0), (10, 2, 40, 1), (60_000, 4)).astype(np.float32)
            points = points[:, [0, 1, 2, 3]]
            samples[modality] = Sample(
                "lidar", points, seed, camera=camera, extrinsics=RigidTransform.identity()
            )
    return Frame(samples, seed)


def _summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    totals = np.array([r["total"] for r in rows])
    engines = np.array([r["engine"] for r in rows])
    steps = sorted({k for r in rows for k in r} - {"total", "engine"})
    return {
        "total_ms": {"p50": float(np.median(totals)), "p99": float(np.percentile(totals, 99))},
        "engine_ms": {"p50": float(np.median(engines)), "p99": float(np.percentile(engines, 99))},
        "overhead_over_engine": float(np.median((totals - engines) / engines)),
        "frames_per_second": float(1000 / totals.mean()),
        "steps_ms": {k: float(np.median([r.get(k, 0.0) for r in rows])) for k in steps},
    }


def measure(
    pipeline: Pipeline,
    frames: int = 60,
    warmup: int = 5,
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Time every subset, one frame of each in turn, so that a slow moment hits all alike.

    Returns:
        `subsets`: by name, p50 and p99 of total and engine milliseconds, the median ratio of
        overhead (all but inference) to engine time, frames per second and the steps' medians;
        `saving_when_lost`: by modality, 1 - latency without it / latency with all.
    """
    subsets = subsets_of(pipeline.modalities)
    rows: dict[str, list[dict[str, float]]] = {subset_name(s): [] for s in subsets}
    for index in range(warmup + frames):
        frame = synthetic_frame(pipeline, index)
        for subset in subsets:
            result = pipeline(Frame({m: frame[m] for m in subset}, frame.stamp_ns))
            if index >= warmup:
                engine = {"engine": result.engine_ms}
                rows[subset_name(subset)].append({**result.timings, **engine})
        on_frame()
    table = {name: _summary(values) for name, values in rows.items()}
    full = table[subset_name(pipeline.modalities)]["total_ms"]["p50"]
    saving = {}
    for modality in pipeline.modalities:
        rest = subset_name(m for m in pipeline.modalities if m != modality)
        if rest:
            saving[modality] = 1 - table[rest]["total_ms"]["p50"] / full
    return {"subsets": table, "saving_when_lost": saving}
