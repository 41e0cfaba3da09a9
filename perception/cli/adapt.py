"""`anysense adapt`: let uni-modal runs teach each other on unlabeled multi-modal frames."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import (
    add_data_arguments,
    add_torch_device,
    give_json,
    open_data,
    output_folder,
)
from perception.cli.console import counted, note, say
from perception.cli.parsing import Commands, add_command, positive, real, whole
from perception.extras import require


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "adapt",
        "adapt trained runs to unlabeled frames",
        example="anysense adapt runs/rgb runs/thermal --data folder:DIR --out runs/adapted",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run per sensor")
    add_data_arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapted runs")
    parser.add_argument("--epochs", type=whole(1), default=2, help="passes over the frames")
    parser.add_argument("--lr", type=positive(), default=2e-5, help="learning rate")
    parser.add_argument("--batch", type=whole(2), default=4, help="frames per step")
    parser.add_argument(
        "--fusion",
        choices=("auto", "agreement", "entropy"),
        default="auto",
        help="how pseudo-labels are made",
    )
    parser.add_argument(
        "--threshold", type=real(0), default=0.3, help="gap from which on agreement is required"
    )
    add_torch_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Adapt, print what was chosen and, where there are labels, the scores before and after."""
    require("adaptation", "torch")
    from perception.training.adapt import Adapter, AdaptOptions

    out = output_folder(args.out)
    options = AdaptOptions(
        args.epochs, args.lr, args.batch, fusion=args.fusion, threshold=args.threshold
    )
    adapter = Adapter(args.runs, open_data(args), options, args.device)
    if adapter.left_out:
        note(f"{adapter.left_out} frames lack a sensor: left out")
    with counted("adapting", adapter.steps) as advance:
        report = adapter.run(out, advance)
    say(f"estimated domain gap {report.gap:.2f}: pseudo-labels by {report.fusion}")
    say(f"pixels with a pseudo-label: {100 * report.kept:.0f} %")
    for name, score in report.after.items():
        say(f"{name}: mIoU {100 * report.before[name]:.1f} -> {100 * score:.1f} on these frames")
    say(f"wrote {out}")
    found = {"gap": report.gap, "fusion": report.fusion, "kept": report.kept}
    give_json(args, {**found, "before": report.before, "after": report.after, "out": str(out)})
    return 0
