"""Delivery faults: what happens to messages on their way, whatever is in them.

Nothing here has a clock or a thread: times are arguments, and what is random follows from the seed and the
number of the message alone, so that a run can be repeated.
"""

from __future__ import annotations

import heapq
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from perception.errors import ConfigError, names_hint
from perception.sensors.faults import Severity, always

T = TypeVar("T")

_DISTRIBUTED = "REP 105 and tf2 take stamps as true; amounts from networks and drivers in the field"
_SKEW = "0 to 300 ms, as sensors without hardware synchronization have"

DELIVERY: dict[str, Severity] = {
    "lost": always("nothing comes"),
    "drop": Severity(
        (0.1, 0.25, 0.5, 0.75, 0.9),
        "share of messages",
        "messages do not come",
        "best-effort transport over a bad link",
    ),
    "delay": Severity(
        (0.03, 0.06, 0.1, 0.2, 0.3), "s", "messages come later, their stamps are right", _SKEW
    ),
    "jitter": Severity(
        (0.03, 0.06, 0.1, 0.2, 0.3),
        "s, at most",
        "each message comes later by a time of its own, perhaps after the next",
        _SKEW,
    ),
    "burst": Severity(
        (0.2, 0.5, 1.0, 2.0, 4.0),
        "s",
        "messages are held up and come all at once, each time after so long",
        "a stalled network or writer",
    ),
    "reorder": Severity(
        (0.05, 0.1, 0.2, 0.35, 0.5),
        "share of messages",
        "messages come right after the one that follows them",
        "several paths or threads",
    ),
    "duplicate": Severity(
        (0.05, 0.1, 0.2, 0.35, 0.5),
        "share of messages",
        "messages come twice",
        "repeated sending, bags that are merged",
    ),
    "frozen": always("the last content comes again and again, with new stamps"),
    "stamp_offset": Severity(
        (0.03, 0.06, 0.1, 0.2, 0.3), "s", "stamps are later than the measurement", _SKEW
    ),
    "stamp_noise": Severity(
        (0.002, 0.005, 0.01, 0.02, 0.05),
        "s, standard deviation",
        "stamps are off by a time of their own each",
        "stamps by a user-space driver under load",
    ),
    "clock_drift": Severity(
        (2e-5, 1e-4, 1e-3, 5e-3, 2e-2),
        "s per s",
        "the sensor's clock runs fast from the fault's beginning on",
        "20 ppm: data sheets of quartz oscillators; more: clocks of failing synchronization",
    ),
    "clock_jump": Severity(
        (0.1, 0.5, 2.0, 60.0, 3600.0),
        "s",
        "the sensor's clock is set, and runs on from there",
        "steps of NTP and PTP; 3600: a wrong time zone",
    ),
}
"""By name, how much of each there is at each severity."""

_LONGEST_HELD_NS = 1_000_000_000
"""A message that waits to come after the next one waits no longer."""
_LONGEST_S = 1e6
_FARTHEST_S = 1e10  # of clocks: beyond those that begin in 1970


@dataclass(frozen=True)
class Active:
    """A delivery fault that a message meets.

    Attributes:
        fault: a key of `DELIVERY`.
        amount: in the unit of its severity; for stamps and clocks it may be negative.
        since_ns: when the fault began.

    Raises:
        ConfigError: no such fault, or the amount makes no sense.
    """

    fault: str
    amount: float
    since_ns: int = 0

    def __post_init__(self) -> None:
        if self.fault not in DELIVERY:
            raise ConfigError(
                f"unknown delivery fault '{self.fault[:40]}'", hint=names_hint(self.fault, DELIVERY)
            )
        check_amount(self.fault, self.amount)


def check_amount(fault: str, amount: float) -> None:
    """Refuse an amount that a delivery fault cannot have.

    Raises:
        ConfigError: it is one.
    """
    unit = DELIVERY[fault].unit
    low, high = (0.0, 1.0) if unit.startswith("share") else (0.0, _LONGEST_S)
    if fault.startswith(("stamp", "clock")) and fault != "stamp_noise":
        low, high = -_FARTHEST_S, _FARTHEST_S
    if not (math.isfinite(amount) and low <= amount <= high):
        raise ConfigError(f"amount {amount} is not within {low:g} to {high:g} {unit}", where=fault)


