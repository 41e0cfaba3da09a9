"""What a pipeline is given when its robustness is measured: which sensors, and what is wrong with each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from perception.corruptions import DELIVERY, faults_of, scenario_fault, severity_of
from perception.corruptions.content import SHARED
from perception.errors import ConfigError, names_hint
from perception.frame import Kind
from perception.metrics.robustness import intact_sets
from perception.sensors.faults import SEVERITIES, check_severity

PROBABILITIES = (0.05, 0.1, 0.2)
"""Of the failure of each sensor, for expected scores."""

MISSING_SHARES = (0.1, 0.3, 0.5)
"""Of the data of a damaged sensor, where part of it is missing at random."""

NOISE_LEVELS: Mapping[str, int] = {"low": 1, "mid": 3, "high": 5}
"""Names of the levels of noise, and the severities that they are."""

MOST_SENSORS = 6
"""With more of them not every set of failing sensors is tried: 63 sets are enough."""

FROZEN = "frozen"
SKEWED = "time_skew"
FROZEN_AGES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""By severity, for how long a frozen sensor's content has not changed."""

ALWAYS = "always"
"""Stands for the severity of a fault that is there or is not."""


@dataclass(frozen=True)
class Damage:
    """What is wrong with a sensor.

    Attributes:
        fault: a content fault of its kind, `time_skew` or `frozen`.
        severity: 1 to 5.
    """

    fault: str
    severity: int

    @property
    def age_s(self) -> float | None:
        """How old the content is; None of a fault that is not about time."""
        if self.fault == FROZEN:
            return FROZEN_AGES_S[self.severity - 1]
        return SHARED[SKEWED].severity.at(self.severity) if self.fault == SKEWED else None


BEAMS, VIEW, LATE = "beams", "view", "late"
"""What a `Failure` can be."""


@dataclass(frozen=True)
class Failure:
    """What is wrong with a sensor round a vehicle, by an amount; see `evaluation.space`.

    Attributes:
        what: `BEAMS`, so many are left; `VIEW`, only so many degrees to each side are; `LATE`, what was
            measured so many seconds before, with the stamp of then.
        amount: in that unit.
        odometry: whether the pipeline knows how the vehicle moved since.
    """

    what: str
    amount: float
    odometry: bool = False


Harm = Damage | Failure
Given = Mapping[str, Harm | None]
"""By sensor that is there, what is wrong with it; None for nothing."""

FULL = ("space", "full")
"""The key of all sensors in order, in the table of failures of bundles that find boxes in space."""


@dataclass(frozen=True)
class SpaceRow:
    """A row of the table.

    Attributes:
        group: `full`, `missing`, `beams`, `view`, `calibration` or `late`.
        name: for people.
        key: of `Plan.given`.
        amount: beams, degrees or seconds; None for none.
        odometry: of a late sensor, whether the pipeline knows how the vehicle moves.
        kinds_missing: all LiDARs, or all cameras, are missing.
    """

    group: str
    name: str
    key: tuple[object, ...]
    amount: float | None = None
    odometry: bool = False
    kinds_missing: bool = False


