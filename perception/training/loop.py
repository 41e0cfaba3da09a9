"""The training loop: subsets by modality dropout, AdamW, poly decay, EMA, resumable checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perception.errors import LostRankError
from perception.files.stopping import Stopped, stop, unstopped, waiting
from perception.frame import subset_name
from perception.models.chance import rows_from
from perception.models.interface import ModelOutput
from perception.progress import Pace
from perception.tasks.registry import judged
from perception.training.averaging import WeightAverage
from perception.training.budget import Costs
from perception.training.building import (
    describe_recording,
)
from perception.training.checkpoint import (
    BEST,
    LAST,
    save_checkpoint,
)
from perception.training.curves import (
    is_written,
    line_of,
    plot_curves,
    sweep,
    write_log,
)
from perception.training.dataset import (
    Batch,
    on_device,
)
from perception.training.display import Display
from perception.training.memory import within_memory
from perception.training.objectives import alone_terms, loss_terms
from perception.training.optimizing import GradientSum, gradients_of, learning_rate, statistics_of
from perception.training.origins import origins_of, told
from perception.training.precision import autocast
from perception.training.resuming import Plan, Underway, generators
from perception.training.run import Run
from perception.training.schedule import average_decay, draw_subset, keep_statistics, measured_gaps
from perception.training.spoiled import not_finite
from perception.training.starting import freeze, start

STEP_HINT = "accumulate, or a smaller batch or crop"
"""What a step takes less memory by."""

LOSSES_READ_EVERY = 16
"""Steps after which losses are brought from the device, and a GPU is waited for."""


class _TimeUp(Exception):
    """The budget is used up."""


class Trainer(Run):
    """One training run, which `fit` carries out; see `Run`."""

    def fit(self) -> None:
        """Train to the last epoch, checkpointing after each.

        What ends it sooner, a signal or its budget, leaves a checkpoint of the step that was made last.

        Raises:
            ConfigError: the data or the budget hold nothing to learn, or a loss is not finite.
        """
        if self.ranks.first:
            self._tidy()
        notes = self._look_at_data()
        if self.epoch == 0 and not self.underway.step:
            notes += self._begin()
            if self.budget is not None:
                self.plan = Plan(minutes=self.budget.minutes, configured=self.config.epochs)
        if self.ranks.several and self.device.type == "cuda":  # it refuses CPUs
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        display = Display(self.config.name, lambda: (self.epoch, self.config.epochs))
        with display if self.ranks.first else nullcontext(lambda line: None) as tell:
            self.tell = tell
            for note in notes:
                tell(f"note: {note}")
            try:
                self._every_epoch()
            finally:
                if self._batches is not None:
                    self._batches.close()

    def _tidy(self) -> None:
        """Take away and make up for what a run that was killed left."""
        sweep(self.out)
        if self.log and not is_written(self.log, self.out):
            # It wrote a checkpoint, and the log not yet.
            write_log(self.log, self.out)
            plot_curves(self.log, self.out / "curves.png")

    def _every_epoch(self) -> None:
        """Train epoch after epoch; what ends it sooner leaves a checkpoint."""
        try:
            while self.epoch < self.config.epochs or self._measuring:
                for line in self._one_epoch():
                    self.tell(line)
        except _TimeUp:
            self.tell(self._end_in_time())
        except (Stopped, KeyboardInterrupt, LostRankError) as error:
            self._keep()
            if isinstance(error.__context__, LostRankError):  # torchrun stops who is left
                raise error.__context__ from None
            raise
        except RuntimeError as error:
            if "DataLoader worker" in str(error):  # a signal to all ended one of these first
                self._keep()
            raise

    def _begin(self) -> list[str]:
        """Give the model its first weights, the same on all ranks; what is to be said of it."""
        notes: list[str] = []
        if self.ranks.first:
            notes = start(self.model, self.config.model, self._samples)
            self.origins = origins_of(self.config.model, self.method.teachers_named)
            self.method.begin()
        if self.ranks.several:
            weights = {k: v.cpu() for k, v in self.model.state_dict().items()}
            self.model.load_state_dict(self.ranks.told(weights))
        self.average = WeightAverage(self.model, self.config.optimizer.ema_decay)
        return notes

    @property
    def _measuring(self) -> bool:
        """Whether the number of epochs is still to be found."""
        return self.budget is not None and self.plan is not None and self.plan.epochs is None

    def _one_epoch(self) -> list[str]:
        """Train and log an epoch, validate where it is due; what is to be said of it."""
        row, lines = self.ranks.told(self._run_epoch()), []
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
        epochs, validation = self.ranks.told(
            (self.budget.epochs(self.config, self.epoch, costs), validation)
        )
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
        pace = Pace(f"epoch {self.epoch + 1}", steps)
        with self.ranks.until_agreed():
            self._watch_time(steps)
            for parts in self.batches.by_step(self.epoch, now.step):
                if (line := pace.line(now.step)) is not None:
                    self._read_losses()
                    shown = f"  loss {np.mean(now.losses[-50:]):.4g}" if now.losses else ""
                    self.tell(f"{line}{shown}")
                with unstopped():
                    rate = self._set_rate(self.epoch + now.step / steps)
                    subset = draw_subset(rng, tuple(parts[0].inputs), self.config, gaps)
                    self._make_step(parts, subset)
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

    def _make_step(self, parts: Sequence[Batch], subset: tuple[str, ...]) -> None:
        """One step, noted as whole when it is; one that another rank left half made is as if never begun."""
        now, unmake = self.underway, self._unmaking()
        now.whole = False
        try:
            with within_memory("one training step", "resolution", STEP_HINT):
                loss = self.step(parts[0], subset, *parts[1:])
        except LostRankError:
            unmake()
            now.whole = True
            raise
        now.unread += [] if loss is None else [(now.step, loss.reshape(()))]
        now.step, now.whole, self._trained = now.step + 1, True, True

    def _unmaking(self) -> Callable[[], None]:
        """What takes back all that a step changes before the ranks have agreed on its gradients."""
        if not self.ranks.several:
            return lambda: None
        buffers = {k: v.clone() for k, v in self.model.named_buffers()}
        method, chance = dict(self.method.state), Underway(generators=generators(self.device))

        def unmake() -> None:
            self.model.load_state_dict(buffers, strict=False)
            self.method.state.update(method)
            chance.restore_generators(self.device, "")

        return unmake

    def _read_losses(self) -> None:
        """Look at the losses of the last steps.

        Raises:
            ConfigError: one is not finite.
        """
        with within_memory("one training step", "resolution", STEP_HINT):
            spoiled = self.underway.read()
        if spoiled is not None:
            batch = self.batches.again(self.epoch, spoiled)
            raise not_finite(self.train_set, self.config, batch, self.epoch, spoiled)

    def _watch_time(self, steps: int) -> None:
        """End when the time is over, or when it is seen that it cannot suffice for one epoch.

        Several ranks end at the same step, when any was told to stop or rank 0 finds the time over.
        """
        over = self._time_is_over(steps)
        if self.ranks.several:
            signal, first_over = self.ranks.most([waiting() or 0, over and self.ranks.first])
            over = bool(first_over)
            if signal:
                stop(signal)
        if over:
            raise _TimeUp

    def _time_is_over(self, steps: int) -> bool:
        now = self.underway
        if self.budget is None or now.step == steps:  # the epoch is done, and will be kept as such
            return False
        if self.budget.left < (self.plan.validation if self.plan is not None else 0.0):
            return True
        if self._measuring and not self.epoch and now.step == max(3, steps // 10) < steps:
            self._read_losses()
            if self.ranks.first:
                self.budget.require_epoch(now.seconds, now.step, steps)
        return False

    def step(self, batch: Batch, subset: tuple[str, ...], *further: Batch) -> Tensor | None:
        """One step, of a batch or of its parts; its loss, on the device.

        None where there is nothing to learn from.
        """
        losses, gathered = [], GradientSum(self.model)
        for part in (batch, *further):
            self.optimizer.zero_grad(set_to_none=True)
            whole = part.whole(self.ranks)
            share = rows_from(whole.start, whole.frames) if self.ranks.several else nullcontext()
            with share:
                loss = self.learn(whole, subset)
            if loss is not None:
                losses.append(loss.detach())
                if further:
                    gathered.add()
        if not losses:
            return None
        if further:
            gathered.give(len(losses))
        self.ranks.mean([*gradients_of(self.model), *statistics_of(self.model)])
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.average.update(self.model)
        return torch.stack(losses).mean()

    def learn(self, batch: Batch, subset: tuple[str, ...]) -> Tensor | None:
        """Leave the gradients of a step in the parameters, of these inputs of a batch; returns its loss.

        None, and no gradients, for a batch that there is nothing to learn from.  Of several ranks, each has
        its share of the inputs and the truth of all, computes the loss of all, and gets gradients whose mean
        over the ranks is that of the loss.
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
        alone = [self.ranks.whole(each, batch.frames) for each in alone]
        output = self.ranks.whole(output, batch.frames)
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
            if not self.ranks.first:
                return row
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
