"""What a model must provide so that training, export and the runtime can use it.

A model is a set of encoders, one per modality, and a fuser.  The encoder of a modality sees only that
modality; the fuser sees the features of those that are there.  Training calls `forward`, export
writes each encoder and the fuser as a graph of its own, and the runtime skips the encoders of the
modalities that are absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.frame import MODALITIES, Modality

Features = dict[str, Tensor]
"""What one encoder gives: (N, C, h, w) maps by name."""


@dataclass(frozen=True)
class ModelCard:
    """What a model is, for lists and checks.

    Attributes:
        kind: the family, such as `attention fusion`.
        source: authors, title, place and year of the publication, or `AnySense`.
        tasks: those it has heads for.
        fewest, most: how many modalities it takes.
        needs: modalities without which it cannot be built.
        reference: modalities and options of the size that the publication states, or the default.
        published_parameters: millions, as stated by the publication for `reference`; None if it
            states none.
        published_result: a number of the publication, with its data; it was reached with other data
            and another budget than ours.
    """

    kind: str
    source: str
    tasks: tuple[str, ...] = ("segmentation",)
    fewest: int = 1
    most: int = len(MODALITIES)
    needs: tuple[Modality, ...] = ()
    reference: tuple[Modality, ...] = ("rgb", "depth")
    published_parameters: float | None = None
    published_result: str = ""

    def check(self, modalities: Sequence[str], seg_classes: int, det_classes: int) -> None:
        """Refuse what the model was not made for.

        Raises:
            ConfigError: too few or too many modalities, a needed one is missing, or no head.
        """
        if not (seg_classes or det_classes):
            raise ConfigError("the model has no head", hint="set seg_classes or det_classes")
        for task, classes in (("segmentation", seg_classes), ("detection", det_classes)):
            if classes and task not in self.tasks:
                raise ConfigError(f"the model has no {task} head", where="tasks")
        if not self.fewest <= len(modalities) <= self.most:
            wanted = f"{self.fewest} to {self.most}" if self.most > self.fewest else self.fewest
            raise ConfigError(
                f"takes {wanted} modalities, not {len(modalities)}", where="preprocess.modalities"
            )
        missing = [m for m in self.needs if m not in modalities]
        if missing:
            raise ConfigError(f"needs {', '.join(missing)}", where="preprocess.modalities")


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
    """Base of every model: encoders by modality, and a fuser that works for any subset.

    A subclass sets `card` and `feature_names`, fills `encoders` and writes `fuse`.  It may also write
    `supervise` and `losses` for training.

    Args:
        modalities: those it can take, in any order.
        seg_classes: semantic classes, 0 for no semantic head.
        det_classes: detection classes, 0 for no detection head.
        pretrained: start from published weights; for subclasses that can.
    """

    card: ClassVar[ModelCard]
    feature_names: tuple[str, ...]
    shared_part: ClassVar[str] = ""  # name of the last part that all tasks go through

    def __init__(
        self,
        modalities: Sequence[str],
        seg_classes: int = 0,
        det_classes: int = 0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.card.check(modalities, seg_classes, det_classes)
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if m in modalities)
        self.seg_classes, self.det_classes = seg_classes, det_classes
        self.encoders = nn.ModuleDict()

    def encode(self, modality: str, image: Tensor) -> Features:
        """Features of one modality's (N, C, H, W) float32 input, by `feature_names`."""
        features: Features = self.encoders[modality](image)
        return features

    def fuse(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
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

    def forward(
        self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> ModelOutput:
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


@dataclass
class Gathered:
    """One feature of all modalities of a model, absent ones set to zero.

    Attributes:
        maps: (N, C, h, w) per modality of the model, in canonical order.
        gates: per modality, a boolean that broadcasts to the map.
    """

    maps: list[Tensor]
    gates: list[Tensor]


def gather(
    modalities: Sequence[str],
    features: Mapping[str, Features],
    present: Mapping[str, Tensor] | None,
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
