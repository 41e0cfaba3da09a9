"""A bundle's encoders and fuser run one after the other on any engines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.wiring import PRESENCE, Wiring

Tensors = dict[str, Tensor]


def features_of(
    wiring: Wiring, engines: Mapping[str, Engine], images: Mapping[str, Tensor]
) -> dict[str, Tensors]:
    """By input, what its encoder makes of its image (1, C, H, W), by the fuser's names for it.

    Args:
        wiring: the bundle's.
        engines: by encoder.
        images: by input.
    """
    return {
        name: wiring.features(name, engines[wiring.encoders[name]].run({wiring.image(name): image}))
        for name, image in images.items()
    }


def feeds_for(wiring: Wiring, features: Mapping[str, Tensors], there: Collection[str]) -> Tensors:
    """What the fuser takes where these inputs are there, with NaN as the features of the others."""
    feeds: Tensors = {PRESENCE: wiring.present(there)}
    for name, own in features.items():
        feeds |= own if name in there else {n: np.full_like(v, np.nan) for n, v in own.items()}
    return feeds
