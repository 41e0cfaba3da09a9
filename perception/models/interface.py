"""What a model must provide so that training, export and the runtime can use it.

A model has named inputs, here called its modalities, an encoder for each, and a fuser.  An encoder
sees one input at a time, and inputs of a kind may share it; the fuser sees the features of those that
are there.  Training calls `forward`, export writes each encoder and the fuser as a graph of its own,
and the runtime skips the inputs that are absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.frame import KINDS, Kind, as_kind, in_order
from perception.models.heads import half_of, in_task_order, trained_tasks
from perception.preprocess.contract import PreprocessContract
from perception.tasks.segmentation import SEGMENTATION
from perception.tasks.spec import TaskSpec

Features = dict[str, Tensor]
"""What one encoder gives: (N, C, h, w) maps by name."""

Inputs = Sequence[str] | PreprocessContract
"""A model's inputs: kinds, one input each, or named inputs with their kinds and encoders."""

Group = Literal["backbone", "fusion", "heads", "training"]
"""What a parameter is for: seeing an input by itself, mixing what was seen, answering, or training alone."""

Present = Mapping[str, Tensor] | None
"""By input, a boolean that is False where it is absent, whatever is given; None = all present."""


@dataclass(frozen=True)
class ModelCard:
    """What a model is, for lists and checks.

    Attributes:
        kind: the family, such as `attention fusion`.
        source: authors, title, place and year of the publication, or `AnySense`.
        tasks: those it has heads for; None for any.
        fewest, most: how many inputs it takes; `most` None for any number.
        repeats: whether it takes several inputs of a kind, which may then share an encoder.
        needs: kinds without which it cannot be built.
        published_weights: whether `pretrained` finds some.
        reference: kinds of inputs and options of the size that the publication states, or the default.
        published_parameters: millions, as stated by the publication for `reference`; None if it
            states none.
        published_result: a number of the publication, with its data; it was reached with other data
            and another budget than ours.
        ground: its inputs lie on a grid on the ground, and it has heads for tasks of the ground alone.
    """

    kind: str
    source: str
    tasks: tuple[str, ...] | None = (SEGMENTATION.name,)
    fewest: int = 1
    most: int | None = None
    repeats: bool = True
    needs: tuple[Kind, ...] = ()
    published_weights: bool = True
    reference: tuple[Kind, ...] = KINDS[:2]
    published_parameters: float | None = None
    published_result: str = ""
    ground: bool = False

    def check(self, kinds: Mapping[str, Kind], tasks: Collection[str]) -> None:
        """Refuse what the model was not made for.

        Args:
            kinds: by input.
            tasks: names of those that it shall have heads for.

        Raises:
            ConfigError: too few or too many inputs, or too many of a kind, a needed one is missing, or
                no head.
        """
        if not tasks:
            raise ConfigError("the model has no head", hint="name a task")
        for task in tasks:
            if self.tasks is not None and task not in self.tasks:
                raise ConfigError(f"the model has no {task} head", where="tasks")
            if half_of(task).ground and not self.ground:
                hint = "a model on the ground has one: model.name: pillarbev"
                raise ConfigError(f"the model has no {task} head", where="tasks", hint=hint)
        if len(kinds) < self.fewest or (self.most is not None and len(kinds) > self.most):
            raise ConfigError(
                f"takes {self.takes} modalities, not {len(kinds)}", where="preprocess"
            )
        found = list(kinds.values())
        missing = [k for k in self.needs if k not in found]
        if missing:
            raise ConfigError(f"needs {', '.join(missing)}", where="preprocess")
        twice = [f"{name} ({kind})" for name, kind in kinds.items() if found.count(kind) > 1]
        if twice and not self.repeats:
            raise ConfigError(
                f"the model takes one input of each kind, not {', '.join(twice)}",
                where="preprocess",
            )

    @property
    def heads(self) -> list[str]:
        """Names of the tasks that there are heads for."""
        if self.tasks is not None:
            return list(self.tasks)
        return [task for task in trained_tasks() if half_of(task).ground == self.ground]

    @property
    def takes(self) -> str:
        """How many inputs it takes, in words."""
        if self.most is None:
            return f"{self.fewest} or more"
        return f"{self.fewest} to {self.most}" if self.most > self.fewest else f"{self.fewest}"


