"""The typed training configuration, read from YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from perception.corruptions.training import check_grid_fault
from perception.errors import ConfigError, names_hint
from perception.files.fields import check_fields
from perception.files.text import read_yaml
from perception.frame import subset_name, subsets_of
from perception.models.heads import trained_tasks
from perception.preprocess.contract import PreprocessContract
from perception.training.precision import Precision
from perception.training.scene import SceneSpec
from perception.training.tasks import in_todays_words

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""What a run may be called: the name becomes a folder's."""

_LARGEST_SIDE = 4096
_LARGEST_SEED = 2**32
_ROUNDING = 1e-3


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _several(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _text_holds(given: Any) -> Any:
    """Refuse what a checkpoint's text cannot keep (YAML has `!!binary` and `!!set`)."""
    values = [given]
    while values:
        value = values.pop()
        if isinstance(value, bytes | set | frozenset):
            raise ValueError(f"holds {type(value).__name__}, not numbers and text")
        if isinstance(value, Mapping):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            values += value
    return given


Options = Annotated[dict[str, Any], BeforeValidator(_text_holds)]
"""Arguments of what a configuration names."""


class FreezeSpec(_Spec):
    """Parts of the model, by module name, that do not learn in the first `epochs` epochs."""

    parts: list[str] = Field(min_length=1)
    epochs: int = Field(ge=1)


class ModelSpec(_Spec):
    """Which model, and its arguments; modalities and class counts come from the rest.

    `start_from` lists bundles, by name or path, runs or checkpoints, whose weights are taken over where name
    and shape agree; one may stand alone.
    `int8` lists the convolutions, by module name, that `export --precision int8` may quantize; None
    leaves all of them to what it measures.  `drop_path` is the probability with which training skips the
    backbone's last residual block; earlier ones are skipped less often, see `set_drop_path`.
    """

    name: str = "anyfuse"
    pretrained: bool = True
    options: Options = Field(default_factory=dict)
    start_from: Annotated[list[str], BeforeValidator(_several)] = Field(default_factory=list)
    freeze: list[FreezeSpec] = Field(default_factory=list)
    int8: list[str] | None = None
    drop_path: float = Field(0.0, ge=0, lt=1)


class MethodSpec(_Spec):
    """How a training step is made: a name of `perception.training.methods`, and its arguments."""

    name: str = "plain"
    options: Options = Field(default_factory=dict)


def _sources(given: Any) -> Any:
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(source, str) for source in several):
        raise ValueError("expected KIND:DIR, or a list of them")
    if twice := next((s for s in several if several.count(s) > 1), None):
        raise ValueError(f"'{twice[:200]}' is listed twice")
    return given


Sources = Annotated[str | list[str], BeforeValidator(_sources)]
"""`KIND:DIR`, or a list of them."""


def listed(sources: str | list[str]) -> list[str]:
    """One, or those that a list names."""
    return [sources] if isinstance(sources, str) else sources


def in_words(sources: str | list[str]) -> str:
    """As it is told to people."""
    return ", ".join(listed(sources))


class DataSpec(_Spec):
    """Recordings to learn from: kind and folder as on the command line, plus reader options.

    Several in a list are joined in this order; `options` are for those of the first one's kind.
    `only` keeps the frames with that tag, in training and in validation.  `judge_by` lists tags, such as
    `day` and `night`, whose validation frames are judged apart, too; the best epoch is then the one with
    the best mean over these, each of them counting the same.
    """

    source: Sources
    val_source: Sources | None = None
    only: str | None = None
    judge_by: list[str] = Field(default_factory=list)
    options: Options = Field(default_factory=dict)
    sampling: Literal["uniform", "rare_classes"] = "uniform"


class ResolutionPhase(_Spec):
    """From epoch `from_epoch` on, train on crops of `crop` (height, width) at these image scales.

    A gentler phase has the learning rate of the schedule times `lr_factor`, and with `freeze_norm` the
    normalizations keep the statistics that they had gathered before.
    """

    from_epoch: int = Field(0, ge=0)
    crop: tuple[int, int] = (256, 320)
    scale: tuple[float, float] = (0.54, 1.0)
    batch: int = Field(8, ge=2)
    lr_factor: float = Field(1.0, gt=0, le=10)
    freeze_norm: bool = False

    @model_validator(mode="after")
    def _fits_the_network(self) -> ResolutionPhase:
        if any(v <= 0 or v % 32 or v > _LARGEST_SIDE for v in self.crop):
            raise ValueError(f"crop sides must be positive multiples of 32, up to {_LARGEST_SIDE}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale must be (low, high) with 0 < low <= high")
        return self