@dataclass(frozen=True, order=True)
class Delivered(Generic[T]):
    """A message as it comes out.

    Attributes:
        arrived_ns: when it comes.
        order: of those that come at one time.
        payload: what is in it.
        stamp_ns: its stamp; None where it has none.
    """

    arrived_ns: int
    order: int
    payload: T
    stamp_ns: int | None


class Channel(Generic[T]):
    """The way of one sensor's messages: they are pushed as they are sent, and polled as they come.

    Args:
        seed: of what is random; the same messages with the same faults then fare the same.
    """

    def __init__(self, seed: int | tuple[int, ...] = 0) -> None:
        self._seed = seed if isinstance(seed, tuple) else (seed,)
        self._count = 0
        self._order = 0
        self._waiting: list[tuple[int, int, Delivered[T]]] = []
        self._held: list[Delivered[T]] = []
        self._last: T | None = None

    def push(
        self, payload: T, stamp_ns: int | None, now_ns: int, faults: Iterable[Active] = ()
    ) -> None:
        """A message is sent at `now_ns`, and meets these faults."""
        number, self._count = self._count, self._count + 1
        met = {active.fault: active for active in faults}
        if "frozen" in met and self._last is not None:
            payload = self._last
        self._last = payload
        held, self._held, follows = self._held, [], now_ns
        if not self._gone(met, number):
            stamp = self._stamped(met, number, stamp_ns, now_ns)
            arrives = follows = self._arrival(met, number, now_ns)
            if self._happens("reorder", met, number):
                self._held.append(Delivered(arrives, self._next(), payload, stamp))
            else:
                self._send(payload, stamp, arrives)
                if self._happens("duplicate", met, number):
                    self._send(payload, stamp, arrives)
        for late in held:
            self._send(late.payload, late.stamp_ns, max(late.arrived_ns, follows))

    def poll(self, now_ns: int) -> list[Delivered[T]]:
        """What has come by `now_ns` and was not polled before, in the order in which it came."""
        for late in [d for d in self._held if d.arrived_ns + _LONGEST_HELD_NS <= now_ns]:
            self._held.remove(late)
            self._send(late.payload, late.stamp_ns, late.arrived_ns + _LONGEST_HELD_NS)
        found = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def next_ns(self) -> int | None:
        """When something comes next, if nothing more is pushed; None: nothing waits."""
        first = self._waiting[0][0] if self._waiting else None
        if not self._held:
            return first
        late = min(d.arrived_ns + _LONGEST_HELD_NS for d in self._held)
        return late if first is None else min(first, late)

    def _send(self, payload: T, stamp_ns: int | None, arrives_ns: int) -> None:
        message = Delivered(arrives_ns, self._next(), payload, stamp_ns)
        heapq.heappush(self._waiting, (arrives_ns, message.order, message))

    def _next(self) -> int:
        self._order += 1
        return self._order

    def _rng(self, fault: str, number: int) -> np.random.Generator:
        """A message's own: what it draws does not depend on when other faults are there."""
        return np.random.default_rng((*self._seed, zlib.crc32(fault.encode()), number))

    def _happens(self, fault: str, met: dict[str, Active], number: int) -> bool:
        return fault in met and self._rng(fault, number).random() < met[fault].amount

    def _gone(self, met: dict[str, Active], number: int) -> bool:
        return "lost" in met or self._happens("drop", met, number)

    def _arrival(self, met: dict[str, Active], number: int, now_ns: int) -> int:
        later = met["delay"].amount if "delay" in met else 0.0
        if "jitter" in met:
            later += self._rng("jitter", number).random() * met["jitter"].amount
        arrives = now_ns + round(later * 1e9)
        if "burst" in met:
            period, since = round(met["burst"].amount * 1e9), met["burst"].since_ns
            arrives = since - (since - arrives) // period * period if period > 0 else arrives
        return arrives

    def _stamped(
        self, met: dict[str, Active], number: int, stamp_ns: int | None, now_ns: int
    ) -> int | None:
        if stamp_ns is None:
            return None
        off = sum(met[name].amount for name in ("stamp_offset", "clock_jump") if name in met)
        if "stamp_noise" in met:
            off += self._rng("stamp_noise", number).standard_normal() * met["stamp_noise"].amount
        if "clock_drift" in met:
            off += met["clock_drift"].amount * (now_ns - met["clock_drift"].since_ns) / 1e9
        return stamp_ns + round(off * 1e9)
