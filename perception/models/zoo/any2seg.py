"""Any2Seg: a shared encoder, fusion by inter-modal correlation, semantic correlation distillation.

Zheng, Lyu and Wang, "Learning Modality-agnostic Representation for Semantic Segmentation from Any
Modalities", ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.files.arrays import read_npy
from perception.models.efficientnet_lite import SCALES, LitePyramid, share_convolutions
from perception.models.fusion import ABSENT_SCORE
from perception.models.heads import Pyramid
from perception.models.interface import Features, ModelCard, ModelOutput, Present, gather
from perception.models.layers import SeparableBlock
from perception.models.supervision import sample_labels
from perception.models.zoo.backbone import PyramidModel
from perception.tasks.segmentation import SEGMENTATION

DISTILLED = "f16"


class AgnosticFusion(nn.Module):
    """Weigh each modality, pixel by pixel, by its correlation with the mean of those present.

    The weighted sum carries what the modalities agree on; the channelwise maximum, projected, adds
    the fine detail that only one of them has.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.detail = nn.Conv2d(channels, channels, 1)
        self.refine = SeparableBlock(channels, 3)

    def forward(self, maps: list[Tensor], gates: list[Tensor]) -> Tensor:
        """Fuse (N, C, h, w) maps that are zero where their gate is False."""
        stacked = torch.stack(maps)
        there = torch.stack([g.expand(maps[0].shape[0], -1, -1, -1) for g in gates])
        count = there.to(stacked.dtype).sum(0).clamp(min=1)
        mean = stacked.sum(0) / count
        correlation = F.cosine_similarity(stacked, mean[None], dim=2, eps=1e-6)[:, :, None]
        scores = torch.where(there, correlation * self.temperature, ABSENT_SCORE)
        common = (stacked * scores.softmax(dim=0)).sum(0)
        strongest = torch.where(there, stacked, ABSENT_SCORE).amax(0)
        fused: Tensor = self.refine(common + self.detail(strongest))
        return fused


