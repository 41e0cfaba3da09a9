"""Plane curves of straight pieces and arcs, and what moves along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_STRAIGHT = 1e-9  # curvatures below this are none


@dataclass(frozen=True)
class Place:
    """A point of a curve in the world: metres, radians, and the curvature to the left in 1/m."""

    x: float
    y: float
    heading: float
    curvature: float

    def beside(self, left: float) -> tuple[float, float]:
        """The point so many metres to the left."""
        return (
            self.x - left * float(np.sin(self.heading)),
            self.y + left * float(np.cos(self.heading)),
        )


class Path:
    """A curve by arc length, which goes on straight before its start and behind its end.

    Args:
        start: x, y in metres and heading in radians where the first piece starts.
        pieces: length in metres and curvature to the left in 1/m of each piece.
        begin: arc length at the start, metres.
    """

    def __init__(
        self,
        start: tuple[float, float, float],
        pieces: Sequence[tuple[float, float]] = (),
        begin: float = 0.0,
    ) -> None:
        place, s = Place(*start, 0.0), begin
        self._begin, self._pieces = begin, [(s, place)]
        for length, curvature in (*pieces, (0.0, 0.0)):
            begins = Place(place.x, place.y, place.heading, curvature)
            self._pieces.append((s, begins))
            place, s = _along(begins, length), s + length
        self._end = s

    def at(self, s: float) -> Place:
        """The place at an arc length in metres."""
        start, begins = next((p for p in reversed(self._pieces) if p[0] <= s), self._pieces[0])
        return _along(begins, s - start)

    @cached_property
    def _samples(self) -> Float64:
        steps = np.arange(self._begin - 150.0, self._end + 150.0, 2.0)
        return np.array([(p.x, p.y) for p in map(self.at, steps)])

    def distance(self, points: Float64) -> Float64:
        """About how far points (N, 2) are from the curve, (N,) metres, within 0.1 m beyond 4 m."""
        gaps = np.atleast_2d(points)[:, None] - self._samples
        return np.asarray(np.sqrt((gaps**2).sum(axis=2).min(axis=1)))


def _along(begins: Place, length: float) -> Place:
    k, h = begins.curvature, begins.heading
    if abs(k) < _STRAIGHT:
        return Place(
            begins.x + length * float(np.cos(h)), begins.y + length * float(np.sin(h)), h, k
        )
    end = h + k * length
    x = begins.x + float(np.sin(end) - np.sin(h)) / k
    y = begins.y - float(np.cos(end) - np.cos(h)) / k
    return Place(x, y, end, k)


@dataclass(frozen=True)
class Motion:
    """How something moves beside a curve: position, heading and velocity at any time.

    Attributes:
        path: the curve.
        start: arc length at time 0, metres.
        left: metres to the left of the curve.
        speed: of its own at time 0, metres per second along the curve; negative against it.
        acceleration: metres per second squared; what slows down stops, and does not turn back.
        turned: heading relative to the direction of motion, radians.
    """

    path: Path
    start: float
    left: float = 0.0
    speed: float = 0.0
    acceleration: float = 0.0
    turned: float = 0.0

    def _travelled(self, seconds: float) -> tuple[float, float]:
        """Metres of its own way since time 0, and the speed then."""
        speed, a = self.speed, self.acceleration
        if speed * a < 0 and seconds > -speed / a:
            seconds = -speed / a
        elif speed == 0:
            return 0.0, 0.0
        return speed * seconds + a * seconds**2 / 2, speed + a * seconds

    def at(self, seconds: float) -> tuple[Place, tuple[float, float]]:
        """Where it is, its heading as that of the place, and its velocity in the world, m/s."""
        own, speed = self._travelled(seconds)
        # Beside an arc the way is longer or shorter than the arc itself; pieces are long, so that
        # the curvature where it starts is taken for the whole way.
        along = own / (1 - self.left * self.path.at(self.start).curvature)
        place = self.path.at(self.start + along)
        speed *= (1 - self.left * place.curvature) / (
            1 - self.left * self.path.at(self.start).curvature
        )
        x, y = place.beside(self.left)
        velocity = (speed * float(np.cos(place.heading)), speed * float(np.sin(place.heading)))
        back = np.pi if self.speed < 0 else 0.0
        return Place(x, y, place.heading + back + self.turned, place.curvature), velocity
