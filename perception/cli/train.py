"""`anysense train`: train a fusion model from a YAML configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.errors import ConfigError, MissingDependencyError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="train a model from a configuration file")
    parser.add_argument("config", type=Path, help="YAML file, see configs/")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--data", help="KIND:DIR, instead of the configuration's data.source")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's epochs")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--tensorboard", action="store_true", help="also log for TensorBoard (if installed)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="one short epoch on a few frames, to see it work"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; the run folder gets checkpoints, log.csv and curves.png."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "training needs PyTorch", hint="pip install 'anysense[train]'"
        ) from error
    from perception.training.config import load_config
    from perception.training.loop import Trainer

    config = load_config(args.config)
    if args.data:
        config.data.source = args.data
    if args.epochs is not None:
        if args.epochs < 1:
            raise ConfigError("must be at least 1", where="--epochs")
        config.epochs = args.epochs
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.smoke:
        config.epochs, config.optimizer.warmup_epochs = 1, 0
        config.resolution = config.resolution[:1]
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    out = args.out or Path("runs") / config.name
    trainer = Trainer(config, out, device, tensorboard=args.tensorboard)
    if config.model.load_from is not None:
        print("start: {} of {} tensors from {}".format(*trainer.loaded, config.model.load_from))  # noqa: T201
    if args.smoke:
        trainer.shorten(train_frames=3 * config.phase(0).batch, val_frames=4)
    if args.resume:
        trainer.resume()
    trainer.fit()
    print(f"wrote {out}")  # noqa: T201
    return 0
