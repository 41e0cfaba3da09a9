"""What the zoo models on a common backbone share, and that checkpoints keep fitting them."""

from __future__ import annotations

import hashlib

import pytest

from perception.models.heads import specs_for
from perception.models.registry import MODELS

DIGESTS = {
    "any2seg": (742, "027bdb7766452715"),
    "mixer": (820, "3f53facfced51045"),
    "multimodn": (936, "c3da600a2f9f79b2"),
    "anyfuse": (750, "a6967d4187074025"),
}
"""Number and digest of the names in each state dict, in order."""


@pytest.mark.parametrize("name", DIGESTS)
def test_names_in_checkpoints_stay_as_they_were(name: str) -> None:
    classes = dict.fromkeys(MODELS[name].card.heads, 5)
    model = MODELS[name](("rgb", "thermal"), specs_for(**classes), width=0.25)
    names = list(model.state_dict())
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    assert (len(names), digest) == DIGESTS[name]
