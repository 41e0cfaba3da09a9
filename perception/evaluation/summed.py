"""Scores over several recordings, each judged on its own: what was counted is summed, not what came of it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import ClassInfo, RecordingInfo
from perception.errors import AnySenseError, DataError
from perception.evaluation.evaluate import COUNTS, Scorer, meters_of, score_table
from perception.files.arrays import parse_npz
from perception.tasks.registry import TASKS
from perception.tasks.task import Meter

_ABOUT = "about"


def counted_npz(info: RecordingInfo, scorers: Mapping[str, Scorer]) -> bytes:
    """What scorers of one recording counted, as the bytes of a .npz archive for `Summed.add`.

    Args:
        info: of the recording.
        scorers: by name of the subset, see `score_subsets`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    subsets: dict[str, Any] = {}
    for number, (subset, scorer) in enumerate(scorers.items()):
        tasks: dict[str, list[str] | None] = {}
        for task, meter in scorer.meters.items():
            counted = meter.counted()
            tasks[task] = None if counted is None else list(counted)
            arrays |= {_name(number, task, name): a for name, a in (counted or {}).items()}
        subsets[subset] = {
            **{name: getattr(scorer, name) for name in COUNTS},
            "far": dict(scorer.far),
            "moved": dict(scorer.moved),
            "tasks": tasks,
        }
    about = json.dumps({"info": asdict(info), "subsets": subsets}).encode()
    content = io.BytesIO()
    np.savez_compressed(content, **{_ABOUT: np.frombuffer(about, np.uint8)}, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _name(number: int, task: str, name: str) -> str:
    return f"{number}.{task}.{name}"


class _Subset:
    """The sums of one subset of sensors."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.far: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.meters: dict[str, Meter] = {}
        self.recordings = 0


class Summed:
    """Sums what was counted of recordings: confusion matrices, matches, confidences.

    The scores are those of all recordings joined, in the order in which they are added.

    Args:
        specs: what the bundle that was judged says of its tasks, by name.

    Attributes:
        left: tasks of which there are no scores over all recordings, and why.
    """

    def __init__(self, specs: Mapping[str, Any]) -> None:
        self._specs = specs
        self._subsets: dict[str, _Subset] = {}
        self._classes: dict[str, tuple[str, ...]] = {}
        self.left: dict[str, str] = {}

    def add(self, content: bytes, where: str) -> None:
        """Take one recording.

        Args:
            content: see `counted_npz`.
            where: names it in errors.

        Raises:
            DataError: it is not what a recording leaves.
        """
        try:
            (raw,) = parse_npz(content, [_ABOUT], where=where).values()
            about = json.loads(raw.tobytes())
            info = _info(about["info"])
            for number, (subset, found) in enumerate(about["subsets"].items()):
                self._add(number, str(subset), found, info, content, where)
        except AnySenseError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = next(iter(str(error).splitlines()), "")[:200]
            raise DataError(f"is not what a recording counted: {what}", where=where) from error

    def _add(
        self,
        number: int,
        subset: str,
        found: Mapping[str, Any],
        info: RecordingInfo,
        content: bytes,
        where: str,
    ) -> None:
        own = self._subsets.setdefault(subset, _Subset())
        names = found["tasks"]
        made = meters_of({n: self._specs[n] for n in names}, info)
        for task in names:
            self._fits(task, names[task], info)
        counting = {n: listed for n, listed in names.items() if n not in self.left}
        members = [_name(number, n, name) for n, listed in counting.items() for name in listed]
        arrays = parse_npz(content, members, where=where)
        for task, listed in counting.items():
            meter = own.meters.setdefault(task, made[task])
            meter.take({name: arrays[_name(number, task, name)] for name in listed})
        own.counts.update({name: int(found[name]) for name in COUNTS})
        own.far.update({str(s): int(n) for s, n in found["far"].items()})
        own.moved.update({str(s): int(n) for s, n in found["moved"].items()})
        own.recordings += 1

    def _fits(self, task: str, listed: list[str] | None, info: RecordingInfo) -> None:
        """Note why a task's numbers of this recording cannot be added to those before."""
        if listed is None:
            self.left.setdefault(task, "what it counts cannot be summed")
            return
        # The kind of data says which classes nobody can learn.
        classes = (info.kind, *(c.name for c in TASKS[task].classes_of(info)))
        if self._classes.setdefault(task, classes) != classes:
            self.left.setdefault(task, "the recordings differ in classes or kind of data")

    def scores(self) -> dict[str, dict[str, Any]]:
        """By subset what `Scorer.scores` gives, and `recordings`, of how many."""
        return {
            name: {
                "recordings": own.recordings,
                **score_table(own.counts, self._summed(own), own.far, own.moved),
            }
            for name, own in self._subsets.items()
        }

    def _summed(self, own: _Subset) -> dict[str, Meter]:
        return {task: meter for task, meter in own.meters.items() if task not in self.left}


def _info(plain: Mapping[str, Any]) -> RecordingInfo:
    classes = {
        name: tuple(ClassInfo(int(c["id"]), str(c["name"]), tuple(c["color"])) for c in plain[name])
        for name in ("seg_classes", "det_classes")
    }
    return RecordingInfo(**{**plain, **classes})
