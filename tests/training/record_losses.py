"""Trains as a configuration says and writes the loss of each step: `record_losses.py CONFIG OUT`.

`torchrun` may start it as several processes; `--pretrain` pre-trains.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from perception.training.config import load_config
from perception.training.dataset import Batch
from perception.training.distributed import join, leave
from perception.training.loop import Trainer
from perception.training.pretrain import Pretrainer


def recorded(trainer: Trainer) -> list[float | None]:
    """The losses of its steps, as they come."""
    losses: list[float | None] = []
    step = trainer.step

    def steps(batch: Batch, subset: tuple[str, ...], *further: Batch) -> Tensor | None:
        loss = step(batch, subset, *further)
        losses.append(None if loss is None else float(loss))
        return loss

    trainer.step = steps  # type: ignore[method-assign]
    return losses


def main(config: str, out: str, *options: str) -> None:
    torch.set_num_threads(1)
    ranks = join()
    kind = Pretrainer if "--pretrain" in options else Trainer
    trainer = kind(load_config(Path(config)), Path(out))
    losses = recorded(trainer)
    trainer.fit()
    weights = [float(p.detach().double().abs().sum()) for p in trainer.model.parameters()]
    for rank, (each, own) in enumerate(ranks.heard((losses, weights))):
        if ranks.first:
            Path(out, f"losses-{rank}.json").write_text(json.dumps(each))
            Path(out, f"weights-{rank}.json").write_text(json.dumps(own))
    leave()
    names = [
        task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    ]
    if left := [name for name in names if "gloo" in name]:
        raise RuntimeError(f"threads of the group outlive it: {', '.join(left)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
