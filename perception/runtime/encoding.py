"""From a sample to the features that the fuser takes, on the grid that the result will be given on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError, EngineError
from perception.frame import Sample
from perception.geometry.grid import GridMap
from perception.geometry.motion import Odometry, deskewed
from perception.geometry.views import Placement
from perception.preprocess.sample import source_size
from perception.runtime.alignment import Aligner
from perception.runtime.engines.base import Feed
from perception.runtime.health import HealthMonitor
from perception.runtime.later import Later
from perception.runtime.manifest import BundleManifest
from perception.runtime.networks import Encoded, Networks, Run
from perception.runtime.novelty import NoveltyScore
from perception.runtime.stopwatch import Stopwatch
from perception.sensors.kind import Grid
from perception.sensors.registry import kind_of

STOOD_STILL = 0.1, 0.01
"""Metres and radians that the vehicle may move between a sample and the output before it counts."""

Prepared = Grid | Mapping[str, NDArray[Any]]
"""What an encoder takes, or a grid that a GPU makes that of."""


class _Placing:
    """Brings one sample to the grid of the reference, and puts the time down to `warp_<s>`."""

    def __init__(
        self,
        encoder: SampleEncoder,
        watch: Stopwatch,
        reference: str | None,
        others: Iterable[Sample],
    ) -> None:
        self._encoder, self._watch = encoder, watch
        self._reference, self._others = reference, others
        self.found: Placement | None = None

    def __call__(self, sample: Sample) -> Grid | None:
        aligner = self._encoder.aligner
        aligner.note(sample)
        reference = self._reference or aligner.likely
        if reference is None or reference == sample.sensor:
            return None
        self._watch.lap(f"preprocess_{sample.sensor}")
        self.found = aligner.place(sample, reference, self._others)
        register = kind_of(sample.kind).register
        if self.found is None or register is None:
            return None
        grid = register(
            sample, self._encoder.manifest.inputs[self._encoder.inputs[sample.sensor]], self.found
        )
        self._watch.lap(f"warp_{sample.sensor}")
        return grid


class SampleEncoder:
    """Checks, preprocesses and encodes samples.  Safe to use from several threads.

    Args:
        manifest: the bundle's.
        inputs: by sensor, its input.
        networks: the engines.
        aligner: says on which grid a sample lies.
        health: checks what samples show.

    Attributes:
        odometry: how the vehicle moves; None where nobody says it.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        inputs: Mapping[str, str],
        networks: Networks,
        aligner: Aligner,
        health: HealthMonitor,
    ) -> None:
        self.manifest, self.inputs, self.aligner = manifest, inputs, aligner
        self._networks, self._health = networks, health
        self.odometry: Odometry | None = None
        self._novelty = {name: NoveltyScore(own) for name, own in manifest.novelty.items()}

    def encode(
        self,
        sample: Sample,
        watch: Stopwatch,
        *,
        trust: bool,
        admit: bool = True,
        check: bool = True,
        reference: str | None = None,
        others: Iterable[Sample] = (),
        at_ns: int | None = None,
        later: bool = False,
    ) -> Encoded | None:
        """A sample's features; None where its content, or `admit`, speaks against it.

        Args:
            sample: with a stamp.
            watch: laps are taken.
            trust, admit: as for `Pipeline.encode`.
            check: False where its content was looked at before.
            reference: the sensor in whose pixels the result will be; None for the likely one.
            others: samples of the same moment, for their distances.
            at_ns: the output's stamp, where it is known: what lies on the ground is brought to where the
                vehicle is then.
            later: its features are computed when they are asked for, see `Encoded.computed`.

        Raises:
            AnySenseError: it cannot be used, or the backend failed.
        """
        sensor = sample.sensor
        name = self.inputs[sensor]
        spec = self.manifest.inputs[name]
        line = ""
        if spec.view.birdseye is not None and self.odometry is not None:
            sample, line = self._driven(sample, self.odometry, at_ns)
        placing = _Placing(self, watch, reference, others)
        watch.lap("wait")
        with self._networks.buffer(name) as buffer:
            given = self._networks.prepare(name, sample, buffer, placing)
            watch.lap(f"preprocess_{sensor}")
            healthy = not check or trust or self._health.check(sample) == "ok"
            watch.lap(f"check_{sensor}")
            if not (healthy and admit):
                return None
            if later:
                run = partial(self._features, name, _own(given))
            else:
                features = self._networks.encode(name, given)
            watch.lap(f"encode_{sensor}")
        found = placing.found
        view = None if found is None else found.view
        grid = GridMap.fit(source_size(sample, spec), spec.view) if view is None else view.grid
        placed = line if found is None else found.line
        at_ns = at_ns if line else None
        about = view, placed, at_ns
        if later:
            return Encoded({}, grid, sample.time_ns, {}, None, *about, Later(run))
        novelty = self._novelty_of(name, features)
        watch.lap(f"check_{sensor}")
        return Encoded(features, grid, sample.time_ns, {}, novelty, *about)

    def _novelty_of(self, name: str, features: Mapping[str, Feed]) -> float | None:
        score = self._novelty.get(name)
        return None if score is None else score.of(features)

    def _features(self, name: str, given: Prepared) -> Run:
        features = self._networks.encode(name, given)
        return features, self._novelty_of(name, features)

    @staticmethod
    def _driven(sample: Sample, odometry: Odometry, at_ns: int | None) -> tuple[Sample, str]:
        """A sample where the vehicle is at a time, its points as if measured at once; and that in words."""
        sample = deskewed(sample, odometry) or sample
        if at_ns is None or sample.pose is None or sample.stamp_ns in (None, at_ns):
            return sample, ""
        moved = odometry.moved(sample.time_ns, at_ns)
        if moved is None:
            return sample, ""
        line = f"over {np.linalg.norm(moved.translation):.2f} m that the vehicle moved"
        return replace(sample, pose=moved @ sample.pose), line

    def _moved_since(self, sensor: str, one: Encoded, at_ns: int) -> bool:
        """Whether the vehicle is elsewhere at a time than where a sample on the ground was encoded for."""
        spec = self.manifest.inputs[self.inputs[sensor]]
        then = one.stamp_ns if one.at_ns is None else one.at_ns
        if spec.view.birdseye is None or self.odometry is None or then == at_ns:
            return False
        moved = self.odometry.moved(then, at_ns)
        if moved is None:
            return False
        far, much = STOOD_STILL
        return bool(np.linalg.norm(moved.translation) > far or moved.angle > much)

    def realigned(
        self,
        encoded: Mapping[str, Encoded],
        reference: str | None,
        samples: Mapping[str, Sample],
        watch: Stopwatch,
    ) -> Mapping[str, Encoded]:
        """The features of all sensors on the grid of one.

        Those are encoded anew that lie on another's, as when the reference has just died or come back,
        or what is known of its place has changed; and those on the ground since whose sample the vehicle has
        moved, until the reference's.

        Args:
            encoded: by sensor, those that are used.
            reference: the sensor in whose pixels the result will be.
            samples: of what they were encoded.
            watch: laps are taken.

        Returns:
            The same sensors, but for those that nothing is left of there.

        Raises:
            EngineError: the backend failed.
        """
        moved: dict[str, Encoded | None] = {}
        lead = encoded.get(reference or "")
        at_ns = None if lead is None else lead.stamp_ns
        for sensor, one in encoded.items():
            wanted = self.aligner.view(sensor, reference)
            here = None if one.view is None else one.view.key
            stays = (None if wanted is None else wanted.key) == here
            stays &= at_ns is None or not self._moved_since(sensor, one, at_ns)
            if stays or sensor not in samples:
                continue
            others = [s for name, s in samples.items() if name != sensor]
            sample = replace(samples[sensor], stamp_ns=one.stamp_ns)
            try:
                anew = self.encode(
                    sample,
                    watch,
                    trust=True,
                    check=False,
                    reference=reference,
                    others=others,
                    at_ns=at_ns,
                )
            except EngineError:
                raise
            except AnySenseError as error:  # nothing of it is left there
                self.aligner.say(sensor, str(error))
                anew = None
            moved[sensor] = anew
        if not moved:
            return encoded
        return {s: one for s, one in {**encoded, **moved}.items() if one is not None}


def _own(given: Prepared) -> Prepared:
    """The same where the buffer that it lies in is filled anew."""
    return given if isinstance(given, Grid) else {n: array.copy() for n, array in given.items()}
