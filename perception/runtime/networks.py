"""A pipeline's encoders and its fuser: what they are fed, and what becomes of their failures."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import DeadlineExceededError, EngineError
from perception.frame import Sample
from perception.geometry.grid import GridMap
from perception.geometry.views import View
from perception.preprocess.sample import Place, empty_tensors, on_grid, preprocess_sample
from perception.runtime.engines.base import Engine, Feed, NonFiniteError, Tensor
from perception.runtime.engines.cuda_engine import RECORDED_AT
from perception.runtime.engines.device_form import DeviceForms, DeviceInputs
from perception.runtime.interpret import check_outputs
from perception.runtime.later import Later
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import EngineEvent
from perception.runtime.wiring import FUSER, PRESENCE
from perception.sensors.kind import Grid
from perception.tasks.registry import feeds_of

Run = tuple[Mapping[str, Feed], float | None]
"""What comes of an encoder: features by the fuser's names for them, and their novelty."""


@dataclass(frozen=True)
class Encoded:
    """What is kept of a sample: its features, and where its pixels lie on the grid.

    Attributes:
        features: the encoder's outputs, by the fuser's names for them.
        grid: where the sample's pixels lie on the reference grid.
        stamp_ns: the sample's stamp.
        timings: milliseconds by step (`preprocess_<s>`, `warp_<s>`, `check_<s>`, `encode_<s>`).
        novelty: see `NoveltyScore.of`; None where that is not known.
        view: what brought it to the grid of another sensor's picture; None: it is its own.
        placed: the same in words.
        at_ns: of an input on the ground, when the vehicle is where it lies in the middle; None: at the stamp.
        later: gives features and novelty, which are not computed yet; None: they are.
    """

    features: Mapping[str, Feed]
    grid: GridMap
    stamp_ns: int
    timings: dict[str, float] = field(default_factory=dict)
    novelty: float | None = None
    view: View | None = None
    placed: str = ""
    at_ns: int | None = None
    later: Later[Run] | None = None

    @property
    def computed(self) -> Encoded:
        """The same with its features.

        Raises:
            EngineError: the backend failed.
        """
        if self.later is None:
            return self
        features, novelty = self.later()
        return replace(self, features=features, novelty=novelty, later=None)


