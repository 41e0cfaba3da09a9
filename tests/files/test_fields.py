"""Typed fields: the wrong one is named, with what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.errors import ConfigError, DataError
from perception.files.fields import check_fields


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: float = Field(1.0, gt=0)
    sides: tuple[int, int] = (1, 2)


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    version: int = Field(1, alias="schema")
    inner: _Inner | None = None
    rows: list[_Inner] = []
    table: dict[str, _Inner] = {}
    free: dict[str, float] = {}

    @model_validator(mode="after")
    def _odd(self) -> _Outer:
        if self.version == 13:
            raise ValueError("not that one")
        return self


def _refused(content: object) -> str:
    with pytest.raises(ConfigError) as caught:
        check_fields(_Outer, content, where="a.yaml", error=ConfigError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "a.yaml: is empty"),
        ([1], "a.yaml: expected fields with names, got a list"),
        ("text", "a.yaml: expected fields with names, got a str"),
        ({"innr": {}}, "a.yaml: innr: no such field (did you mean 'inner'?)"),
        ({"shema": 1}, "a.yaml: shema: no such field (did you mean 'schema'?)"),
        ({"inner": {"rat": 1}}, "a.yaml: inner.rat: no such field (did you mean 'rate'?)"),
        ({"rows": [{}, {"side": 1}]}, "a.yaml: rows.1.side: no such field (did you mean 'sides'?)"),
        (
            {"zebra": 1},
            "a.yaml: zebra: no such field (one of schema, inner, rows, table, free)",
        ),
        ({"inner": {"rate": -2}}, "a.yaml: inner.rate: Input should be greater than 0, got -2"),
        ({"inner": {"sides": [1]}}, "a.yaml: inner.sides.1: this field is missing"),
        ({"schema": 13}, "a.yaml: not that one"),
    ],
)
def test_the_first_wrong_field_is_named(content: object, line: str) -> None:
    assert _refused(content) == line


def test_long_values_are_cut_and_odd_ones_are_survived() -> None:
    assert len(_refused({"schema": "x" * 10_000})) < 250
    assert "inner.rate" in _refused({"inner": {"rate": -(10**6000)}})
    assert "free.a" in _refused({"free": {"a": "10**"}})
    with pytest.raises(DataError, match="b.yaml"):
        check_fields(_Outer, {1: 2}, where="b.yaml")
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "a.yaml" in _refused({"free": deep})


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(["schema", "inner", "rows", "table", "free", "rate"]) | st.text()


@given(st.dictionaries(_NAMES, _PLAIN, max_size=4) | _PLAIN)
def test_whatever_is_given_is_taken_or_refused_in_one_line(content: object) -> None:
    try:
        check_fields(_Outer, content, where="a.yaml", error=ConfigError)
    except ConfigError as error:
        assert str(error).startswith("a.yaml")
        assert "\n" not in str(error)
