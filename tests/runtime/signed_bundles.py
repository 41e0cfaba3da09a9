"""Changes to a signed bundle that somebody could make, each of which must be refused.

`mutate(folder, rng)` makes one to three of them and says which; `snapshot` tells whether anything changed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import yaml

MANIFEST, RECORDS, SIGNATURES = "bundle.yaml", "records.yaml", "bundle.sig"
Mutation = Callable[[Path, random.Random], None]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def snapshot(folder: Path) -> dict[str, tuple[str, bytes]]:
    """What lies in a folder: by name what it is and its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.fsencode(os.readlink(path)))
        elif path.is_file():
            found[name] = ("file", path.read_bytes())
        elif not path.is_dir():
            found[name] = (str(stat.S_IFMT(path.lstat().st_mode)), b"")
    return found


def flip(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    content = bytearray(path.read_bytes() or b"\0")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(max(1, len(content)))])


def grow(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    content = path.read_bytes()
    at = rng.choice((0, len(content), rng.randrange(len(content) + 1)))
    more = rng.choice((b"\n", b" ", b"\0", b"# a comment\n", b"\xef\xbb\xbf", rng.randbytes(9)))
    path.write_bytes(content[:at] + more + content[at:])


def swap(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(files(folder), 2)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


NAMES = (
    "notes.txt",
    ".hidden",
    "bundle.yml",
    "BUNDLE.YAML",
    "bundle.yaml.bak",
    "extra.onnx",
    "ä.onnx",
)
NAMES += (
    "weights/x.bin",
    "engines/x.bin",
    "engines/deep/x.plan",
    "a b",
    "bundle.sig.old",
    "records.yaml~",
    ".bundle.yaml.swp",
    "sub/bundle.yaml",
)


def add(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(NAMES)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = rng.choice((b"", b"schema: 2\n", rng.choice(files(folder)).read_bytes()))
    path.write_bytes(source)


def remove(folder: Path, rng: random.Random) -> None:
    rng.choice(files(folder)).unlink()


def rename(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    name = rng.choice((path.name + ".bak", path.name.upper(), "x" + path.name, f"sub/{path.name}"))
    target = path.parent / name
    target.parent.mkdir(exist_ok=True)
    path.rename(target)


def link(folder: Path, rng: random.Random) -> None:
    """A link to the very same content is one all the same: what it leads to can be changed later."""
    path = rng.choice(files(folder))
    kept = folder.parent / f"elsewhere-{path.name}"
    shutil.copy(path, kept)
    path.unlink()
    path.symlink_to(rng.choice((kept, os.path.relpath(kept, path.parent), "/dev/null", "nowhere")))


def link_beside(folder: Path, rng: random.Random) -> None:
    (folder / rng.choice(("more", "engines.old", ".x"))).symlink_to(
        rng.choice(("/etc", "bundle.yaml", ".."))
    )


def pipe(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    path.unlink()
    os.mkfifo(path)


def folder_for_file(folder: Path, rng: random.Random) -> None:
    path = rng.choice(files(folder))
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(content)


def yaml_trick(folder: Path, rng: random.Random) -> None:
    """Bytes that mean the same, or something else, to a reader of YAML."""
    path = folder / rng.choice((MANIFEST, RECORDS))
    if not path.is_file():
        remove(folder, rng)
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    first = text.split("\n", 1)[0]
    key = first.partition(":")[0]
    tricks = (
        lambda: text + first + "\n",  # a key twice
        lambda: first + "\n" + text,
        lambda: text + f"{key.upper()}: 1\n",
        lambda: "--- \n" + text,
        lambda: text + "...\n",
        lambda: text + "---\n" + text,  # two documents
        lambda: "%YAML 1.1\n---\n" + text,
        lambda: text.replace("\n", "\r\n"),
        lambda: text.replace(": ", ":  ", 1),
        lambda: text.replace(first, f"? {key}\n: {first.partition(':')[2].strip()}", 1),
        lambda: f"<<: {{{key}: 0}}\n{text}",
        lambda: text + "x: &a [1]\ny: *a\n",
        lambda: text + 'x: !!python/object/apply:os.system ["true"]\n',
        lambda: yaml.safe_dump(yaml.safe_load(text), sort_keys=True, default_flow_style=True),
    )
    try:
        changed = rng.choice(tricks)()
    except Exception:  # it was broken before
        changed = text + "\n"
    path.write_bytes(changed.encode("utf-8", "replace"))


def utf16(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice((MANIFEST, RECORDS, SIGNATURES))
    if not path.is_file():
        remove(folder, rng)
        return
    text = path.read_bytes().decode("utf-8", "replace")
    path.write_bytes(text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32"))))


def other_value(folder: Path, rng: random.Random) -> None:
    """A manifest or records that are right in themselves, as an attacker would write them."""
    path = folder / rng.choice((MANIFEST, RECORDS))
    if not path.is_file():  # a pipe, perhaps
        remove(folder, rng)
        return
    try:
        content = yaml.safe_load(path.read_bytes())
        content["backends" if path.name == RECORDS else "description"] = rng.choice(
            (
                {},
                "x",
                {
                    "openvino-bf16": {
                        "passed": True,
                        "lost": 0,
                        "tolerance": 1,
                        "probe_error": 9e9,
                        "frames": 1,
                    }
                },
            )
        )
    except Exception:
        content = {}
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def signature_trick(folder: Path, rng: random.Random) -> None:
    path = folder / SIGNATURES
    if not path.is_file():
        remove(folder, rng)
        return
    try:
        content = json.loads(path.read_bytes())
        one = content["signatures"][0]
        how = rng.randrange(11)
        if how == 0:
            one["signature"] = one["signature"].upper()
        elif how == 1:
            one["signature"] = f"{rng.getrandbits(512):0128x}"
        elif how == 2:
            one["key"] = f"{rng.getrandbits(128):032x}"
        elif how == 3:
            one["algorithm"] = rng.choice(("none", "ED25519", "rsa", ""))
        elif how == 4:
            content["signatures"].append(dict(one))
        elif how == 5:
            content["signatures"] = rng.choice(([], {}, None, "x"))
        elif how == 6:
            content["also"].pop(rng.choice(sorted(content["also"])))
        elif how == 7:
            content["also"]["notes.txt"] = "0" * 64
        elif how == 8:
            content["bundle"] = f"{rng.getrandbits(256):064x}"
        elif how == 9:
            content["more"] = 1
        else:
            content = rng.choice(([], 1, None, {"schema": 1}, {**content, "schema": 2}))
        text = json.dumps(content, indent=1) + "\n"
    except Exception:
        text = "{}"
    if rng.random() < 0.2:
        text = re.sub(r'("key")', r'"key": "0", \1', text, count=1)  # a key twice
    path.write_text(text)


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip, flip, cut, grow, swap, add, remove, rename, link, link_beside, pipe, folder_for_file,
    yaml_trick, yaml_trick, utf16, other_value, signature_trick, signature_trick,
)  # fmt: skip


def mutate(folder: Path, rng: random.Random) -> list[str]:
    """Change something; the names of what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(MUTATIONS)
        try:
            how(folder, rng)
        except (OSError, IndexError, ValueError):  # nothing of that sort is left
            continue
        done.append(how.__name__)
    return done