class Networks:
    """The engines of one bundle.  May be used from several threads; no lock is held while one runs.

    Args:
        manifest: the bundle's.
        encoders, fuser: its engines, the encoders by input.
        counters: `engine_failures`, `engine_timeouts` and `engine_reloads` are counted there.
        timeout_s: how long a run of any of them may take; None for as long as it takes.

    Attributes:
        engines: by input, and `fuser`.
        stuck: one of them still computes what could not be ended: they have to be loaded anew.
        on_event: called when another backend takes over one of them.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        encoders: Mapping[str, Engine],
        fuser: Engine,
        counters: Counter[str],
        timeout_s: float | None = None,
    ) -> None:
        self._manifest, self._counters, self._timeout_s = manifest, counters, timeout_s
        self.stuck = False
        self._renewing = threading.Lock()
        self._wiring = manifest.wiring
        self.engines: dict[str, Engine] = {}
        self.on_event: Callable[[EngineEvent], None] = lambda event: None
        self.use(encoders, fuser)
        self._absent = {
            spec.name: np.zeros([d or 1 for d in spec.shape], spec.dtype) for spec in fuser.inputs
        }
        self._buffers: dict[str, deque[dict[str, NDArray[Any]]]] = {m: deque() for m in encoders}

    def use(self, encoders: Mapping[str, Engine], fuser: Engine) -> None:
        """Take other engines of the same bundle from now on."""
        grid = self._manifest.inputs.grid
        specs = self._manifest.tasks.every
        self._forms = DeviceForms(fuser, specs, (grid.height, grid.width))
        self._inputs = DeviceInputs(encoders, self._manifest.inputs)
        self.engines = {FUSER: fuser, **encoders}
        for engine in self.engines.values():
            engine.tell = lambda event: self.on_event(event)
            engine.timeout_s = self._timeout_s
        self.stuck = False

    def renew(self, load: Callable[[], tuple[dict[str, Engine], Engine]]) -> None:
        """Take what is loaded anew where an engine is stuck, which the next caller does.

        Raises:
            AnySenseError: as `load`; the engines stay as they were.
        """
        if not self.stuck:
            return
        with self._renewing:
            if self.stuck:
                self.use(*load())
                self._counters["engine_reloads"] += 1

    @property
    def backend(self) -> str:
        """Name of the backend that runs; several joined by '+' when one had to take over."""
        return "+".join(dict.fromkeys(e.backend for e in self.engines.values()))

    @contextmanager
    def buffer(self, name: str) -> Iterator[dict[str, NDArray[Any]]]:
        """Arrays for an input's tensors, by name, that are nobody else's meanwhile."""
        free = self._buffers[name]
        try:
            taken = free.pop()
        except IndexError:
            taken = empty_tensors(self._manifest.inputs[name])
        try:
            yield taken
        finally:
            free.append(taken)

    def prepare(
        self,
        name: str,
        sample: Sample,
        buffer: dict[str, NDArray[Any]],
        place: Place | None = None,
    ) -> Grid | dict[str, NDArray[Any]]:
        """What `encode` takes of a sample: the buffer, filled; or its grid, where a GPU does the rest.

        Args:
            name, sample: the input, and what is for it.
            buffer: of `buffer`.
            place: see `perception.preprocess.sample.on_grid`.

        Raises:
            InputError, CalibrationError: it cannot be used.
        """
        spec = self._manifest.inputs[name]
        if self._inputs.takes(name):
            return on_grid(sample, spec, place)
        preprocess_sample(sample, spec, buffer, place)
        return buffer

    def encode(self, name: str, given: Grid | Mapping[str, NDArray[Any]]) -> Mapping[str, Feed]:
        """The features of one input, by the fuser's names for them.

        Args:
            name: of the bundle's input.
            given: (1, ...) by name, as `InputSpec.tensors` says; or a grid, see `prepare`.

        Raises:
            EngineError: the backend failed.
        """
        tensors = self._normalized(name, given) if isinstance(given, Grid) else given
        with self._counted():
            outputs = self.engines[name].run_linked(self._wiring.feeds(name, tensors))
        return self._wiring.features(name, outputs)

    def _normalized(self, name: str, grid: Grid) -> Mapping[str, Feed]:
        try:
            return self._inputs.run(name, grid)
        except EngineError:  # the encoder's own fallback is next
            spec = self._manifest.inputs[name]
            tensors = empty_tensors(spec)
            spec.sensor.normalize(grid, spec, {n: array[0] for n, array in tensors.items()})
            return tensors

    def fuse(
        self, encoded: Mapping[str, Encoded], wanted: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """The fuser's outputs, which are finite and as large as the manifest says.

        Args:
            encoded: features by input; the other inputs are absent.
            wanted: parts of tasks; outputs that these are not made of may be left out.  None for all.

        Raises:
            EngineError: they are not, or the backend failed.  The encoders whose features are to blame
                for it go on with another backend where they can.
        """
        feeds: dict[str, Feed] = dict(self._absent)
        feeds[PRESENCE] = self._wiring.present(encoded)
        for one in encoded.values():
            feeds.update(one.features)
        feeds.update(feeds_of(self._manifest.tasks.every, tuple(encoded), self._absent))
        ignored = {name for name in feeds if feeds[name] is self._absent.get(name)}
        fuser = self.engines[FUSER]
        if wanted is not None and self._forms.usable and fuser.links:
            smaller = self._forms.run(fuser, feeds, ignored, tuple(encoded), wanted)
            if smaller is not None:
                return smaller
        with self._counted():
            try:
                outputs = fuser.run(feeds, ignored)
            except NonFiniteError as error:
                for name, one in encoded.items():
                    if set(error.feeds) & set(one.features):
                        self.engines[name].give_up(error)
                raise
            check_outputs(self._manifest, outputs)
        return outputs

    def warm_up(self, names: Collection[str], wanted: Collection[str]) -> None:
        """Run every graph on nothing: on a GPU until what it does is recorded.

        Raises:
            EngineError: the backend failed.
        """
        for _ in range(1 + RECORDED_AT if self.engines[FUSER].links else 1):
            self._inputs.warm_up()
            encoded = {}
            for name in names:
                with self.buffer(name) as buffer:
                    for array in buffer.values():
                        array.fill(0)
                    view = self._manifest.inputs[name].view
                    grid = GridMap.fit((view.height, view.width), view)
                    encoded[name] = Encoded(self.encode(name, buffer), grid, 0)
            self.fuse(encoded, wanted)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            self._counters["engine_failures"] += 1
            if isinstance(error, DeadlineExceededError):
                self._counters["engine_timeouts"] += 1
                self.stuck |= error.stuck
            raise
