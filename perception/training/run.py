"""A training run as it stands: data, model, average, optimizer and log, and the checkpoints of all that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from perception.data.base import RecordingInfo
from perception.files.fields import check_fields
from perception.files.made import make_folder
from perception.models.efficientnet_lite import set_drop_path
from perception.models.heads import half_of
from perception.models.interface import FusionModel
from perception.tasks.registry import judged
from perception.training.averaging import WeightAverage
from perception.training.batches import (
    labeled_frames,
    require_sensors,
    sensor_notes,
    truth_notes,
)
from perception.training.budget import Budget
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
    open_board,
    plot_curves,
    write_log,
)
from perception.training.dataset import (
    FusionDataset,
    on_device,
)
from perception.training.devices import set_up, training_device
from perception.training.distributed import here
from perception.training.loading import BatchLoader
from perception.training.methods import build_method
from perception.training.optimizing import optimizer_groups
from perception.training.origins import Origin, origins_in, told
from perception.training.resuming import Plan, RunProgress, Underway, require_same_run
from perception.training.sharing import require_even
from perception.training.tasks import in_todays_words
from perception.training.validate import Judgement, require_tags, validate_by
from perception.training.without_effect import without_effect

SAMPLED_BATCHES = 4
"""Training batches of which statistics of a bundle's features are taken before training starts from it."""

CURVES_EVERY_S = 20.0
"""Seconds within which curves are drawn anew only for an epoch that was validated."""


class Run:
    """What a training run holds, and what it keeps; see `Trainer` for what it does.

    Args:
        config: the configuration.
        out: the run folder; gets `last.safetensors`, `best.safetensors`, `log.csv`, `curves.png`.
        device: `cpu`, `cuda` or `auto`.
        tensorboard: also write the log for TensorBoard into the run folder.

    Attributes:
        budget: the time that it has; None for as long as it takes.  The number of epochs follows from the
            first ones, in which the learning rate does not decay.
        ranks: the processes that train together; the folder is that of the first, which alone writes.

    Raises:
        ConfigError: the configuration contradicts its data, or there is no such device.
        MissingDependencyError: TensorBoard is wanted, but not installed.
    """

    def __init__(
        self, config: TrainConfig, out: Path, device: str = "cpu", *, tensorboard: bool = False
    ) -> None:
        self.ranks = here()
        self.device = training_device(device)
        set_up(self.device, config.cuda)
        config_text(config)  # fails, if at all, before any work
        require_even(config, self.ranks, synchronized=self.device.type == "cuda")
        self.board = open_board(Path(out)) if tensorboard and self.ranks.first else None
        self.config = config
        self.out = Path(out)
        if self.ranks.first:
            make_folder(self.out)
        torch.manual_seed(config.seed)
        train, val = open_splits(config)
        self.ranks.same(config.model_dump(exclude={"workers", "cuda"}), "settings")
        self.ranks.same((train.ids, val.ids), "frames", "data.source")
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
        state = self.ranks.told(load_checkpoint(self.out / LAST) if self.ranks.first else None)
        assert state is not None
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

    def _samples(self) -> list[dict[str, Any]]:
        """Inputs of the first batches, on the device."""
        count = min(SAMPLED_BATCHES, self._steps)
        batches = [self.batches.again(self.epoch, step) for step in range(count)]
        return [on_device(batch.inputs, self.device) for batch in batches]

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
        return notes + without_effect(self.config)

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
            self._batches = BatchLoader(
                self.train_set, self.config, pinned=pinned, ranks=self.ranks
            )
        return self._batches

    @property
    def _steps(self) -> int:
        return self.batches.steps(self.epoch)

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
        if not self.ranks.first:
            return
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
