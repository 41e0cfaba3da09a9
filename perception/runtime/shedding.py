"""What a stream's core leaves out for want of time: the ladder of `lateness`, applied to a pipeline."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perception.errors import ConfigError
from perception.runtime.collector import Collector
from perception.runtime.lateness import Ladder, LatePolicy, shedding_order
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Lateness, Result
from perception.tasks.registry import judged, usual_parts

_MOST_DROPPED = 3
"""So many frames in a row are let go before one is given however old: late is better than nothing."""

_UNUSUAL = 1.5
"""Times as long as usual: a frame that waited so gives way to one that has yet to be encoded."""

_RECENT = 20
"""So many results tell what a sensor costs: the least of them, as beside others that want the CPU all but the
work itself is waiting, and that hits whom it hits."""

_MOST_SAVED = 0.8
"""Of the work; whatever a step saves, it is tried to take it back where results are so early."""

_COSTS = ("preprocess", "warp", "check", "encode")


class Shedder:
    """Says what is left out at the moment, and gives results their `Lateness`.

    Args:
        pipeline: its `spared` parts are set; `late_results`, `late_frames_dropped`, `late_steps_down` and
            `late_steps_up` are counted in its `counters`, and `late_level` is the present one.
        collector: its `spared` sensors are set.

    Attributes:
        policy: when and what; None: nothing is ever left out.
        sensors: whose samples are left out now.
        frames: whether the older of several frames are let go now.
    """

    def __init__(self, pipeline: Pipeline, collector: Collector) -> None:
        self.policy: LatePolicy | None = None
        self.sensors: frozenset[str] = frozenset()
        self.frames = False
        self._pipeline, self._collector = pipeline, collector
        self._ladder: Ladder | None = None
        self._order: tuple[str, ...] = ()
        self._parts: frozenset[str] = frozenset()
        self._spent: dict[str, deque[float]] = {}  # lately, in ms, by sensor, and by the rest as ""
        self._planned: dict[str, float] = {}  # what each cost when the steps were chosen
        self._scores: Mapping[frozenset[str], float] = {}
        self._waits: deque[int] = deque(maxlen=_RECENT)  # of frames, until they were encoded
        self._dropped = 0  # since the last result
        self._in_a_row = 0

    def configure(self, policy: LatePolicy | None) -> None:
        """Begin anew under another policy; the same changes nothing.

        Raises:
            ConfigError: it names a sensor or a part that there is none of.
        """
        if policy == self.policy:
            return
        if policy is not None:
            for name in policy.keep:
                if name not in self._collector.sensors:
                    known = ", ".join(self._collector.sensors)
                    raise ConfigError(f"'{name}' is not among {known}", where="late.keep")
            for name in policy.optional or ():
                if name not in self._pipeline.parts:
                    known = ", ".join(sorted(self._pipeline.parts))
                    raise ConfigError(
                        f"'{name}' is no part of a result", where="late.optional", hint=known
                    )
        self.policy = policy
        self._ladder = None if policy is None else Ladder(policy, 0)
        self._order, self._parts = (), frozenset()
        self._scores = {} if policy is None else known_scores(self._pipeline)
        self._waits.clear()
        self._apply()

    def follow(self, now_ns: int) -> None:
        """Take sensors up again that are needed because others have fallen silent or are not well."""
        if not self.sensors and not (self._ladder and self._ladder.level):
            return
        idle = set(self._collector.idle(now_ns))
        well = [
            s
            for s in self._collector.sensors
            if s not in idle and self._pipeline.health.state(s) == "ok"
        ]
        left_out = list(self._taken()[0])
        enough = self._pipeline.policy.enough
        # Where none of them helps, as all are silent, the first frame after that must not be the dearest.
        while left_out and enough(well) and not enough([s for s in well if s not in left_out]):
            left_out.pop()
        self._spare(left_out)

    def stale(self, waited_ns: int, newer: bool) -> bool:
        """Whether a frame that has waited so long is let go, given whether there is a newer one.

        Only where that is likely to be done sooner: what frames usually wait, it will have to wait, too.
        """
        if not self.frames or not newer or self.policy is None or self._in_a_row >= _MOST_DROPPED:
            return False
        usual_ns = statistics.median(self._waits) if self._waits else 0.0
        return waited_ns > max(self.policy.deadline_s * 1e9, _UNUSUAL * usual_ns)

    def waited(self, waited_ns: int) -> None:
        """Note how old a frame was when it was encoded."""
        self._waits.append(waited_ns)

    def dropped(self) -> None:
        """Note a frame that was let go."""
        self._dropped += 1
        self._in_a_row += 1
        self._pipeline.counters["late_frames_dropped"] += 1

    def judged(self, result: Result, now_ns: int) -> Result:
        """A result with its `Lateness`; what follows from that holds from the next sample on."""
        if self.policy is None or self._ladder is None or not result.used:
            return result
        latency_ns = max(0, now_ns - result.arrived_ns)
        sensors, parts, _ = self._taken()
        lateness = Lateness(
            latency_ns / 1e6,
            self.policy.deadline_s * 1e3,
            self._ladder.level,
            tuple(s for s in sensors if s not in result.used),
            tuple(sorted(parts & self._pipeline.wanted)),
            self._dropped,
        )
        self._dropped = self._in_a_row = 0
        self._note_costs(result)
        counters = self._pipeline.counters
        if lateness.late:
            counters["late_results"] += 1
            self._plan(result)
        if (step := self._ladder.note(latency_ns / 1e9, self._saved())) is not None:
            counters[f"late_steps_{step}"] += 1
            counters["late_level"] = self._ladder.level
            self._apply()
        return replace(result, lateness=lateness)

    def _saved(self) -> float:
        """The share of the work that the last step spares, as far as sensors' costs tell."""
        sensors, parts, frames = self._taken()
        if not sensors or parts or frames:
            return 0.0
        # All as it was when the steps were planned: what was measured since may be of calmer times.
        still = sum(c for s, c in self._planned.items() if s not in sensors)
        last = self._planned.get(sensors[-1], 0.0)
        return min(_MOST_SAVED, last / (still + last)) if last else 0.0

    def _note_costs(self, result: Result) -> None:
        for sensor in result.fresh:
            spent = sum(result.timings.get(f"{step}_{sensor}", 0.0) for step in _COSTS)
            self._note_cost(sensor, spent)
        self._note_cost("", sum(result.timings.get(step, 0.0) for step in ("fuse", "postprocess")))

    def _note_cost(self, of: str, spent: float) -> None:
        self._spent.setdefault(of, deque(maxlen=_RECENT)).append(spent)

    def _cost(self, of: str) -> float:
        """Milliseconds, those of waiting left out as far as possible."""
        return min(self._spent.get(of, (0.0,)))

    def _plan(self, result: Result) -> None:
        """Choose what the next steps are, from what takes part now; those taken stay."""
        pipeline, policy = self._pipeline, self.policy
        assert policy is not None and self._ladder is not None
        taken = self._taken()[0]
        used = [s for s in result.used if s not in taken]
        costs = {s: self._cost(s) for s in (*used, "")}
        self._order = taken + shedding_order(
            used, pipeline.policy, policy.keep, costs, result.reference, self._scores
        )
        if policy.optional is None:
            self._parts = usual_parts(pipeline.manifest.tasks.every, usual=False)
        else:
            self._parts = frozenset(policy.optional)
        self._parts &= pipeline.wanted
        self._planned = {s: self._planned.get(s, 0.0) for s in taken} | costs
        self._ladder.top = len(self._order) + bool(self._parts) + 1
        if self._taken()[0] != taken:  # there are more to leave out first than there seemed to be
            self._apply()

    def _taken(self) -> tuple[tuple[str, ...], frozenset[str], bool]:
        """The sensors and parts that the steps taken leave out, and whether frames are let go."""
        level = 0 if self._ladder is None else self._ladder.level
        sensors, rest = self._order[:level], level - len(self._order)
        parts = self._parts if rest > 0 else frozenset()
        return sensors, parts, rest > bool(self._parts)

    def _apply(self) -> None:
        sensors, parts, self.frames = self._taken()
        self._pipeline.spared = parts
        self._spare(sensors)

    def _spare(self, sensors: Any) -> None:
        self.sensors = self._collector.spared = frozenset(sensors)


def known_scores(pipeline: Pipeline) -> Mapping[frozenset[str], float]:
    """By subset of sensors, the mean of the recorded scores by which the bundle's tasks are judged.

    Of the data sets with records of several subsets, the first.
    """
    sensors = {name: sensor for sensor, name in pipeline.inputs.items()}
    names = [*judged(pipeline.manifest.tasks)]
    for notes in pipeline.bundle.records.accuracy.values():
        table = notes.get("subsets") if isinstance(notes, Mapping) else None
        if not isinstance(table, Mapping):
            continue
        found: dict[frozenset[str], float] = {}
        for subset, row in table.items():
            inputs = str(subset).split("+")
            if not isinstance(row, Mapping) or not all(name in sensors for name in inputs):
                continue
            scores = [row[n] for n in names if isinstance(row.get(n), int | float)]
            if len(scores) == len(names):
                found[frozenset(sensors[name] for name in inputs)] = sum(scores) / len(scores)
        if len(found) > 1:
            return found
    return {}
