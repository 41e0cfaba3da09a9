"""The training loop: subsets by modality dropout, AdamW, poly decay, EMA, resumable checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perception.data.base import RecordingInfo
from perception.files.fields import check_fields
from perception.files.made import make_folder
from perception.files.stopping import Stopped, unstopped
from perception.frame import subset_name
from perception.models.efficientnet_lite import set_drop_path
from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.progress import Pace
from perception.tasks.registry import judged
from perception.training.averaging import WeightAverage
from perception.training.batches import (
    labeled_frames,
    require_sensors,
    sensor_notes,
    truth_notes,
)
from perception.training.budget import Budget, Costs
from perception.training.building import (
    build_from_config,
    describe_recording,
    open_splits,
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
from perception.training.config import TrainConfig, in_words
from perception.training.curves import (
    is_written,
    line_of,
    open_board,
    plot_curves,
    sweep,
    write_log,
)
from perception.training.dataset import (
    Batch,
    FusionDataset,
    on_device,
)
from perception.training.devices import set_up, training_device
from perception.training.display import Display
from perception.training.loading import BatchLoader
from perception.training.memory import within_memory
from perception.training.methods import build_method
from perception.training.objectives import alone_terms, loss_terms
from perception.training.optimizing import learning_rate, optimizer_groups
from perception.training.origins import Origin, origins_in, origins_of, told
from perception.training.precision import autocast
from perception.training.resuming import Plan, RunProgress, Underway, require_same_run
from perception.training.schedule import average_decay, draw_subset, keep_statistics, measured_gaps
from perception.training.spoiled import not_finite
from perception.training.starting import freeze, start
from perception.training.tasks import in_todays_words
from perception.training.validate import Judgement, require_tags, validate_by

LOSSES_READ_EVERY = 16
"""Steps after which losses are brought from the device, and a GPU is waited for."""

SAMPLED_BATCHES = 4
"""Training batches of which statistics of a bundle's features are taken before training starts from it."""

CURVES_EVERY_S = 20.0
"""Seconds within which curves are drawn anew only for an epoch that was validated."""


class _TimeUp(Exception):
    """The budget is used up."""


