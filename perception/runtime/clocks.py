"""Which sensors' stamps can be believed: each is compared with the time at which it arrived.

A measurement is stamped before its message arrives, so a stamp lies a little behind the receiver's
clock, by the time that delivery takes, and never ahead of it.  Sensors whose stamps fit the receiver's
clock are the reference.  Where none does (a recording that is played, a robot with a time of its own),
those are that agree with each other, the most of them, and of equally many those nearer to the clock.
A sensor that does not fit the reference has a clock that is off: in a group its samples would be
taken for the newest or the oldest, and turn away the samples of sensors that are right.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from perception.frame import in_order

_KEPT = 3
_CALENDAR_NS = 100_000_000_000_000_000
"""Stamps below (3 years) count from some start, above from 1970."""


@dataclass
class _Track:
    """A sensor's last leads: its stamps less the receiver's clock at their arrival."""

    # Each with the number of its stamp, counted over all sensors.  Replaced as a whole: another
    # thread may be reading.
    leads: tuple[tuple[int, int], ...] = ()
    stamp_ns: int = 0
    clock_ns: int = 0
    strays: int = 0  # last leads in a row that were far from those before
    strayed: int = 0  # number of the first of them
    usual: tuple[int, int] = (0, 0)  # typical lead and spread without them

    @property
    def typical_ns(self) -> int:
        """The lead without regard to a single stray one."""
        leads = [lead for _, lead in self.leads]
        return leads[0] if len(leads) == 2 else sorted(leads)[len(leads) // 2]

    @property
    def spread_ns(self) -> int:
        """How far the last leads lie apart: much where a recording is played fast."""
        leads = [lead for _, lead in self.leads]
        return max(leads) - min(leads)

    def forget_before(self, number: int) -> bool:
        """Keep the leads from a number on; whether there are any."""
        self.leads = tuple(n for n in self.leads if n[0] >= number)
        return bool(self.leads)


class SensorClocks:
    """Judges every stamp by the receiver's clock and the other sensors.  Not thread-safe.

    Args:
        max_lead_ns: how far stamps may lie ahead of the clock, for clocks that are synchronized over
            a network; a sensor that was left out must come to half of it.
        max_lag_ns: how far they may lie behind: longer, no delivery takes.
        max_skew_ns: reject any stamp further from the clock than this, even if all sensors agree;
            None does not.

    Attributes:
        out: the sensors that are left out.
        base_ns: what the sensors' clock is ahead of the receiver's, as far as it is known.
    """

    def __init__(
        self,
        max_lead_ns: int = 50_000_000,
        max_lag_ns: int = 1_000_000_000,
        max_skew_ns: int | None = None,
    ) -> None:
        self.max_lead_ns, self.max_lag_ns, self.max_skew_ns = max_lead_ns, max_lag_ns, max_skew_ns
        self.out: set[str] = set()
        self.base_ns = 0
        self._agreed: tuple[str, ...] = ()  # the reference where it is not the clock
        self._tracks: dict[str, _Track] = {}
        self._undated: set[str] = set()
        self._count = 0

    def fits(self, sensor: str, stamp_ns: int, clock_ns: int, alive: Collection[str]) -> bool:
        """Note a stamp, and say whether it can be believed.

        Args:
            sensor: the sensor.
            stamp_ns: its sample's stamp, with the sensor's known offset.
            clock_ns: the receiver's clock at arrival.
            alive: sensors that speak at present, or are yet to speak; what others said before does
                not count.
        """
        lead = stamp_ns - clock_ns
        track = self._note(sensor, stamp_ns, clock_ns)
        allowed = self.max_lag_ns + track.usual[1]
        self._find_reference({*alive, sensor})
        typical = track.typical_ns
        if self._agreed:
            fits = abs(lead - self.base_ns) <= allowed
            if lead > self.max_lead_ns and not set(alive) <= {*self._tracks, *self._undated}:
                fits = False  # until all have spoken: the next may show that this one is ahead
            # The tracks of the others may be older than a jump that all of them make.
            out = sensor not in self._agreed and abs(typical - self.base_ns) > allowed
        else:
            ahead = self.max_lead_ns // (2 if sensor in self.out else 1)
            fits = -self.max_lag_ns <= lead <= ahead
            out = not -self.max_lag_ns <= typical <= ahead
        if self.max_skew_ns is not None:
            fits = fits and abs(lead) <= self.max_skew_ns
            out = out or abs(typical) > self.max_skew_ns
        self.out.add(sensor) if out else self.out.discard(sensor)
        return fits

    def skip(self, sensor: str) -> None:
        """Note that a sensor speaks without stamps, so that nothing is known about its clock."""
        self._undated.add(sensor)
        self._tracks.pop(sensor, None)
        self.out.discard(sensor)

    def line(self, sensor: str) -> str:
        """What is wrong with a sensor's clock, in words; empty when it is right or nobody knows."""
        track = self._tracks.get(sensor)
        if track is None or not track.leads:
            return ""
        out, typical = sensor in self.out, track.typical_ns
        against = "this computer's clock"
        if out and self._agreed:
            typical -= self.base_ns
            against = f"those of {' and '.join(self._agreed)}"
        elif -self.max_lag_ns <= typical <= self.max_lead_ns and not out:
            return ""
        left_out = "; left out" if out else ""
        if track.stamp_ns < _CALENDAR_NS <= track.clock_ns:
            since = f"{seconds(abs(track.stamp_ns))} ago" if track.stamp_ns > 0 else "just now"
            return f"{sensor}: stamps count from a start {since}, not from 1970{left_out}"
        if track.clock_ns < _CALENDAR_NS <= track.stamp_ns:
            return f"{sensor}: stamps count from 1970, this node's clock is simulated{left_out}"
        if typical < 0 and not out:
            return ""  # as those of a recording do, and all agree
        far = f"{seconds(abs(typical))} {'ahead of' if typical > 0 else 'behind'}"
        return f"{sensor}: stamps are {far} {against}{left_out}"

    def offset_ns(self, sensor: str) -> int | None:
        """By how much a sensor's stamps lie ahead of the receiver's clock when they arrive."""
        track = self._tracks.get(sensor)
        return None if track is None else track.typical_ns

    def reset(self) -> None:
        """Forget everything."""
        self._tracks.clear()
        self._undated.clear()
        self.out.clear()
        self._agreed, self.base_ns = (), 0

    def _note(self, sensor: str, stamp_ns: int, clock_ns: int) -> _Track:
        self._count += 1
        self._undated.discard(sensor)
        track = self._tracks.setdefault(sensor, _Track())
        lead = stamp_ns - clock_ns
        if track.leads and not track.strays:
            track.usual = track.typical_ns, track.spread_ns
        if track.leads and abs(lead - track.usual[0]) > self.max_lag_ns + track.usual[1]:
            track.strayed = track.strayed if track.strays else self._count
            track.strays += 1
        else:
            track.strays = 0
        track.leads = (*track.leads, (self._count, lead))[-_KEPT:]
        track.stamp_ns, track.clock_ns = stamp_ns, clock_ns
        if track.strays >= 2 and sensor in self._agreed:
            # A recording that was wound: what sensors said before that no longer tells anything.
            tracks = self._tracks.items()
            self._tracks = {m: t for m, t in tracks if t.forget_before(track.strayed)}
            track.strays = 0
        return track

    def _find_reference(self, alive: Collection[str]) -> None:
        tracks = {m: self._tracks[m] for m in in_order(sorted(alive)) if m in self._tracks}
        leads = {m: t.typical_ns for m, t in tracks.items()}
        if any(-self.max_lag_ns <= lead <= self.max_lead_ns for lead in leads.values()):
            self.base_ns, self._agreed = 0, ()
            return
        best: tuple[int, int] | None = None
        for lead in leads.values():
            reach = self.max_lag_ns + max(t.spread_ns for t in tracks.values())
            members = tuple(m for m, other in leads.items() if 0 <= lead - other <= reach)
            rank = (len(members), -abs(lead))
            if best is None or rank > best:
                best, self.base_ns, self._agreed = rank, lead, members


