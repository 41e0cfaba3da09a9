"""What the start from ImageNet and separate encoders are worth, with equal, short budgets.

    python benchmarks/ablations.py configs/indoor-rgbd.yaml [--epochs 5] [--out out/ablations]

Trains the configuration's model at its first resolution several times, changing one thing at a
time, and prints the validation score of every subset.  A finished variant is not trained again, an
interrupted one goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from perception.errors import AnySenseError, ConfigError
from perception.training.config import TrainConfig, load_config

VARIANTS: dict[str, dict[str, Any]] = {
    "separate encoders, ImageNet": {},
    "separate encoders, random": {"pretrained": False},
    "shared encoder, ImageNet": {"encoders": "shared"},
}


def variant(config: TrainConfig, change: dict[str, Any], epochs: int) -> TrainConfig:
    """The configuration with one thing changed, `epochs` long, at its first resolution.

    Args:
        config: the base.
        change: `pretrained` and `encoders` of the model.
        epochs: length; the learning rate decays to its end.
    """
    model = config.model.model_copy(deep=True)
    model.pretrained = change.get("pretrained", model.pretrained)
    if "encoders" in change:
        model.options["encoders"] = change["encoders"]
    return config.model_copy(
        update={
            "model": model,
            "epochs": epochs,
            "resolution": [config.resolution[0].model_copy(update={"from_epoch": 0})],
            "validate_every": epochs,
            # The average that is scored must not reach back to the start of so short a run.
            "optimizer": config.optimizer.model_copy(update={"ema_decay": 0.98}),
        },
        deep=True,
    )


def train(config: TrainConfig, out: Path, threads: int | None) -> dict[str, float]:
    """Train unless the folder has the finished run; the last epoch's row of scores."""
    import torch

    from perception.training.loop import Trainer

    if threads:
        torch.set_num_threads(threads)
    trainer = Trainer(config, out)
    if (out / "last.safetensors").is_file():
        trainer.resume()
    trainer.fit()
    with (out / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {k: float(v) for k, v in last.items() if "/" in k and v}


def main() -> int:
    """Train the variants and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    try:
        if args.epochs < 1:
            raise ConfigError("--epochs must be positive")
        base = load_config(args.config)
        for name, change in VARIANTS.items():
            folder = args.out / name.replace(", ", "-").replace(" ", "-").lower()
            found[name] = train(variant(base, change, args.epochs), folder, args.threads)
    except AnySenseError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 2
    (args.out / "ablations.json").write_text(json.dumps(found, indent=2) + "\n")
    for name, scores in found.items():
        row = "  ".join(f"{k} {100 * v:.1f}" for k, v in scores.items())
        print(f"{name}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