class CorruptionSpec(_Spec):
    """Probabilities of each corruption, applied on its own to each modality of a training sample.

    `beam_reduction` takes a random share of a LiDAR's beams; `fewer_beams` leaves every second to every 32nd.
    """

    pixel_dropout: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.2, ge=0, le=1)
    exposure: float = Field(0.15, ge=0, le=1)
    beam_reduction: float = Field(0.3, ge=0, le=1)
    fewer_beams: float = Field(0.0, ge=0, le=1)
    misalignment: float = Field(0.15, ge=0, le=1)


class CurriculumSpec(_Spec):
    """Faults of `perception.corruptions` in training samples, which get more severe from epoch to epoch.

    Each sensor of a sample has one with `probability`, but for one of them, which stays clean.  It is drawn
    from `faults`, by input; an input that is not named has all of its kind's that come in degrees, and one
    with an empty list has none.  The severity is drawn from the lowest of `severity` up to one that grows
    from the lowest to the highest over the share `over` of the epochs.
    """

    probability: float = Field(0.0, ge=0, le=1)
    severity: tuple[int, int] = (1, 5)
    over: float = Field(0.7, gt=0, le=1)
    faults: dict[str, list[str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> CurriculumSpec:
        low, high = self.severity
        if not 1 <= low <= high <= 5:
            raise ValueError("severity must be (low, high) with 1 <= low <= high <= 5")
        return self

    def check(self, kinds: Mapping[str, str]) -> None:
        """Refuse what is no input, or no fault of one; `kinds` are those of the inputs by name.

        Raises:
            ValueError: names it, and what there is.
        """
        for name, faults in self.faults.items():
            if name not in kinds:
                raise ValueError(f"no input '{name[:80]}'; {names_hint(name, kinds)}")
            for fault in faults:
                try:
                    check_grid_fault(kinds[name], fault, f"curriculum.faults.{name}")
                except ConfigError as error:
                    raise ValueError(str(error)) from error
        if self.probability and len(kinds) < 2:
            raise ValueError("curriculum: one sensor stays clean, and there is only one")


class OptimizerSpec(_Spec):
    """AdamW with linear warm-up and polynomial decay; EMA of the weights is what is exported.

    The average reaches back over 1 / (1 - `ema_decay`) steps or, where `ema_share` is given, over this
    share of all steps of the run, which fits runs of any length.
    """

    lr: float = Field(1e-3, gt=0)
    encoder_lr_factor: float = Field(0.5, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    power: float = Field(0.9, gt=0)
    clip_norm: float = Field(5.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    ema_share: float | None = Field(None, gt=0, le=1)


class CudaSpec(_Spec):
    """What is only of a GPU; a run may go on with other values.

    `cudnn_benchmark` tries out how each convolution is fastest; `tf32` rounds the factors of products to 10
    bits; None leaves both to PyTorch.  `pinned_memory` copies batches while the GPU computes.
    """

    cudnn_benchmark: bool | None = None
    tf32: bool | None = None
    pinned_memory: bool = False


class LossSpec(_Spec):
    """Weights of the loss terms: `auxiliary`, and of any task by its name, 1 where none is given.

    `lovasz` weighs a term that stands for the IoU itself, of tasks that have classes of pixels.
    `auxiliary` is of heads that see the features of one encoder each; `alone` weighs the loss of what the
    whole model answers to each input of a step alone, whose features it has anyway.  `fields` is of what
    boxes in space are besides where: their size, heading and velocity; `heading` once more of the heading
    alone, of boxes that are longer than wide.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    auxiliary: float = Field(0.3, ge=0)
    class_balance: float = Field(0.3, ge=0, le=1)
    lovasz: float = Field(0.0, ge=0)
    alone: float = Field(0.0, ge=0)
    fields: float = Field(0.25, ge=0)
    heading: float = Field(1.0, ge=0)

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
            if weight < 0:  # training would do what it can to be wrong
                raise ValueError(f"{task} must not be negative, got {weight:g}")
            if weight == 1.0:  # the same as none
                del self.__pydantic_extra__[task]
        return self

    def weight(self, task: str) -> float:
        """Of a task."""
        return self.__pydantic_extra__.get(task, 1.0)


class SubsetSpec(_Spec):
    """How often subsets of the inputs are drawn, and how much they count; named as in `rgb+depth`.

    `probability` takes the place of `full_set_probability`: the share of batches that have exactly these
    inputs; subsets that it does not name share what is left equally.  `weight` multiplies the loss of
    batches drawn with a subset, 1 where none is given.  With `by_gap`, each share is multiplied by
    1 + `by_gap` times the gap that validation measured last, which is the part of the best subset's score
    that the subset lacks.
    """

    probability: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    weight: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(default_factory=dict)
    by_gap: float = Field(0.0, ge=0, le=100)

    def fitted(self, inputs: Iterable[str]) -> SubsetSpec:
        """The same with every subset named in the order of `inputs`.

        Raises:
            ValueError: a name is none of a subset, or the probabilities do not add up.
        """
        known = {frozenset(subset): subset_name(subset) for subset in subsets_of(inputs)}
        named: dict[str, Any] = {}
        for field in ("probability", "weight"):
            named[field] = {}
            for name, value in getattr(self, field).items():
                subset = known.get(frozenset(name.split("+")))
                if subset is None:
                    hint = names_hint(name, known.values())
                    raise ValueError(f"subsets.{field}: no subset '{name[:80]}'; {hint}")
                if subset in named[field]:
                    raise ValueError(f"subsets.{field}: {subset} is given twice")
                named[field][subset] = value
        shares = named["probability"]
        total, whole = sum(shares.values()), len(shares) == len(known)
        if total > 1 + _ROUNDING or (whole and total < 1 - _ROUNDING):
            what = "all subsets are" if whole else "shares are"
            raise ValueError(f"subsets.probability: {what} {total:.6g} together, not 1")
        return SubsetSpec(**named, by_gap=self.by_gap)


def _known_task(name: str) -> str:
    name = in_todays_words(name)
    if name not in (able := trained_tasks()):
        raise ValueError(f"no task '{name[:80]}' can be trained; {names_hint(name, able)}")
    return name


class TrainConfig(_Spec):
    """Everything that a training run depends on.

    With `accumulate`, a step's batch is computed in so many parts one after the other, which takes less
    memory.
    """

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
    subsets: SubsetSpec = SubsetSpec()
    corruption: CorruptionSpec = CorruptionSpec()
    curriculum: CurriculumSpec = CurriculumSpec()
    scene: SceneSpec = SceneSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    loss: LossSpec = LossSpec()
    precision: Precision = "bfloat16"
    seed: int = Field(0, ge=0, le=_LARGEST_SEED)
    validate_every: int = Field(5, ge=1)
    workers: int = Field(0, ge=0, le=256)
    accumulate: int = Field(1, ge=1, le=1024)
    cuda: CudaSpec = CudaSpec()

    @model_validator(mode="after")
    def _one_view(self) -> TrainConfig:
        if self.preprocess.birdseye is not None:  # each picture is lifted from a grid of its own
            return self
        first = self.preprocess.names[0]
        for name, spec in self.preprocess.items():
            if spec.view.grid != self.preprocess.grid:
                raise ValueError(
                    f"preprocess: the views of {first} and {name} differ: inputs that are trained "
                    "together have one height, width and fit"
                )
        return self

    @model_validator(mode="after")
    def _whole_ground(self) -> TrainConfig:
        """What lies on the ground is not cropped: its phases have the size of the grid."""
        if self.preprocess.birdseye is None:
            return self
        whole: dict[str, Any] = {"crop": self.preprocess.birdseye.shape, "scale": (1.0, 1.0)}
        for phase in self.resolution:
            for field, value in whole.items():
                if field in phase.model_fields_set and getattr(phase, field) != value:
                    raise ValueError(
                        f"resolution: inputs on the ground are learned whole: leave {field} out; "
                        "scene says how they are moved"
                    )
        self.resolution = [p.model_copy(update=whole) for p in self.resolution]
        return self

    @model_validator(mode="after")
    def _subsets_of_the_inputs(self) -> TrainConfig:
        self.subsets = self.subsets.fitted(self.preprocess.modalities)
        return self

    @model_validator(mode="after")
    def _faults_of_the_inputs(self) -> TrainConfig:
        self.curriculum.check(self.preprocess.kinds)
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
        base = instead_of or self.epochs

        def scaled(epoch: int) -> int:
            return (2 * epoch * epochs + base) // (
                2 * base
            )  # halves up; a factor's last bit decides nothing

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
