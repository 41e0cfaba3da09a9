"""A bundle's report: parity, accuracy and latency of every subset and backend, against float32.

The reference is a float32 bundle on ONNX Runtime; with a checkpoint, that bundle's own parity with
PyTorch (which is checked when it is exported) stands beside it.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.report_style import STYLE
from export.speed import slower
from perception.data.base import Recording
from perception.errors import ConfigError
from perception.evaluation.backends import changes, largest_loss, score_pipeline
from perception.evaluation.evaluate import judged_subsets
from perception.files.text import html_text
from perception.files.writing import without_nan, write_json, write_text
from perception.frame import subset_name
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine, Tensor, with_numbers
from perception.runtime.engines.measured import cpu_name
from perception.runtime.engines.probe import probe_inputs, relative_error
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.modular import features_of, feeds_for
from perception.runtime.pipeline import Pipeline
from perception.runtime.wiring import FUSER
from perception.tasks.registry import judged

Steps = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReportOptions:
    """What to measure and to hold against it.

    Attributes:
        backends: names of backends.
        tolerance: points that mIoU or AP50 may fall for any subset.
        frames: frames timed for each subset.
        threads: CPU threads, None for all.
        trust_plans: as for `Pipeline.load`.
    """

    backends: tuple[str, ...]
    tolerance: float = 1.0
    frames: int = 10
    threads: int | None = None
    trust_plans: bool = False


def make_report(
    bundle: str | Path,
    reference: str | Path,
    recording: Recording | None,
    options: ReportOptions,
    progress: Steps = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure a bundle.

    Args:
        bundle: what is judged.
        reference: the float32 bundle that it is held against; the same one where it is float32.
        recording: labeled frames; None leaves accuracy out.
        options: see there.
        progress: called with the step, how far it is and how far it will be.

    Returns:
        `bundle`, `backends` by name (`parity` by subset, `accuracy` and `change` by subset and score,
        `lost`, `latency` as `anysense bench` gives it, `passed`, `reasons`; where the precisions differ
        `over_float32`, by subset how many times as fast as the reference on the same backend; `notes`),
        `size_bytes`, `memory_mib` (the process's peak), `tolerance`, `passed`.

    Raises:
        EngineError: a backend cannot be used here, or (`NonFiniteError`) gives NaN or infinity.
        ConfigError: bundle and recording share no class, or no sensor.
    """
    from perception.runtime.benchmark import measure

    opened = Bundle.open(bundle, verify=False)
    subsets, tasks = opened.manifest.subsets, [*opened.manifest.tasks]
    usable = [] if recording is None else judged_subsets(opened.manifest, recording.info)
    base = Pipeline.load(reference, REFERENCE, threads=options.threads)
    pipelines = {
        n: Pipeline.load(bundle, n, threads=options.threads, trust_plans=options.trust_plans)
        for n in options.backends
    }
    wanted = _outputs(base.engines, base)
    scores = None
    if recording is not None:
        scores = _scores(base, recording, usable, "onnxruntime float32", progress)
    rows: dict[str, dict[str, Any]] = {}
    for name, pipeline in pipelines.items():
        found = _outputs(pipeline.engines, pipeline)
        row: dict[str, Any] = {
            "backend": pipeline.backend,
            "parity": {s: _difference(found[s], wanted[s]) for s in wanted},
            "reasons": [],
        }
        if scores is not None and recording is not None:
            own = _scores(pipeline, recording, usable, name, progress)
            row["accuracy"] = own
            row["change"] = changes(own, scores, tasks)
            row["lost"] = round(largest_loss(row["change"], tasks), 3)
            if row["lost"] > options.tolerance:
                row["reasons"].append(
                    f"loses {row['lost'] + 0.0:.2f} points, {options.tolerance:g} are allowed"
                )
        row["passed"] = not row["reasons"]
        rows[name] = row
    timed = {"reference": base, **pipelines}
    in_float: dict[str, str] = {}
    if opened.manifest.precision != base.manifest.precision:
        for name, pipeline in pipelines.items():
            in_float[name] = "reference" if pipeline.backend == REFERENCE else f"reference {name}"
            if in_float[name] not in timed:
                timed[in_float[name]] = Pipeline.load(reference, name, threads=options.threads)
    step = iter(range(10**9))
    latency = measure(
        timed,
        options.frames,
        2,
        lambda: progress("timing", next(step), options.frames + 2),
    )
    for name, row in rows.items():
        row["latency"] = latency[name]["subsets"]
        row["speedup"] = {
            s: latency["reference"]["subsets"][s]["total_ms"]["p50"] / values["total_ms"]["p50"]
            for s, values in row["latency"].items()
        }
        row["notes"] = []
        if name in in_float:
            before = latency[in_float[name]]["subsets"]
            row["over_float32"] = {
                s: before[s]["total_ms"]["p50"] / values["total_ms"]["p50"]
                for s, values in row["latency"].items()
            }
            every = row["over_float32"][subset_name(subsets[0])]
            row["notes"] = [*slower(opened.manifest.precision, {row["backend"]: every}).values()]
    return {
        "bundle": opened.manifest.name,
        "tasks": tasks,
        "precision": opened.manifest.precision,
        "simulated": opened.manifest.simulated,
        "reference": {
            "bundle": str(reference),
            "backend": REFERENCE,
            "accuracy": scores,
            "latency": latency["reference"]["subsets"],
            "parity_with_pytorch": dict(Bundle.open(reference, verify=False).records.parity),
        },
        "data": None if recording is None else recording.info.name,
        "frames": None if recording is None else len(recording),
        "backends": rows,
        "size_bytes": _size(opened),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "tolerance": options.tolerance,
        "passed": all(row["passed"] for row in rows.values()),
    }


