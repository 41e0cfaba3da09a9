"""The models and methods of the zoo, compared: equal frames, size, augmentation and length in a study.

    python benchmarks/zoo.py nyuv2 [--only ssma mixer] [--out runs/zoo]
    anysense bench-zoo runs/zoo/nyuv2/bundles/* --data nyuv2:data/nyuv2/train --split val --out table.md

A finished run is kept, an interrupted one goes on.  Runs that need others (SSMA its experts, a student
its teachers) come after these.  The studies are in benchmarks/zoo_studies.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from zoo_studies import STUDIES, Entry

from perception.cli.main import main as anysense
from perception.errors import AnySenseError, ConfigError, names_hint
from perception.training.config import FreezeSpec, MethodSpec, ModelSpec, TrainConfig, load_config


def config_of(entry: Entry, base: TrainConfig, name: str, runs: Path) -> TrainConfig:
    """The common configuration with what the entry changes."""
    start = [str(runs / other) for other in entry.start_from]
    if entry.pretrain:
        start = [str(runs / f"{name}-pretrained")]
    model = ModelSpec(
        name=entry.model,
        pretrained=entry.imagenet,
        options=dict(entry.options),
        start_from=start,
        freeze=[FreezeSpec(parts=list(entry.frozen), epochs=4)] if entry.frozen else [],
    )
    method = MethodSpec(name=entry.method)
    if entry.teachers:
        method = MethodSpec(
            name="distill", options={"teachers": [str(runs / t) for t in entry.teachers]}
        )
    return base.model_copy(
        update={
            "name": f"zoo-{name}",
            "model": model,
            "method": method,
            "tasks": list(entry.tasks) or base.tasks,
            "preprocess": base.preprocess.only(entry.modalities),
            "optimizer": base.optimizer.model_copy(update={"lr": entry.lr}),
        },
        deep=True,
    )


def train(config: TrainConfig, entry: Entry, out: Path, device: str) -> None:
    """Pre-train where the entry says so, then train; goes on where it was interrupted."""
    from perception.training.loop import Trainer
    from perception.training.pretrain import Pretrainer

    if entry.pretrain:
        first = config.model_copy(deep=True)
        first.model.start_from, first.epochs = [], entry.pretrain
        first.validate_every = entry.pretrain
        _finish(Pretrainer(first, out.with_name(f"{out.name}-pretrained"), device))
    _finish(Trainer(config, out, device))


def _finish(trainer: Any) -> None:
    if (trainer.out / "last.safetensors").is_file():
        trainer.resume()
    trainer.fit()


def main() -> int:
    """Train and export the entries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--only", nargs="+", metavar="ENTRY", help="entries of the study")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        study, folder = STUDIES[args.study], args.out / args.study
        unknown = set(args.only or ()) - set(study.entries)
        if unknown:
            hint = names_hint(min(unknown), study.entries)
            raise ConfigError(f"unknown entry {', '.join(unknown)}", hint=hint)
        base = load_config(Path(study.config))
        for name in args.only or study.entries:
            entry, run = study.entries[name], folder / name
            train(config_of(entry, base, name, folder), entry, run, args.device)
            bundle = folder / "bundles" / name
            if not (bundle / "bundle.yaml").is_file():
                code = anysense(["export", str(run), "--out", str(bundle), "--name", name])
                if code:
                    return code
    except AnySenseError as error:
        print(f"zoo: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
