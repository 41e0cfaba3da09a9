"""What came of measuring robustness, and the same as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perception.evaluation.evaluate import Scorer
from perception.evaluation.variants import (
    FULL,
    MISSING_SHARES,
    NOISE_LEVELS,
    PROBABILITIES,
    Plan,
    SpaceRow,
    Told,
)
from perception.frame import subset_name
from perception.metrics.robustness import (
    Intact,
    expected_score,
    intact_sets,
    mean_score,
    retained_share,
)

DIGITS = 6
"""To which scores are rounded in plain numbers."""


@dataclass(frozen=True)
class Measured:
    """The scores of one way in which sensors were given.

    Attributes:
        frames: that could be given so.
        scores: by name of the score, 0 to 1; None where there was nothing to judge by.
        clean: the same frames with all sensors in order, where these are not all frames; else None.
    """

    frames: int
    scores: Mapping[str, float | None]
    clean: Mapping[str, float | None] | None = None

    @staticmethod
    def of(scorer: Scorer, beside: Scorer | None, names: Iterable[str]) -> Measured:
        """From what was counted."""

        def chosen(found: Scorer) -> dict[str, float | None]:
            scores = found.scores()
            return {name: scores.get(name) for name in names}

        return Measured(scorer.frames, chosen(scorer), None if beside is None else chosen(beside))


@dataclass(frozen=True)
class Fault:
    """How one score fares under one fault of one sensor.

    Attributes:
        levels: the score by level: severities, or `always`.
        mean: over them.
        retained: of the clean score of the same frames, the share that is left on average.
        frames: that could show it, at the level of which fewest could.
    """

    levels: Mapping[str, float | None]
    mean: float | None
    retained: float | None
    frames: int


@dataclass(frozen=True)
class SpaceFound:
    """What came of a row of the table of boxes in space.

    Attributes:
        row: of the plan.
        frames: that could show it.
        scores: by name, those that are judged first.
        retained: of the same frames' scores with all sensors in order, the share that is left.
    """

    row: SpaceRow
    frames: int
    scores: Mapping[str, float | None]
    retained: Mapping[str, float | None]


@dataclass(frozen=True)
class LateFound:
    """What came of samples that were late by so much.

    Attributes:
        seconds: how late.
        without, with_odometry: the rows of the table; None where no frame could show it.
        moved_m: how far the vehicle drove meanwhile, the median; None where that is not known.
        made: in how many frames the points were moved, as nothing is recorded from then.
    """

    seconds: float
    without: SpaceFound | None
    with_odometry: SpaceFound | None
    moved_m: float | None
    made: int

    @property
    def frames(self) -> int:
        """That could show it."""
        return next(own.frames for own in (self.without, self.with_odometry) if own is not None)


@dataclass(frozen=True)
class Robustness:
    """How the scores of a bundle fare by a recording, with one method.

    Attributes:
        bundle, version, backend: what was measured.
        data, simulated: by what.
        frames: how many were judged.
        seed: of the faults.
        method: what is done with a sensor that has failed.
        titles: by name of a judged score, its title.
        lacking: classes of the recording that the bundle does not know.
        plan: what was tried, and why something was not.
        rows: by key of the plan, what came of it; those that no frame could show are not there.
        told: how samples that came late were made.
    """

    bundle: str
    version: str
    backend: str
    data: str
    simulated: bool
    frames: int
    seed: int
    method: str
    titles: Mapping[str, str]
    lacking: list[str]
    plan: Plan
    rows: Mapping[tuple[object, ...], Measured]
    told: Told = field(default_factory=Told)

    def subsets(self, score: str) -> dict[str, float | None]:
        """A score by name of a judged subset, that of all sensors first."""
        found = {subset_name(s): self._at(score, "subset", frozenset(s)) for s in self.plan.subsets}
        return dict(sorted(found.items(), key=lambda entry: -entry[0].count("+")))

    def clean_full(self, score: str) -> float | None:
        """A score with all sensors in order."""
        return self._at(score, "subset", frozenset(self.plan.sensors))

    def without(self, score: str, sensor: str) -> float | None:
        """A score where one sensor is missing."""
        return self._at(score, "subset", frozenset(self.plan.sensors) - {sensor})

    def emm(self, score: str) -> dict[str, float | None]:
        """The expected score by probability with which each sensor is missing."""
        if "emm" in self.plan.lacking:
            return {}
        table = {s: self._at(score, "subset", s) for s in intact_sets(self.plan.sensors)}
        return {f"{p:g}": expected_score(table, self.plan.sensors, p) for p in PROBABILITIES}

    def rmm_table(self, score: str, share: float) -> dict[Intact, float | None]:
        """A score by the sensors that are intact, the others lacking a share of their data."""
        every = frozenset(self.plan.sensors)
        found = {s: self._at(score, "missing", share, s) for s in intact_sets(every)}
        return {**found, every: self.clean_full(score)}

    def rmm(self, score: str) -> dict[str, float | None]:
        """The mean over `rmm_table` by share of the data that is missing; None where one is not known."""
        if "rmm" in self.plan.lacking:
            return {}
        tables = {f"{r:g}": self.rmm_table(score, r).values() for r in MISSING_SHARES}
        return {r: None if None in t else mean_score(t) for r, t in tables.items()}

    def rmm_expected(self, score: str) -> dict[str, dict[str, float | None]]:
        """The expected score by share, then by probability with which each sensor lacks that share."""
        if "rmm" in self.plan.lacking:
            return {}
        sensors = self.plan.sensors
        return {
            f"{r:g}": {
                f"{p:g}": expected_score(self.rmm_table(score, r), sensors, p)
                for p in PROBABILITIES
            }
            for r in MISSING_SHARES
        }

    def nm(self, score: str) -> dict[str, float | None]:
        """A score by level of the noise that all sensors have."""
        if "nm" in self.plan.lacking:
            return {}
        return {level: self._at(score, "noise", level) for level in NOISE_LEVELS}

    def faults(self, score: str) -> dict[str, dict[str, Fault]]:
        """By sensor and fault."""
        found: dict[str, dict[str, Fault]] = {}
        for sensor, faults in self.plan.faults.items():
            for fault, levels in faults.items():
                keys = {level: ("fault", sensor, fault, level) for level in levels}
                rows = {level: self.rows[key] for level, key in keys.items() if key in self.rows}
                if rows:
                    found.setdefault(sensor, {})[fault] = self._fault(score, rows)
        return found

    def _fault(self, score: str, rows: Mapping[str, Measured]) -> Fault:
        clean = self.clean_full(score)
        values = {level: row.scores.get(score) for level, row in rows.items()}
        shares = [
            retained_share(values[level], clean if row.clean is None else row.clean.get(score))
            for level, row in rows.items()
        ]
        fewest = min(row.frames for row in rows.values())
        return Fault(values, mean_score(values.values()), mean_score(shares), fewest)

    def retained(self, score: str) -> dict[str, Any]:
        """What is left of the clean score in each of the scenarios, as shares."""
        clean = self.clean_full(score)

        def shares(found: Mapping[str, float | None]) -> dict[str, float | None]:
            return {name: retained_share(value, clean) for name, value in found.items()}

        mean, least = self.of_subsets(score)
        faults = [fault.retained for own in self.faults(score).values() for fault in own.values()]
        return {
            "mean_subsets": retained_share(mean, clean),
            "min_subsets": retained_share(least, clean),
            "emm": shares(self.emm(score)),
            "rmm": shares(self.rmm(score)),
            "nm": shares(self.nm(score)),
            "corruptions": mean_score(faults),
        }

    def of_subsets(self, score: str) -> tuple[float | None, float | None]:
        """Mean and least over the judged subsets."""
        found = [value for value in self.subsets(score).values() if value is not None]
        return mean_score(found), min(found, default=None)

    def space(self) -> list[SpaceFound]:
        """The table of boxes in space: the rows that some frame could show, all sensors first."""
        found = []
        for row in self.plan.space:
            if (own := self.rows.get(row.key)) is not None:
                clean = own.clean or self.rows[FULL].scores
                left = {n: retained_share(v, clean.get(n)) for n, v in own.scores.items()}
                found.append(SpaceFound(row, own.frames, own.scores, left))
        return found

    def late(self) -> list[LateFound]:
        """The rows of late samples in that table, with odometry beside without."""
        pairs: dict[float, dict[bool, SpaceFound]] = {}
        for found in self.space():
            if found.row.group == "late" and found.row.amount is not None:
                pairs.setdefault(found.row.amount, {})[found.row.odometry] = found
        return [
            LateFound(s, own.get(False), own.get(True), self._moved_m(s), self.told.made.get(s, 0))
            for s, own in pairs.items()
        ]

    def _moved_m(self, seconds: float) -> float | None:
        known = self.told.moved_m.get(seconds)
        return float(np.median(known)) if known else None

    def mean_of_inputs(self) -> dict[str, float | None]:
        """By score, the mean over all sensors, no LiDAR and no camera, as UniBEV has it; empty without one of
        them."""
        kinds = [f for f in self.space() if f.row.key == FULL or f.row.kinds_missing]
        if len(kinds) < 3:
            return {}
        names = kinds[0].scores
        every = {n: [f.scores[n] for f in kinds] for n in names}
        return {n: None if None in values else mean_score(values) for n, values in every.items()}

    def _plain_space(self) -> dict[str, Any]:
        late = {
            f"{seconds:g}": {"moved_m": self._moved_m(seconds), "made": made}
            for seconds, made in sorted(self.told.made.items())
        }
        rows = [
            {
                "group": found.row.group,
                "name": found.row.name,
                "amount": found.row.amount,
                "odometry": found.row.odometry,
                "sensors": [n for n in self.plan.sensors if n in self.plan.given[found.row.key]],
                "frames": found.frames,
                "scores": dict(found.scores),
                "retained": dict(found.retained),
            }
            for found in self.space()
        ]
        beams = dict(self.told.beams)
        return {"rows": rows, "beams": beams, "late": late, "mean_of_inputs": self.mean_of_inputs()}

    def scenarios(self) -> dict[str, dict[str, Any]]:
        """The numbers of the scenarios, each by name of the score, as documented in docs/robustness.md."""
        names = list(self.titles)
        found: dict[str, dict[str, Any]] = {
            "clean_full": {n: self.clean_full(n) for n in names},
            "mean_subsets": {n: self.of_subsets(n)[0] for n in names},
            "min_subsets": {n: self.of_subsets(n)[1] for n in names},
            "emm": {n: self.emm(n) for n in names},
            "rmm": {n: self.rmm(n) for n in names},
            "nm": {n: self.nm(n) for n in names},
            "corruptions": {n: self._plain_faults(n) for n in names},
            "retained": {n: self.retained(n) for n in names},
        }
        return {key: _rounded(value) for key, value in found.items()}

    def _plain_faults(self, score: str) -> dict[str, Any]:
        return {
            sensor: {
                fault: {
                    **found.levels,
                    "mean": found.mean,
                    "retained": found.retained,
                    "frames": found.frames,
                }
                for fault, found in own.items()
            }
            for sensor, own in self.faults(score).items()
        }

    def content(self) -> dict[str, Any]:
        """All of it as plain numbers and text: `scenarios`, and what they are about."""
        names = list(self.titles)
        about = {
            "bundle": self.bundle,
            "bundle_version": self.version,
            "backend": self.backend,
            "data": self.data,
            "simulated": self.simulated,
            "frames": self.frames,
            "seed": self.seed,
            "method": self.method,
            "scores": dict(self.titles),
            "sensors": list(self.plan.sensors),
            "subsets": _rounded({n: self.subsets(n) for n in names}),
            "rmm_expected": _rounded({n: self.rmm_expected(n) for n in names}),
            "not_measured": dict(self.plan.lacking),
            "classes_not_known": list(self.lacking),
        }
        if not self.plan.scenarios:
            about = {k: v for k, v in about.items() if k not in ("subsets", "rmm_expected")}
        found = {**about, **(self.scenarios() if self.plan.scenarios else {})}
        return {**found, "space": _rounded(self._plain_space())} if self.plan.space else found

    def _at(self, score: str, *key: object) -> float | None:
        row = self.rows.get(key)
        return None if row is None else row.scores.get(score)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(found) for name, found in value.items()}
    if isinstance(value, list):
        return [_rounded(found) for found in value]
    return round(value, DIGITS) if isinstance(value, float) else value
