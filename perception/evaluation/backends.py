"""What a backend costs in accuracy: the same frames on it and on ONNX Runtime in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.data.base import Recording
from perception.errors import BundleError, DataError
from perception.evaluation.evaluate import LOW_SCORE, evaluate_subsets
from perception.runtime.bundle import Bundle, find_bundle, record
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import BackendRecord
from perception.tasks.registry import judged, shown

Scores = dict[str, dict[str, Any]]
"""By subset, what `Scorer.scores` gives."""


@dataclass(frozen=True)
class Judgement:
    """Scores of one pipeline, and what they say beside those of the reference.

    Attributes:
        backend: what ran.
        scores: see `Scores`.
        record: the comparison.
    """

    backend: str
    scores: Scores
    record: BackendRecord


def score_pipeline(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[tuple[str, ...]],
    on_result: Callable[[], None] = lambda: None,
) -> Scores:
    """Scores by subset, with the detection threshold that average precision wants."""
    before, pipeline.min_score = pipeline.min_score, LOW_SCORE
    try:
        return evaluate_subsets(pipeline, recording, subsets, on_result)
    finally:
        pipeline.min_score = before


def changes(scores: Scores, reference: Scores, tasks: Iterable[str]) -> dict[str, dict[str, float]]:
    """By subset and score of these tasks, the change against the reference in points."""
    names = shown(tasks)
    return {
        subset: {
            name: round(100 * (row[name] - reference[subset][name]), 3)
            for name in names
            if row.get(name) is not None and reference[subset].get(name) is not None
        }
        for subset, row in scores.items()
    }


def largest_loss(change: dict[str, dict[str, float]], tasks: Iterable[str]) -> float:
    """The largest fall of a score by which these tasks are judged, in points."""
    names = judged(tasks)
    return max((-row[n] for row in change.values() for n in names if n in row), default=0.0)


def judge_backends(
    bundle: str | Path,
    recording: Recording,
    backends: Sequence[str],
    subsets: Sequence[tuple[str, ...]],
    *,
    reference_bundle: str | Path | None = None,
    tolerance: float = 1.0,
    threads: int | None = None,
    on_result: Callable[[], None] = lambda: None,
    **choices: Any,
) -> tuple[Scores, dict[str, Judgement]]:
    """Score a bundle on several backends.

    Args:
        bundle: folder, zip or name of a bundle.
        recording: frames with truth.
        backends: names of backends; ONNX Runtime on the CPU is the reference in any case.
        subsets: sensors to give.
        reference_bundle: the float32 bundle that an INT8 one was made from, to hold it against;
            None for the bundle itself.
        tolerance: how many points a score by which tasks are judged may fall.
        threads: as for `Pipeline.load`.
        on_result: called after each frame, subset and backend.
        choices: of engines, as for `Pipeline.load`.

    Returns:
        The reference's scores, and by name of the backend its judgement.

    Raises:
        EngineError: a backend cannot be used here.
        ConfigError: unknown backend, or bundle and recording share no class.
        DataError: the recording has no labels.
    """
    # Load all first: a name that is wrong should not come out after minutes of work.
    reference = Pipeline.load(reference_bundle or bundle, REFERENCE, threads=threads)
    others = {name: Pipeline.load(bundle, name, threads=threads, **choices) for name in backends}
    # What `auto` compares with when it loads the bundle: ONNX Runtime on the bundle's own graphs.
    inputs = probe_inputs(reference.manifest.inputs)
    own = Pipeline.load(bundle, REFERENCE, threads=threads) if reference_bundle else reference
    probed = run_all(own.engines, inputs, own.manifest.wiring.by_input())
    tasks = [*reference.manifest.tasks]
    wanted = score_pipeline(reference, recording, subsets, on_result)
    if not any(row.get(name) is not None for row in wanted.values() for name in judged(tasks)):
        raise DataError("has no labels to judge by", where=recording.info.name)
    found: dict[str, Judgement] = {}
    for name, pipeline in others.items():
        same = pipeline.backend == REFERENCE and reference_bundle is None
        scores = wanted if same else score_pipeline(pipeline, recording, subsets, on_result)
        change = changes(scores, wanted, tasks)
        lost = largest_loss(change, tasks)
        error = relative_error(
            run_all(pipeline.engines, inputs, pipeline.manifest.wiring.by_input()), probed
        )
        held = BackendRecord(
            passed=lost <= tolerance,
            lost=round(lost, 3),
            tolerance=tolerance,
            probe_error=float(f"{error:.3g}"),
            frames=len(recording),
            data=recording.info.name,
            change=change,
        )
        found[name] = Judgement(pipeline.backend, scores, held)
    return wanted, found


def record_backends(bundle: str | Path, scored: dict[str, Judgement]) -> Path:
    """Write the comparisons into a bundle's records, from which `auto` takes them.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: the bundle is a zip file.
    """
    folder = find_bundle(str(bundle))
    if not folder.is_dir():
        raise BundleError("is a zip; only a folder can be written to", where=str(folder))
    precision = Bundle.open(folder, verify=False).manifest.precision
    found = {j.backend: j.record for j in scored.values()}
    record(
        folder, backends={n: r for n, r in found.items() if n != REFERENCE or precision != "fp32"}
    )
    return folder
