"""Where a run is: what its checkpoint tells besides weights, so that it can be taken up again."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from perception.data.base import RecordingInfo
from perception.data.classes import require_same_classes
from perception.errors import ConfigError, DataError
from perception.training.building import recording_info
from perception.training.checkpoint import Checkpoint
from perception.training.config import TrainConfig


class Within(BaseModel):
    """How far into an epoch a run was when it was stopped.

    Attributes:
        step: steps that were made.
        losses: of these.
        seconds: that they took.
        generators: by device, the state of PyTorch's random numbers.
    """

    step: int = Field(ge=0)
    losses: list[float] = Field(default_factory=list)
    seconds: float = Field(0.0, ge=0)
    generators: dict[str, str] = Field(default_factory=dict)


class Plan(BaseModel):
    """What became of a budget of minutes.

    Attributes:
        minutes: of the run that made it.
        configured: epochs of the configuration.
        epochs: those that fit, which is what the run has; None while the first ones are measured.
        validation: seconds that judging takes.
    """

    minutes: float
    configured: int = Field(ge=1)
    epochs: int | None = Field(None, ge=1)
    validation: float = Field(0.0, ge=0)


class RunProgress(BaseModel):
    """What `Trainer.resume` takes up from a checkpoint's progress."""

    epoch: int = Field(ge=0)
    best: float | None = None
    ema_steps: int = Field(ge=0)
    log: list[dict[str, int | float | None]]
    method: dict[str, float] = Field(default_factory=dict)
    within: Within | None = None
    budget: Plan | None = None


@dataclass
class Underway:
    """The epoch that is being trained.

    Attributes:
        step: steps that were made.
        losses: of these, as far as they were read.
        unread: steps and losses that still are on the device.
        seconds: so far.
        whole: no step is half made.
        generators: see `Within`.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    unread: list[tuple[int, Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    whole: bool = True
    generators: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(within: Within | None) -> Underway:
        """What a checkpoint says of it."""
        if within is None:
            return Underway()
        return Underway(
            within.step, list(within.losses), [], within.seconds, True, within.generators
        )

    def read(self) -> int | None:
        """Bring the losses from the device: it is waited for here, and nowhere else in an epoch.

        Returns:
            The first step whose loss is not finite, or None.
        """
        unread, self.unread = self.unread, []
        if not unread:
            return None
        losses = torch.stack([loss for _, loss in unread])
        self.losses += losses.tolist()
        finite = losses.isfinite().tolist()
        return next(
            (step for (step, _), good in zip(unread, finite, strict=True) if not good), None
        )

    def kept(self, device: torch.device) -> Within:
        """What a checkpoint is to say of it, all losses being read."""
        return Within(
            step=self.step,
            losses=self.losses,
            seconds=self.seconds,
            generators=generators(device),
        )

    def restore_generators(self, device: torch.device, where: str) -> None:
        """Let random numbers go on where they were.

        Raises:
            DataError: that is not their state.
        """
        try:
            for name, text in self.generators.items():
                state = torch.tensor(list(base64.b64decode(text, validate=True)), dtype=torch.uint8)
                if name == "cpu":
                    torch.set_rng_state(state)
                elif name == device.type == "cuda":
                    torch.cuda.set_rng_state(state, device)
        except (binascii.Error, ValueError, RuntimeError) as error:
            raise DataError("damaged: the state of its random numbers", where=where) from error


def generators(device: torch.device) -> dict[str, str]:
    """The state of PyTorch's random numbers, see `Within`."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {k: base64.b64encode(v.numpy().tobytes()).decode() for k, v in states.items()}


def require_same_run(
    checkpoint: Checkpoint, config: TrainConfig, info: RecordingInfo, where: str
) -> None:
    """Require a configuration and training data with which a run can go on.

    Raises:
        ConfigError: the run was started with another configuration or on other classes.
        DataError: the checkpoint does not say what it was trained on.
    """
    # The number of workers changes no result, and differs from machine to machine as the GPU does, and as the
    # memory does that a batch is divided for.
    free = {"epochs", "workers", "cuda", "accumulate"}
    before, now = (c.model_dump(mode="json", exclude=free) for c in (checkpoint.config, config))
    if changed := difference(before, now):
        raise ConfigError(
            f"the run was started with another configuration: {changed}",
            where=where,
            hint="use another --out, or the old configuration",
        )
    known = recording_info(checkpoint.progress)
    require_same_classes(known, info, config.tasks, what="the run", where="data.source")


def difference(before: Any, now: Any, place: str = "") -> str:
    """The first field in which two configurations differ; empty where they are the same."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        inner = (
            difference(before.get(k), now.get(k), f"{place}.{k}" if place else k)
            for k in {**before, **now}
        )
        return next(filter(None, inner), "")
    return "" if before == now else f"{place} was {before}, is {now}"
