"""`anysense pretrain`: masked pre-training of a MultiMAE; labels are not used."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import expect_folder
from perception.cli.train import add_train_arguments, fit, read_config


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("pretrain", help="masked pre-training on unlabeled frames")
    add_train_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Pre-train; the run folder is what `model.start_from` takes."""
    config = read_config(args)
    from perception.training.pretrain import Pretrainer

    out = expect_folder(args.out or Path("runs") / f"{config.name}-pretrained")
    return fit(Pretrainer(config, out, args.device, tensorboard=args.tensorboard), args)
