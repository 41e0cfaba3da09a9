"""Which frames train and which validate: as the data set says, by lists, whole sequences or by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from perception.errors import ConfigError, DataError, names_hint
from perception.files.listing import counted
from perception.files.text import read_text
from perception.importers.source import SPLITS, Item


@dataclass(frozen=True)
class SplitWishes:
    """How to split; without any of these the data set's own splits stay.

    Attributes:
        lists: a text file of frames, one a line, by split.
        sequences: names of sequences by split.
        shares: of the frames by split, drawn by chance.
        whole: draw whole sequences.
        seed: of the drawing.
    """

    lists: dict[str, Path] = field(default_factory=dict)
    sequences: dict[str, list[str]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    whole: bool = False
    seed: int = 0

    def check(self) -> None:
        """Refuse wishes that contradict each other.

        Raises:
            ConfigError: they do.
        """
        ways = [way for way in (self.lists, self.sequences, self.shares) if way]
        if len(ways) > 1:
            raise ConfigError(
                "say it in one way: by lists, by sequences or by share", where="splits"
            )
        if sum(self.shares.values()) >= 1:
            raise ConfigError("shares must leave something to train on", where="splits")
        if self.whole and not self.shares:
            raise ConfigError("whole sequences of what share? Give --val-share", where="splits")


def split_of_items(items: Sequence[Item], wishes: SplitWishes) -> list[str]:
    """The split of each frame, empty where it has none.

    Raises:
        ConfigError: a sequence is not there, or there are too few to draw from.
        DataError: a list cannot be read, or names a frame that is not there.
    """
    wishes.check()
    if wishes.lists:
        return _by_lists(items, wishes.lists)
    if wishes.sequences:
        return _by_sequences(items, wishes.sequences)
    if wishes.shares:
        return _by_share(items, wishes)
    return [item.split for item in items]


def _names_of(item: Item) -> set[str]:
    """All that a list may call a frame: its name with its folders or without."""
    found = set()
    for name in (item.name, *item.aliases):
        path = PurePosixPath(name)
        found |= {name, path.name, path.stem}
    return found


def _by_lists(items: Sequence[Item], lists: dict[str, Path]) -> list[str]:
    places: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        for name in _names_of(item):
            places.setdefault(name, []).append(index)
    splits, told = [""] * len(items), dict[int, str]()
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).lstrip("\ufeff").split("\n"), 1):
            entry, where = line.strip().replace("\\", "/"), f"{path}:{number}"
            if not entry:
                continue
            found = _matching(entry, places)
            if not found:
                raise DataError(f"the data set has no frame '{entry[:120]}'", where=where)
            if len(found) > 1:
                raise DataError(
                    f"'{entry[:120]}' may be {len(found)} frames",
                    where=where,
                    hint="name it with its folder",
                )
            if found[0] in told and told[found[0]] != split:
                raise DataError(f"'{entry[:120]}' is listed for {told[found[0]]}, too", where=where)
            told[found[0]] = split
            splits[found[0]] = split
    rest = next((s for s in SPLITS if s not in lists), "")
    return [split or rest for split in splits] if "train" not in lists else splits


def _matching(entry: str, places: dict[str, list[int]]) -> list[int]:
    """Frames of an entry, by as many of its last folders as are needed to tell."""
    parts = PurePosixPath(entry).parts
    best: list[int] = []
    for count in range(len(parts), 0, -1):
        name = "/".join(parts[-count:])
        for form in (name, str(PurePosixPath(name).with_suffix(""))):
            found = places.get(form, [])
            if len(found) == 1:
                return found
            best = best or found
    return best


def _by_sequences(items: Sequence[Item], wanted: dict[str, list[str]]) -> list[str]:
    every = sorted({item.sequence for item in items} - {""}, key=counted)
    if not every:
        raise ConfigError("the data set has no sequences", where="splits")
    split_of: dict[str, str] = {}
    for split, names in wanted.items():
        for name in names:
            if name not in every:
                hint = names_hint(name, every[:20])
                raise ConfigError(f"there is no sequence '{name}'", where="splits", hint=hint)
            if split_of.setdefault(name, split) != split:
                raise ConfigError(f"sequence '{name}' is given twice", where="splits")
    rest = next((s for s in SPLITS if s not in wanted), "")
    return [split_of.get(item.sequence, rest) for item in items]


def _by_share(items: Sequence[Item], wishes: SplitWishes) -> list[str]:
    """Units, which are frames or sequences, in an order drawn by chance, taken until a share is reached.

    The data set's own test frames stay what they are, unless others are to be drawn.
    """
    kept = {"test"} - wishes.shares.keys()
    units = [
        "" if item.split in kept else (wishes.whole and item.sequence) or item.name
        for item in items
    ]
    sizes = Counter(unit for unit in units if unit)
    if len(sizes) <= len(wishes.shares):
        what = "sequences" if wishes.whole else "frames"
        raise ConfigError(f"{len(sizes)} {what} are too few to draw from", where="splits")
    names = sorted(sizes, key=counted)
    order = [names[i] for i in np.random.default_rng(wishes.seed).permutation(len(names))]
    split_of: dict[str, str] = {"": "test"}
    for split, share in wishes.shares.items():
        taken, wanted = 0, max(1, round(share * sizes.total()))
        while taken < wanted and len(order) > 1:
            name = order.pop()
            split_of[name], taken = split, taken + sizes[name]
    return [split_of.get(unit, "train") for unit in units]


def thinned(items: list[Item], splits: list[str], limit: int | None) -> list[int]:
    """Which frames are taken where only so many are wanted: the first of each split, each its share."""
    if limit is None or limit >= len(items):
        return list(range(len(items)))
    members: dict[str, list[int]] = {}
    for index, split in enumerate(splits):
        members.setdefault(split, []).append(index)
    least = 1 if limit >= len(members) else 0
    quota = {split: max(least, limit * len(own) // len(items)) for split, own in members.items()}
    while (total := sum(quota.values())) != limit:
        if total > limit:
            quota[max(quota, key=lambda split: quota[split])] -= 1
        else:
            quota[max(members, key=lambda split: len(members[split]) - quota[split])] += 1
    return sorted(index for split, own in members.items() for index in own[: quota[split]])
