"""`anysense train`: train a fusion model from a YAML configuration."""

from __future__ import annotations

import argparse
import math
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli import together
from perception.cli.arguments import add_torch_device, command_line, expect_folder, give_json
from perception.cli.console import note, say
from perception.cli.parsing import MAX_COUNT, Commands, add_command, add_threads, positive, whole
from perception.errors import ConfigError
from perception.extras import require
from perception.files.folders import writing_folder
from perception.files.shipped import find_config
from perception.files.text import read_yaml
from perception.plugins import suspecting
from perception.tasks.registry import TASKS

if TYPE_CHECKING:
    from perception.training.config import TrainConfig
    from perception.training.loop import Trainer

TRAINERS = {"matcher": "perception.cli.train_matcher"}
"""By the field that only their configurations have: modules whose `run` trains what is no fusion model."""

SMOKE_BATCHES, SMOKE_VALIDATION = 3, 4
"""Training batches and validation frames of `--smoke`."""


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "train",
        "train a model from a configuration file",
        more="The run folder gets checkpoints, log.csv and curves.png.",
        example="anysense train configs/indoor-rgbd.yaml --out runs/mine",
    )
    add_train_arguments(parser)
    parser.set_defaults(run=run)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that trains."""
    parser.add_argument(
        "config", type=Path, help="YAML file, or the name of one of ours, see configs/"
    )
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument(
        "--data", help="KIND:DIR instead of the configured sources, split as that kind is"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=whole(1), help="instead of the configuration's epochs")
    length.add_argument(
        "--minutes",
        type=positive(MAX_COUNT),
        help="as many epochs as fit, found from the first ones; stops when the time is over",
    )
    add_torch_device(parser)
    add_threads(parser)
    parser.add_argument(
        "--tensorboard", action="store_true", help="also log for TensorBoard (its extra)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="one short epoch on a few frames, to see it work"
    )


def run(args: argparse.Namespace) -> int:
    """Train; the run folder gets checkpoints, log.csv and curves.png."""
    _begin(args)
    path = find_config(args.config)
    content = read_yaml(path, error=ConfigError)
    for field, module in TRAINERS.items():
        if isinstance(content, dict) and field in content:
            together.require_alone(f"the training of a {field}")
            status: int = import_module(module).run(args, content, path)
            return status
    return train(read_config(args), args)


def read_config(args: argparse.Namespace) -> TrainConfig:
    """The configuration, with what the arguments change.

    Raises:
        ConfigError: the file or an argument is wrong.
        MissingDependencyError: there is no PyTorch.
    """
    _begin(args)
    require("training", "torch")
    import torch

    from perception.training.config import load_config

    config = load_config(find_config(args.config))
    if args.data:
        _take_data(config, args.data)
    if args.epochs is not None:
        config.epochs = args.epochs
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.smoke:
        config.epochs, config.optimizer.warmup_epochs = 1, 0
        config.resolution = config.resolution[:1]
        out = args.out or Path("runs") / config.name
        together.first_then_others(lambda: _simulate_absent_data(config, out))
    return config


def _begin(args: argparse.Namespace) -> None:
    if hasattr(args, "started"):
        return
    args.started = time.monotonic()  # of --minutes: what is imported now takes some of them
    if together.several():
        require("training", "torch")
        together.join()
    if args.smoke and args.minutes is not None:
        raise ConfigError("is one epoch by itself", where="--smoke", hint="leave --minutes out")


def _take_data(config: TrainConfig, argument: str) -> None:
    """Train on `argument` instead; reader options that belong to another kind of data go."""
    from perception.data.registry import kind_name, parse_data_argument
    from perception.training.config import listed

    first = listed(config.data.source)[0]
    kind, configured = (kind_name(parse_data_argument(s)[0]) for s in (argument, first))
    if kind != configured and config.data.options:
        names = ", ".join(config.data.options)
        note(f"data.options ({names}) are for {configured} data and left aside")
        config.data.options = {}
    config.data.source, config.data.val_source = argument, None


def _simulate_absent_data(config: TrainConfig, out: Path) -> None:
    """Let a configuration for simulated streets be tried out before these were made."""
    from perception.data.registry import parse_data_argument
    from perception.training.config import listed

    sources = [parse_data_argument(source) for source in listed(config.data.source)]
    if any(kind != "folder" or root.exists() for kind, root in sources):
        return
    root = sources[0][1]
    from perception.sim.generate import make_recording

    folder = out / "smoke-data"
    say(f"{root} does not exist: trying out on a few simulated frames in {folder}")
    if not folder.exists():
        frames = SMOKE_BATCHES * config.phase(0).batch + 2 * SMOKE_VALIDATION
        with writing_folder(folder) as partial:
            make_recording(partial, "scenes", frames * 5 // 4, seed=1)
    config.data.source, config.data.val_source = f"folder:{folder}", None


def train(config: TrainConfig, args: argparse.Namespace) -> int:
    """Run the training that `config` describes."""
    from perception.models.registry import MODELS
    from perception.training.loop import Trainer
    from perception.training.methods import METHODS

    out = expect_folder(args.out or Path("runs") / config.name)
    tasks = [(TASKS, task) for task in config.tasks]
    with suspecting((MODELS, config.model.name), (METHODS, config.method.name), *tasks):
        trainer = Trainer(config, out, args.device, tensorboard=args.tensorboard)
        trainer.command = command_line()
        return fit(trainer, args)


def fit(trainer: Trainer, args: argparse.Namespace) -> int:
    """Let a trainer run to its end: from the start, resumed, or only to see it work."""
    if args.smoke:
        trainer.shorten(SMOKE_BATCHES * trainer.config.phase(0).batch, SMOKE_VALIDATION)
    if args.resume:
        trainer.resume()
        done, wanted = trainer.epoch, trainer.config.epochs
        if done >= wanted and args.minutes is None:
            note(
                f"{done} epochs are done and {wanted} asked for: there is nothing left (--epochs N)"
            )
    if args.minutes is not None:
        from perception.training.budget import Budget

        trainer.budget = Budget(args.minutes, args.started)
    trainer.fit()
    say(f"wrote {trainer.out}")
    if not trainer.ranks.first:
        return 0
    best = trainer.best if math.isfinite(trainer.best) else None
    give_json(args, {"out": str(trainer.out), "best": best, "epochs": trainer.log})
    return 0
