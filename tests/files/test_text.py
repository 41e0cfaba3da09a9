"""Text of any origin becomes values or one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import AnySenseError, CalibrationError, ConfigError, DataError
from perception.files.text import (
    decode_text,
    parse_yaml,
    read_bytes,
    read_csv,
    read_json,
    read_text,
    read_yaml,
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_encoding_with_a_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("größe: 1\r\nzwei".encode(encoding))
    assert read_text(path) == "größe: 1\nzwei"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("größe".encode("latin-1"), "line 1"),
        ("a\nb\nß".encode("latin-1"), "line 3"),
        ("a".encode("utf-16-le"), "binary"),
        (b"\xff\xfe\x00", "utf-16"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_text(path, error=ConfigError)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 1\na: 2",
        "d: 2024-13-45",
        "x: \x07",
        "[" * 5000,
        "!!python/object/apply:os.system ['true']",
        "n: " + "9" * 5000,
        "? [a]\n: 1",
        "a: *b",
        "--- 1\n--- 2",
    ],
)
def test_yaml_that_is_wrong_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match="here") as caught:
        parse_yaml(text, where="here")
    assert "\n" not in str(caught.value)


def test_yaml_names_the_line() -> None:
    with pytest.raises(DataError, match=r"here:3: not YAML: 'a' is given twice"):
        parse_yaml("a: 1\nb: 2\na: 3", where="here")


def test_aliases_do_not_multiply() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(DataError, match="more than"):
        parse_yaml("\n".join(lines), where="here")
    with pytest.raises(DataError, match="more than"):
        parse_yaml("a: &a [*a]", where="here")
    assert parse_yaml("a: &a [1, 2]\nb: *a", where="here") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("d: &d {x: 1}\ne: {<<: *d, y: 2}", where="here")["e"] == {"x": 1, "y": 2}


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_foreign(content: bytes) -> None:
    try:
        parse_yaml(decode_text(content, where="here"), where="here")
    except AnySenseError as error:
        assert "\n" not in str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        # A key in YAML's short form has at most 1024 characters; JSON writes up to 12 for one.
        lambda s: st.lists(s) | st.dictionaries(st.text(max_size=80), s),
        max_leaves=20,
    )
)
def test_yaml_comes_back(content: object) -> None:
    assert parse_yaml(yaml.safe_dump(content), where="here") == content
    assert (
        parse_yaml(json.dumps(content).replace("\x7f", "\\u007f"), where="here")
        is not NotImplemented
    )


@pytest.mark.parametrize("error", [DataError, ConfigError, CalibrationError])
def test_what_is_wrong_is_said_once(error: type[AnySenseError], tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "no", "no such file"),
        (tmp_path, "is no regular file"),
        (tmp_path / "\0", "no such file|cannot be read: .*null"),
    ):
        with pytest.raises(error, match=said) as caught:
            read_bytes(path, error=error)
        assert caught.value.where == str(path) and str(path) not in caught.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "regular"),
        (tmp_path / "no", "no such"),
        (Path("/dev/zero"), "regular"),
        (Path("a\0b"), "cannot|no such"),
    ):
        with pytest.raises(DataError, match=says):
            read_yaml(path)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(DataError, match="limit"):
        read_bytes(tmp_path / "sparse")


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    for text in ("{\n,", "[" * 100_000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(DataError, match="JSON"):
            read_json(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_as_spreadsheets_write_it(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / "a.csv"
    rows = [["id", "stamp_ns", "tags"], ["a", "1", "x y"], ["b", "2"]]
    path.write_bytes("\r\n".join([delimiter.join(r) for r in rows] + ["", ""]).encode(encoding))
    assert list(read_csv(path, ("id", "stamp_ns"))) == [
        (2, {"id": "a", "stamp_ns": "1", "tags": "x y"}),
        (3, {"id": "b", "stamp_ns": "2", "tags": ""}),
    ]


def test_csv_line_numbers_are_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,note\na,"two\nlines"\n\nb,c\n')
    assert [number for number, _ in read_csv(path, ("id",))] == [3, 5]


def test_csv_lacks_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,stamp\na,1\n")
    with pytest.raises(DataError, match=r"a.csv:1: has no column stamp_ns"):
        list(read_csv(path, ("id", "stamp_ns")))
    path.write_text("")
    with pytest.raises(DataError, match="has no column"):
        list(read_csv(path, ("id",)))


@pytest.mark.parametrize("text", ["0640", "-012", "0_7", "1:30", "190:20:30"])
def test_numbers_that_versions_of_yaml_read_otherwise(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"width: {text}\n")
    with pytest.raises(DataError, match=rf"a.yaml:1: not YAML: '{text}' is another number"):
        read_yaml(path)
    for plain, value in (("640", 640), ("0", 0), ("-7", -7), ("0x10", 16), (f"'{text}'", text)):
        path.write_text(f"width: {plain}\n")
        assert read_yaml(path) == {"width": value}
