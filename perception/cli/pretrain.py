"""`anysense pretrain`: masked pre-training of a MultiMAE; labels are not used."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import expect_folder
from perception.cli.parsing import Commands, add_command
from perception.cli.train import add_train_arguments, fit, read_config


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "pretrain",
        "masked pre-training on unlabeled frames",
        more="The run folder is what model.start_from of a configuration takes.",
        example="anysense pretrain configs/zoo/multimae.yaml",
    )
    add_train_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Pre-train; the run folder is what `model.start_from` takes."""
    config = read_config(args)
    from perception.training.pretrain import Pretrainer

    out = expect_folder(args.out or Path("runs") / f"{config.name}-pretrained")
    return fit(Pretrainer(config, out, args.device, tensorboard=args.tensorboard), args)
