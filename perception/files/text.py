"""Text, YAML, JSON and CSV files: any encoding with a byte order mark, else UTF-8, whatever the locale."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_SAMPLE_BYTES, MAX_TEXT_BYTES, MAX_YAML_NODES

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_DELIMITERS = ",;\t"
_MAX_INT_BITS = 1024  # as large as a float can be; Python prints none of more than 4300 digits
_BREAKS = re.compile(r"[\t\n\v\f\r\u0085\u2028\u2029]+")


def printable(text: str) -> str:
    """Text of any origin on one line for a terminal or a page: what would act shows as its escape.

    Line breaks and tabs become spaces; other control characters, changes of text direction, invisible
    characters and what is no character (bytes of a name that are not UTF-8) are written as in Python.
    """
    text = _BREAKS.sub(" ", text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def html_text(value: object) -> str:
    """A value of any origin as text of an HTML page, also within quotes."""
    return html.escape(printable(str(value)))


def read_bytes(
    path: str | Path, *, limit: int = MAX_SAMPLE_BYTES, error: type[AnySenseError] = DataError
) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        AnySenseError: of the class `error`: it is missing, a folder or a device, too large, or
            cannot be read.
    """
    try:
        found = Path(path)
        if not found.exists():
            raise error("no such file", where=str(path))
        if not found.is_file():
            raise error("is no regular file", where=str(path))
        size = found.stat().st_size
        if size > limit:
            raise error(f"{size} bytes, more than the limit of {limit}", where=str(path))
        with found.open("rb") as file:
            content = file.read(limit + 1)  # a file may grow between the two calls
    except AnySenseError:  # some of which are ValueErrors
        raise
    except (OSError, ValueError) as problem:  # ValueError: a null byte in the path
        raise error(f"cannot be read: {_reason(problem)}", where=str(path)) from problem
    if len(content) > limit:
        raise error(f"more bytes than the limit of {limit}", where=str(path))
    return content


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)


