"""`anysense distill`: train a student from a configuration, taught by one or more trained runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.parsing import Commands, add_command, positive
from perception.cli.train import add_train_arguments, read_config, train
from perception.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "distill",
        "train a student with trained runs as teachers",
        example="anysense distill configs/indoor-rgbd.yaml --teacher runs/large --out runs/small",
    )
    add_train_arguments(parser)
    parser.add_argument(
        "--teacher",
        action="append",
        required=True,
        metavar="RUN",
        help="run folder or bundle; repeatable",
    )
    parser.add_argument("--weight", type=positive(), default=1.0, help="of the teachers")
    parser.add_argument("--temperature", type=positive(), default=2.0, help="softening")
    parser.add_argument(
        "--equal-shares", action="store_true", help="do not prefer, by pixel, who is right there"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the student; as `anysense train` otherwise."""
    config = read_config(args)
    from perception.training.checkpoint import load_checkpoint
    from perception.training.starting import bundle_of

    for run_folder in args.teacher:
        if bundle_of(run_folder, f"--teacher {run_folder}") is not None:
            continue  # the method compares it with the student
        theirs = load_checkpoint(Path(run_folder)).config.preprocess
        own = config.preprocess
        differ = [n for n in own if n in theirs and own[n].preprocess != theirs[n].preprocess]
        for part in ["grid"] * (theirs.grid != own.grid) + differ:
            raise ConfigError(
                "the teacher was trained with another preprocessing than the student's",
                where=f"{run_folder}: preprocess.{part}",
            )
    config.method.name = "distill"
    config.method.options = {
        "teachers": list(args.teacher),
        "weight": args.weight,
        "temperature": args.temperature,
        "by_truth": not args.equal_shares,
    }
    return train(config, args)
