"""`anysense train` with a configuration that has `matcher`: what `anysense calibrate register` sees with."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from perception.cli.arguments import expect_folder, give_json
from perception.cli.console import note, say, step_progress
from perception.errors import ConfigError
from perception.extras import require

_SMOKE_STEPS, _SMOKE_BATCH = 3, 2


def run(args: argparse.Namespace, content: Any, path: Path) -> int:
    """Train a matcher.

    Args:
        args: of `anysense train`.
        content: of the configuration's file.
        path: of it.
    """
    for given, option in ((args.data, "--data"), (args.tensorboard, "--tensorboard")):
        if given:
            raise ConfigError(
                "is not for a matcher", where=option, hint=f"its pairs are named in {path}"
            )
    require("training", "torch", "safetensors", "onnx", "onnxscript")
    import torch

    from perception.training.matcher.config import matcher_config
    from perception.training.matcher.trainer import GRAPH, MatcherTrainer

    config = matcher_config(content, str(path))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.epochs is not None:
        config.epochs = args.epochs
    if args.smoke:
        config.epochs, config.matcher.steps = 1, _SMOKE_STEPS
        config.matcher.batch = _SMOKE_BATCH
    out = expect_folder(args.out or Path("runs") / config.name)
    with step_progress() as progress:
        trainer = MatcherTrainer(
            config, out, args.device, minutes=args.minutes, started=args.started, say=say,
            tell=progress,
        )  # fmt: skip
        if args.resume:
            trainer.resume()
            if trainer.epoch >= config.epochs:
                note(f"{trainer.epoch} epochs are done: there is nothing left (--epochs N)")
        trainer.fit()
    say(f"wrote {out / GRAPH}")
    best = trainer.best if math.isfinite(trainer.best) else None
    give_json(args, {"out": str(out), "best": best, "epochs": trainer.log})
    return 0
