"""What is searched: sizes of the sub-network and, block by block, which layers compute in int8.

After Sridhar et al., "SimQ-NAS: Simultaneous Quantization Policy and Neural Architecture Search", 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from perception.models.anyfuse import LATE, AnyFuse
from perception.models.efficientnet_lite import MBConv, Stem
from perception.models.elastic import Architecture, ElasticSpace
from perception.models.interface import FusionModel
from perception.models.layers import ConvBNReLU, GlobalContext, SeparableBlock

Candidate = tuple[int, ...]
"""For each gene, the index of its value."""

_UNITS = (Stem, MBConv, ConvBNReLU, SeparableBlock, GlobalContext, nn.Conv2d)


def units_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a network that are timed and quantized as one, by name, in order."""

    def below(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(module, _UNITS):
            yield name, module
            return
        for child, inner in module.named_children():
            if child not in FusionModel.training_parts:
                yield from below(inner, f"{name}.{child}" if name else child)

    return dict(below(model, ""))


@contextmanager
def watched(units: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `note` with the name and the input of each of these modules whenever one is called."""
    hooks = [
        unit.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, unit in units.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def precisions_of(unit: nn.Module) -> tuple[tuple[str, ...], ...]:
    """What may compute in int8 in a block: nothing, its dense convolutions, or all of them.

    Returns:
        For each choice, names of convolutions within the block; an empty name is the block itself.
    """
    convolutions = {n: m for n, m in unit.named_modules() if isinstance(m, nn.Conv2d)}
    dense = tuple(n for n, m in convolutions.items() if m.groups == 1)
    return tuple(dict.fromkeys([(), dense, tuple(convolutions)]))


@dataclass(frozen=True)
class Decoded:
    """A candidate in words.

    Attributes:
        architecture: its sizes.
        choices: by block that is there, which of its precisions.
        int8: names of the convolutions that compute in int8.
    """

    architecture: Architecture
    choices: dict[str, int]
    int8: tuple[str, ...]


class SearchSpace:
    """All candidates of one super-network.

    Attributes:
        sizes: number of values of each gene: those of the architecture, then those of the blocks.
        blocks: precisions of every block of the super-network, by its name.
    """

    def __init__(self, model: AnyFuse) -> None:
        self.elastic = ElasticSpace(model)
        self._heads = set(model.trunk.parts.values())
        self.blocks = {name: precisions_of(unit) for name, unit in units_of(model).items()}
        self._levels = list(self.elastic.genes.items())
        self._place = {name: i for i, (name, _) in enumerate(self._levels)}
        self.sizes = tuple(
            [len(values) for _, values in self._levels] + [len(c) for c in self.blocks.values()]
        )
        self._depth_gene = {name: self._gene_of(name, "depth") for name in self.blocks}
        self._level_gene = {name: self._gene_of(name, "expansion") for name in self.blocks}

    def _gene_of(self, block: str, kind: str) -> str | None:
        part = block.split(".")
        if part[0] == "encoders" and part[2] == "stages":
            gene = f"{part[1]}.{part[3]}.{kind}"
        elif part[:2] == ["trunk", LATE]:
            gene = f"{LATE}.{part[2]}.{kind}"
        elif part[0] == "trunk" and part[1] in self._heads and kind == "expansion":
            gene = "decoder"
        else:
            return None
        return gene if gene in self._place else None

    def level(self, candidate: Candidate, block: str) -> int:
        """Index of the expansion or decoder width that sets a block's size; 0 where it has none."""
        gene = self._level_gene[block]
        return 0 if gene is None else candidate[self._place[gene]]

    @property
    def most_levels(self) -> int:
        """The largest number of sizes of any block."""
        return max(len(values) for _, values in self._levels)

    def at_level(self, level: int) -> Architecture:
        """The deepest sub-network whose blocks all have this level, or their highest below it."""
        values = {n: v[min(level, len(v) - 1)] for n, v in self._levels if not n.endswith(".depth")}
        return self.elastic.architecture(values)

    def has(self, candidate: Candidate, block: str) -> bool:
        """Whether the sub-network has a block."""
        gene = self._depth_gene[block]
        if gene is None:
            return True
        depth = self.elastic.genes[gene][candidate[self._place[gene]]]
        return int(block.rsplit(".", 1)[1]) < depth

    def repair(self, candidate: Candidate) -> Candidate:
        """The same, with blocks that are not there in float: one candidate, one network."""
        genes = list(candidate)
        for index, block in enumerate(self.blocks, start=len(self._levels)):
            if not self.has(candidate, block):
                genes[index] = 0
        return tuple(genes)

    def decode(self, candidate: Candidate) -> Decoded:
        """The sub-network and its layers in int8."""
        own = {n: v[candidate[i]] for i, (n, v) in enumerate(self._levels)}
        choices, layers = {}, []
        for index, (block, precisions) in enumerate(self.blocks.items(), start=len(self._levels)):
            if self.has(candidate, block):
                choices[block] = candidate[index]
                inner = precisions[candidate[index]]
                layers += [f"{block}.{name}" if name else block for name in inner]
        return Decoded(self.elastic.architecture(own), choices, tuple(layers))

    def corner(self, *, large: bool, int8: bool) -> Candidate:
        """The largest or smallest sub-network, all in float or all in int8."""
        genes = [size - 1 if large else 0 for size in self.sizes[: len(self._levels)]]
        genes += [size - 1 if int8 else 0 for size in self.sizes[len(self._levels) :]]
        return self.repair(tuple(genes))

    def corners(self) -> list[Candidate]:
        """The largest in float and in int8, and the smallest."""
        return [self.corner(large=a, int8=b) for a in (True, False) for b in (False, True)]

    def draw(self, rng: np.random.Generator) -> Candidate:
        """One at random; how large it is and how much of it is in int8 are drawn first."""
        largeness, share = rng.random(2)
        chance = [largeness] * len(self._levels) + [share] * len(self.blocks)
        sizes = zip(self.sizes, chance, strict=True)
        return self.repair(tuple(int(rng.binomial(size - 1, p)) for size, p in sizes))