class PrototypeTeacher(nn.Module):
    """Frozen: how alike the classes are, as a matrix of cosines between class embeddings.

    With `embeddings` (K, D), such as a language-vision model's for the class names, these are the
    teacher.  Without, a frozen ImageNet network gives features of the colour image, whose running
    mean over the pixels of each class is its prototype; this needs nothing but the training data.
    """

    def __init__(self, classes: int, embeddings: Tensor | None) -> None:
        super().__init__()
        self.network: LitePyramid | None = None
        size = 0
        if embeddings is None:
            self.network = LitePyramid(3, 1.0, (16,), pretrained=True)
            self.network.requires_grad_(False)
            size = self.network.channels[16]
            embeddings = torch.zeros(classes, size)
        self.register_buffer("prototypes", embeddings)
        self.register_buffer("seen", torch.full((classes,), 0.0 if size else 1.0))

    def train(self, mode: bool = True) -> PrototypeTeacher:
        """Stay in evaluation mode: a frozen network keeps its statistics."""
        return super().train(False)

    @torch.no_grad()
    def look(self, image: Tensor) -> Tensor | None:
        """Features (N, D, H/16, W/16) of a colour image, or None where embeddings are given."""
        return None if self.network is None else self.network(image)[16].float()

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor) -> None:
        """Move the prototypes of the classes in `labels` towards their mean features."""
        prototypes, seen = self._tables()
        means, present = class_means(features, labels, len(seen))
        first = present & (seen == 0)
        prototypes[first] = means[first]
        prototypes[present] = prototypes[present].lerp(means[present], 0.05)
        seen[present] = 1.0

    def _tables(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.prototypes, Tensor) and isinstance(self.seen, Tensor)
        return self.prototypes, self.seen

    def correlations(self) -> tuple[Tensor, Tensor]:
        """(K, K) cosines between classes, and (K,) bool: which of them are known."""
        prototypes, seen = self._tables()
        known = seen > 0
        # Features behind a ReLU all point one way; about their mean, they tell classes apart.
        center = prototypes[known].mean(0) if self.network is not None and known.any() else 0.0
        unit = F.normalize(prototypes - center, dim=1)
        return unit @ unit.T, known


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean features of each class over a batch.

    Args:
        features: (N, C, h, w) float32.
        labels: (N, H, W) int64.
        classes: K.

    Returns:
        (K, C) means, zero for classes that do not occur, and (K,) bool: those that do.
    """
    sampled = sample_labels(labels, features.shape[-1])
    member = F.one_hot(sampled.clamp(max=classes), classes + 1)[..., :classes].flatten(0, 2)
    weights = member.to(features.dtype).T
    counts = weights.sum(1)
    flat = features.permute(0, 2, 3, 1).flatten(0, 2)
    return (weights @ flat) / counts.clamp(min=1)[:, None], counts > 0


class Any2Seg(PyramidModel):
    """Segmentation from any subset, with one set of convolutions for all modalities.

    Args:
        inputs, tasks: see `FusionModel`.
        pretrained: start from ImageNet weights.
        width: channel multiplier of the encoder.
        decoder_width: channels of the decoder.
        distillation: weight of the semantic correlation distillation; 0 for none.
        class_embeddings: a .npy file (K, D) float32 with an embedding of each class, to be used as
            the teacher; None for prototypes of a frozen ImageNet network, which need rgb.
    """

    card = ModelCard(
        kind="shared encoder, correlation fusion",
        source="Zheng, Lyu, Wang: Any2Seg, ECCV 2024",
        published_result="mIoU +3.54 over the best before, DELIVER and MCubeS",
    )

    def build(
        self,
        width: float = 1.0,
        decoder_width: int = 128,
        distillation: float = 0.0,
        class_embeddings: str | None = None,
    ) -> None:
        channels = self.add_encoders(width)
        share_convolutions(self.encoders.values())
        self.fusion = nn.ModuleDict({str(s): AgnosticFusion(c) for s, c in channels.items()})
        self.add_heads(self.tasks, channels, decoder_width)
        self.distillation = distillation
        self.teacher: PrototypeTeacher | None = None
        if distillation > 0:
            self.teacher = self._make_teacher(class_embeddings)

    def _make_teacher(self, path: str | None) -> PrototypeTeacher:
        if path is None:
            if "rgb" not in self.kinds.values():
                raise ConfigError(
                    "the prototype teacher looks at rgb",
                    where="model.options.distillation",
                    hint="add rgb, give class_embeddings, or set it to 0",
                )
            return PrototypeTeacher(self.classes_of(SEGMENTATION.name), None)
        if not Path(path).is_file():
            raise ConfigError("no such file", where=f"model.options.class_embeddings: {path}")
        table = read_npy(path, error=ConfigError)
        if table.ndim != 2 or len(table) != self.classes_of(SEGMENTATION.name):
            raise ConfigError(
                f"holds {table.shape}, expected ({self.classes_of(SEGMENTATION.name)}, D)",
                where=f"model.options.class_embeddings: {path}",
            )
        return PrototypeTeacher(self.classes_of(SEGMENTATION.name), torch.from_numpy(table).float())

    def encode(self, modality: str, image: Tensor) -> Features:
        """Feature maps `f<s>` at strides s; in training, `teacher` beside those of rgb."""
        features = super().encode(modality, image)
        if self.training and self.teacher is not None and self.kinds[modality] == "rgb":
            seen = self.teacher.look(image)
            if seen is not None:
                features["teacher"] = seen
        return features

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; weights are shared out among those present."""
        pyramid: Pyramid = {}
        for s in SCALES:
            got = gather(self.modalities, features, present, f"f{s}")
            pyramid[s] = self.fusion[str(s)](got.maps, got.gates)
        return ModelOutput(self.answers(pyramid))

    def supervise(self, output: ModelOutput, features: Mapping[str, Features]) -> None:
        """Keep the maps that are distilled, and the teacher's."""
        output.taps = {m: f[DISTILLED] for m, f in features.items()}
        seen = [f["teacher"] for f in features.values() if "teacher" in f]
        if seen:
            output.taps["teacher"] = seen[0]

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """Distance of the class correlations within and between modalities from the teacher's."""
        labels = truths.get(SEGMENTATION.name)
        if self.teacher is None or labels is None:
            return {}
        if "teacher" in output.taps:
            self.teacher.learn(output.taps["teacher"], labels)
        target, known = self.teacher.correlations()
        own: dict[str, Tensor] = {}
        occurs = known
        for modality in self.modalities:
            if modality in output.taps:
                means, occurs_here = class_means(
                    output.taps[modality].float(), labels, self.classes_of(SEGMENTATION.name)
                )
                own[modality] = means
                occurs = known & occurs_here  # labels are the same for all modalities
        if int(occurs.sum()) < 2:
            return {}
        units = [F.normalize(e[occurs] - e[occurs].mean(0), dim=1) for e in own.values()]
        wanted = target[occurs][:, occurs]
        within = [(u @ u.T - wanted).square().mean() for u in units]
        between = [
            (a @ b.T - wanted).square().mean() for i, a in enumerate(units) for b in units[i + 1 :]
        ]
        terms = {"distill_within": self.distillation * torch.stack(within).mean()}
        if between:
            terms["distill_between"] = self.distillation * torch.stack(between).mean()
        return terms
