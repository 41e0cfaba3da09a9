"""`anysense average`: the mean of several runs' weights, judged beside them."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import add_torch_device, command_line, expect_folder, give_json
from perception.cli.console import Table, note, say
from perception.cli.parsing import Commands, add_command, add_threads
from perception.extras import require


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "average",
        "average the weights of runs that went on from the same weights",
        more="Judges each run and the average on the validation part of the training data; export takes the "
        "new run folder.",
        example="anysense average runs/one runs/other --out runs/both",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folders, two or more"
    )
    parser.add_argument("--out", type=Path, required=True, help="new run folder")
    add_torch_device(parser)
    add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Average, judge, write the run, print a table."""
    require("training", "torch")
    import torch

    from perception.training.averaged_runs import Judged, average_runs

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    out = expect_folder(args.out)

    def tell(judged: Judged) -> None:
        say(f"{judged.name}: {judged.quality:.4f}")

    found = average_runs(args.runs, out, args.device, command=command_line(), tell=tell)
    names = list(found[-1].row)
    table = Table("score", *(Path(one.name).name for one in found))
    for name in names:
        values = (one.row.get(name) for one in found)
        table.add_row(name, *("-" if v is None else f"{100 * v:.1f}" for v in values))
    table.show()
    best = max(found[:-1], key=lambda one: one.quality)
    if best.quality > found[-1].quality:
        note(f"the average is worse than {best.name}: did the runs go on from the same weights?")
    say(f"wrote {out}")
    runs = [{"run": one.name, "quality": one.quality, "scores": one.row} for one in found]
    give_json(args, {"out": str(out), "runs": runs[:-1], "average": runs[-1]})
    return 0