class Trainer:
    """One training run.

    Args:
        config: the configuration.
        out: the run folder; gets `last.safetensors`, `best.safetensors`, `log.csv`, `curves.png`.
        device: `cpu`, `cuda` or `auto`.
        tensorboard: also write the log for TensorBoard into the run folder.

    Attributes:
        budget: the time that it has; None for as long as it takes.  The number of epochs follows from the
            first ones, in which the learning rate does not decay.

    Raises:
        ConfigError: the configuration contradicts its data, or there is no such device.
        MissingDependencyError: TensorBoard is wanted, but not installed.
    """

    def __init__(
        self, config: TrainConfig, out: Path, device: str = "cpu", *, tensorboard: bool = False
    ) -> None:
        self.device = training_device(device)
        set_up(self.device, config.cuda)
        config_text(config)  # fails, if at all, before any work
        self.board = open_board(Path(out)) if tensorboard else None
        self.config = config
        self.out = Path(out)
        make_folder(self.out)
        torch.manual_seed(config.seed)
        train, val = open_splits(config)
        self.train_set, self.val_set = (
            FusionDataset(
                split,
                config.preprocess,
                config.corruption,
                config.seed,
                self.learned_tasks(),
                config.curriculum,
                config.scene,
            )
            for split in (train, val)
        )
        require_tags(self.val_set, config.data.judge_by)
        self.model = self.build(train.info)
        if config.model.drop_path:
            set_drop_path(self.model, config.model.drop_path)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.model, config.optimizer.ema_decay)
        self.method = build_method(config.method, self.model)
        self.method.check(train.info, config.tasks)
        self.method.precision = config.precision
        self.method.average = lambda: self.average.state
        self.optimizer = torch.optim.AdamW(
            optimizer_groups(self.model, config), lr=config.optimizer.lr
        )
        self.prepared = {
            task: half_of(task).prepare(train, self.model.tasks[task], config.loss.class_balance)
            for task in self.learned_tasks()
        }
        self.epoch = 0
        self.best = -math.inf
        self.log: list[dict[str, Any]] = []
        self.origins: list[Origin] = []
        self.command = ""  # that started the run, for the bundle that is made of it
        self.tell: Callable[[str], None] = lambda line: None
        self.budget: Budget | None = None
        self.plan: Plan | None = None
        self.underway = Underway()
        self._batches: BatchLoader | None = None
        self._trained = False  # by this process: there is something to keep
        self._saving, self._drawn = 0.0, -math.inf

    def learned_tasks(self) -> Sequence[str]:
        """The tasks whose truth is learned."""
        return self.config.tasks

    def build(self, info: RecordingInfo) -> FusionModel:
        """The model to be trained, for data of this kind; a kind of training may build another."""
        return build_from_config(self.config, info, pretrained=True)

    def resume(self) -> None:
        """Go on from `last.safetensors` of the run folder.

        Raises:
            DataError: there is none, or it is damaged or of another model.
            ConfigError: the run was started with another configuration or on other classes.
        """
        where = str(self.out / LAST)
        state = load_checkpoint(self.out / LAST)
        progress = check_fields(RunProgress, state.progress, where=f"{where}: progress")
        self._follow(progress.budget)
        require_same_run(state, self.config, self.train_set.recording.info, where)
        load_weights(self.model, state.ema, where)  # only to see that they fit
        load_weights(self.model, state.weights, where)
        self.average.state = {k: v.to(self.device) for k, v in state.ema.items()}
        restore_optimizer(self.optimizer, state.optimizer, where)
        self.epoch, self.average.steps = progress.epoch, progress.ema_steps
        self.best = -math.inf if progress.best is None else progress.best
        self.log = [{in_todays_words(k): v for k, v in row.items()} for row in progress.log]
        self.method.state.update({in_todays_words(k): v for k, v in progress.method.items()})
        self.underway = Underway.of(progress.within)
        self.origins = origins_in(state.progress)
        self.command = str(state.progress.get("command") or self.command)

    def _follow(self, plan: Plan | None) -> None:
        """Take up the number of epochs that a budget of the run has led to, unless another is asked for."""
        self.plan = plan
        if plan is not None and plan.epochs is not None:
            asked = self.config.epochs
            self.config = self.config.lasting(plan.epochs, plan.configured)
            if asked != plan.configured:
                self.config.epochs = asked

    def shorten(self, train_frames: int, val_frames: int) -> None:
        """Keep only the first frames of both splits, to try a configuration out."""
        for data, count in ((self.train_set, train_frames), (self.val_set, val_frames)):
            data.recording.ids = data.recording.ids[:count]

    def fit(self) -> None:
        """Train to the last epoch, checkpointing after each.

        What ends it sooner, a signal or its budget, leaves a checkpoint of the step that was made last.

        Raises:
            ConfigError: the data or the budget hold nothing to learn, or a loss is not finite.
        """
        sweep(self.out)
        if self.log and not is_written(self.log, self.out):
            # The run was killed after it wrote a checkpoint and before it wrote the log.
            write_log(self.log, self.out)
            plot_curves(self.log, self.out / "curves.png")
        notes = self._look_at_data()
        if self.epoch == 0 and not self.underway.step:
            notes += start(self.model, self.config.model, self._samples)
            self.origins = origins_of(self.config.model, self.method.teachers_named)
            self.method.begin()
            self.average = WeightAverage(self.model, self.config.optimizer.ema_decay)
            if self.budget is not None:
                self.plan = Plan(minutes=self.budget.minutes, configured=self.config.epochs)
        with Display(self.config.name, lambda: (self.epoch, self.config.epochs)) as tell:
            self.tell = tell
            for note in notes:
                tell(f"note: {note}")
            try:
                while self.epoch < self.config.epochs or self._measuring:
                    for line in self._one_epoch():
                        tell(line)
            except _TimeUp:
                tell(self._end_in_time())
            except (Stopped, KeyboardInterrupt):
                self._keep()
                raise
            except RuntimeError as error:
                if "DataLoader worker" in str(error):  # a signal to all ended one of these first
                    self._keep()
                raise
            finally:
                if self._batches is not None:
                    self._batches.close()

    def _samples(self) -> list[dict[str, Any]]:
        """Inputs of the first batches, on the device."""
        count = min(SAMPLED_BATCHES, self._steps)
        batches = [self.batches.again(self.epoch, step) for step in range(count)]
        return [on_device(batch.inputs, self.device) for batch in batches]

    @property
    def _measuring(self) -> bool:
        """Whether the number of epochs is still to be found."""
        return self.budget is not None and self.plan is not None and self.plan.epochs is None

    def _one_epoch(self) -> list[str]:
        """Train and log an epoch, validate where it is due; what is to be said of it."""
        row, lines = self._run_epoch(), []
        done, measuring = self.epoch + 1, self._measuring
        ends = measuring and self.budget is not None and self.budget.measured(done, row["seconds"])
        last = done == self.config.epochs and not measuring
        start = time.monotonic()
        if last or ends or done % self.config.validate_every == 0:
            row |= self._validate()
        validation = time.monotonic() - start
        with unstopped():
            self.epoch, self.underway = done, Underway()
            self.log.append(row)
        self._save()
        if ends:
            lines.append(self._fix_epochs(row["seconds"], validation))
        if self.board is not None:
            for name, value in row.items():
                if value is not None:
                    self.board.add_scalar(name, value, self.epoch)
            self.board.flush()
        return [line_of(row), *lines]

    def _fix_epochs(self, epoch: float, validation: float) -> str:
        """Find out how many epochs there are to be, from what the last one took; what is to be said."""
        assert self.budget is not None and self.plan is not None
        height, width = self.config.phase(self.epoch - 1).crop
        costs = Costs(epoch, height * width, self._saving, validation)
        epochs = self.budget.epochs(self.config, self.epoch, costs)
        self.plan = self.plan.model_copy(update={"epochs": epochs, "validation": validation})
        self.config = self.config.lasting(epochs)
        if self._batches is not None:
            self._batches.change(self.config)
        self._save()
        return (
            f"note: {epochs} epochs fit into {self.plan.minutes:g} minutes: one takes {epoch:.3g} s, "
            f"writing it {self._saving:.2g} s, validation {validation:.2g} s"
        )

    def _end_in_time(self) -> str:
        """Judge and keep what there is when the time is over; what is to be said."""
        assert self.budget is not None
        if self.epoch == 0 and self._measuring:
            self._keep()
            self.budget.refuse(self.underway.seconds / max(1, self.underway.step) * self._steps)
        row = self._validate() if self._trained else {}
        self._keep()
        return (
            f"note: {self.budget.minutes:g} minutes are over after {self.epoch} of "
            f"{self.config.epochs} epochs and {self.underway.step} steps; --resume goes on  {line_of(row)}"
        )

    def _keep(self) -> None:
        """Leave a checkpoint of the steps that were made, where it can be one."""
        if self._batches is not None:
            with suppress(RuntimeError):  # a worker that the same signal ended is no fault now
                self._batches.close()
        if self._trained and self.underway.whole and self.underway.read() is None:
            with unstopped():
                self._save(within=True)

    def _look_at_data(self) -> list[str]:
        """Read all frames; what is to be said of those that lack something.

        Raises:
            ConfigError: a sensor or a task has nothing to learn from.
        """
        source = in_words(self.config.data.source)
        self.train_set.preload()
        require_sensors(self.train_set, source)
        notes = sensor_notes(self.train_set, "training")
        notes += self.truth_notes()
        self.val_set.preload()
        notes += sensor_notes(self.val_set, "validation")
        if not self.can_be_judged():
            notes.append("validation has no truth: there is no best epoch, export takes the last")
        if self.config.subsets.by_gap and self.config.validate_every >= self.config.epochs:
            notes.append("subsets.by_gap changes nothing: no gap is measured before the last epoch")
        return notes

    def can_be_judged(self) -> bool:
        """Whether validation frames have what `judge` needs."""
        return any(labeled_frames(self.val_set, task, to_judge=True) for task in self.config.tasks)

    def truth_notes(self) -> list[str]:
        """What is to be said of what there is to learn.

        Raises:
            ConfigError: there is nothing.
        """
        return truth_notes(self.train_set, self.config.tasks, in_words(self.config.data.source))

    @property
    def batches(self) -> BatchLoader:
        """Where batches come from; made when it is first asked for, of the data as they then are."""
        if self._batches is None:
            pinned = self.device.type == "cuda" and self.config.cuda.pinned_memory
            self._batches = BatchLoader(self.train_set, self.config, pinned=pinned)
        return self._batches

    @property
    def _steps(self) -> int:
        return self.batches.steps(self.epoch)

    def _set_rate(self, epoch_now: float) -> float:
        epochs = None if self._measuring else self.config.epochs
        rate = learning_rate(self.config.optimizer, epoch_now, epochs)
        rate *= self.config.phase(int(epoch_now)).lr_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        return rate

    def _run_epoch(self) -> dict[str, Any]:
        now, steps = self.underway, self._steps
        rng = np.random.default_rng((self.config.seed, self.epoch, 7))
        torch.manual_seed(self.config.seed * 7919 + self.epoch)
        self.model.train()
        freeze(self.model, self.config.model.freeze, self.epoch)
        if self.config.phase(self.epoch).freeze_norm:
            keep_statistics(self.model)
        self.average.decay = average_decay(self.config, steps)
        gaps = measured_gaps(self.log, self.config, list(judged(self.model.tasks)))
        if now.step:  # it goes on where it was stopped
            for batch in self.batches.order(self.epoch)[: now.step]:
                draw_subset(rng, self.batches.sensors[batch[0]], self.config, gaps)
            now.restore_generators(self.device, str(self.out / LAST))
        start = time.perf_counter() - now.seconds
        rate = self._set_rate(self.epoch + max(0, now.step - 1) / max(1, steps))
        self._watch_time(steps)
        pace = Pace(f"epoch {self.epoch + 1}", steps)
        for samples in self.batches.epoch(self.epoch, now.step):
            if (line := pace.line(now.step)) is not None:
                self._read_losses()
                self.tell(f"{line}  loss {np.mean(now.losses[-50:]):.4g}" if now.losses else line)
            with unstopped():
                rate = self._set_rate(self.epoch + now.step / steps)
                now.whole = False
                with within_memory("one training step", "resolution", "a smaller batch or crop"):
                    subset = draw_subset(rng, tuple(samples.inputs), self.config, gaps)
                    loss = self.step(samples, subset)
                now.unread += [] if loss is None else [(now.step, loss.reshape(()))]
                now.step, now.whole, self._trained = now.step + 1, True, True
                now.seconds = time.perf_counter() - start
                if now.step % LOSSES_READ_EVERY == 0:
                    self._read_losses()
            self._watch_time(steps)
        self._read_losses()
        now.seconds = time.perf_counter() - start
        return {
            "epoch": self.epoch + 1,
            "loss": float(np.mean(now.losses)) if now.losses else None,
            "lr": rate,
            "seconds": now.seconds,
            "epochs_per_minute": 60 / now.seconds,
            **{f"gap/{name}": gap for name, gap in gaps.items()},
            **self.method.diagnostics(),
        }

    def _read_losses(self) -> None:
        """Look at the losses of the last steps.

        Raises:
            ConfigError: one is not finite.
        """
        with within_memory("one training step", "resolution", "a smaller batch or crop"):
            spoiled = self.underway.read()
        if spoiled is not None:
            batch = self.batches.again(self.epoch, spoiled)
            raise not_finite(self.train_set, self.config, batch, self.epoch, spoiled)

    def _watch_time(self, steps: int) -> None:
        """End when the time is over, or when it is seen that it cannot suffice for one epoch."""
        if self.budget is None:
            return
        now = self.underway
        if now.step == steps:  # the epoch is done, and will be kept as such
            return
        if self.budget.left < (self.plan.validation if self.plan is not None else 0.0):
            raise _TimeUp
        if self._measuring and not self.epoch and now.step == max(3, steps // 10) < steps:
            self._read_losses()
            self.budget.require_epoch(now.seconds, now.step, steps)

    def step(self, batch: Batch, subset: tuple[str, ...]) -> Tensor | None:
        """One step; its loss, on the device, or None for a batch that there is nothing to learn from."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.learn(batch, subset)
        if loss is None:
            return None
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.average.update(self.model)
        return loss.detach()

    def learn(self, batch: Batch, subset: tuple[str, ...]) -> Tensor | None:
        """Leave the gradients of a step in the parameters, of these inputs of a batch; returns its loss.

        None, and no gradients, for a batch that there is nothing to learn from.
        """
        inputs = on_device(
            batch.of(subset), self.device, memory_format=torch.channels_last, non_blocking=True
        )
        alone: list[ModelOutput] = []
        with autocast(self.device, self.config.precision):
            if self.config.loss.alone and len(inputs) > 1:
                features = self.model.features(inputs)
                alone = [self.model.fuse({m: own}) for m, own in features.items()]
                output = self.model.answer(features)
            else:
                output = self.model(inputs)
        terms = loss_terms(self.model, output, batch, self.config.loss, self.prepared)
        if alone:
            terms |= alone_terms(alone, batch, self.config.loss, self.prepared)
        terms |= self.method.extra_terms(inputs, output, batch)
        if (weight := self.config.subsets.weight.get(subset_name(subset), 1.0)) != 1:
            terms = {name: weight * term for name, term in terms.items()}
        return self.method.backward(terms, inputs, output, batch) if terms else None

    def _validate(self) -> dict[str, Any]:
        """Judge the averaged weights, and keep them where none were better; returns what to log."""
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        try:
            self.model.load_state_dict(self.average.state)
            with within_memory("a frame of validation", "preprocess.grid", "a smaller grid"):
                quality, row, known = self.judge()
        finally:  # a run that is stopped meanwhile is kept
            with unstopped():
                self.model.load_state_dict(own)
        if quality > self.best:
            self.best = quality
            progress = {
                "epoch": self.epoch + (self.underway.step == self._steps),
                "best": quality,
                **known,
                "recording": describe_recording(self.train_set.recording.info),
                "command": self.command,
                **told(self.origins),
            }
            save_checkpoint(
                self.out / BEST, self.config, self.model, self.average.state, None, progress
            )
        return row

    def judge(self) -> tuple[float, dict[str, Any], dict[str, Any]]:
        """How good the model is, by which the best checkpoint is chosen, NaN where nothing can be said.

        Besides, what is to be logged of it, and what the checkpoint is to tell.
        """
        tags = self.config.data.judge_by
        scores = validate_by(self.model, self.val_set, self.config, self.device, tags)
        judgement = Judgement(scores, judged(self.model.tasks), tags)
        return judgement.quality, judgement.row, judgement.known

    def _save(self, *, within: bool = False) -> None:
        """Write the checkpoint, the log and the curves; within an epoch the checkpoint alone."""
        progress = {
            "epoch": self.epoch,
            "best": self.best if math.isfinite(self.best) else None,
            "ema_steps": self.average.steps,
            "log": self.log,
            "method": self.method.state,
            "budget": self.plan and self.plan.model_dump(),
            "recording": describe_recording(self.train_set.recording.info),
            "command": self.command,
            **told(self.origins),
        }
        if within:
            progress["within"] = self.underway.kept(self.device).model_dump()
        start = time.monotonic()
        state = self.average.state
        if self.best == -math.inf:
            # A former run's: what is exported shall not be another training's weights.
            (self.out / BEST).unlink(missing_ok=True)
        save_checkpoint(self.out / LAST, self.config, self.model, state, self.optimizer, progress)
        if within:
            return
        write_log(self.log, self.out)
        self._saving = time.monotonic() - start
        validated = bool(self.log) and any("/" in key for key in self.log[-1])
        if validated or time.monotonic() - self._drawn > CURVES_EVERY_S:
            plot_curves(self.log, self.out / "curves.png")
            self._drawn = time.monotonic()
