"""Accuracy of a bundle on one recording, whole or with failing sensors, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perception.data.registry import open_recording
from perception.evaluation.evaluate import LOW_SCORE, NO_SCORES, judged_subsets, score_subsets
from perception.evaluation.robustness import RobustnessOptions, measure_robustness
from perception.evaluation.summed import counted_npz
from perception.fleet.job import Job
from perception.fleet.plan import Source
from perception.fleet.rows import Row
from perception.runtime.pipeline import Pipeline

_TOLD = (*NO_SCORES, "recordings")


def evaluated(job: Job, source: Source, here: Path, pipeline: Pipeline) -> tuple[list[Row], bytes]:
    """A row for each score of each subset, of all classes and of each; as `anysense eval` has them.

    And what was counted (`counted_npz`), so that recordings can be summed.

    Raises:
        ConfigError: bundle and recording have no sensor or class in common.
        DataError: the recording cannot be read.
    """
    recording = open_recording(source.kind, here)
    subsets = judged_subsets(pipeline.manifest, recording.info)
    pipeline.min_score, before = LOW_SCORE, pipeline.min_score
    try:
        scorers = score_subsets(
            pipeline, recording, subsets if job.subsets == "all" else subsets[:1]
        )
    finally:
        pipeline.min_score = before
    table = {subset: scorer.scores() for subset, scorer in scorers.items()}
    return score_rows(source.name, table), counted_npz(recording.info, scorers)


def score_rows(recording: str, table: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each score, of all classes and of each.

    Args:
        recording: its name; of all together none.
        table: by subset, see `Scorer.scores`.
    """
    rows: list[Row] = []
    for subset, found in table.items():
        counts = {name: found[name] for name in ("frames", "judged")}
        same = {"recording": recording, "subset": subset, **counts}
        scores = {name: value for name, value in found.items() if name not in _TOLD}
        for kind, values in {"": scores, **found["per_class"]}.items():
            rows += [{**same, "class": kind, "score": n, "value": v} for n, v in values.items()]
    return rows


def tried(job: Job, source: Source, here: Path, pipeline: Pipeline) -> list[Row]:
    """A row for each score of each trial, as `anysense robustness` has them.

    Raises:
        ConfigError: bundle and recording have no sensor or class in common, or a fault is unknown.
        DataError: the recording cannot be read, or has no truth.
    """
    options = RobustnessOptions(**job.robustness.model_dump())
    rows: list[Row] = []
    for found in measure_robustness(pipeline, open_recording(source.kind, here), options):
        for key, measured in found.rows.items():
            same = {"recording": source.name, "method": found.method, "trial": _named(key)}
            clean: Mapping[str, Any] = measured.clean or {}
            rows += [
                {**same, "score": n, "value": v, "clean": clean.get(n), "frames": measured.frames}
                for n, v in measured.scores.items()
            ]
    return rows


def _named(key: tuple[object, ...]) -> str:
    """The key of a trial in words, sets of sensors in order."""
    words = ["+".join(sorted(map(str, k))) if isinstance(k, frozenset) else str(k) for k in key]
    return " ".join(word for word in words if word)
