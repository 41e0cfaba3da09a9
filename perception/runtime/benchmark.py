"""Latency of pipelines by subset of sensors, all of them in turn within one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from perception.errors import ConfigError, EngineError
from perception.frame import Frame, Sample, subset_name, subsets_of
from perception.runtime.engines.probe import placed_example
from perception.runtime.pipeline import Pipeline
from perception.sensors.registry import kind_of


def synthetic_frame(pipeline: Pipeline, seed: int) -> Frame:
    """A frame of random but plausible content for every sensor of the pipeline, at its grid's size.

    Inference takes as long whatever the pictures show; what follows it may not, see `measure`.

    Raises:
        ConfigError: a kind gives no example.
    """
    rng = np.random.default_rng(seed)
    inputs = pipeline.manifest.inputs
    ground, size = inputs.birdseye, (inputs.grid.height, inputs.grid.width)
    samples: dict[str, Sample] = {}
    for sensor, kind in pipeline.kinds.items():
        example = kind_of(kind).example
        if example is None:
            raise ConfigError(f"kind '{kind}' gives no example to measure with", where=sensor)
        if ground is None:
            sample = example(size, rng)
        else:
            view = inputs[pipeline.inputs[sensor]].view
            sample = placed_example(example((view.height, view.width), rng), ground)
        samples[sensor] = replace(sample, stamp_ns=seed, sensor=sensor)
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
    pipelines: Mapping[str, Pipeline],
    frames: int = 60,
    warmup: int = 5,
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Time every subset of every pipeline, one frame of each in turn.

    A slow moment of the machine so hits all alike, and ratios hold even where milliseconds do not.
    The frames are noise, in which a detector finds few boxes: its postprocessing may take longer
    on real ones.

    Args:
        pipelines: what is timed, by name.
        frames: how many of each subset.
        warmup: how many more go first, untimed.
        on_frame: called after each round.

    Returns:
        By name: `subsets`, which holds by subset p50 and p99 of total and engine milliseconds, the
        median ratio of overhead (all but inference) to engine time, frames per second and the
        steps' medians; and `saving_when_lost`, by sensor, 1 - latency without it / latency with
        all.

    Raises:
        EngineError: a pipeline refused one of the frames, so that there is nothing to time.
    """
    rows: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {subset_name(s): [] for s in subsets_of(p.sensors)} for name, p in pipelines.items()
    }
    for index in range(warmup + frames):
        for name, pipeline in pipelines.items():
            frame = synthetic_frame(pipeline, index)
            for subset in subsets_of(pipeline.sensors):
                timed = _time_once(pipeline, frame, subset)
                if index >= warmup:
                    rows[name][subset_name(subset)].append(timed)
        on_frame()
    return {name: _tables(pipelines[name], found) for name, found in rows.items()}


def _time_once(pipeline: Pipeline, frame: Frame, subset: tuple[str, ...]) -> dict[str, float]:
    # The same samples come again with the next subset; unreset, they would be taken for frozen.
    pipeline.reset()
    result = pipeline(Frame({m: frame[m] for m in subset}, frame.stamp_ns))
    if result.used != subset:
        raise EngineError(
            f"only {subset_name(result.used) or 'nothing'} of {subset_name(subset)} was used: "
            f"{'; '.join(result.lines)}",
            where="benchmark",
        )
    return {**result.timings, "engine": result.engine_ms}


def _tables(pipeline: Pipeline, rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    table = {name: _summary(values) for name, values in rows.items()}
    full = table[subset_name(pipeline.sensors)]["total_ms"]["p50"]
    saving = {}
    for sensor in pipeline.sensors:
        rest = subset_name(m for m in pipeline.sensors if m != sensor)
        if rest:
            saving[sensor] = 1 - table[rest]["total_ms"]["p50"] / full
    return {"subsets": table, "saving_when_lost": saving}
