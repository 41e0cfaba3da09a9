"""How right a bundle is on a recording, as one HTML page: scores, and frames with truth and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.data.base import Recording
from perception.evaluation.elsewhere import truth_on_ground
from perception.evaluation.evaluate import COUNTS, NO_SCORES
from perception.files.text import html_text
from perception.frame import Frame, subset_name
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.registry import drawn
from perception.tasks.task import Image
from perception.viz.calibration_page import (
    header,
    note,
    picture,
    section,
    table,
    write_page,
)
from perception.viz.html_tables import percent
from perception.viz.legend import draw_explained
from perception.viz.overlay import above
from perception.viz.recording_page import draw_truth, picture_of
from perception.viz.scene import draw_scene, shows_ground

_FRAMES, _FRAMES_EACH, _SUBSETS = 8, 3, 6
_ON_GROUND = (
    "Boxes in the colors of their classes were found; thin white lines are the truth, gray where it is "
    "to be ignored."
)
_IN_PICTURE = "Above the truth, below what was found."


@dataclass(frozen=True)
class Shown:
    """A frame on the page: what it is, and its picture."""

    caption: str
    picture: Image


def shown_frames(
    pipeline: Pipeline,
    recording: Recording,
    subsets: Sequence[tuple[str, ...]],
    min_score: float | None = None,
) -> Iterator[Shown]:
    """Some frames, evenly spread, with what is true and what was found, by the first of these subsets.

    Args:
        pipeline: what was judged; it forgets what it has seen.
        recording: that it was judged by.
        subsets: of sensors.
        min_score: what a user would be shown; None for what the bundle says.
    """
    specs, views = pipeline.manifest.tasks.every, pipeline.manifest.inputs.views(pipeline.inputs)
    each = _FRAMES if len(subsets) == 1 else _FRAMES_EACH
    places = np.unique(np.linspace(0, len(recording) - 1, each).round().astype(int)).tolist()
    before, pipeline.wanted = pipeline.wanted, drawn(specs)
    for subset in subsets[:_SUBSETS]:
        for index in places:
            frame = recording.seen(index, views)
            if not set(subset) <= set(frame):
                continue
            kept = Frame({n: s for n, s in frame.items() if n in subset}, frame.stamp_ns)
            pipeline.reset()
            result = above(pipeline(kept), specs, min_score)
            caption = f"{recording.ids[index]}, {subset_name(subset)}: {result.state}"
            yield Shown(caption, _picture(pipeline, recording, index, kept, result))
    pipeline.reset()
    pipeline.wanted = before


def _picture(
    pipeline: Pipeline, recording: Recording, index: int, frame: Frame, result: Result
) -> Image:
    manifest, truth = pipeline.manifest, recording.truth(index)
    if shows_ground(manifest):
        boxes = truth_on_ground(truth, recording.rig).boxes3d
        return draw_scene(manifest, frame, result, boxes)
    found = draw_explained(manifest, frame, result)
    whole = recording.frame(index)
    labeled = whole.get(recording.info.labels_of) or next(iter(whole.values()))
    true = draw_truth(picture_of(labeled), truth, recording)
    canvas = np.zeros((true.shape[0], max(true.shape[1], found.shape[1]), 3), np.uint8)
    canvas[:, : true.shape[1]] = true
    wide = np.zeros((found.shape[0], canvas.shape[1], 3), np.uint8)
    wide[:, : found.shape[1]] = found
    return np.vstack([canvas, wide])


def write_eval_page(
    pipeline: Pipeline,
    recording: Recording,
    scores: Mapping[str, Mapping[str, Any]],
    frames: Sequence[Shown],
    path: Path,
    *,
    notes: Sequence[str] = (),
    command: str = "",
) -> None:
    """Write the page.

    Args:
        pipeline: what was judged.
        recording: by what.
        scores: by subset, of `evaluation.evaluate.evaluate_subsets`.
        frames: to be shown.
        path: the HTML file.
        notes: what is to be said of the scores.
        command: the line that made it.
    """
    manifest, info = pipeline.manifest, recording.info
    lead = f"{len(recording)} frames of {info.name}, by set of sensors. Scores are in percent."
    lead += " The recording is simulated." if info.simulated else ""
    title = f"{manifest.name} on {info.name}"
    body = header(title, lead)
    body += section("Scores", _scores(scores) + "".join(map(note, notes)))
    if any(row.get("per_class") for row in scores.values()):
        body += section("By class", _per_class(scores))
    if frames:
        legend = _ON_GROUND if shows_ground(manifest) else _IN_PICTURE
        shown = "".join(picture(one.picture, one.caption) for one in frames)
        body += section("Frames", note(legend) + _legend(pipeline) + shown)
    rows = {"Command": command, "Backend": pipeline.backend, "Licence": info.licence}
    body += section("How this was made", table(("", ""), rows.items(), "facts"))
    write_page(path, title, body)


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    every = dict.fromkeys(key for row in scores.values() for key in row)
    names = [key for key in every if key not in NO_SCORES]
    rows = [
        (subset, *(row[n] for n in COUNTS), *(percent(row.get(n)) for n in names))
        for subset, row in scores.items()
    ]
    return table(("subset", *COUNTS, *names), rows)


def _per_class(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores of each class by subset; errors in metres and the like are in the JSON alone."""
    classes = dict.fromkeys(n for row in scores.values() for n in row.get("per_class", {}))
    own = [row["per_class"].get(c, {}) for row in scores.values() for c in classes]
    names = [n for n in dict.fromkeys(n for one in own for n in one) if not n.endswith("_err")]
    parts = []
    for name in names:
        rows = [
            (subset, *(percent(row["per_class"].get(c, {}).get(name)) for c in classes))
            for subset, row in scores.items()
        ]
        parts.append(table((name, *classes), rows))
    return "".join(parts)


def _legend(pipeline: Pipeline) -> str:
    keys = {c.name: c.color for s in pipeline.manifest.tasks.every.values() for c in s.labels}
    return "".join(
        f"<span class='key'><i style='background:rgb{tuple(color)}'></i>{html_text(name)}</span> "
        for name, color in keys.items()
    )
