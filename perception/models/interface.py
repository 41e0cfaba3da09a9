"""What a model must provide so that training, export and the runtime can use it.

A model has named inputs, here called its modalities, an encoder for each, and a fuser.  An encoder
sees one input at a time, and inputs of a kind may share it; the fuser sees the features of those that
are there.  Training calls `forward`, export writes each encoder and the fuser as a graph of its own,
and the runtime skips the inputs that are absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.frame import Kind, as_kind, in_order
from perception.preprocess.contract import CHANNELS, PreprocessContract

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
        tasks: those it has heads for.
        fewest, most: how many inputs it takes; `most` None for any number.
        repeats: whether it takes several inputs of a kind, which may then share an encoder.
        needs: kinds without which it cannot be built.
        reference: kinds of inputs and options of the size that the publication states, or the default.
        published_parameters: millions, as stated by the publication for `reference`; None if it
            states none.
        published_result: a number of the publication, with its data; it was reached with other data
            and another budget than ours.
    """

    kind: str
    source: str
    tasks: tuple[str, ...] = ("segmentation",)
    fewest: int = 1
    most: int | None = None
    repeats: bool = True
    needs: tuple[Kind, ...] = ()
    reference: tuple[Kind, ...] = ("rgb", "depth")
    published_parameters: float | None = None
    published_result: str = ""

    def check(self, kinds: Mapping[str, Kind], seg_classes: int, det_classes: int) -> None:
        """Refuse what the model was not made for.

        Args:
            kinds: by input.
            seg_classes, det_classes: see `FusionModel`.

        Raises:
            ConfigError: too few or too many inputs, or too many of a kind, a needed one is missing, or
                no head.
        """
        if not (seg_classes or det_classes):
            raise ConfigError("the model has no head", hint="set seg_classes or det_classes")
        for task, classes in (("segmentation", seg_classes), ("detection", det_classes)):
            if classes and task not in self.tasks:
                raise ConfigError(f"the model has no {task} head", where="tasks")
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
    def takes(self) -> str:
        """How many inputs it takes, in words."""
        if self.most is None:
            return f"{self.fewest} or more"
        return f"{self.fewest} to {self.most}" if self.most > self.fewest else f"{self.fewest}"


@dataclass
class ModelOutput:
    """Outputs of one forward pass.

    Attributes:
        seg_logits: (N, K, H/4, W/4), or None without a semantic head.
        detections: by stride s, (N, C, H/s, W/s) logits and (N, 4, H/s, W/s) side distances in
            stride units; empty without a detection head.
        images: by name, (N, C, H, W) pictures in 0..1 that the model makes besides.
        aux: by name, (N, K or C, h, w) logits of auxiliary heads (training only).
        taps: by name, inner tensors that the model's own losses or a training method use
            (training only).
    """

    seg_logits: Tensor | None = None
    detections: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)


class FusionModel(nn.Module):
    """Base of every model: inputs, encoders, and a fuser that works for any subset of the inputs.

    A subclass sets `card` and `feature_names`, fills `encoders` and writes `fuse`.  It may also write
    `supervise` and `losses` for training.  What `encode` does may depend on the encoder alone.

    Attributes:
        inputs: what it takes.
        modalities: names of the inputs.
        kinds: of each input.
        encoder_of: by input, the name of its encoder.
        encoders: by name.
        encoder_channels: by encoder, the channels of the images that it takes.

    Args:
        modalities: its inputs: kinds in any order, or a contract.
        seg_classes: semantic classes, 0 for no semantic head.
        det_classes: detection classes, 0 for no detection head.
        pretrained: start from published weights; for subclasses that can.
    """

    card: ClassVar[ModelCard]
    feature_names: tuple[str, ...]
    shared_part: ClassVar[str] = ""  # name of the last part that all tasks go through
    head_parts: ClassVar[tuple[str, ...]] = ("decoder",)  # where heads are
    training_parts: ClassVar[tuple[str, ...]] = (
        "aux_heads",
        "teacher",
    )  # neither counted nor exported

    def __init__(
        self,
        modalities: Inputs,
        seg_classes: int = 0,
        det_classes: int = 0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        contract = modalities if isinstance(modalities, PreprocessContract) else None
        names = in_order(modalities)
        kinds = {m: as_kind(m) for m in names} if contract is None else contract.kinds
        self.card.check(kinds, seg_classes, det_classes)
        self.inputs = contract or PreprocessContract(modalities=list(names))
        for name in (*names, *self.inputs.encoders.values()):
            if name == "late" or hasattr(nn.ModuleDict(), name):  # AnyFuse's own, or torch's
                raise ConfigError(
                    f"an input or encoder cannot be called '{name}'", where="preprocess"
                )
        self.modalities, self.kinds = names, kinds
        self.encoder_of = self.inputs.encoders
        self.encoder_channels = {e: CHANNELS[kinds[m]] for m, e in self.encoder_of.items()}
        self.seg_classes, self.det_classes = seg_classes, det_classes
        self.encoders = nn.ModuleDict()

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

    def encode(self, modality: str, image: Tensor) -> Features:
        """Features of one modality's (N, C, H, W) float32 input, by `feature_names`."""
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

    def losses(self, output: ModelOutput, labels: Tensor | None) -> dict[str, Tensor]:
        """The model's own loss terms, weighted, besides those of its heads.

        Args:
            output: of the forward pass in training mode.
            labels: (N, H, W) int64, 255 = ignore.
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
        given = [m for m in self.modalities if m in inputs]
        if not given:
            raise ConfigError("no modality given")
        features: dict[str, Features] = {m: self.encode(m, inputs[m]) for m in given}
        gates: dict[str, Tensor] | None = None
        if present is not None:
            gates = {m: present[m].reshape(-1, 1, 1, 1) for m in given}
        output = self.fuse(features, gates)
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
