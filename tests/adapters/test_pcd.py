"""PCD files: what the header claims is checked against the limits and the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters.pcd import parse_pcd
from perception.errors import AnySenseError

ROWS = np.array([[1, 2, 3, 0.25], [4, 5, 6, 0.75], [7, 8, 9, 1]], np.float32)


def pcd(body: bytes | str, form: str = "ascii", **changes: str) -> bytes:
    header = {
        "VERSION": "0.7", "FIELDS": "x y z intensity", "SIZE": "4 4 4 4", "TYPE": "F F F F",
        "COUNT": "1 1 1 1", "WIDTH": "3", "HEIGHT": "1", "POINTS": "3",
    } | changes  # fmt: skip
    lines = "".join(f"{k} {v}\n" for k, v in header.items() if v is not None)
    body = body.encode() if isinstance(body, str) else body
    return f"# .PCD v0.7\n{lines}DATA {form}\n".encode() + body


TEXT = "1 2 3 0.25\n4 5 6 0.75\n7 8 9 1\n"


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), "\n\n" + TEXT, TEXT + "\n9 9 9 9\n",
                                  TEXT.replace(" ", "\t"), TEXT.rstrip()])  # fmt: skip
def test_ascii(text: str) -> None:
    assert np.allclose(parse_pcd(pcd(text)), ROWS)


def test_binary_may_have_a_tail_and_fields_between() -> None:
    assert np.allclose(parse_pcd(pcd(ROWS.tobytes() + b"tail", "binary")), ROWS)
    table = np.zeros(
        3, [("z", "<f8"), ("n", "<i2", 3), ("x", "<f4"), ("y", "<f4"), ("signal", "<u2")]
    )
    for i, name in enumerate("xyz"):
        table[name] = ROWS[:, i]
    table["signal"] = [0, 65535, 13107]
    content = pcd(table.tobytes(), "binary", FIELDS="z n x y signal", SIZE="8 2 4 4 2",
                  TYPE="F I F F U", COUNT="1 3 1 1 1")  # fmt: skip
    got = parse_pcd(content)
    assert np.allclose(got[:, :3], ROWS[:, :3])
    assert np.allclose(got[:, 3], [0, 1, 0.2])
    text = "\n".join(
        f"{r[2]} 7 7 7 {r[0]} {r[1]} {s}" for r, s in zip(ROWS, (0, 65535, 13107), strict=True)
    )
    wide = pcd(text, FIELDS="z n x y signal", SIZE="8 2 4 4 2", TYPE="F I F F U", COUNT="1 3 1 1 1")
    assert np.allclose(parse_pcd(wide), got)


def test_nan_and_points_of_no_return_are_dropped() -> None:
    assert parse_pcd(pcd("nan nan nan 0\n0 0 0 0\n7 8 9 1\n"))[:, 0].tolist() == [7]
    assert parse_pcd(pcd("", POINTS="0", WIDTH="0")).shape == (0, 4)


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize(
    "changes",
    [
        {"COUNT": "0 0 0 0"},
        {"COUNT": "0 0 0 0", "POINTS": "1000000000000"},
        {"COUNT": "-1 1 1 1"},
        {"COUNT": "1 1 1"},
        {"COUNT": "1 1 1 4611686018427387904"},
        {"SIZE": "0 4 4 4"},
        {"SIZE": "-4 4 4 4"},
        {"SIZE": " ".join(["4611686018427387904"] * 4)},
        {"POINTS": "1000000000000"},
        {"POINTS": "-3"},
        {"POINTS": "4"},
        {"POINTS": "9" * 4000},
        {"POINTS": "nan"},
        {"FIELDS": "x y z x"},
        {"FIELDS": "x y"},
        {"TYPE": "I I I I"},
        {"TYPE": "F F F"},
        {"SIZE": None},
        {"POINTS": None},
    ],
)
def test_wrong_headers_give_one_line(form: str, changes: dict[str, str]) -> None:
    body: bytes | str = TEXT if form == "ascii" else ROWS.tobytes()
    with pytest.raises(AnySenseError) as caught:
        parse_pcd(pcd(body, form, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "1 2 3 0.25\n", "1 2 3\n" * 3, "1 2 3 4\n1 2 3\n1 2 3 4\n", "a b c d\n" * 3, "\0" * 90,
             " " * 4000, "1 2 3 4 5\n" * 3, "1 2 3 0.25 4 5 6 0.75\n7 8 9 1\n"]
)  # fmt: skip
def test_wrong_text_gives_one_line(text: str) -> None:
    with pytest.raises(AnySenseError, match="do not fit") as caught:
        parse_pcd(pcd(text))
    assert "\n" not in str(caught.value)


def test_endless_headers_are_left() -> None:
    for content in (b"\n" * 2**24, b"# x\n" * 2**22, b"x" * 2**24):
        with pytest.raises(AnySenseError, match="no PCD header"):
            parse_pcd(content)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["ascii", "binary"]))
def test_any_damage_gives_a_cloud_or_one_line(data: st.DataObject, form: str) -> None:
    content = bytearray(pcd(TEXT if form == "ascii" else ROWS.tobytes(), form))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert parse_pcd(bytes(content)).shape[1] == 4
    except AnySenseError as error:
        assert "\n" not in str(error)
