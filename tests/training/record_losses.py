"""Trains as a configuration says and writes the loss of each step: `record_losses.py CONFIG OUT [--resume]`.

`torchrun` may start it as several processes.
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


class _Recorder(Trainer):
    losses: list[float | None]

    def step(self, batch: Batch, subset: tuple[str, ...], *further: Batch) -> Tensor | None:
        loss = super().step(batch, subset, *further)
        self.losses.append(None if loss is None else float(loss))
        return loss


def main(config: str, out: str, *options: str) -> None:
    torch.set_num_threads(1)
    ranks = join()
    trainer = _Recorder(load_config(Path(config)), Path(out))
    trainer.losses = []
    if "--resume" in options:
        trainer.resume()
    trainer.fit()
    weights = [float(p.detach().double().abs().sum()) for p in trainer.model.parameters()]
    for rank, (losses, own) in enumerate(ranks.heard((trainer.losses, weights))):
        if ranks.first:
            Path(out, f"losses-{rank}.json").write_text(json.dumps(losses))
            Path(out, f"weights-{rank}.json").write_text(json.dumps(own))
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
