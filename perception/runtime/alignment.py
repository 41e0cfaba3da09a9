"""Which sensors' pictures are brought to the pixels of the sensor that results are given in, and how."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError
from perception.frame import Sample
from perception.geometry.lattice import Lattice
from perception.geometry.sights import Sight
from perception.geometry.views import Placement, View
from perception.preprocess.contract import InputSpec
from perception.runtime.result import SensorWarning
from perception.sensors.registry import kind_of

SAME_VIEW = 0.02
"""Largest difference of two pictures' views that pass for one where nobody says how they stand to each
other, as a share of the picture's size."""


@dataclass(frozen=True)
class Alignment:
    """What is done with sensors whose pixels are not those of the reference.

    Attributes:
        mode: `auto`: a picture with intrinsics and extrinsics that put its pixels elsewhere is warped onto
            the reference's grid; `off`: pictures are stretched over it, whatever is known of them.
        plane_m: distance from the reference, along its optical axis, at which things are taken to be
            where no depth says it; infinity for far scenes.
        depth: take distances from a depth picture of the same moment where there is one.
        tolerance_px: pixels of the grid by which a picture may be off and still pass for aligned.

    Raises:
        ConfigError: a value makes no sense.
    """

    mode: Literal["auto", "off"] = "auto"
    plane_m: float = np.inf
    depth: bool = True
    tolerance_px: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "off"):
            raise ConfigError(f"'{self.mode}' is unknown", where="alignment", hint="auto or off")
        if not self.plane_m > 0:  # nor NaN
            raise ConfigError("plane_m must be positive, inf for far scenes", where="alignment")
        if not 0 < self.tolerance_px < np.inf:
            raise ConfigError("tolerance_px must be positive and finite", where="alignment")


@dataclass(frozen=True)
class _Seen:
    """A sensor's last picture: where its pixels look, if that is known, and how large it is."""

    camera: Any
    extrinsics: Any
    size: tuple[int, int]
    sight: Sight | None


