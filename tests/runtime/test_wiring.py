"""What graphs' tensors are called, by the separator of the bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perception.frame import KINDS, NAME_PATTERN, RESERVED
from perception.runtime.bundle import Bundle
from perception.runtime.wiring import Wiring

OLD = Wiring({"rgb": "rgb", "thermal": "thermal"}, KINDS, "_")
names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda n: n not in RESERVED)


def test_graphs_of_schema_1_bear_the_kinds_name() -> None:
    assert OLD.names == ("rgb", "thermal")
    assert (OLD.tensor("rgb"), OLD.tensor("thermal")) == ("rgb", "thermal")
    assert OLD.feature("rgb", "rgb_f4") == "rgb_f4"
    assert OLD.feature("thermal", "thermal_rgb_f4") == "thermal_rgb_f4"
    assert OLD.features("rgb", {"rgb_f4": 1, "rgb_f8": 2}) == {"rgb_f4": 1, "rgb_f8": 2}
    assert OLD.present(["rgb"]).tolist() == [1, 0, 0, 0]
    assert OLD.present(["thermal", "rgb"]).tolist() == [1, 0, 1, 0]
    assert OLD.present([]).dtype == np.float32


def test_new_graphs_have_bare_names_and_the_fuser_those_of_inputs() -> None:
    new = Wiring.of({"left": "color", "right": "color", "depth": "depth"})
    assert (new.separator, new.presence) == (".", ("left", "right", "depth"))
    assert {new.tensor(n) for n in new.names} == {"image"}
    assert new.features("left", {"f4": 1, "f8": 2}) == {"left.f4": 1, "left.f8": 2}
    assert new.feature("right", "f4") == "right.f4"
    assert new.present({"depth": 1, "left": 2}).tolist() == [1, 0, 1]


@given(
    inputs=st.lists(names, min_size=1, max_size=6, unique=True),
    outputs=st.lists(names, min_size=1, max_size=4, unique=True),
    data=st.data(),
)
def test_no_two_features_share_a_name_and_presence_tells_exactly_who_is_there(
    inputs: list[str], outputs: list[str], data: st.DataObject
) -> None:
    """Whatever inputs are called: with '_', `a` with `b_f` and `a_b` with `f` would be one."""
    encoders = {n: data.draw(st.sampled_from(inputs), n) for n in inputs}
    wiring = Wiring.of(encoders)
    found = [f for n in inputs for f in wiring.features(n, dict.fromkeys(outputs))]
    assert len(set(found)) == len(inputs) * len(outputs)
    there = data.draw(st.sets(st.sampled_from(inputs)), "there")
    assert dict(zip(inputs, wiring.present(there).astype(bool), strict=True)) == {
        n: n in there for n in inputs
    }


def test_bundles_say_which_it_is(small: Any) -> None:
    old = Bundle.open(small(("rgb", "thermal"))).manifest.wiring
    assert (old.separator, old.presence, dict(old.encoders)) == ("_", KINDS, dict(OLD.encoders))
    new = Bundle.open(small.named({"left": ("rgb", "c"), "right": ("rgb", "c")})).manifest.wiring
    assert (new.separator, new.presence) == (".", ("left", "right"))
    assert dict(new.encoders) == {"left": "c", "right": "c"}
