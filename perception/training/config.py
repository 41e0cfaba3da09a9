"""The typed training configuration, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from perception.errors import ConfigError, names_hint
from perception.files.fields import check_fields
from perception.files.text import read_yaml
from perception.models.heads import trained_tasks
from perception.preprocess.contract import PreprocessContract
from perception.training.precision import Precision
from perception.training.tasks import in_todays_words

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""What a run may be called: the name becomes a folder's."""

_LARGEST_SIDE = 4096
_LARGEST_SEED = 2**32


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FreezeSpec(_Spec):
    """Parts of the model, by module name, that do not learn in the first `epochs` epochs."""

    parts: list[str] = Field(min_length=1)
    epochs: int = Field(ge=1)


class ModelSpec(_Spec):
    """Which model, and its arguments; modalities and class counts come from the rest.

    `start_from` lists runs or checkpoints whose weights are taken over where name and shape agree.
    `int8` lists the convolutions, by module name, that `export --precision int8` may quantize; None
    leaves all of them to what it measures.
    """

    name: str = "anyfuse"
    pretrained: bool = True
    options: dict[str, Any] = Field(default_factory=dict)
    start_from: list[str] = Field(default_factory=list)
    freeze: list[FreezeSpec] = Field(default_factory=list)
    int8: list[str] | None = None


class MethodSpec(_Spec):
    """How a training step is made: a name of `perception.training.methods`, and its arguments."""

    name: str = "plain"
    options: dict[str, Any] = Field(default_factory=dict)


class DataSpec(_Spec):
    """A recording to learn from: kind and folder as on the command line, plus reader options.

    `only` keeps the frames with that tag, in training and in validation.
    """

    source: str
    val_source: str | None = None
    only: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    sampling: Literal["uniform", "rare_classes"] = "uniform"


class ResolutionPhase(_Spec):
    """From epoch `from_epoch` on, train on crops of `crop` (height, width) at these image scales."""

    from_epoch: int = Field(0, ge=0)
    crop: tuple[int, int] = (256, 320)
    scale: tuple[float, float] = (0.54, 1.0)
    batch: int = Field(8, ge=2)

    @model_validator(mode="after")
    def _fits_the_network(self) -> ResolutionPhase:
        if any(v <= 0 or v % 32 or v > _LARGEST_SIDE for v in self.crop):
            raise ValueError(f"crop sides must be positive multiples of 32, up to {_LARGEST_SIDE}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale must be (low, high) with 0 < low <= high")
        return self


class CorruptionSpec(_Spec):
    """Probabilities of each corruption, applied on its own to each modality of a training sample."""

    pixel_dropout: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.2, ge=0, le=1)
    exposure: float = Field(0.15, ge=0, le=1)
    beam_reduction: float = Field(0.3, ge=0, le=1)
    misalignment: float = Field(0.15, ge=0, le=1)


class OptimizerSpec(_Spec):
    """AdamW with linear warm-up and polynomial decay; EMA of the weights is what is exported."""

    lr: float = Field(1e-3, gt=0)
    encoder_lr_factor: float = Field(0.5, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    power: float = Field(0.9, gt=0)
    clip_norm: float = Field(5.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)


class CudaSpec(_Spec):
    """What is only of a GPU; a run may go on with other values.

    `cudnn_benchmark` tries out how each convolution is fastest; `tf32` rounds the factors of products to 10
    bits; None leaves both to PyTorch.  `pinned_memory` copies batches while the GPU computes.
    """

    cudnn_benchmark: bool | None = None
    tf32: bool | None = None
    pinned_memory: bool = False


class LossSpec(_Spec):
    """Weights of the loss terms: `auxiliary`, and of any task by its name, 1 where none is given."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    auxiliary: float = 0.3
    class_balance: float = Field(0.3, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _todays_words(cls, given: Any) -> Any:
        return (
            {in_todays_words(str(k)): v for k, v in given.items()}
            if isinstance(given, dict)
            else given
        )

    @model_validator(mode="after")
    def _of_tasks(self) -> LossSpec:
        for task, weight in dict(self.__pydantic_extra__).items():
            _known_task(task)
            if weight == 1.0:  # the same as none
                del self.__pydantic_extra__[task]
        return self

    def weight(self, task: str) -> float:
        """Of a task."""
        return self.__pydantic_extra__.get(task, 1.0)


def _known_task(name: str) -> str:
    name = in_todays_words(name)
    if name not in (able := trained_tasks()):
        raise ValueError(f"no task '{name[:80]}' can be trained; {names_hint(name, able)}")
    return name


class TrainConfig(_Spec):
    """Everything that a training run depends on."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    tasks: list[Annotated[str, AfterValidator(_known_task)]] = Field(min_length=1)
    model: ModelSpec = ModelSpec()
    method: MethodSpec = MethodSpec()
    data: DataSpec
    preprocess: PreprocessContract
    epochs: int = Field(60, ge=1)
    resolution: list[ResolutionPhase] = Field(default_factory=lambda: [ResolutionPhase()])
    full_set_probability: float = Field(0.5, ge=0, le=1)
    corruption: CorruptionSpec = CorruptionSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    loss: LossSpec = LossSpec()
    precision: Precision = "bfloat16"
    seed: int = Field(0, ge=0, le=_LARGEST_SEED)
    validate_every: int = Field(5, ge=1)
    workers: int = Field(0, ge=0, le=256)
    cuda: CudaSpec = CudaSpec()

    @model_validator(mode="after")
    def _one_view(self) -> TrainConfig:
        first = self.preprocess.names[0]
        for name, spec in self.preprocess.items():
            if spec.view.grid != self.preprocess.grid:
                raise ValueError(
                    f"preprocess: the views of {first} and {name} differ: inputs that are trained "
                    "together have one height, width and fit"
                )
        return self

    def phase(self, epoch: int) -> ResolutionPhase:
        """The resolution phase in force in `epoch`."""
        active = [p for p in self.resolution if p.from_epoch <= epoch]
        return active[-1] if active else self.resolution[0]

    def lasting(self, epochs: int, instead_of: int | None = None) -> TrainConfig:
        """The same with so many epochs; phases and frozen parts keep their share of them.

        Args:
            epochs: that it is to have.
            instead_of: how many these are written for; None for `epochs` of this configuration.
        """
        factor = epochs / (instead_of or self.epochs)

        def scaled(epoch: int) -> int:
            return round(epoch * factor)

        resolution = [
            p.model_copy(update={"from_epoch": scaled(p.from_epoch)}) for p in self.resolution
        ]
        freeze = [
            f.model_copy(update={"epochs": max(1, scaled(f.epochs))}) for f in self.model.freeze
        ]
        model = self.model.model_copy(update={"freeze": freeze})
        changes = {"epochs": epochs, "resolution": resolution, "model": model}
        return self.model_copy(update=changes)


def load_config(path: Path) -> TrainConfig:
    """Read a configuration.

    Raises:
        ConfigError: the file is missing, no text, no YAML, or has a wrong field; the message names it.
    """
    content = read_yaml(path, error=ConfigError)
    return check_fields(TrainConfig, content, where=str(path), error=ConfigError)
