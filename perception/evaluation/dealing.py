"""A recording's scenes dealt out: some to fit to, others to judge by, or all of them in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from perception.data.base import Recording
from perception.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Half:
    """One half, or another part, of a recording.

    Attributes:
        recording: its frames.
        scenes: how many scenes they are of.
    """

    recording: Recording
    scenes: int


@dataclass(frozen=True)
class Dealt:
    """Parts of a recording, and which of them are fitted to and judged by.

    In halves the first is fitted to and the second judged.  In folds (cross-fitting, for few frames: Stone,
    "Cross-validatory choice and assessment of statistical predictions", 1974) all are fitted to, and each is
    judged by what was fitted to the others.

    Attributes:
        parts: two halves, or as many parts as there are folds.
        whole: all of it.
        folds: how many; None for halves.
    """

    parts: tuple[Half, ...]
    whole: Half
    folds: int | None = None

    @staticmethod
    def of(recording: Recording, folds: int | None = None, block: int | None = None) -> Dealt:
        """Deal out a recording's scenes; see `dealt_out`.

        Raises:
            DataError: there are fewer scenes than parts.
        """
        parts = dealt_out(recording, folds or 2, block)
        whole = Half(recording.part(range(len(recording))), sum(part.scenes for part in parts))
        return Dealt(parts, whole, folds or None)

    @property
    def fitted(self) -> Half:
        """What is fitted to."""
        return self.whole if self.folds else self.parts[0]

    @property
    def judged(self) -> Half:
        """What is judged by."""
        return self.whole if self.folds else self.parts[1]

    def to_fit(self, values: Sequence[T]) -> tuple[T, ...]:
        """Of values for each part, those of the parts that are fitted to."""
        return tuple(values) if self.folds else tuple(values[:1])

    def rounds(self, values: Sequence[T]) -> list[tuple[tuple[T, ...], T]]:
        """Of values by part: those of the parts that one is judged by, and its own, for each in turn."""
        if not self.folds:
            return [((values[0],), values[1])]
        return [((*values[:n], *values[n + 1 :]), own) for n, own in enumerate(values)]


def halves(recording: Recording, block: int | None = None) -> tuple[Half, Half]:
    """A recording's scenes dealt out to two halves; see `dealt_out`."""
    first, second = dealt_out(recording, 2, block)
    return first, second


def dealt_out(recording: Recording, parts: int, block: int | None = None) -> tuple[Half, ...]:
    """A recording's scenes dealt out to so many parts, always in the same way, none of them to two.

    In order, each goes to the part that has the fewest frames, of several to the first.

    Args:
        recording: the frames.
        parts: how many, two or more.
        block: so many frames in a row are a scene; None for what the recording says (`Recording.scene`).

    Raises:
        DataError: there are fewer scenes than parts.
    """
    indices = range(len(recording))
    named = [recording.scene(i) if block is None else str(i // block) for i in indices]
    sizes = Counter(named)  # in order
    if len(sizes) < parts:
        few = "one scene only" if len(sizes) == 1 else f"{len(sizes)} scenes"
        raise DataError(
            "is of one scene: nothing would be left to judge by"
            if parts == 2
            else f"is of {few}, too few for {parts} parts",
            where=recording.info.name,
            hint="--block N takes every N frames for a scene, where they are as good as that",
        )
    filled = [0] * parts
    owner: dict[str, int] = {}
    for scene, size in sizes.items():
        owner[scene] = filled.index(min(filled))
        filled[owner[scene]] += size
    return tuple(
        Half(
            recording.part([i for i in indices if owner[named[i]] == part]),
            sum(1 for own in owner.values() if own == part),
        )
        for part in range(parts)
    )
