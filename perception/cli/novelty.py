"""`anysense bundle novelty`: a bundle that knows what is far from its training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import (
    add_data_arguments,
    add_engine_arguments,
    add_fitting,
    engine_choices,
    give_json,
    open_data,
    recorded_command,
)
from perception.cli.console import Table, note, say, step_progress
from perception.cli.parsing import Commands, add_command
from perception.data.registry import SPLITS
from perception.errors import ConfigError, names_hint

if TYPE_CHECKING:
    from perception.evaluation.novelty import FittedNovelty


def add_action(actions: Commands) -> None:
    """Register the action."""
    parser = add_command(
        actions,
        "novelty",
        "store what features are like on training frames, so that frames far from these are noticed",
        more="Writes a new bundle with the same graphs.  Limits are of one half of the held-out scenes; the "
        "other says what share of its frames lies beyond them.",
        example="anysense bundle novelty indoor-rgbd --data nyuv2:DIR --split train --held-out val --out OUT",
    )
    parser.add_argument("bundle", help="folder, zip or name of a bundle")
    add_data_arguments(parser, required=True)
    parser.add_argument(
        "--held-out",
        metavar="SPLIT|KIND:DIR",
        required=True,
        help="frames it was not trained on: another split of the same data, or other data",
    )
    add_fitting(
        parser,
        "held-out frames",
        "limits are of all, and each of N parts of their scenes is judged by "
        "the limit of the others (default: limits of one half, judged by the other)",
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run, device="cpu")


def run(args: argparse.Namespace) -> int:
    """Fit, write the new bundle, print a table."""
    from export.bundle_folder import check_target
    from export.calibrated import write_described
    from perception.evaluation.novelty import fit_novelty
    from perception.runtime.bundle import find_bundle
    from perception.runtime.pipeline import Pipeline

    folder = find_bundle(args.bundle)
    check_target(args.out, folder)
    other = _held_out(args)
    if (other.data, other.split) == (args.data, args.split):
        raise ConfigError(
            "are the frames of --data", where=f"--held-out {args.held_out}", hint="another split"
        )
    recording, held_out = open_data(args), open_data(other)
    pipeline = Pipeline.load(folder, args.device, **engine_choices(args))
    with step_progress() as show:
        found = fit_novelty(
            pipeline,
            recording,
            held_out,
            block=args.block,
            folds=args.folds,
            version=args.version,
            on_step=show,
        )
    words = [held_out.info.name, other.split, "novelty"]
    about = {
        "command": recorded_command(),
        "backend": found.backend,
        "frames": dict(found.frames),
        "limits": f"of {len(found.limited.recording)} frames of {found.limited.scenes} scenes",
        "judged": _judged_by(found),
        "beyond": {name: round(share, 4) for name, share in found.beyond.items()},
    }
    write_described(pipeline.bundle, found.manifest, args.out, {" ".join(words): about})
    _print(found, f"{found.manifest.name} on {args.data}, limits of {args.held_out}")
    note(f"limits {about['limits']}, judged {about['judged']}")
    give_json(args, _content(args, found))
    say(
        f"wrote {args.out / 'bundle.yaml'}, version {found.manifest.version}; its graphs are as they were"
    )
    return 0


def _judged_by(found: FittedNovelty) -> str:
    if found.folds:
        return f"in {found.folds} parts, each by the limit of the others"
    return f"by {len(found.judged.recording)} frames of {found.judged.scenes} others"


def _held_out(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the held-out data."""
    own = {"data": args.held_out, "split": "all"}
    if ":" not in args.held_out:
        own = {"split": args.held_out}
        if args.held_out not in SPLITS:
            hint = f"{names_hint(args.held_out, SPLITS)}, or KIND:DIR"
            raise ConfigError("is no split", where=f"--held-out {args.held_out}", hint=hint)
    return argparse.Namespace(**{**vars(args), **own})


def _print(found: FittedNovelty, title: str) -> None:
    table = Table("input", title=title)
    for column in ("frames", "channels", "limit", "beyond, %"):
        table.add_column(column, justify="right")
    for name, own in found.novelty.items():
        channels = sum(len(one.mean) for one in own.features.values())
        cells = [str(found.frames[name]), str(channels), f"{own.limit:.3f}"]
        table.add_row(name, *cells, f"{100 * found.beyond[name]:.1f}")
    table.show()


def _content(args: argparse.Namespace, found: FittedNovelty) -> dict[str, Any]:
    return {
        "bundle": found.manifest.name,
        "bundle_version": found.manifest.version,
        "data": found.fitted.info.name,
        "simulated": found.fitted.info.simulated,
        "split": args.split,
        "held_out": args.held_out,
        "backend": found.backend,
        "folds": found.folds,
        "limited": {"frames": len(found.limited.recording), "scenes": found.limited.scenes},
        "judged": {"frames": len(found.judged.recording), "scenes": found.judged.scenes},
        "inputs": {
            name: {"frames": found.frames[name], "limit": own.limit, "beyond": found.beyond[name]}
            for name, own in found.novelty.items()
        },
    }