class OutputStamps:
    """The stamps of what is given: those of outputs, and the present time where there is no output.

    Attributes:
        last_ns: the last output's stamp; None when there was none in this epoch.
        ahead_ns: the receiver's clock less the caller's, as far as it is known.
    """

    def __init__(self) -> None:
        self.last_ns: int | None = None
        self.ahead_ns = 0
        self._given_ns = 0  # when the last output was given
        self._told_ns: int | None = None  # the last stamp, of an output or not

    def anew(self) -> OutputStamps:
        """Those of a new epoch, after a jump of the sensors' clock."""
        fresh = OutputStamps()
        fresh.ahead_ns = self.ahead_ns
        return fresh

    def note(self, stamp_ns: int, now_ns: int) -> int:
        """An output with this stamp, which is returned, is given now on the caller's clock."""
        self.last_ns, self._given_ns = stamp_ns, now_ns
        self._told_ns = stamp_ns if self._told_ns is None else max(stamp_ns, self._told_ns)
        return stamp_ns

    def passed(self, stamp_ns: int, jump_ns: int) -> bool:
        """Whether an output with this stamp would be no newer than the last one.

        Further back than `jump_ns` is another clock: one that stays behind must not silence the output
        for good.
        """
        return self.last_ns is not None and 0 <= self.last_ns - stamp_ns <= jump_ns

    def present_ns(self, now_ns: int, base_ns: int) -> int:
        """The present time on the sensors' clock, as an output that is given now would bear it.

        Args:
            now_ns: the present time on the caller's clock.
            base_ns: what the sensors' clock is ahead of the receiver's.

        Returns:
            The last output's stamp and the time since, before the first the receiver's clock; later
            than all stamps before it.
        """
        if self.last_ns is not None:
            stamp = self.last_ns + now_ns - self._given_ns
        else:
            stamp = now_ns + self.ahead_ns + base_ns
        if self._told_ns is not None:
            stamp = max(stamp, self._told_ns + 1)
        # Odd, as stamps of a simulated clock are not: an output that follows may be as old as this,
        # and must not bear the same stamp.
        self._told_ns = stamp | 1
        return self._told_ns


def seconds(ns: int) -> str:
    """A time in words, so rough that it stays the same while it wavers."""
    value = ns / 1e9
    if value >= 10:
        return f"{value:.0f} s"
    if value >= 0.95:
        return f"{value:.1f} s"
    step = 100 if value >= 0.2 else 10
    return f"{max(1, round(value * 1e3 / step)) * step} ms"
