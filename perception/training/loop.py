"""The training loop: subsets by modality dropout, AdamW, poly decay, EMA, resumable checkpoints."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor, nn
from torch.utils.data import DataLoader

from perception.data.base import RecordingInfo
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.files.fields import check_fields
from perception.files.text import printable
from perception.files.writing import write_text
from perception.frame import subsets_of
from perception.models.heads import half_of
from perception.models.interface import FusionModel
from perception.progress import Pace
from perception.tasks.registry import judged
from perception.training.batches import (
    SensorBatches,
    labeled_frames,
    require_sensors,
    sensor_notes,
    truth_notes,
    usable_workers,
)
from perception.training.building import (
    build_from_config,
    describe_recording,
    open_splits,
    recording_info,
)
from perception.training.checkpoint import (
    BEST,
    LAST,
    config_text,
    load_checkpoint,
    load_weights,
    restore_optimizer,
    save_checkpoint,
)
from perception.training.config import TrainConfig
from perception.training.curves import open_board, plot_curves
from perception.training.dataset import (
    Batch,
    FusionDataset,
    collate,
    network_inputs,
    on_device,
    tensors_of,
)
from perception.training.devices import training_device
from perception.training.memory import within_memory
from perception.training.methods import build_method
from perception.training.objectives import loss_terms
from perception.training.precision import autocast
from perception.training.starting import freeze, start_from
from perception.training.tasks import in_todays_words
from perception.training.validate import validate


class WeightAverage:
    """Exponential moving average of a model's state, with a short warm-up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present state."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value.detach(), 1 - decay)
            else:
                self.state[key].copy_(value)


class _Progress(BaseModel):
    """What `Trainer.resume` takes up from a checkpoint's progress."""

    epoch: int = Field(ge=0)
    best: float | None = None
    ema_steps: int = Field(ge=0)
    log: list[dict[str, int | float | None]]
    method: dict[str, float] = Field(default_factory=dict)


