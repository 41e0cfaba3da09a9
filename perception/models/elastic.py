"""Sub-networks of a trained AnyFuse: fewer blocks, narrower blocks, a narrower decoder.

A sub-network is an ordinary AnyFuse whose every tensor is the leading part of the same tensor in the
super-network (after Cai et al., "Once-for-All", ICLR 2020), so the two share all names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.models.anyfuse import ENCODER_STAGES, LATE, AnyFuse
from perception.models.efficientnet_lite import STAGES, MBConv, StageSize, full_sizes
from perception.models.interface import FusionModel

EXPANSIONS = (2, 4, 6)
"""Expansion factors of a stage whose published one is the last of them."""
DECODER_SHARES = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Architecture:
    """Sizes of a sub-network.

    Attributes:
        stages: by encoder and `late`, the (depth, expansion factor) of each stage.
        decoder_width: channels of the decoder and the detection head.
    """

    stages: Mapping[str, tuple[StageSize, ...]]
    decoder_width: int

    def options(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Options of AnyFuse that build it, given those of the super-network."""
        stages = {part: [list(size) for size in sizes] for part, sizes in self.stages.items()}
        return {**own, "stages": stages, "decoder_width": self.decoder_width}


class ElasticSpace:
    """All sub-networks of one super-network.

    Attributes:
        genes: by name, the values to choose from, ascending; `<part>.<stage>.depth`,
            `<part>.<stage>.expansion` and `decoder`.

    Args:
        model: the super-network.

    Raises:
        ConfigError: it is no AnyFuse of full depth and expansion with separate encoders.
    """

    def __init__(self, model: FusionModel) -> None:
        if type(model) is not AnyFuse:
            raise ConfigError("only an anyfuse model has sub-networks", where="model.name")
        if model.options["stages"] or model.options["encoders"] != "separate":
            raise ConfigError(
                "a super-network has separate encoders and all stages whole", where="model.options"
            )
        self.backbone: str = model.options["backbone"]
        self.ranges: dict[str, tuple[int, int]] = {}
        for encoder in model.encoders:
            self.ranges[encoder] = (0, ENCODER_STAGES)
        self.ranges[LATE] = (ENCODER_STAGES, len(STAGES))
        self.genes: dict[str, tuple[int, ...]] = {}
        for part, (first, last) in self.ranges.items():
            for index, (depth, expansion) in enumerate(full_sizes(first, last, self.backbone)):
                if depth > 1:
                    self.genes[f"{part}.{index}.depth"] = tuple(range(1, depth + 1))
                if expansion == EXPANSIONS[-1]:
                    self.genes[f"{part}.{index}.expansion"] = EXPANSIONS
        width = int(model.options["decoder_width"])
        widths = {max(8, round(share * width / 8) * 8) for share in DECODER_SHARES[:-1]}
        self.genes["decoder"] = tuple(sorted({*(w for w in widths if w < width), width}))

    def architecture(self, values: Mapping[str, int]) -> Architecture:
        """The sub-network with these values of the genes; those left out are the largest."""
        stages = {}
        for part, (first, last) in self.ranges.items():
            sizes = []
            for index, (depth, expansion) in enumerate(full_sizes(first, last, self.backbone)):
                depth = values.get(f"{part}.{index}.depth", depth)
                expansion = values.get(f"{part}.{index}.expansion", expansion)
                sizes.append((depth, expansion))
            stages[part] = tuple(sizes)
        return Architecture(stages, values.get("decoder", self.genes["decoder"][-1]))

    def largest(self) -> Architecture:
        """The super-network itself."""
        return self.architecture({})

    def smallest(self) -> Architecture:
        """The one with every gene at its least."""
        return self.architecture({name: values[0] for name, values in self.genes.items()})

    def draw(self) -> Architecture:
        """One at random, from torch's generator."""
        return self.architecture(
            {n: v[int(torch.randint(len(v), ()))] for n, v in self.genes.items()}
        )


def blank(model: AnyFuse, architecture: Architecture) -> AnyFuse:
    """The sub-network of `model` without values, on the `meta` device."""
    options = architecture.options(model.options)
    with torch.device("meta"):
        return AnyFuse(model.inputs, model.tasks, **options)


def sliced(state: Mapping[str, Tensor], small: nn.Module) -> dict[str, Tensor]:
    """Views of the super-network's tensors with the names and shapes of `small`'s."""
    return {
        name: state[name][tuple(slice(0, n) for n in tensor.shape)]
        for name, tensor in small.state_dict().items()
    }


def extract(model: AnyFuse, architecture: Architecture) -> AnyFuse:
    """The sub-network with values of its own, in evaluation mode.

    Its normalizations still hold the statistics of the super-network; see
    `perception.search.calibrate`.
    """
    small = blank(model, architecture)
    state = {k: v.detach().clone() for k, v in sliced(model.state_dict(), small).items()}
    small.load_state_dict(state, assign=True)
    return small.eval()


@torch.no_grad()
def sort_channels(model: nn.Module) -> None:
    """Put the inner channels of every block that weigh most first, in place.

    The network computes the same afterwards, but a slice of a block holds its most important
    channels.  A channel's weight is the sum of absolute values with which it is projected.
    """
    for block in model.modules():
        if not isinstance(block, MBConv) or block.expand_conv is None:
            continue
        order = block.project_conv.weight.abs().sum((0, 2, 3)).argsort(descending=True)
        assert block.expand_bn is not None
        for part in (block.expand_conv, block.expand_bn, block.depthwise_conv, block.depthwise_bn):
            for tensor in (*part.parameters(), *part.buffers()):
                if tensor.ndim:
                    tensor.copy_(tensor[order].clone())
        block.project_conv.weight.copy_(block.project_conv.weight[:, order].clone())
