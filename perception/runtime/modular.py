"""A bundle's encoders and fuser run one after the other on any engines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.frame import subset_name
from perception.runtime.engines.base import Engine, Tensor, with_numbers
from perception.runtime.manifest import Graphs
from perception.runtime.wiring import PRESENCE, Wiring, composed_feeds

Tensors = dict[str, Tensor]


def features_of(
    wiring: Wiring, engines: Mapping[str, Engine], images: Mapping[str, Tensor]
) -> dict[str, Tensors]:
    """By input, what its encoder makes of its image, or of its tensors by name, by the fuser's names for it.

    Args:
        wiring: the bundle's.
        engines: by encoder.
        images: by input.
    """
    return {
        name: wiring.features(name, engines[wiring.encoders[name]].run(wiring.feeds(name, image)))
        for name, image in images.items()
    }


def blank(tensor: NDArray[Any]) -> NDArray[Any]:
    """What stands for an absent tensor: NaN, which must not come through; integers have none."""
    return np.full_like(tensor, np.nan if tensor.dtype.kind == "f" else 0)


def feeds_for(wiring: Wiring, features: Mapping[str, Tensors], there: Collection[str]) -> Tensors:
    """What the fuser takes where these inputs are there, with NaN as the features of the others."""
    feeds: Tensors = {PRESENCE: wiring.present(there)}
    for name, own in features.items():
        feeds |= own if name in there else {n: blank(v) for n, v in own.items()}
    return feeds


def run_forms(
    graphs: Graphs,
    wiring: Wiring,
    load: Callable[[str], Engine],
    images: Mapping[str, Tensor],
    subsets: Iterable[tuple[str, ...]],
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensors]]]:
    """By subset the outputs of each form of a bundle's graphs, with NaN in the place of what is absent.

    Args:
        graphs, wiring: the bundle's.
        load: gives the engine of a file.
        images: by input.
        subsets: those to run.

    Yields:
        A subset, and outputs by form: `modular`, and `single` and `own graph` where there are such.
    """
    encoders = {name: load(graph.file) for name, graph in graphs.encoders.items()}
    features, fuser = features_of(wiring, encoders, images), load(graphs.fuser.file)
    single = load(graphs.single.file) if graphs.single is not None else None
    for subset in subsets:
        own_feeds = feeds_for(wiring, features, subset)
        found = {"modular": fuser.run(with_numbers(own_feeds, fuser.inputs))}
        if single is not None:
            there = composed_feeds({n: x for n, x in images.items() if n in subset})
            every = {n: blank(x) for n, x in composed_feeds(images).items()}
            feeds = {PRESENCE: wiring.present(subset), **every, **there}
            found["single"] = single.run(with_numbers(feeds, single.inputs))
        own = graphs.subsets.get(subset_name(subset))
        if own is not None:
            engine, feeds = load(own.file), composed_feeds({n: images[n] for n in subset})
            found["own graph"] = engine.run(with_numbers(feeds, engine.inputs))
        yield subset, found
