"""AnyFuse: one network for any subset of modalities.

Per encoder, a stem and the first five stages of EfficientNet-Lite; at strides 4, 8 and 16 the maps
of the modalities present are fused by a presence-gated softmax; the last two stages run once on the
fused map; then a light semantic decoder, an anchor-free detection head, or both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perception.errors import ConfigError, names_hint
from perception.models.efficientnet_lite import (
    LITE0,
    LitePyramid,
    imagenet_state_dict,
    make_stages,
    share_convolutions,
)
from perception.models.fusion import fuse_gated, fuse_present
from perception.models.heads import Pyramid, WithHeads, half_of
from perception.models.interface import (
    Features,
    FusionModel,
    Group,
    ModelCard,
    ModelOutput,
    Present,
    gather,
)
from perception.models.layers import SeparableBlock
from perception.models.prediction import FeaturePredictor, fill_in, prediction_loss
from perception.tasks.spec import TaskSpec

ENCODER_STAGES = 5
LATE = "late"
SCALES = (4, 8, 16)

Maps = dict[int, tuple[Tensor, Tensor]]
"""By stride: feature map and score map of one modality."""


class ModalityEncoder(LitePyramid):
    """Stem and early stages for one kind of input; gives a feature and a score map at each scale."""

    def __init__(
        self,
        inputs: int,
        width: float,
        scales: tuple[int, ...],
        sizes: Sequence[Sequence[int]] | None = None,
        *,
        pretrained: bool = False,
        backbone: str = LITE0,
    ) -> None:
        super().__init__(
            inputs, width, scales, pretrained=pretrained, sizes=sizes, backbone=backbone
        )
        self.score = nn.ModuleDict({str(s): nn.Conv2d(c, c, 1) for s, c in self.channels.items()})
        for conv in self.score.values():
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Maps:  # type: ignore[override]
        return {s: (f, self.score[str(s)](f)) for s, f in super().forward(x).items()}


class Trunk(WithHeads):
    """What runs once: fusion at every scale, the late stages and the heads."""

    def __init__(
        self,
        channels: dict[int, int],
        width: float,
        tasks: Mapping[str, TaskSpec],
        decoder_width: int,
        sizes: Sequence[Sequence[int]] | None = None,
        backbone: str = LITE0,
    ) -> None:
        super().__init__()
        self.refine = nn.ModuleDict({str(s): SeparableBlock(c, 3) for s, c in channels.items()})
        self.late, late_channels = make_stages(
            ENCODER_STAGES, 7, channels[16], width, sizes, backbone
        )
        self.add_heads(tasks, {**channels, 32: late_channels[-1]}, decoder_width)

    def forward(self, maps: list[Maps], present: list[Tensor] | None = None) -> ModelOutput:
        """Fuse the modalities' maps and run the heads.

        Args:
            maps: per modality, the encoder's output.
            present: per modality, a boolean that broadcasts to its maps; None = all present.
        """
        pyramid: Pyramid = {}
        for scale in maps[0]:
            features = [m[scale][0] for m in maps]
            scores = [m[scale][1] for m in maps]
            if present is None:
                fused = fuse_present(features, scores)
            else:
                fused = fuse_gated(features, scores, present)
            pyramid[scale] = self.refine[str(scale)](fused)
        x = pyramid[16]
        for stage in self.late:
            x = stage(x)
        pyramid[32] = x
        return ModelOutput(self.answers(pyramid))


class AnyFuse(FusionModel):
    """The whole network.

    Args:
        inputs, tasks, pretrained: see `FusionModel`; heads for any task.
        width: multiplier of the backbone's channels; ImageNet weights fit 1.0 only.
        decoder_width: channels of the decoder and detection head.
        encoders: `separate`, or `shared`: one set of convolutions for all encoders, each with its own
            stem and batch normalization.
        predict_missing: predict the features of absent modalities from those present and fuse them
            in, instead of leaving them out; see docs/zoo/prediction.md.
        stages: by encoder, and by `late` for the last two stages, the (depth, expansion factor) of
            each stage where it is to be smaller than the backbone's.
        backbone: size of EfficientNet-Lite: `lite0`, `lite1` (deeper) or `lite2` (deeper and wider).
    """

    card = ModelCard(
        kind="gated softmax fusion",
        source="AnySense",
        tasks=None,
    )
    shared_part = "trunk.late"

    def build(
        self,
        width: float = 1.0,
        decoder_width: int = 128,
        encoders: str = "separate",
        predict_missing: bool = False,
        stages: Mapping[str, Sequence[Sequence[int]]] | None = None,
        backbone: str = LITE0,
    ) -> None:
        if width <= 0 or decoder_width < 1:
            raise ConfigError("width and decoder_width must be positive", where="model.options")
        stages = stages or {}
        unknown = sorted(set(stages) - {*self.encoder_channels, LATE})
        if unknown:
            raise ConfigError(
                f"no part '{unknown[0]}'",
                where="model.options.stages",
                hint=names_hint(unknown[0], (*self.encoder_channels, LATE)),
            )
        if stages and (self.pretrained or encoders == "shared"):
            raise ConfigError(
                "neither ImageNet weights nor shared convolutions fit smaller stages",
                where="model.options.stages",
            )
        self.options: dict[str, Any] = {
            "width": width,
            "decoder_width": decoder_width,
            "encoders": encoders,
            "predict_missing": predict_missing,
            "stages": stages,
            "backbone": backbone,
        }
        halves = {task: half_of(task) for task in self.tasks}
        read = {16, *(s for half in halves.values() for s in half.strides)}
        self.scales = tuple(s for s in SCALES if s in read)
        self.feature_names = tuple(f"{kind}{s}" for s in self.scales for kind in "fs")
        self.encoders = nn.ModuleDict(
            {
                e: ModalityEncoder(
                    channels,
                    width,
                    self.scales,
                    stages.get(e),
                    pretrained=self.pretrained,
                    backbone=backbone,
                )
                for e, channels in self.encoder_channels.items()
            }
        )
        first = self._encoder(next(iter(self.encoders)))
        self.trunk = Trunk(
            first.channels, width, self.tasks, decoder_width, stages.get(LATE), backbone
        )
        self.predictor: FeaturePredictor | None = None
        if predict_missing:
            self.predictor = FeaturePredictor(self.modalities, first.channels)
        self.aux_heads = nn.ModuleDict()
        for task, half in halves.items():
            for encoder in self.encoders if self.aux_task in ("", task) else ():
                head = half.auxiliary_head(first.channels[16], self.tasks[task])
                if head is not None:
                    self.aux_task, self.aux_heads[encoder] = task, head
        if self.pretrained:
            self._load_late_stages()
        if encoders == "shared":
            share_convolutions(self.encoders.values())
        elif encoders != "separate":
            raise ConfigError(
                f"unknown encoders '{encoders}'",
                where="model.options.encoders",
                hint=names_hint(encoders, ("separate", "shared")),
            )

    def _encoder(self, name: str) -> ModalityEncoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, ModalityEncoder)
        return encoder

    def _load_late_stages(self) -> None:
        late = {}
        for key, value in imagenet_state_dict(self.options["backbone"]).items():
            parts = key.split(".")
            if parts[0] == "stages" and int(parts[1]) >= ENCODER_STAGES:
                late[".".join([str(int(parts[1]) - ENCODER_STAGES), *parts[2:]])] = value
        self.trunk.late.load_state_dict(late)

    def group_of(self, name: str) -> Group:
        """The late stages belong to the backbone, the score maps to fusion."""
        if name.startswith("encoders.") and ".score." in name:
            return "fusion"
        if name.startswith("trunk."):
            inner = name.split(".")[1]
            return {"late": "backbone", "refine": "fusion"}.get(inner, "heads")  # type: ignore[return-value]
        return super().group_of(name)

    def encode(self, modality: str, image: Tensor) -> Features:
        """Feature maps `f<s>` and score maps `s<s>` at strides s."""
        maps: Maps = self.encoders[self.encoder_of[modality]](image)
        return {f"{k}{s}": t for s, pair in maps.items() for k, t in zip("fs", pair, strict=True)}

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; absent modalities take no part in the softmax, or are predicted."""
        if self.predictor is not None and len(self.modalities) > 1:
            maps: list[Maps] = [{} for _ in self.modalities]
            for s in self.scales:
                got = gather(self.modalities, features, present, f"f{s}")
                scores = gather(self.modalities, features, present, f"s{s}").maps
                filled = fill_in(self.predictor, self.modalities, s, got.maps, scores, got.gates)
                for one, feature, score in zip(maps, *filled, strict=True):
                    one[s] = (feature, score)
            output = self.trunk(maps)
        else:
            maps = [{s: (f[f"f{s}"], f[f"s{s}"]) for s in self.scales} for f in features.values()]
            output = self.trunk(maps, None if present is None else [present[m] for m in features])
        assert isinstance(output, ModelOutput)
        return output

    def supervise(self, output: ModelOutput, features: Mapping[str, Features]) -> None:
        """Logits of each modality alone, which keep every encoder able to work without the others."""
        if self.aux_task:
            of = self.encoder_of
            output.aux = {m: self.aux_heads[of[m]](f["f16"]) for m, f in features.items()}
        if self.predictor is not None and len(features) > 1:
            distances = [
                prediction_loss(
                    self.predictor, s, {m: (f[f"f{s}"], f[f"s{s}"]) for m, f in features.items()}
                )
                for s in self.scales
            ]
            output.taps["prediction"] = torch.stack(distances).mean()

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """The predictor's loss, in batches that have two or more modalities."""
        return {"prediction": output.taps["prediction"]} if "prediction" in output.taps else {}
