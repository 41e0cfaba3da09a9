"""`anysense metrics`: 3D boxes held against their truth as nuScenes' and KITTI's own programs do it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import give_json
from perception.cli.console import Table, note, say
from perception.cli.parsing import Commands, add_command, add_group

if TYPE_CHECKING:
    from perception.metrics.boxes3d import NuScenesScore

_ERRORS = {
    "trans_err": "ATE m",
    "scale_err": "ASE",
    "orient_err": "AOE rad",
    "vel_err": "AVE m/s",
    "attr_err": "AAE",
}
_METRICS = {
    "detection": "2D",
    "detection_ground": "BEV",
    "detection_3d": "3D",
    "orientation": "AOS",
}


def add_parser(commands: Commands) -> None:
    """Register the command."""
    actions = add_group(
        commands,
        "metrics",
        "hold 3D boxes against their truth by nuScenes' or KITTI's metrics",
        example="anysense metrics nuscenes --truth truth.json --predictions found.json",
    )
    for name, text, run in (
        ("nuscenes", "mean average precision, errors of true positives, and NDS", run_nuscenes),
        ("kitti", "average precision in the picture, on the ground, in space; AOS", run_kitti),
    ):
        action = add_command(
            actions,
            name,
            text,
            more="What the files are: docs/metrics.md.",
            example=f"anysense metrics {name} --truth truth.json --predictions found.json",
        )
        for what in ("truth", "predictions"):
            action.add_argument(
                f"--{what}",
                type=Path,
                required=True,
                metavar="FILE",
                help=f"JSON file that holds `{what}`; both may be in one",
            )
        action.set_defaults(run=run)


def run_nuscenes(args: argparse.Namespace) -> int:
    """Print classes and the score."""
    from perception.evaluation.box_files import read_nuscenes
    from perception.metrics.boxes3d import nuscenes_score

    truth, predictions, samples = read_nuscenes(args.truth, args.predictions)
    score = nuscenes_score(truth, predictions)
    content = {"samples": samples, "objects": len(truth), "predicted": len(predictions)}
    give_json(args, {**content, **score.to_dict()})
    _show_nuscenes(
        score, f"predictions: {len(predictions)}, objects: {len(truth)}, samples: {samples}"
    )
    return 0


def _show_nuscenes(score: NuScenesScore, title: str) -> None:
    distances = list(next(iter(score.label_aps.values())))
    table = Table("class", title=title)
    for column in ("AP", *(f"{distance:g} m" for distance in distances), *_ERRORS.values()):
        table.add_column(column, justify="right")
    for name, mean in score.mean_dist_aps.items():
        aps, errors = score.label_aps[name], score.label_tp_errors[name]
        cells = [_percent(ap) for ap in (mean, *aps.values())]
        table.add_row(name, *cells, *(_error(errors[key]) for key in _ERRORS))
    blank = [""] * len(distances)
    cells = [_error(score.tp_errors[key]) for key in _ERRORS]
    table.add_row("mean", _percent(score.mean_ap), *blank, *cells)
    table.show()
    say(f"mAP {_percent(score.mean_ap)}, NDS {_percent(score.nd_score)}")


def run_kitti(args: argparse.Namespace) -> int:
    """Print the average precision of each class."""
    from perception.evaluation.box_files import read_kitti
    from perception.metrics.boxes3d import kitti_score
    from perception.metrics.boxes3d.kitti import DIFFICULTIES, JUDGED, NO_ALPHA

    truth, found, overlap, frames = read_kitti(args.truth, args.predictions)
    scores = kitti_score(truth, found, overlap).to_dict()
    content = {"frames": frames, "objects": len(truth), "predicted": len(found)}
    give_json(args, {**content, "overlap": overlap, **scores})
    table = Table(
        "class", "", title=f"predictions: {len(found)}, labels: {len(truth)}, frames: {frames}"
    )
    for points in ("R40", "R11"):
        for level in DIFFICULTIES:
            table.add_column(f"{points} {level}", justify="right")
    for kind in JUDGED:
        name = f"{kind} > {overlap[kind]:g}"
        for metric, title in _METRICS.items():
            own: Mapping[str, Mapping[str, Any]] = scores[f"{kind.lower()}_{metric}"]
            cells = [own[level][points] for points in ("r40", "r11") for level in DIFFICULTIES]
            table.add_row(name, title, *("-" if c is None else f"{c:.2f}" for c in cells))
            name = ""
    table.show()
    if (found.alpha == NO_ALPHA).any():
        note(f"AOS is not judged: a prediction has no alpha ({NO_ALPHA:g})")
    if lacking := [k for k in JUDGED if scores[f"{k.lower()}_detection_3d"]["easy"]["r40"] is None]:
        note(f"no 3D box is predicted of {', '.join(lacking)}, which KITTI then leaves out")
    return 0


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


def _error(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