@dataclass
class ModelOutput:
    """Outputs of one forward pass.

    Attributes:
        values: by task, what its head gives, see its `TrainingTask`; and what the model makes besides.
        aux: by input, logits of auxiliary heads for the model's `aux_task` (training only).
        taps: by name, inner tensors that the model's own losses or a training method use
            (training only).
    """

    values: dict[str, Any] = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)


def flatten_output(output: ModelOutput) -> dict[str, Tensor]:
    """A model's outputs by graph output name."""
    return {n: t for task, v in output.values.items() for n, t in half_of(task).outputs(v).items()}


class _Specs(dict[str, TaskSpec]):
    """Specs by task; copies of a model share them."""

    def __deepcopy__(self, memo: object) -> _Specs:
        return self


class FusionModel(nn.Module):
    """Base of every model: inputs, encoders, and a fuser that works for any subset of the inputs.

    A subclass sets `card` and `feature_names`, and writes `build`, which fills `encoders`, and `fuse`.  It
    may also write `supervise` and `losses` for training.  What `encode` does may depend on the encoder
    alone.

    Attributes:
        inputs: what it takes.
        tasks: what its bundle will say of each task, by name, ours in their order.
        modalities: names of the inputs.
        kinds: of each input.
        encoder_of: by input, the name of its encoder.
        encoders: by name.
        encoder_channels: by encoder, the channels of the images that it takes.
        aux_task: the task that its auxiliary heads learn, if it has some.
        pretrained: whether to start from published weights.
        made_as: name and options with which `build_model` made it; None where another did.

    Args:
        inputs: kinds in any order, or a contract.
        tasks: specs by task.
        pretrained: start from published weights; for models that can.
        options: of `build`.

    Raises:
        ConfigError: see `ModelCard.check`; or there are no published weights.
    """

    card: ClassVar[ModelCard]
    feature_names: tuple[str, ...]
    shared_part: ClassVar[str] = ""  # name of the last part that all tasks go through
    head_parts: ClassVar[tuple[str, ...]] = ("decoder",)  # where heads are
    aux_task: str = ""
    made_as: tuple[str, dict[str, Any]] | None = None
    training_parts: ClassVar[tuple[str, ...]] = (
        "aux_heads",
        "teacher",
    )  # neither counted nor exported

    def __init__(
        self,
        inputs: Inputs,
        tasks: Mapping[str, TaskSpec],
        *,
        pretrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        contract = inputs if isinstance(inputs, PreprocessContract) else None
        names = in_order(inputs)
        kinds = {m: as_kind(m) for m in names} if contract is None else contract.kinds
        self.card.check(kinds, tasks)
        if pretrained and not self.card.published_weights:
            raise ConfigError(
                f"there are no ImageNet weights for {type(self).__name__}",
                where="model.pretrained",
                hint="set it to false, or start from a run with model.start_from",
            )
        self.inputs = contract or PreprocessContract(modalities=list(names))
        for name in (*names, *self.inputs.encoders.values()):
            if name == "late" or hasattr(nn.ModuleDict(), name):  # AnyFuse's own, or torch's
                raise ConfigError(
                    f"an input or encoder cannot be called '{name}'", where="preprocess"
                )
        self.modalities, self.kinds = names, kinds
        self.tasks = _Specs(in_task_order(tasks))
        self.pretrained = pretrained
        self.encoder_of = self.inputs.encoders
        self.encoder_channels = {
            self.encoder_of[m]: spec.shape[1]
            for m, spec in self.inputs.items()
            if "image" in spec.tensors
        }
        self.encoders = nn.ModuleDict()
        self.build(**options)

    def build(self, *args: Any, **options: Any) -> None:
        """Make the layers; `model.options` of a configuration are its arguments."""
        raise NotImplementedError

    def classes_of(self, task: str) -> int:
        """How many classes a task has; 0 without it."""
        return len(self.tasks[task].labels) if task in self.tasks else 0

    def group_of(self, name: str) -> Group:
        """What a parameter is for, by its name."""

        def within(parts: Sequence[str]) -> bool:
            return any(name.startswith(f"{part}.") for part in parts)

        if within(self.training_parts):
            return "training"
        if within(self.head_parts):
            return "heads"
        return "backbone" if within(["encoders"]) else "fusion"

    def parameter_groups(self) -> dict[Group, dict[str, nn.Parameter]]:
        """All parameters by what they are for and by name; see `group_of`.

        Those of the backbone may start from published weights, and then learn more slowly.
        """
        groups: dict[Group, dict[str, nn.Parameter]] = {
            "backbone": {},
            "fusion": {},
            "heads": {},
            "training": {},
        }
        for name, parameter in self.named_parameters():
            groups[self.group_of(name)][name] = parameter
        return groups

    def encode(self, modality: str, image: Any) -> Features:
        """Features of one modality's (N, C, H, W) float32 input, or tensors, by `feature_names`."""
        features: Features = self.encoders[self.encoder_of[modality]](image)
        return features

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """Fuse the features of some modalities and run the heads.

        Args:
            features: by modality; one that is not in it is absent.
            present: by modality in `features`, a boolean that broadcasts to its maps, False where
                the modality is absent and its features may hold anything; None = all present.
        """
        raise NotImplementedError

    def supervise(self, output: ModelOutput, features: Mapping[str, Features]) -> None:
        """Add to `output` what only training needs; called in training mode only."""

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """The model's own loss terms, weighted, besides those of its heads.

        Args:
            output: of the forward pass in training mode.
            truths: by task that the batch holds truth of; see its `TrainingTask`.
        """
        return {}

    def forward(self, inputs: Mapping[str, Tensor], present: Present = None) -> ModelOutput:
        """Run the modalities given in `inputs` ((N, C, H, W) float32 each); others are absent.

        Args:
            inputs: by modality.
            present: by modality, (N,) bool, to let samples of one batch have different modalities;
                None = every sample has all of `inputs`.

        Raises:
            ConfigError: none of the model's modalities is given.
        """
        features = self.features(inputs)
        gates: dict[str, Tensor] | None = None
        if present is not None:
            gates = {m: present[m].reshape(-1, 1, 1, 1) for m in features}
        return self.answer(features, gates)

    def features(self, inputs: Mapping[str, Tensor]) -> dict[str, Features]:
        """What `encode` gives of each of `inputs`, by modality.

        Raises:
            ConfigError: none of the model's modalities is given.
        """
        given = [m for m in self.modalities if m in inputs]
        if not given:
            raise ConfigError("no modality given")
        return {m: self.encode(m, inputs[m]) for m in given}

    def answer(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """What `fuse` gives of the features, checked, and in training mode what only training needs."""
        output = self.fuse(features, present)
        if not isinstance(output, ModelOutput):
            raise TypeError(f"fuse gave {type(output).__name__}, not a ModelOutput")
        if missing := [task for task in self.tasks if task not in output.values]:
            raise TypeError(f"fuse gave nothing for {', '.join(missing)}")
        if self.training:
            self.supervise(output, features)
        return output


@runtime_checkable
class Pretrainable(Protocol):
    """A model that `anysense pretrain` trains without labels; it takes the option `pretraining`."""

    def reconstruction_loss(
        self, inputs: Mapping[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """How badly the inputs, (N, C, H, W) by name, are rebuilt from a random part of them."""
        ...


@dataclass
class Gathered:
    """One feature of all modalities of a model, absent ones set to zero.

    Attributes:
        maps: (N, C, h, w) per modality of the model, in its order.
        gates: per modality, a boolean that broadcasts to the map.
    """

    maps: list[Tensor]
    gates: list[Tensor]


def gather(
    modalities: Sequence[str],
    features: Mapping[str, Features],
    present: Present,
    name: str,
) -> Gathered:
    """Feature `name` of every modality, for fusers whose layers have a place for each.

    Absent features are replaced by selection, so that NaN in them changes nothing.
    """
    sample = next(iter(features.values()))[name]
    maps, gates = [], []
    for modality in modalities:
        if modality not in features:
            maps.append(torch.zeros_like(sample))
            gates.append(torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=sample.device))
        elif present is None:
            maps.append(features[modality][name])
            gates.append(torch.ones(1, 1, 1, 1, dtype=torch.bool, device=sample.device))
        else:
            maps.append(torch.where(present[modality], features[modality][name], 0.0))
            gates.append(present[modality])
    return Gathered(maps, gates)