def write_report(folder: Path, content: dict[str, Any], command: str) -> None:
    """Write `report.json` and `report.html`, each whole or not at all.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", without_nan({**content, "command": command}))
    write_text(folder / "report.html", _page(content, command))


def table_rows(content: dict[str, Any]) -> list[list[str]]:
    """Header and rows: backend, subset, parity, scores with their change, latency, speedup."""
    names = [
        n
        for n in judged(content["tasks"])
        if any(n in r for b in content["backends"].values() for r in b.get("change", {}).values())
    ]
    rows = [
        [
            "backend",
            "subset",
            "relative error",
            *(f"{name} %" for name in names),
            "p50 ms",
            "p99 ms",
            "speedup",
        ]
    ]
    for backend in content["backends"].values():
        for subset, latency in backend["latency"].items():
            scores = []
            for name in names:
                value = backend.get("accuracy", {}).get(subset, {}).get(name)
                change = backend.get("change", {}).get(subset, {}).get(name)
                text = "-" if value is None else f"{100 * value:.1f}"
                scores.append(text if change is None else f"{text} ({change:+.2f})")
            rows.append(
                [
                    backend["backend"],
                    subset,
                    f"{backend['parity'][subset]['relative']:.1e}",
                    *scores,
                    f"{latency['total_ms']['p50']:.1f}",
                    f"{latency['total_ms']['p99']:.1f}",
                    f"{backend['speedup'][subset]:.2f}",
                ]
            )
    return rows


def _scores(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[Any],
    name: str,
    progress: Steps,
) -> dict[str, dict[str, Any]]:
    total = len(recording) * len(subsets)
    step = iter(range(total + 1))
    return score_pipeline(
        pipeline, recording, subsets, lambda: progress(f"scoring {name}", next(step), total)
    )


def _outputs(engines: dict[str, Engine], pipeline: Pipeline) -> dict[str, dict[str, Tensor]]:
    """The fuser's outputs on the made-up frame by subset, NaN in the place of absent features."""
    manifest, wiring = pipeline.manifest, pipeline.manifest.wiring.by_input()
    features = features_of(wiring, engines, probe_inputs(manifest.inputs))
    fuser = engines[FUSER]
    return {
        subset_name(s): fuser.run(with_numbers(feeds_for(wiring, features, s), fuser.inputs))
        for s in manifest.subsets
    }


def _difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    if set(found) != set(wanted):
        raise ConfigError(
            "ends in other outputs than the reference",
            where=", ".join(sorted(set(found) ^ set(wanted))),
            hint="--reference BUNDLE names one that ends like it",
        )
    differences = [np.abs(np.subtract(found[n], v, dtype=np.float32)) for n, v in wanted.items()]
    return {
        "max_abs": float(max(d.max() for d in differences)),
        "mean_abs": float(np.mean([d.mean() for d in differences])),
        "relative": relative_error(found, wanted),
    }


def _size(bundle: Bundle) -> int:
    return sum(bundle.size(f) for f in bundle.manifest.graph_files())


def _page(content: dict[str, Any], command: str) -> str:
    title = f"{content['bundle']} ({content['precision']})"
    scores = " or ".join(judged(content["tasks"]).values())
    facts = [
        ("Verdict", "passed" if content["passed"] else "a tolerance is broken"),
        ("Tolerance", f"{content['tolerance']:g} points of {scores} for every subset"),
        ("Reference", f"{content['reference']['bundle']} on ONNX Runtime, float32"),
        (
            "Accuracy on",
            f"{content['frames']} frames of {content['data']}" if content["data"] else "-",
        ),
        ("Size of the graphs", f"{content['size_bytes'] / 1e6:.1f} MB"),
        ("Peak memory of this run", f"{content['memory_mib']:.0f} MiB, all pipelines together"),
        ("Machine", f"{cpu_name()}, {platform.machine()}"),
        ("Command", command),
    ]
    facts += [
        (f"Broken by {row['backend']}", reason)
        for row in content["backends"].values()
        for reason in row["reasons"]
    ]
    facts += [("Note", note) for row in content["backends"].values() for note in row["notes"]]
    if content["simulated"]:
        facts.insert(1, ("Note", "the bundle was trained on simulated data"))
    listed = "".join(f"<tr><th>{html_text(k)}</th><td>{html_text(v)}</td></tr>" for k, v in facts)
    header, *rows = table_rows(content)
    head = "".join(f"<th>{html_text(h)}</th>" for h in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html_text(c)}</td>" for c in row) + "</tr>" for row in rows
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html_text(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html_text(title)}</h1><table class='facts'>{listed}</table>"
        "<h2>Every backend and subset</h2>"
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        "<p>Relative error: root mean square error of the worst output over its root mean square, on "
        "a made-up frame. In parentheses: change against the reference, in points. Speedup: the "
        "reference's median over the backend's, timed in turn in one run.</p></main></body></html>"
    )
