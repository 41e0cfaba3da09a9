"""The harnesses of `make fuzz` on their corpus, on short pieces of it, and on changes by hypothesis."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.mutators import mutator
from fuzz.packing import pack, unpack
from fuzz.targets import TARGETS, check, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

_INTERESTING = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"-1",
    b"nan",
    b"99999999999",
    b"\n",
)

SEEDS = [(target, path.name) for target in TARGETS for path in seeds(target)]


def _content(target: str, name: str) -> bytes:
    return next(p for p in seeds(target) if p.name == name).read_bytes()


@pytest.mark.parametrize(("target", "name"), SEEDS)
def test_an_input_of_the_corpus_keeps_the_law(target: str, name: str) -> None:
    assert check(target, _content(target, name))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_get_through(target: str) -> None:
    """A corpus whose inputs are all refused would test the refusal alone."""
    made = [p for p in seeds(target) if not p.name.startswith("found_")]
    outcomes = {check(target, p.read_bytes()) for p in made}
    assert any(not outcome.endswith("Error") for outcome in outcomes), outcomes
    assert all(p.stat().st_size <= 20_000 for p in made)


def mutated(content: bytes, rng: random.Random, other: bytes) -> bytes:
    """One to four changes such as torn files, hostile numbers and mixed-up copies have."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        how = rng.randrange(6)
        if how == 0:
            del changed[at:]
        elif how == 1:
            del changed[at : at + rng.randrange(1, 40)]
        elif how == 2:
            changed[at : at + rng.randrange(5)] = rng.choice(_INTERESTING)
        elif how == 3:
            changed[at:at] = changed[at : at + rng.randrange(1, 60)] * rng.choice((1, 2, 20))
        elif how == 4 and other:
            start = rng.randrange(len(other))
            changed[at : at + 30] = other[start : start + rng.randrange(1, 60)]
        elif at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("target", TARGETS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_changed_inputs_keep_the_law(target: str, seed: int) -> None:
    rng = random.Random(seed)
    paths = seeds(target)
    content, other = (rng.choice(paths).read_bytes() for _ in range(2))
    change = mutator(target)
    if change is not None and rng.random() < 0.7:
        for _ in range(rng.choice((1, 2))):
            content = change(content, rng)
        check(target, content)
    else:
        check(target, mutated(content, rng, other))


@pytest.mark.parametrize("target", ["collector", "stream"])
@given(data=st.binary(max_size=240))
@settings(max_examples=50)
def test_whatever_happens_every_sample_is_accounted_for(target: str, data: bytes) -> None:
    assert check(target, data)


def test_what_is_no_error_of_ours_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, place: Path) -> str:
        raise KeyError("x")

    monkeypatch.setitem(TARGETS, "rig", broken)
    with pytest.raises(KeyError):
        check("rig", b"")


def test_packed_files_come_back_and_none_leads_elsewhere(tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    (there / "a").mkdir(parents=True)
    (there / "a" / "b.bin").write_bytes(bytes(range(256)))
    (there / "c.txt").write_text("text\n")
    data = pack(there, "first line")
    assert unpack(data + b"\n=== ../x\n1\n=== /y\n2\n=== a\n3", back) == "first line"
    files = {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*.*")}
    assert files == {"a/b.bin": bytes(range(256)), "c.txt": b"text\n"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "there"]
