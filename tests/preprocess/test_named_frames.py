"""Names of sensors, their order and subsets; samples and frames by name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perception
from perception.errors import InputError
from perception.frame import (
    KINDS,
    MODALITIES,
    NAME_PATTERN,
    RESERVED,
    Frame,
    Kind,
    Modality,
    Sample,
    as_kind,
    check_name,
    in_order,
    subset_name,
    subsets_of,
)
from perception.sensors.names import kinds

DATA = np.zeros((2, 3), np.float32)
good_names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda n: n not in RESERVED)
own_names = good_names.filter(lambda n: n not in KINDS)
sensors = st.lists(st.sampled_from(KINDS) | own_names, unique=True, max_size=7)


def test_the_old_names_are_the_new_ones() -> None:
    assert MODALITIES is KINDS and Modality is Kind and kinds()[: len(KINDS)] == KINDS
    sample = Sample("depth", DATA, sensor="tof")
    assert sample.modality == sample.kind == "depth"
    for name in ("Frame", "Sample", "sample_of", "Stream", "Pipeline"):
        assert hasattr(perception, name) and name in perception.__all__


@given(name=good_names)
def test_names_of_the_pattern_are_taken(name: str) -> None:
    assert check_name(name) == name
    assert Frame({name: Sample("rgb", DATA, sensor=name)} if name not in KINDS else {}) is not None


@given(name=st.text(max_size=70) | st.sampled_from([*RESERVED, "a\n", "a" * 64, "_a", "1", "A"]))
def test_and_no_others(name: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name, re.ASCII) and name not in RESERVED:
        assert check_name(name) == name
        return
    with pytest.raises(InputError) as caught:
        check_name(name, "here")
    assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 3, b"rgb", ("rgb",), np.str_("Rgb")])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    with pytest.raises(InputError, match="no name of a sensor"):
        check_name(name)


@given(name=st.text(max_size=9))
def test_kinds_are_four(name: str) -> None:
    if name in KINDS:
        assert as_kind(name) == name
    else:
        with pytest.raises(InputError, match="unknown kind of sensor"):
            as_kind(name)


@given(names=st.lists(st.sampled_from(KINDS) | own_names, max_size=8), data=st.data())
def test_order_is_kinds_first_then_as_given(names: list[str], data: st.DataObject) -> None:
    ordered = in_order(names)
    assert sorted(ordered) == sorted(set(names))
    own = [n for n in dict.fromkeys(names) if n not in KINDS]
    assert list(ordered) == [k for k in KINDS if k in names] + own
    assert in_order(ordered) == ordered
    kinds = [n for n in ordered if n in KINDS]
    assert in_order(data.draw(st.permutations(kinds))) == tuple(kinds)
    assert subset_name(names) == "+".join(ordered)


@given(names=sensors)
def test_subsets_are_each_once_larger_ones_first(names: list[str]) -> None:
    found, count = subsets_of(names), len(names)
    assert len(set(found)) == len(found)
    assert [len(s) for s in found] == sorted((len(s) for s in found), reverse=True)
    assert all(s == tuple(n for n in in_order(names) if n in s) for s in found)
    if not count:
        assert found == []
        return
    assert found[0] == in_order(names)
    assert {(n,) for n in names} <= set(found)
    if count <= 4:
        assert len(found) == 2**count - 1
    else:
        assert len(found) == 1 + 2 * count
        assert {frozenset(names) - set(s) for s in found if len(s) == count - 1} == {
            frozenset({n}) for n in names
        }


@given(kind=st.sampled_from(KINDS), name=own_names, other=own_names)
def test_a_sample_takes_the_name_that_it_is_filed_under_once(
    kind: Kind, name: str, other: str
) -> None:
    sample = Sample(kind, DATA, 5)
    assert sample.sensor == kind
    filed = Frame({name: sample})[name]
    assert (filed.sensor, filed.kind, filed.data is DATA) == (name, kind, True)
    assert sample.sensor == kind  # it is not changed itself
    assert filed.named(name) is filed and filed.named(other).sensor == other
    assert Frame({name: filed})[name] is filed
    if other != name:
        with pytest.raises(InputError, match=f"a {name} sample is filed under '{other}'"):
            Frame({other: filed})
    for wrong in KINDS:
        if wrong != kind:
            with pytest.raises(InputError, match=f"filed under '{wrong}'"):
                Frame({wrong: sample})
        with pytest.raises(InputError, match=f"filed under '{wrong}'"):
            Frame({wrong: filed})


@given(names=sensors, stamps=st.lists(st.none() | st.integers(), min_size=7, max_size=7))
def test_a_frame_is_a_mapping_in_order_and_as_new_as_its_newest(
    names: list[str], stamps: list[int | None]
) -> None:
    samples = {
        n: Sample(n if n in KINDS else "depth", DATA, s)  # type: ignore[arg-type]
        for n, s in zip(names, stamps, strict=False)
    }
    frame = Frame(samples)
    assert tuple(frame) == in_order(names) and len(frame) == len(names)
    known = [s.stamp_ns for s in samples.values() if s.stamp_ns is not None]
    assert frame.stamp_ns == (max(known) if known else None)
    assert {n: frame[n].sensor for n in frame} == {n: n for n in names}
    for gone in names[:1]:
        rest = frame.without(gone)
        assert tuple(rest) == in_order(n for n in names if n != gone)
        assert rest.stamp_ns == frame.stamp_ns
    assert Frame(frame, 3).stamp_ns == 3 and tuple(Frame(frame)) == tuple(frame)


@pytest.mark.parametrize("value", [DATA, None, [1], "rgb", {"data": DATA}])
def test_what_is_no_sample_is_refused_with_its_cure(value: Any) -> None:
    with pytest.raises(InputError, match=r"bare .* filed under 'cam'.*perception\.sample_of"):
        Frame({"cam": value})


@pytest.mark.parametrize("name", ["Cam", "all", "", "a b", "cam\n"])
def test_frames_have_names_that_sensors_can_have(name: str) -> None:
    with pytest.raises(InputError, match="frame: "):
        Frame({name: Sample("rgb", DATA)})


def test_stamps_are_taken_from_others_only_where_there_are_none() -> None:
    sample = Sample("rgb", DATA, sensor="cam")
    with pytest.raises(InputError, match="cam: the sample has no stamp"):
        assert sample.time_ns
    assert sample.stamped(7).time_ns == 7 and sample.stamped(7).stamped(8).time_ns == 7
    assert replace(sample, stamp_ns=0).stamped(7).time_ns == 0  # a time like any other
    assert sample.stamped(7).sensor == "cam"
