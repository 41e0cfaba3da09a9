"""Weights that export has folded into constants without names: found by what their graph does with them.

Export computes beforehand whatever follows from weights alone: the transpose of a linear layer's matrix, the
exponential of a logarithm.  Whether what is found here is right is for the reader to check, by the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def linear_weights(graph: Any, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Matrices of linear layers, as PyTorch has them: what a bias of a name is added to.

    Args:
        graph: an ONNX graph.
        constants: its initializers by name.

    Returns:
        By the bias's name with `weight` for `bias`.
    """
    found: dict[str, Array] = {}
    for bias, product in _added_to(graph, "MatMul"):
        if bias.endswith(".bias"):
            matrix = constants.get(product.input[1])
            if matrix is not None and matrix.ndim == 2:
                found[f"{bias.removesuffix('bias')}weight"] = np.ascontiguousarray(matrix.T)
    return found


def encoder_factors(
    graph: Any, constants: Mapping[str, Array], encoder_of: Mapping[str, str], separator: str
) -> dict[str, Array]:
    """Factors (1, C, 1, 1) by which a fuser multiplies what inputs of one encoder alone say.

    Args:
        graph: of the fuser.
        constants: its initializers by name.
        encoder_of: the encoder of each input.
        separator: between an input's name and that of its feature.

    Returns:
        By encoder; of several the first that the graph has.
    """
    made = {output for node in graph.node for output in node.output}
    from_inputs: dict[str, frozenset[str]] = {}
    for value in graph.input:
        name = value.name.rpartition(separator)[0]
        from_inputs[value.name] = frozenset([encoder_of[name]] if name in encoder_of else ())
    found: dict[str, Array] = {}
    for node in graph.node:  # in the order in which they are computed
        reached = [from_inputs.get(name, frozenset()) for name in node.input]
        for output in node.output:
            from_inputs[output] = frozenset().union(*reached)
        if node.op_type != "Mul" or len(node.input) != 2:
            continue
        for factor, encoders in zip(node.input, reversed(reached), strict=True):
            value = constants.get(factor)
            plain = value is not None and value.ndim == 4 and value.shape[2:] == (1, 1)
            if value is not None and plain and factor not in made and len(encoders) == 1:
                found.setdefault(next(iter(encoders)), value)
    return found


def passing_shares(graph: Any, constants: Mapping[str, Array]) -> list[Array]:
    """Logits of the shares s of which a graph computes `s + (1 - s) * x`, in the order in which it does."""
    found = []
    for name, product in _added_to(graph, "Mul"):
        share = constants.get(name)
        if share is None:
            continue
        rests = [constants[n] for n in product.input if n in constants]
        same = [r for r in rests if r.shape == share.shape and np.allclose(r + share, 1, atol=1e-3)]
        if same and (share > 0).all() and (share < 1).all():
            found.append(np.log(share / (1 - share)))
    return found


def _added_to(graph: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Names of what is added to the output of a node of a kind, with that node."""
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Add":
            for name, other in (node.input, reversed(node.input)):
                if other in made and made[other].op_type == kind:
                    yield name, made[other]


def logarithm(factor: Array) -> Array | None:
    """Of what was an exponential; None where it was none."""
    return np.log(factor) if (factor > 0).all() else None
