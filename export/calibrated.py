"""A bundle with temperatures, from one without: the same graphs under another `bundle.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from export.bundle_folder import copy_files, replacing_bundle
from perception.evaluation.confidence import CalibratedConfidence
from perception.runtime.bundle import Bundle, write_bundle
from perception.runtime.manifest import BundleManifest
from perception.tasks.registry import TASKS

DECIMALS = 4


def subset_rows(found: CalibratedConfidence) -> dict[str, dict[str, Any]]:
    """By subset: frames, scores of the judging half, those of trust before, too, and the temperature or what
    else was fitted.

    With `nll_fitted` and `nll_fitted_before`, of the samples that it was fitted to; what a task before has
    under the same name is named by task.
    """
    names = trust_scores(found.manifest.tasks)
    rows: dict[str, dict[str, Any]] = {}
    for subset, scorer in found.after.items():
        scores, before = scorer.scores(), found.before[subset].scores()
        plain = {k: v for k, v in scores.items() if isinstance(v, int | float)}
        rows[subset] = {**plain, **{f"{k}_before": before[k] for k in names if k in plain}}
        fitted = {task: own[subset] for task, own in found.temperatures.items() if subset in own}
        for task, one in fitted.items():
            row = {**one.numbers, "nll_fitted": one.nll, "nll_fitted_before": one.nll_before}
            rows[subset] |= {f"{task}_{k}" if k in rows[subset] else k: v for k, v in row.items()}
    return rows


def trust_scores(tasks: Iterable[str]) -> list[str]:
    """The scores of these tasks that tell of confidence."""
    return [score for name in tasks for score in TASKS[name].trust]


def write_calibrated(
    bundle: Bundle, found: CalibratedConfidence, out: Path, name: str, about: Mapping[str, Any]
) -> Path:
    """Write the bundle with the temperatures that were found.

    What was measured of labels, boxes, graphs and backends stays true, as temperatures change confidence
    alone; what was measured of confidence is left out.

    Args:
        bundle: as it was.
        found: see `calibrate_confidence`.
        out: its folder; a bundle that is there is replaced.
        name: of the record of what was judged.
        about: what else the record says, such as the command.

    Raises:
        ConfigError, BundleError: see `replacing_bundle`.
    """
    rows = {
        subset: {k: round(v, DECIMALS) for k, v in row.items()}
        for subset, row in subset_rows(found).items()
    }
    return write_described(bundle, found.manifest, out, {name: {**about, "subsets": rows}})


def write_described(
    bundle: Bundle, manifest: BundleManifest, out: Path, accuracy: Mapping[str, Any]
) -> Path:
    """Write a bundle of the same graphs under a manifest that gives other confidences.

    Args:
        bundle: as it was.
        manifest: the new one.
        out: its folder; a bundle that is there is replaced.
        accuracy: what the new one's records say besides those of the old one that are not of confidence.

    Raises:
        ConfigError, BundleError: see `replacing_bundle`.
    """
    outdated = {f"{s}{end}" for s in trust_scores(manifest.tasks) for end in ("", "_before")}
    kept = {entry: _without(value, outdated) for entry, value in bundle.records.accuracy.items()}
    with replacing_bundle(out, bundle.path) as folder:
        copy_files(bundle, folder)
        records = bundle.records.model_copy(update={"accuracy": {**kept, **accuracy}})
        write_bundle(folder, manifest, records)
        Bundle.open(folder)
    return out


def _without(value: Any, names: set[str]) -> Any:
    """Plain values without these keys, at any depth."""
    if isinstance(value, Mapping):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    return value