@dataclass
class Told:
    """How clouds of failing sensors came to be.

    Attributes:
        beams: by sensor, how many beams it has, how many degrees they are apart, and whether they are its own
            (`regular`), not bands of elevation that stand for them.
        moved_m: by seconds, how far the vehicle went in that time, frame by frame.
        made: by seconds, in how many frames points were moved, as none had been recorded then.
    """

    beams: dict[str, dict[str, float | bool]] = field(default_factory=dict)
    moved_m: dict[float, list[float]] = field(default_factory=dict)
    made: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All that is tried.

    Attributes:
        sensors: all of them.
        subsets: those that are judged; the first has all sensors.
        given: by a key of its own, what is given: `("subset", sensors)`, `("missing", share, intact)`,
            `("noise", level)`, and `("fault", sensor, fault, level)`, the level being a severity or `ALWAYS`;
            of `space` those of its rows.
        lacking: by sensor and fault, or by scenario, why something cannot be tried.
        scenarios: whether there is more than `space` and the subset of all sensors.
        space: rows of the table of bundles that find boxes in space, that of all sensors first.
    """

    sensors: tuple[str, ...]
    subsets: tuple[tuple[str, ...], ...]
    given: Mapping[tuple[object, ...], Given]
    lacking: dict[str, str] = field(default_factory=dict)
    scenarios: bool = True
    space: tuple[SpaceRow, ...] = ()

    @property
    def faults(self) -> dict[str, dict[str, list[str]]]:
        """By sensor and fault, the levels that are tried."""
        found: dict[str, dict[str, list[str]]] = {}
        for key in self.given:
            if key[0] == "fault":
                _, sensor, fault, level = map(str, key)
                found.setdefault(sensor, {}).setdefault(fault, []).append(level)
        return found


def known_faults(kinds: Mapping[str, Kind]) -> dict[str, tuple[str, ...]]:
    """By sensor, the faults that can be tried on it: those of content, and that its content is frozen."""
    return {name: (*faults_of(kind), FROZEN) for name, kind in kinds.items()}


def make_plan(
    kinds: Mapping[str, Kind],
    subsets: Sequence[tuple[str, ...]],
    *,
    corruptions: Collection[str] | None = None,
    severities: Collection[int] = SEVERITIES,
) -> Plan:
    """What is to be tried on sensors.

    Args:
        kinds: of all sensors, by name.
        subsets: those that are judged, the one of all sensors first.
        corruptions: names of faults; None for all that these sensors can have, but for the one that stands
            for missing data, which has a scenario of its own.
        severities: of them.

    Raises:
        ConfigError: a fault is none of these sensors', or a severity none of 1 to 5.
    """
    known = known_faults(kinds)
    wanted = _wanted(known, corruptions)
    for severity in severities:
        check_severity(severity, "severities")
    sensors = tuple(kinds)
    given: dict[tuple[object, ...], Given] = {}
    lacking: dict[str, str] = {}
    for subset in subsets:
        given["subset", frozenset(subset)] = dict.fromkeys(subset)
    if len(sensors) > MOST_SENSORS:
        lacking["emm"] = lacking["rmm"] = f"there are more than {MOST_SENSORS} sensors"
    elif len(sensors) < 2:
        lacking["emm"] = lacking["rmm"] = "there is one sensor only"
    else:
        for intact in intact_sets(sensors):
            given.setdefault(("subset", intact), {s: None for s in sensors if s in intact})
        _add_missing(given, lacking, kinds)
    _add_noise(given, lacking, kinds)
    for sensor, kind in kinds.items():
        for fault in known[sensor]:
            standing = scenario_fault(kind, "missing") == fault and corruptions is None
            if fault in wanted and not standing:
                _add_fault(given, kinds, sensor, fault, severities)
    return Plan(sensors, tuple(subsets), given, lacking)


def _wanted(known: Mapping[str, tuple[str, ...]], asked: Collection[str] | None) -> Collection[str]:
    every = list(dict.fromkeys(fault for own in known.values() for fault in own))
    for fault in asked or ():
        if fault not in every:
            what = f"'{str(fault)[:40]}' is no fault of these sensors"
            if fault in DELIVERY:
                what = f"'{fault}' befalls messages on their way, of which recordings say nothing"
            raise ConfigError(what, where="corruptions", hint=names_hint(fault, every))
    return every if asked is None else set(asked)


def _add_missing(
    given: dict[tuple[object, ...], Given], lacking: dict[str, str], kinds: Mapping[str, Kind]
) -> None:
    found = {name: _shares(kind) for name, kind in kinds.items()}
    without = [name for name, shares in found.items() if not set(MISSING_SHARES) <= set(shares)]
    if without:
        lacking["rmm"] = f"no fault of {', '.join(without)} takes a share of the data away"
        return
    for share in MISSING_SHARES:
        for intact in intact_sets(tuple(kinds)):
            if len(intact) < len(kinds):
                given["missing", share, intact] = {
                    name: None if name in intact else found[name][share] for name in kinds
                }


def _shares(kind: Kind) -> dict[float, Damage]:
    """By share of the data, the damage that takes it away."""
    fault = scenario_fault(kind, "missing")
    severity = None if fault is None else severity_of(kind, fault)
    if fault is None or severity is None:
        return {}
    return {severity.at(level): Damage(fault, level) for level in SEVERITIES}


def _add_noise(
    given: dict[tuple[object, ...], Given], lacking: dict[str, str], kinds: Mapping[str, Kind]
) -> None:
    found = {name: scenario_fault(kind, "noise") for name, kind in kinds.items()}
    named = {name: fault for name, fault in found.items() if fault is not None}
    if len(named) < len(found):
        without = ", ".join(name for name in found if name not in named)
        lacking["nm"] = f"no fault of {without} is its noise"
        return
    for level, severity in NOISE_LEVELS.items():
        given["noise", level] = {name: Damage(fault, severity) for name, fault in named.items()}


def _add_fault(
    given: dict[tuple[object, ...], Given],
    kinds: Mapping[str, Kind],
    sensor: str,
    fault: str,
    severities: Collection[int],
) -> None:
    own = None if fault == FROZEN else severity_of(kinds[sensor], fault)
    graded = own is None or len(set(own.amounts)) > 1
    levels = {str(s): s for s in sorted(set(severities))} if graded else {ALWAYS: SEVERITIES[-1]}
    for level, severity in levels.items():
        damaged = dict[str, Harm | None](dict.fromkeys(kinds))
        damaged[sensor] = Damage(fault, severity)
        given["fault", sensor, fault, level] = damaged
