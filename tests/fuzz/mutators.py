"""Changes that keep a document one: other values where values are, and files of a set mixed up.

A fuzzer of bytes breaks YAML and JSON before it reaches what reads their fields.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml
from fuzz.packing import MARK
from strange_values import STRANGE, change_value, places

_MORE: list[Any] = [
    datetime.date(2020, 1, 1), {None: 1}, {1: {2: 3}}, [[[]]], [None], -(2**63) - 1, "1e400", "NaN", "0x10",
    "2**64", 1 << 70, [1e308, -1e308], {"schema": 3}, "train", "val", "..", "a/b", ".hidden", "\n", " ",
    "x" * 300, "é" * 200, "~nobody/x",
    "\u202e", "\ud800".encode("utf-8", "surrogatepass"), [float("nan")] * 16, 5e-324, -1e-9,
]  # fmt: skip
_TEXTS = (b".yaml", b".json", b".txt", b".csv")
_WORDS = (
    b"",
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e400",
    b"9" * 30,
    b"1.5",
    b"\xff",
    b"\0",
    b"ignore",
    b",",
    b'"',
)

DOCUMENTS = frozenset(("rig", "config", "schedule", "values"))
"""Targets whose input is one YAML file."""

JSON_DOCUMENTS = frozenset(("boxes",))
"""Targets whose input is one JSON file."""

PACKS = frozenset(("bundle", "folder", "importer", "bag", "calibration"))
"""Targets whose input is several files, see `packing`."""


def change_document(data: bytes, rng: random.Random, *, as_json: bool = False) -> bytes:
    """A YAML or JSON document with some other values; bytes that are none come back as they are."""
    try:
        content = json.loads(data) if as_json else yaml.safe_load(data)
    except Exception:  # it was broken before
        return data
    holder = {"": content}
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            at = rng.choice(places(holder))
        except RecursionError:  # an alias that names what it lies in
            return data
        if rng.random() < 0.3:
            place: Any = holder
            for key in at[:-1]:
                place = place[key]
            place[at[-1]] = rng.choice(_MORE)
        elif len(at) > 1:
            change_value(holder, rng)
        if "" not in holder:
            holder = {"": rng.choice(STRANGE)}
    changed = holder[""]
    try:
        if as_json:
            return json.dumps(changed, default=str).encode()
        return yaml.safe_dump(changed, sort_keys=False, allow_unicode=True).encode()
    except Exception:  # keys that JSON cannot have, text that is no text
        return data


def change_table(data: bytes, rng: random.Random) -> bytes:
    """A text of rows with another word, a row less, or a row twice."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    how = rng.randrange(3)
    if how == 0:
        del rows[at]
    elif how == 1:
        rows.insert(at, rows[at])
    else:
        separator = b"," if b"," in rows[at] else b" "
        words = rows[at].split(separator)
        words[rng.randrange(len(words))] = rng.choice(_WORDS)
        rows[at] = separator.join(words)
    return b"\n".join(rows)


def _change_file(name: bytes, content: bytes, rng: random.Random) -> bytes:
    if name.endswith((b".yaml", b".json")):
        return change_document(content, rng, as_json=name.endswith(b".json"))
    return change_table(content, rng)


def change_pack(data: bytes, rng: random.Random) -> bytes:
    """Several files with one text changed, one left out, two swapped, or one by another's name."""
    first, *files = data.split(MARK)
    if not files:
        return data
    texts = [i for i, f in enumerate(files) if f.partition(b"\n")[0].endswith(_TEXTS)]
    at, how = rng.randrange(len(files)), rng.randrange(10)
    if how < 6 and texts:
        at = rng.choice(texts)
        name, _, content = files[at].partition(b"\n")
        files[at] = name + b"\n" + _change_file(name, content, rng)
    elif how == 6:
        del files[at]
    elif how == 7:
        files[at] = files[at].partition(b"\n")[0] + b"\n"
    else:
        other = rng.randrange(len(files))
        name, content = files[at].partition(b"\n")[0], files[other].partition(b"\n")[2]
        if how == 8:
            files[at] = name + b"\n" + content
        else:
            files.append(name + rng.choice((b"x", b".png", b"/x")) + b"\n" + content)
    return MARK.join([first, *files])


def mutator(target: str) -> Callable[[bytes, random.Random], bytes] | None:
    """What changes an input of a target and keeps its form; None where bytes are all there is."""
    if target in DOCUMENTS:
        return change_document
    if target in JSON_DOCUMENTS:
        return partial(change_document, as_json=True)
    return change_pack if target in PACKS else None