class Aligner:
    """Says how each sample lies on the grid.  Safe to use from several threads.

    Args:
        inputs: the bundle's input by sensor.
        order: the sensors, the one first in whose pixels results are given if it is there.
        config: see `Alignment`.

    Attributes:
        config: the same; may be replaced at any time.
        lead: the sensor in whose pixels the last result was; None before the first.
    """

    def __init__(
        self, inputs: Mapping[str, InputSpec], order: Sequence[str], config: Alignment
    ) -> None:
        self.config = config
        self.lead: str | None = None
        self._inputs = inputs
        self._order = tuple(s for s in order if inputs[s].sensor.has_picture)
        self._seen: dict[str, _Seen] = {}
        self._said: dict[str, str] = {}
        self._unsaid: dict[str, str] = {}
        self._near: tuple[Any, ...] = (None, None, None, None)  # of what was made last, and what
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Know nothing of any sensor, as before another recording."""
        self.lead = None
        self._seen.clear()
        self._near = (None, None, None, None)
        with self._lock:
            self._said.clear()
            self._unsaid.clear()

    def note(self, sample: Sample) -> None:
        """Take in where the pixels of a sensor's pictures look."""
        if sample.sensor not in self._order:
            return
        before = self._seen.get(sample.sensor)
        size = sample.data.shape[:2]
        same = before is not None and before.camera is sample.camera
        if same and before.extrinsics is sample.extrinsics and before.size == size:  # type: ignore[union-attr]
            return
        sight = Sight.of(sample)
        self._seen[sample.sensor] = _Seen(sample.camera, sample.extrinsics, size, sight)

    @staticmethod
    def concerns(samples: Iterable[Sample]) -> bool:
        """Whether any of these stands elsewhere than the rig's reference."""
        pictures = (s for s in samples if kind_of(s.kind).has_picture)
        return any(s.extrinsics is not None for s in pictures)

    @property
    def likely(self) -> str | None:
        """The sensor in whose pixels the next result will be, as far as can be told."""
        return self.lead or next((s for s in self._order if s in self._seen), None)

    def place(
        self, sample: Sample, reference: str | None, others: Iterable[Sample] = ()
    ) -> Placement | None:
        """How a sample lies on the grid of the reference's picture; None: as its own does.

        Args:
            sample: one that was noted.
            reference: the sensor in whose pixels the result will be.
            others: samples of the same moment, of which the first that measures distances is used.
        """
        view = self.view(sample.sensor, reference)
        if view is None or reference is None:
            return None
        ranger, near = self._range(sample, view, reference, others)
        return Placement(view, reference, near, ranger)

    def _range(
        self, sample: Sample, view: View, reference: str, others: Iterable[Sample]
    ) -> tuple[str, NDArray[np.float32] | None]:
        own = kind_of(sample.kind).distances is not None
        if not own and not self._by_range(view):
            return "", None
        measuring = (s for s in others if kind_of(s.kind).distances is not None)
        other = sample if own else next(measuring, None)
        if other is None:
            return "", None
        placed = self.view(other.sensor, reference) if other.sensor != reference else None
        return other.sensor, self._inverse(other, view.lattice, placed)

    def _by_range(self, view: View) -> bool:
        return self.config.depth and view.parallax > self.config.tolerance_px

    def _inverse(self, sample: Sample, lattice: Lattice, view: View | None) -> NDArray[np.float32]:
        """`Lattice.inverse_depth`, once for all who want that of one sample."""
        sight = None if view is None else view.source
        data, of, at, found = self._near
        if data is sample.data and of is lattice and at is sight:
            return found  # type: ignore[no-any-return]
        distances = kind_of(sample.kind).distances
        assert distances is not None
        found = lattice.inverse_depth(distances(sample), sight)
        self._near = sample.data, lattice, sight, found
        return found

    def measures(self, sensor: str) -> bool:
        """Whether a sensor's pictures hold distances."""
        return self._inputs[sensor].sensor.distances is not None

    def wants_range(self, sample: Sample) -> bool:
        """Whether depth of the same moment would say better where a sample's pixels lie."""
        if self.measures(sample.sensor) or sample.sensor not in self._order:
            return False
        view = self.view(sample.sensor, self.likely)
        return view is not None and self._by_range(view)

    def view(self, sensor: str, reference: str | None) -> View | None:
        """From the pixels of a sensor, as it was noted last, to the grid of another; None: resampled."""
        if reference is None or sensor == reference or self.config.mode == "off":
            return None
        ours, theirs = self._seen.get(sensor), self._seen.get(reference)
        if ours is None or theirs is None:
            return None
        spec, kind = self._inputs[sensor], self._inputs[reference].kind
        if spec.sensor.register is None or spec.kind == kind:  # one of several that look around
            return None
        if spec.view.birdseye is not None:  # which the network brings to the ground by itself
            return None
        at, to = ours.sight, theirs.sight
        if at is None or to is None or (at.extrinsics is None and to.extrinsics is None):
            self.say(sensor, _apart(sensor, ours, reference, theirs))
            return None
        view = spec.view.bind(at, to, self.config.plane_m)
        found: View | None = view
        line = ""
        if self._is_aligned(view) or self._is_of_another(at, to, spec, reference):
            found = None
        elif not view.sees:
            found = None
            line = f"{sensor}: looks elsewhere than {reference}, and is stretched over its picture"
        self.say(sensor, line)
        return found

    def _is_aligned(self, view: View) -> bool:
        return view.off_px <= self.config.tolerance_px

    def _is_of_another(self, at: Sight, to: Sight, spec: InputSpec, reference: str) -> bool:
        """Whether a sensor belongs to another camera of the reference's kind, by where it looks."""
        kind = self._inputs[reference].kind
        for name in self._order:
            peer = self._seen[name].sight if name in self._seen else None
            if name == reference or peer is None or self._inputs[name].kind != kind:
                continue
            aligned = self._is_aligned(spec.view.bind(at, peer, self.config.plane_m))
            if aligned or at.angle_to(peer) < at.angle_to(to):
                return True
        return False

    def say(self, sensor: str, line: str = "") -> None:
        """Keep what is to be said of a sensor, once as long as it stays the same."""
        if self._said.get(sensor, "") == line:
            return
        with self._lock:
            self._said[sensor] = line
            self._unsaid.pop(sensor, None)
            if line:
                self._unsaid[sensor] = line

    def warnings(self) -> list[SensorWarning]:
        """What has not been said yet of sensors that are used as if aligned, and are not known to be."""
        if not self._unsaid:
            return []
        with self._lock:
            told, self._unsaid = self._unsaid, {}
        return [SensorWarning(sensor, "ok", line) for sensor, line in told.items()]


def _apart(sensor: str, ours: _Seen, reference: str, theirs: _Seen) -> str:
    """Why pictures that are stretched over each other cannot be aligned; empty where they may be."""
    if ours.camera is not None and theirs.camera is not None:
        for length, size in (("fx", "width"), ("fy", "height"), ("cx", "width"), ("cy", "height")):
            share, wanted = (
                getattr(s.camera, length) / getattr(s.camera, size) for s in (ours, theirs)
            )
            if abs(share - wanted) > SAME_VIEW * max(1.0, wanted):
                what = f"{length} is {share:.3f} of the {size}, {reference}'s {wanted:.3f}"
                return f"{sensor}: {what}: stretched, as nothing says where it sits"
        return ""
    (h, w), (height, width) = ours.size, theirs.size
    if abs(w * height - width * h) > SAME_VIEW * width * h:
        what = f"{w}x{h} pixels, {reference} {width}x{height}"
        return f"{sensor}: {what}: stretched, as intrinsics and place are not known"
    return ""
