"""The training of a matcher: steps, checkpoints, validation, and the graph that comes out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from perception.errors import DataError
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_HEADER_BYTES, check_bytes
from perception.files.writing import writing
from perception.training.averaging import WeightAverage
from perception.training.curves import line_of, write_log
from perception.training.devices import training_device
from perception.training.matcher.config import MatcherConfig
from perception.training.matcher.graph import write_graph
from perception.training.matcher.losses import coarse_loss, fine_loss
from perception.training.matcher.network import DescriptorNetwork
from perception.training.matcher.pairs import Crops, crops_of, load_pairs

LAST, BEST, GRAPH = "last.safetensors", "best.safetensors", "matcher.onnx"

_EMA_DECAY = 0.998
_WARM_STEPS = 50
_VALIDATION_PAIRS = 48
_CLIP_NORM = 2.0

Tell = Callable[[str, int, int], None]


class MatcherTrainer:
    """Trains the descriptor network; every draw depends on seed, epoch and step alone.

    Args:
        config: what and how.
        out: folder of the run; gets last.safetensors, best.safetensors, log.csv and matcher.onnx.
        device: auto, cpu or cuda.
        minutes: stop after as many; the learning rate decays over this time, None: over the epochs.
        started: `time.monotonic` of when the minutes began.
        say: gets a line for every epoch.
        tell: gets what is being done, how much of it is, and how much there is.
    """

    def __init__(
        self,
        config: MatcherConfig,
        out: Path,
        device: str = "auto",
        *,
        minutes: float | None = None,
        started: float | None = None,
        say: Callable[[str], None] = lambda line: None,
        tell: Tell = lambda what, done, total: None,
    ) -> None:
        self.config, self.out, self.say, self.tell = config, out, say, tell
        self.device = training_device(device)
        self.minutes = minutes
        self.started = time.monotonic() if started is None else started
        torch.manual_seed(config.seed)
        self.network = DescriptorNetwork().to(self.device)
        for parameter in self.network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = WeightAverage(self.network, _EMA_DECAY)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.lr, weight_decay=config.weight_decay
        )
        self.epoch, self.best = 0, -math.inf
        self.log: list[dict[str, Any]] = []
        self.sources = [
            (source, load_pairs(source, "train", tell)) for source in config.matcher.sources
        ]
        self.sources = [(source, pairs) for source, pairs in self.sources if pairs]
        if not self.sources:
            raise DataError("no pair to learn from", where=str(config.matcher.sources[0].folder))
        held = [load_pairs(source, "val") for source in config.matcher.sources if source.val]
        self.validation = [pair for pairs in held for pair in pairs]

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.config.matcher.steps

    def fit(self) -> None:
        """Train to the end, judge after each epoch, and write the graph of the best average."""
        self.out.mkdir(parents=True, exist_ok=True)
        while self.epoch < self.config.epochs and not self._over():
            begun = time.monotonic()
            losses = [self._step(step) for step in range(self.steps) if not self._over()]
            if not losses:
                break
            self.epoch += 1
            row = {"epoch": self.epoch, "loss": float(np.mean(losses)), **self._judge()}
            row["seconds"] = time.monotonic() - begun
            self.log.append(row)
            score = row.get("score", -row["loss"])
            if score >= self.best:
                self.best = score
                self._save(BEST)
            self._save(LAST)
            write_log(self.log, self.out)
            self.say(line_of(row))
        self._use(BEST if (self.out / BEST).exists() else LAST)
        write_graph(self.network, self.out / GRAPH)

    def _over(self) -> bool:
        return self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes

    def _done_share(self, step: int) -> float:
        share = (self.epoch * self.steps + step) / (self.config.epochs * self.steps)
        if self.minutes is not None:
            share = max(share, (time.monotonic() - self.started) / (60 * self.minutes))
        return min(share, 1.0)

    def _step(self, step: int) -> float:
        config = self.config
        warm = min(1.0, (self.epoch * self.steps + step + 1) / _WARM_STEPS)
        rate = (
            config.lr * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * self._done_share(step))) / 2)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([config.seed, self.epoch, step])
        weights = np.array([source.weight for source, _ in self.sources])
        crops = []
        for _ in range(config.matcher.batch):
            _, pairs = self.sources[int(rng.choice(len(weights), p=weights / weights.sum()))]
            crops.append(crops_of(pairs[int(rng.integers(len(pairs)))], config.matcher, rng))
        self.network.train()
        loss, _ = self._losses(crops, int(rng.integers(2**31)))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self.average.update(self.network)
        self.tell(f"epoch {self.epoch + 1}", step + 1, self.steps)
        return float(loss.detach())

    def _losses(self, crops: list[Crops], seed: int) -> tuple[Tensor, tuple[float, float]]:
        device, temperature = self.device, self.config.matcher.temperature
        images = np.stack([c.a for c in crops] + [c.b for c in crops])
        matrix = torch.from_numpy(np.stack([c.a_to_b for c in crops]).astype(np.float32)).to(device)
        seen_a, seen_b = (
            torch.from_numpy(np.stack([getattr(c, name) for c in crops])).to(device)
            for name in ("valid_a", "valid_b")
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bfloat16):
            coarse, fine = self.network(
                torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            )
        count = len(crops)
        coarse, fine = coarse.float(), fine.float()
        generator = torch.Generator().manual_seed(seed)
        far, far_right = coarse_loss(
            coarse[:count], coarse[count:], matrix, seen_a, seen_b, temperature
        )
        near, near_right = fine_loss(
            fine[:count], fine[count:], matrix, seen_a, seen_b, temperature, generator
        )
        return far + near, (float(far_right), float(near_right))

    @torch.no_grad()
    def _judge(self) -> dict[str, float]:
        """Of the average: shares of cells that find their place, on the same crops each time."""
        if not self.validation:
            return {}
        kept = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.state)
        self.network.eval()
        chosen = self.validation[:: max(1, len(self.validation) // _VALIDATION_PAIRS)]
        rows = []
        spec = self.config.matcher.model_copy(update={"made_up": 0.0})
        for start in range(0, len(chosen), self.config.matcher.batch):
            part = chosen[start : start + self.config.matcher.batch]
            crops = [
                crops_of(pair, spec, np.random.default_rng([start, k]))
                for k, pair in enumerate(part)
            ]
            loss, right = self._losses(crops, start)
            rows.append((float(loss), *right, len(part)))
        self.network.load_state_dict(kept)
        table = np.array(rows)
        loss, far, near = np.average(table[:, :3], axis=0, weights=table[:, 3])
        return {"val_loss": loss, "coarse": far, "fine": near, "score": (far + near) / 2}

    def _save(self, name: str) -> None:
        tensors = {f"ema.{k}": v for k, v in self.average.state.items()}
        if name == LAST:
            tensors |= {f"model.{k}": v for k, v in self.network.state_dict().items()}
            for index, state in self.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        progress = {
            "epoch": self.epoch,
            "best": self.best,
            "averaged": self.average.steps,
            "log": self.log,
        }
        metadata = {"progress": json.dumps(progress), "config": self.config.model_dump_json()}
        with writing(self.out / name) as partial:
            save_file(tensors, partial, metadata=metadata)

    def resume(self) -> None:
        """Go on after the last whole epoch; the same weights come out as of a run that was not stopped.

        Raises:
            DataError: there is no checkpoint, or it is another network's.
        """
        tensors, progress = _read(self.out / LAST)
        state = self.optimizer.state_dict()
        try:
            self.network.load_state_dict(_part(tensors, "model."))
            self.average.state = {k: v.to(self.device) for k, v in _part(tensors, "ema.").items()}
            for key, value in _part(tensors, "optimizer.").items():
                index, _, name = key.partition(".")
                state["state"].setdefault(int(index), {})[name] = value
            self.optimizer.load_state_dict(state)
            self.epoch, self.best = int(progress["epoch"]), float(progress["best"])
            self.average.steps, self.log = int(progress["averaged"]), list(progress["log"])
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise DataError(
                "is no checkpoint of this network", where=str(self.out / LAST)
            ) from error

    def _use(self, name: str) -> None:
        self.network.load_state_dict(_part(_read(self.out / name)[0], "ema."))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError("no checkpoint to go on from", where=str(path.parent)) from error
    check_bytes(size, MAX_ARCHIVE_BYTES, where=str(path), error=DataError)
    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        check_bytes(header, MAX_HEADER_BYTES, where=str(path), error=DataError)
        with safe_open(path, "pt") as file:
            progress = json.loads((file.metadata() or {}).get("progress", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, progress  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