def decode_text(content: bytes, *, where: str, error: type[AnySenseError] = DataError) -> str:
    """Text from bytes: by byte order mark (UTF-8, -16, -32), else UTF-8.

    Raises:
        AnySenseError: of the class `error`: it is neither.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(
            f"is no UTF-8 text: byte 0x{content[problem.start]:02x} in line {line}"
            if encoding == "utf-8"
            else f"is no {encoding} text, though it begins like one",
            where=where,
            hint="save it as UTF-8",
        ) from problem
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(
            f"is binary, or UTF-16 without a byte order mark: a null character in line {line}",
            where=where,
            hint="save it as UTF-8",
        )
    return text


def read_text(
    path: str | Path, *, limit: int = MAX_TEXT_BYTES, error: type[AnySenseError] = DataError
) -> str:
    """A text file of any of the encodings of `decode_text`, whatever the locale; line ends become `\\n`.

    Raises:
        AnySenseError: of the class `error`.
    """
    text = decode_text(read_bytes(path, limit=limit, error=error), where=str(path), error=error)
    return text.replace("\r\n", "\n").replace("\r", "\n")


_INTEGER = "tag:yaml.org,2002:int"
# 0640 is octal, 1:30 of base 60 in YAML 1.1 alone
_AMBIGUOUS = re.compile("[-+]?(0[0-9_]|[0-9_]+:)")


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML would silently take the last.

    So are values that contradict their own tag (`!!bool xyz`) and numbers that Python cannot print.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == _INTEGER and isinstance(node.value, str) and _AMBIGUOUS.match(node.value):
            number = f"'{node.value[:40]}' is another number to YAML 1.1 than to 1.2"
            raise _refusal(f"{number}: write it in decimal", node)
        try:
            value = super().construct_object(node, deep)
        except (LookupError, AttributeError, ValueError, TypeError) as problem:
            what = node.tag.rpartition(":")[2]
            text = f"'{node.value[:40]}'" if isinstance(node.value, str) else "this"
            raise _refusal(f"{text} is no {what}", node) from problem
        if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
            raise _refusal("a number of too many digits", node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                key = key_node.value
                if key in seen:
                    raise _refusal(f"'{key}' is given twice", key_node)
                seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def read_yaml(path: str | Path, *, error: type[AnySenseError] = DataError) -> Any:
    """A YAML file's content, made of plain Python values only.

    Raises:
        AnySenseError: of the class `error`: it is missing, no text, no YAML (the line is named), has
            a key twice, or grows beyond `MAX_YAML_NODES` values when its aliases are written out.
    """
    return parse_yaml(read_text(path, error=error), where=str(path), error=error)


def parse_yaml(text: str, *, where: str, error: type[AnySenseError] = DataError) -> Any:
    """YAML text as `read_yaml` reads it; `where` names it in errors."""
    _refuse_unprintable(text, where, error)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > MAX_YAML_NODES:
            raise error(f"YAML of more than {MAX_YAML_NODES} values", where=where)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise error(f"not YAML: {problem.problem}", where=f"{where}{line}") from problem
    except RecursionError as problem:
        raise error("YAML is nested too deeply", where=where) from problem
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as problem:
        # ValueError: a date like 2024-13-45, or a number of thousands of digits
        raise error(f"not YAML: {problem}", where=where) from problem
    finally:
        loader.dispose()


def _refuse_unprintable(text: str, where: str, error: type[AnySenseError]) -> None:
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise error(
            f"not YAML: character U+{ord(found.group()):04X} is not allowed",
            where=f"{where}:{line}",
        )


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for; infinite where it holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = [
            child
            for entry in node.value
            for child in (entry if isinstance(entry, tuple) else (entry,))
        ]
        known[id(node)] = 1 + sum(_written_out(child, known) for child in children)
    return known[id(node)]


def read_json(
    path: str | Path, *, limit: int = MAX_TEXT_BYTES, error: type[AnySenseError] = DataError
) -> Any:
    """A JSON file's content.

    Raises:
        AnySenseError: of the class `error`.
    """
    text = read_text(path, limit=limit, error=error)
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise error(f"not JSON: {problem.msg}", where=f"{path}:{problem.lineno}") from problem
    except RecursionError as problem:
        raise error("JSON is nested too deeply", where=str(path)) from problem
    except ValueError as problem:  # a number of thousands of digits
        raise error(f"not JSON: {problem}", where=str(path)) from problem


def read_csv(
    path: str | Path, columns: Sequence[str], *, error: type[AnySenseError] = DataError
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header line, each with its line number in the file.

    Commas, semicolons (as spreadsheets write where the comma is decimal) and tabs may part the fields.
    A field that a short row lacks is empty.

    Args:
        path: the file.
        columns: what the header must have.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: a column is missing, or it is no CSV.
    """
    text = read_text(path, error=error)
    header = text.split("\n", 1)[0]
    found = {
        d: [name.strip() for name in next(csv.reader([header], delimiter=d), [])]
        for d in _DELIMITERS
    }
    delimiter = max(_DELIMITERS, key=lambda d: len(set(columns) & set(found[d])))
    missing = [name for name in columns if name not in found[delimiter]]
    if missing:
        raise error(
            f"has no column {', '.join(missing)}",
            where=f"{path}:1",
            hint=f"the header line must name {', '.join(columns)}",
        )
    doubled = [name for name in columns if found[delimiter].count(name) > 1]
    if doubled:
        raise error(f"has the column {doubled[0]} twice", where=f"{path}:1")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        next(reader)
        for fields in reader:
            if fields:
                padded = [*fields, *[""] * (len(found[delimiter]) - len(fields))]
                values = dict(zip(found[delimiter], (f.strip() for f in padded), strict=False))
                yield reader.line_num, values
    except csv.Error as problem:
        raise error(f"not CSV: {problem}", where=f"{path}:{reader.line_num}") from problem