def _difference(before: Any, now: Any, place: str = "") -> str:
    """The first field in which two configurations differ; empty where they are the same."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        inner = (
            _difference(before.get(k), now.get(k), f"{place}.{k}" if place else k)
            for k in {**before, **now}
        )
        return next(filter(None, inner), "")
    return "" if before == now else f"{place} was {before}, is {now}"


class Trainer:
    """One training run.

    Args:
        config: the configuration.
        out: the run folder; gets `last.safetensors`, `best.safetensors`, `log.csv`, `curves.png`.
        device: `cpu`, `cuda` or `auto`.
        tensorboard: also write the log for TensorBoard into the run folder.

    Raises:
        ConfigError: the configuration contradicts its data, or there is no such device.
        MissingDependencyError: TensorBoard is wanted, but not installed.
    """

    def __init__(
        self, config: TrainConfig, out: Path, device: str = "cpu", *, tensorboard: bool = False
    ) -> None:
        self.device = training_device(device)
        config_text(config)  # fails, if at all, before any work
        self.board = open_board(Path(out)) if tensorboard else None
        self.config = config
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        train, val = open_splits(config)
        self.train_set, self.val_set = (
            FusionDataset(
                split, config.preprocess, config.corruption, config.seed, self.learned_tasks()
            )
            for split in (train, val)
        )
        self.model = self.build(train.info)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.model, config.optimizer.ema_decay)
        self.method = build_method(config.method, self.model)
        self.method.check(train.info, config.tasks)
        self.method.precision = config.precision
        self.optimizer = torch.optim.AdamW(self.optimizer_groups(), lr=config.optimizer.lr)
        self.prepared = {
            task: half_of(task).prepare(train, self.model.tasks[task], config.loss.class_balance)
            for task in self.learned_tasks()
        }
        self.epoch = 0
        self.best = -math.inf
        self.log: list[dict[str, Any]] = []
        self.tell: Callable[[str], None] = lambda line: None

    def learned_tasks(self) -> Sequence[str]:
        """The tasks whose truth is learned."""
        return self.config.tasks

    def build(self, info: RecordingInfo) -> FusionModel:
        """The model to be trained, for data of this kind; a kind of training may build another."""
        return build_from_config(self.config, info, pretrained=True)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """What the optimizer takes: parameters by how fast they learn, and whether they decay."""
        spec = self.config.optimizer
        backbone = self.model.parameter_groups()["backbone"]
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            pretrained = self.config.model.pretrained and name in backbone
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr_factor": spec.encoder_lr_factor if pretrained else 1.0,
                "weight_decay": spec.weight_decay if decays else 0.0,
            }
            for (pretrained, decays), parameters in sorted(groups.items())
        ]

    def resume(self) -> None:
        """Go on from `last.safetensors` of the run folder.

        Raises:
            DataError: there is none, or it is damaged or of another model.
            ConfigError: the run was started with another configuration or on other classes.
        """
        where = str(self.out / LAST)
        state = load_checkpoint(self.out / LAST)
        # The number of workers changes no result, and differs from machine to machine.
        free = {"epochs", "workers"}
        difference = _difference(
            state.config.model_dump(mode="json", exclude=free),
            self.config.model_dump(mode="json", exclude=free),
        )
        if difference:
            raise ConfigError(
                f"the run was started with another configuration: {difference}",
                where=where,
                hint="use another --out, or the old configuration",
            )
        require_same_classes(
            recording_info(state.progress),
            self.train_set.recording.info,
            self.config.tasks,
            what="the run",
            where="data.source",
        )
        progress = check_fields(_Progress, state.progress, where=f"{where}: progress")
        load_weights(self.model, state.ema, where)  # only to see that they fit
        load_weights(self.model, state.weights, where)
        self.average.state = {k: v.to(self.device) for k, v in state.ema.items()}
        restore_optimizer(self.optimizer, state.optimizer, where)
        self.epoch, self.average.steps = progress.epoch, progress.ema_steps
        self.best = -math.inf if progress.best is None else progress.best
        self.log = [{in_todays_words(k): v for k, v in row.items()} for row in progress.log]
        self.method.state.update({in_todays_words(k): v for k, v in progress.method.items()})

    def shorten(self, train_frames: int, val_frames: int) -> None:
        """Keep only the first frames of both splits, to try a configuration out."""
        for data, count in ((self.train_set, train_frames), (self.val_set, val_frames)):
            data.recording.ids = data.recording.ids[:count]

    def fit(self) -> None:
        """Train to the last epoch, checkpointing after each."""
        self._sweep()
        notes = self._look_at_data()
        if self.epoch == 0:
            if self.config.model.start_from:
                start_from(self.model, self.config.model.start_from)
            self.method.begin()
            self.average = WeightAverage(self.model, self.config.optimizer.ema_decay)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        with Progress(*columns, TimeRemainingColumn()) as progress:
            self.tell = lambda line: progress.console.print(Text(printable(line)), soft_wrap=True)
            task = progress.add_task(printable(self.config.name), total=self.config.epochs)
            progress.update(task, completed=self.epoch)
            for note in notes:
                progress.console.print(Text(printable(f"note: {note}")), soft_wrap=True)
            while self.epoch < self.config.epochs:
                row = self._run_epoch()
                self.epoch += 1
                last = self.epoch == self.config.epochs
                if last or self.epoch % self.config.validate_every == 0:
                    row |= self._validate()
                self.log.append(row)
                self._save()
                if self.board is not None:
                    for name, value in row.items():
                        if value is not None:
                            self.board.add_scalar(name, value, self.epoch)
                    self.board.flush()
                progress.update(task, completed=self.epoch)
                progress.console.print(Text(printable(_line(row))), soft_wrap=True)

    def _sweep(self) -> None:
        """Remove what a killed run was writing."""
        for pattern in (".*.part.*", ".tmp??????"):
            for stale in self.out.glob(pattern):
                stale.unlink(missing_ok=True)

    def _look_at_data(self) -> list[str]:
        """Read all frames; what is to be said of those that lack something.

        Raises:
            ConfigError: a sensor or a task has nothing to learn from.
        """
        source = self.config.data.source
        self.train_set.preload()
        require_sensors(self.train_set, source)
        notes = sensor_notes(self.train_set, "training")
        notes += self.truth_notes()
        self.val_set.preload()
        notes += sensor_notes(self.val_set, "validation")
        if not self.can_be_judged():
            notes.append("validation has no truth: there is no best epoch, export takes the last")
        return notes

    def can_be_judged(self) -> bool:
        """Whether validation frames have what `judge` needs."""
        return any(labeled_frames(self.val_set, task, to_judge=True) for task in self.config.tasks)

    def truth_notes(self) -> list[str]:
        """What is to be said of what there is to learn.

        Raises:
            ConfigError: there is nothing.
        """
        return truth_notes(self.train_set, self.config.tasks, self.config.data.source)

    def _loader(self, epoch: int) -> Iterable[Batch]:
        self.train_set.epoch = epoch
        self.train_set.phase = self.config.phase(epoch)
        size = self.train_set.phase.batch
        if len(self.train_set) < size:
            raise ConfigError(
                f"{len(self.train_set)} training frames are fewer than a batch of {size}",
                where="resolution.batch",
            )
        sensors = [self.train_set.modalities(index) for index in range(len(self.train_set))]
        order = torch.Generator().manual_seed(self.config.seed * 100003 + epoch)
        loader: DataLoader[Any] = DataLoader(
            self.train_set,
            batch_sampler=SensorBatches(sensors, size, order),
            generator=order,
            collate_fn=collate,
            num_workers=usable_workers(self.config.workers),
            pin_memory=self.device.type == "cuda",
        )
        self.steps_per_epoch = len(loader)
        return loader  # type: ignore[return-value]

    def _draw_subset(self, rng: np.random.Generator, available: Sequence[str]) -> tuple[str, ...]:
        subsets = subsets_of(available)
        if len(subsets) == 1 or rng.random() < self.config.full_set_probability:
            return subsets[0]
        return subsets[1 + int(rng.integers(len(subsets) - 1))]

    def _set_rate(self, epoch_now: float) -> float:
        spec = self.config.optimizer
        warm = min(1.0, (epoch_now + 1e-3) / spec.warmup_epochs) if spec.warmup_epochs else 1.0
        rate = spec.lr * warm * max(0.0, 1 - epoch_now / self.config.epochs) ** spec.power
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        return rate

    def _run_epoch(self) -> dict[str, Any]:
        rng = np.random.default_rng((self.config.seed, self.epoch, 7))
        torch.manual_seed(self.config.seed * 7919 + self.epoch)
        self.model.train()
        freeze(self.model, self.config.model.freeze, self.epoch)
        start, rate = time.perf_counter(), 0.0
        losses: list[float] = []
        batches = self._loader(self.epoch)
        pace = Pace(f"epoch {self.epoch + 1}", self.steps_per_epoch)
        for step, batch in enumerate(batches):
            if (line := pace.line(step)) is not None:
                self.tell(f"{line}  loss {np.mean(losses[-50:]):.4g}" if losses else line)
            rate = self._set_rate(self.epoch + step / self.steps_per_epoch)
            with within_memory("one training step", "resolution", "a smaller batch or crop"):
                loss = self.step(batch, self._draw_subset(rng, tuple(batch.inputs)))
            if loss is not None and not math.isfinite(loss):
                raise self._not_finite(batch, step)
            losses += [] if loss is None else [loss]
        return {
            "epoch": self.epoch + 1,
            "loss": float(np.mean(losses)) if losses else None,
            "lr": rate,
            "seconds": time.perf_counter() - start,
            **self.method.diagnostics(),
        }

    def _not_finite(self, batch: Batch, step: int) -> ConfigError:
        """Why a step's loss is not finite: what went in, or the weights."""
        for modality, values in batch.inputs.items():
            if not all(torch.isfinite(x).all() for x in tensors_of(values)):
                frame = next(
                    (f for f in range(len(self.train_set)) if self._spoiled(f, modality)), -1
                )
                name = f", frame {self.train_set.recording.ids[frame]}" if frame >= 0 else ""
                return ConfigError(
                    f"the network input of {modality} is not finite",
                    where=f"{self.config.data.source}{name}",
                    hint="look at the values of the sample, and at preprocess",
                )
        return ConfigError(
            f"the loss is not finite any more in epoch {self.epoch + 1}, step {step + 1}",
            hint="lower optimizer.lr",
        )

    def _spoiled(self, index: int, modality: str) -> bool:
        values = network_inputs(self.train_set.raw(index), self.config.preprocess).get(modality)
        return values is not None and not all(np.isfinite(x).all() for x in tensors_of(values))

    def step(self, batch: Batch, subset: tuple[str, ...]) -> float | None:
        """One step; its loss, or None for a batch that there is nothing to learn from."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.learn(batch, subset)
        if loss is None:
            return None
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.average.update(self.model)
        return float(loss)

    def learn(self, batch: Batch, subset: tuple[str, ...]) -> Tensor | None:
        """Leave the gradients of a step in the parameters, of these inputs of a batch; returns its loss.

        None, and no gradients, for a batch that there is nothing to learn from.
        """
        chosen = {m: batch.inputs[m] for m in subset}
        inputs = on_device(
            chosen, self.device, memory_format=torch.channels_last, non_blocking=True
        )
        with autocast(self.device, self.config.precision):
            output = self.model(inputs)
        terms = loss_terms(self.model, output, batch, self.config.loss, self.prepared)
        terms |= self.method.extra_terms(inputs, output, batch)
        return self.method.backward(terms, inputs, output, batch) if terms else None

    def _validate(self) -> dict[str, Any]:
        """Judge the averaged weights, and keep them where none were better; returns what to log."""
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.state)
        with within_memory("a frame of validation", "preprocess.grid", "a smaller grid"):
            quality, row, known = self.judge()
        self.model.load_state_dict(own)
        if quality > self.best:
            self.best = quality
            progress = {
                "epoch": self.epoch,
                "best": quality,
                **known,
                "recording": describe_recording(self.train_set.recording.info),
            }
            save_checkpoint(
                self.out / BEST, self.config, self.model, self.average.state, None, progress
            )
        return row

    def judge(self) -> tuple[float, dict[str, Any], dict[str, Any]]:
        """How good the model is, by which the best checkpoint is chosen, NaN where nothing can be said.

        Besides, what is to be logged of it, and what the checkpoint is to tell.
        """
        scores = validate(self.model, self.val_set, self.config, self.device)
        keys = judged(self.model.tasks)
        known = [s[k] for s in scores.values() for k in keys if math.isfinite(s[k])]
        quality = float(np.mean(known)) if known else math.nan
        # What could not be judged is null in files, not a number.
        plain = {
            name: {k: v if math.isfinite(v) else None for k, v in s.items()}
            for name, s in scores.items()
        }
        row = {f"{n}/{k}": v for n, s in plain.items() for k, v in s.items() if k != "frames"}
        return quality, row, {"scores": plain}

    def _save(self) -> None:
        progress = {
            "epoch": self.epoch,
            "best": self.best if math.isfinite(self.best) else None,
            "ema_steps": self.average.steps,
            "log": self.log,
            "method": self.method.state,
            "recording": describe_recording(self.train_set.recording.info),
        }
        state = self.average.state
        if self.best == -math.inf:
            # A former run's: what is exported shall not be another training's weights.
            (self.out / BEST).unlink(missing_ok=True)
        save_checkpoint(self.out / LAST, self.config, self.model, state, self.optimizer, progress)
        fields = list(dict.fromkeys(key for row in self.log for key in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.log)
        write_text(self.out / "log.csv", table.getvalue())
        plot_curves(self.log, self.out / "curves.png")


def _line(row: dict[str, Any]) -> str:
    shown = {k: "-" if v is None else v for k, v in row.items()}
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )
