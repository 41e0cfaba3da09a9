"""What a stream leaves out when its results come too late, and when it takes that up again.

A result's latency is the time from the arrival of its newest sample to the moment when it is handed on.
Where that is more than the deadline for a while, something is left out, one step after the other:

1. a sensor, then another, so that a cheaper subset is computed; the policy's required ones stay;
2. optional outputs, which may be asked for but are not what the robot drives by;
3. frames: where several wait, the oldest are let go.

Each step is taken back, the last first, once results have come early for long enough; where it has to
be taken again soon after, that takes longer the next time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from perception.errors import ConfigError
from perception.frame import check_name
from perception.runtime.policy import Policy

_FORGIVEN = 0.2
"""What a result in time makes up for, of one that was late."""

_LONGEST = 16
"""How many times as long as usual a step that keeps coming back is held, at most."""

_SAVES = 0.9
"""A cheaper subset costs no more than this share of the one before."""

Step = Literal["down", "up"]


@dataclass(frozen=True)
class LatePolicy:
    """When results are late, and what may be left out then.

    Attributes:
        deadline_s: longest time from the arrival of the newest sample to the result.
        after: so many late results are borne before something is left out; a result in time makes up
            for a fifth of one, and one later than twice the deadline counts for all.  One later than
            four times the deadline is worth two steps, eight times three, and so on.
        recover_after: so many early results in a row before the last step is taken back.
        margin: a result is early that took no longer than this share of the deadline, or less where
            the sensor that was left out last would cost more.
        keep: sensors that are never left out for want of time, beside the policy's required ones.
        optional: parts of results that may be left out; None: those that are computed on request only.

    Raises:
        ConfigError: a value that makes no sense.
    """

    deadline_s: float
    after: int = 3
    recover_after: int = 50
    margin: float = 0.6
    keep: tuple[str, ...] = ()
    optional: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.deadline_s < float("inf"):  # nor NaN
            raise ConfigError(f"{self.deadline_s!r} s is no deadline", where="deadline_s")
        if self.after < 1 or self.recover_after < 1:
            raise ConfigError("after and recover_after must be positive", where="late")
        if not 0 < self.margin < 1:
            raise ConfigError("margin must be in (0, 1)", where="late")
        for name in self.keep:
            check_name(name, "late.keep")

    @staticmethod
    def of(given: float | LatePolicy | None) -> LatePolicy | None:
        """Of a deadline in seconds, the default policy.

        Raises:
            ConfigError: it is no time.
        """
        if given is None or isinstance(given, LatePolicy):
            return given
        if not isinstance(given, Real):
            raise ConfigError(f"{given!r} is no number of seconds", where="deadline_s")
        return LatePolicy(float(given))


class Ladder:
    """How many steps are taken, from latencies alone.

    Args:
        policy: when to take one.
        top: how many there are.

    Attributes:
        level: how many are taken.
    """

    def __init__(self, policy: LatePolicy, top: int) -> None:
        self.policy, self.top, self.level = policy, top, 0
        self._late = 0.0
        self._early = 0
        self._since_up: int | None = None  # results since a step was taken back, if one was
        self._hold = 1  # how many times as long the next step is held

    def note(self, latency_s: float, saves: float = 0.0) -> Step | None:
        """Note a result's latency.

        Args:
            latency_s: it.
            saves: the share of its work that the last step spares: results are early only if they
                would be in time with that work, too.

        Returns:
            Whether steps were taken (`down`) or the last was taken back (`up`).
        """
        policy = self.policy
        margin = min(policy.margin, 1.0 - saves)
        if self._since_up is not None:
            self._since_up += 1
        if latency_s > policy.deadline_s:
            self._early = 0
            self._late += policy.after if latency_s > 2 * policy.deadline_s else 1
            if self._late >= policy.after:
                return self._down(int(math.log2(min(latency_s / policy.deadline_s, 1e6))))
            return None
        self._late = max(0.0, self._late - _FORGIVEN)
        self._early = self._early + 1 if latency_s <= margin * policy.deadline_s else 0
        if self.level and self._early >= policy.recover_after * self._hold:
            self.level -= 1
            self._early = self._since_up = 0
            return "up"
        return None

    def _down(self, steps: int) -> Step | None:
        self._late = 0.0
        if self.level >= self.top:
            return None
        soon = self.policy.after + self.policy.recover_after
        if self._since_up is not None and self._since_up <= soon:
            self._hold = min(_LONGEST, 2 * self._hold)
        elif self.level == 0:
            self._hold = 1
        self.level = min(self.top, self.level + max(1, steps))
        return "down"


def shedding_order(
    sensors: Collection[str],
    policy: Policy,
    keep: Collection[str],
    costs: Mapping[str, float],
    reference: str | None = None,
    scores: Mapping[frozenset[str], float] | None = None,
) -> tuple[str, ...]:
    """Which sensors are left out, one after the other.

    Of the subsets with one sensor less that cost at most nine tenths, the one with the best known score
    is taken; where one of them has none, the cheapest, and that in other pixels only where nothing else
    is left.

    Args:
        sensors: those that take part, in order.
        policy: what must stay for an output.
        keep: those that must stay besides.
        costs: milliseconds by sensor.
        reference: the one in whose pixels results are.
        scores: by subset, how good results of it are.
    """
    left, order = list(sensors), list[str]()
    while True:
        total = sum(costs.get(s, 0.0) for s in left)
        may = [
            s
            for s in left
            if s not in keep
            and len(left) > 1
            and policy.enough([o for o in left if o != s])
            and total - costs.get(s, 0.0) <= _SAVES * total
        ]
        if not may:
            return tuple(order)
        known = scores or {}
        rest = {s: frozenset(o for o in left if o != s) for s in may}
        if all(subset in known for subset in rest.values()):
            chosen = max(may, key=lambda s: known[rest[s]])
        else:
            chosen = max(may, key=lambda s: (s != reference, costs.get(s, 0.0)))
        order.append(chosen)
        left.remove(chosen)
