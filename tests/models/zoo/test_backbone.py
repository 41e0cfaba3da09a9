"""What the zoo models on a common backbone share, and that checkpoints keep fitting them."""

from __future__ import annotations

import hashlib

import pytest

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
    detection = 3 if "detection" in MODELS[name].card.tasks else 0
    model = MODELS[name](("rgb", "thermal"), 5, detection, width=0.25)  # type: ignore[call-arg]
    names = list(model.state_dict())
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    assert (len(names), digest) == DIGESTS[name]
