"""Several recordings as one: their frames one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.frame import Frame
from perception.tasks.registry import TASKS


class Joined(Recording):
    """The frames of several recordings in their order, called `0/ID`, `1/ID`, ...

    A recording that lacks a sensor of another gives frames without it.

    Args:
        parts: the recordings, two or more.
        names: what each is called in errors; distinct.
        tasks: whose classes must agree; other classes are left out where they differ.

    Raises:
        ConfigError: two differ in classes, in the kind of a sensor, or in the sensor whose pixels labels are
            in; both are named.
    """

    def __init__(
        self, parts: Sequence[Recording], names: Sequence[str], tasks: Collection[str]
    ) -> None:
        self._parts = list(parts)
        ends = list(accumulate(len(part) for part in parts))
        self._starts = [0, *ends[:-1]]
        every = [f"{n}/{name}" for n, part in enumerate(parts) for name in part.ids]
        self._places = {name: index for index, name in enumerate(every)}
        super().__init__(parts[0].root, _joined_info(parts, names, tasks), every)
        self.rig = parts[0].rig

    def _at(self, index: int) -> tuple[Recording, int]:
        place = self._places[self.ids[index]]
        number = bisect_right(self._starts, place) - 1
        return self._parts[number], place - self._starts[number]

    def frame(self, index: int) -> Frame:
        part, own = self._at(index)
        return part.frame(own)

    def seen(self, index: int, views: Mapping[str, str]) -> Frame:
        part, own = self._at(index)
        return part.seen(own, views)

    def truth(self, index: int) -> Truth:
        part, own = self._at(index)
        return part.truth(own)

    def sees_labels(self, sensor: str) -> bool:
        return all(part.sees_labels(sensor) for part in self._parts if sensor in part.info.sensors)

    def tags(self, index: int) -> frozenset[str]:
        part, own = self._at(index)
        return part.tags(own)

    def scene(self, index: int) -> str:
        part, own = self._at(index)
        return f"{self.ids[index].partition('/')[0]}/{part.scene(own)}"

    def stamp_ns(self, index: int) -> int:
        part, own = self._at(index)
        return part.stamp_ns(own)


def _joined_info(
    parts: Sequence[Recording], names: Sequence[str], tasks: Collection[str]
) -> RecordingInfo:
    every = dict(zip(names, (part.info for part in parts), strict=True))
    (first_name, first), *others = every.items()
    for task in tasks:
        labeled = {n: info for n, info in every.items() if TASKS[task].classes_of(info)}
        for name, info in labeled.items():
            what, wanted = next(iter(labeled.items()))
            require_same_classes(wanted, info, [task], what=what, where=name)
    sensors = dict(first.sensors)
    for name, info in others:
        for sensor, kind in info.sensors.items():
            if sensors.setdefault(sensor, kind) != kind:
                other = next(
                    n for n, i in every.items() if i.sensors.get(sensor) == sensors[sensor]
                )
                raise ConfigError(
                    f"{sensor} is {kind}, that of {other} is {sensors[sensor]}", where=name
                )
        if info.labels_of != first.labels_of:
            raise ConfigError(
                f"labels are in the pixels of {info.labels_of}, those of {first_name} in {first.labels_of}'s",
                where=name,
            )

    def listed(field: str) -> str:
        return " + ".join(dict.fromkeys(getattr(info, field) for info in every.values()))

    return RecordingInfo(
        listed("kind"),
        listed("name"),
        sensors,
        _agreed([info.seg_classes for info in every.values()]),
        _agreed([info.det_classes for info in every.values()]),
        first.rate_hz,
        all(info.simulated for info in every.values()),
        listed("licence"),
        first.labels_of,
    )


def _agreed(tables: Sequence[tuple[ClassInfo, ...]]) -> tuple[ClassInfo, ...]:
    """The classes of those that have some, where they are the same."""
    there = [table for table in tables if table]
    same = len({tuple(c.name for c in table) for table in there}) == 1
    return there[0] if same else ()
