"""Which frames are worth keeping: the same whoever looks, apart in time, and those that show it most."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perception.fleet.job import Keep
from perception.fleet.keeping import Choice, wanted_of

S = 10**9


def row(second: float, recording: str = "r", **fields: Any) -> dict[str, Any]:
    return {
        "recording": recording,
        "frame": f"{second:07.2f}",
        "stamp_ns": round(second * S),
        "state": "full",
        "health": [],
        "confidence": 0.9,
        "shares": [],
        "class_confidence": [],
        "novelty": [],
        "disagreement": None,
        "chunk": "k",
    } | fields


def chosen(keep: Keep, rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    choice = Choice(keep)
    for one in rows:
        choice.add(one)
    return [(r["recording"], r["frame"], r["reason"]) for r in choice.rows]


def test_of_near_frames_the_one_that_shows_it_most() -> None:
    keep = Keep(low_confidence=0.5, every_s=1.0)
    sure = [0.4, 0.3, 0.45, 0.2, 0.49, 0.6]
    rows = [row(i * 0.4, confidence=c) for i, c in enumerate(sure)]
    # 0.4 s (0.3) takes the place of 0.0; 1.2 s (0.2) is nearer than a second and takes its place, too.
    assert chosen(keep, rows) == [("r", "0001.20", "low confidence")]


def test_most_of_a_reason_in_all_recordings() -> None:
    keep = Keep(novelty=1.0, every_s=0, most=2)
    rows = [row(i, "a", novelty=[("rgb", 1 + i)]) for i in range(4)]
    rows += [row(i, "b", novelty=[("rgb", 2.5)]) for i in range(2)]
    found = chosen(keep, rows)
    assert found == [("a", "0002.00", "novel rgb"), ("a", "0003.00", "novel rgb")]


def test_a_class_must_be_seen_to_count() -> None:
    keep = Keep(per_class=5, every_s=0, least_share=0.1)
    seen = row(1, shares=[("car", 0.2)], class_confidence=[("car", 0.4)])
    speck = row(2, shares=[("car", 0.01)], class_confidence=[("car", 0.1)])
    assert chosen(keep, [seen, speck]) == [("r", "0001.00", "class car")]


def test_reasons_of_a_frame_are_its_tags_worst_first() -> None:
    choice = Choice(Keep(degraded=True, low_confidence=0.95, misaligned=True))
    choice.add(row(1, state="degraded", health=[("lidar", "misaligned")]))
    (wanted,) = wanted_of(choice.rows).values()
    reasons = wanted.reasons["0001.00"]
    assert set(reasons) == {"degraded", "misaligned lidar", "low confidence"}
    assert reasons[-1] == "low confidence"


def test_disagreement_counts_where_it_was_looked_at() -> None:
    keep = Keep.model_validate({"disagreement": {"between": ["rgb", "thermal"], "above": 0.3}})
    rows = [row(0), row(2, disagreement=0.2), row(4, disagreement=0.5)]
    assert chosen(keep, rows) == [("r", "0004.00", "rgb against thermal")]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(1, 8),
    st.floats(0, 5),
)
def test_no_more_than_asked_and_apart(
    found: list[tuple[int, float]], most: int, every_s: float
) -> None:
    rows = [row(tenths / 10, confidence=c) for tenths, c in sorted(dict(found).items())]
    kept = chosen(Keep(low_confidence=0.8, every_s=every_s, most=most), rows)
    assert len(kept) <= most
    times = sorted(float(frame) for _, frame, _ in kept)
    assert all(b - a >= every_s - 1e-6 for a, b in pairwise(times))
    low = [r for r in rows if r["confidence"] < 0.8]
    assert bool(kept) == bool(low)
    if kept and len(low) == len(kept) == most:
        assert {f for _, f, _ in kept} == {r["frame"] for r in low}
