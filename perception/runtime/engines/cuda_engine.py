"""What engines on an NVIDIA GPU have in common: memory, streams, links to other engines, CUDA graphs."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.runtime.engines import cuda_driver_calls as driver
from perception.runtime.engines.base import DeviceTensor, Engine, Feed, Tensor, first_line
from perception.runtime.engines.buffers import Lease, Place, Pool, lay_out
from perception.runtime.engines.cuda_driver_calls import Event, Graph
from perception.runtime.engines.cuda_memory import cuda_memory

_LOG = logging.getLogger("anysense.engines")

RECORDED_AT = 2
"""How often a slot was used before what is queued for it is recorded: the first run prepares things, the
second may still ask for memory, and neither can be recorded."""

_ATTEMPTS = 3


@dataclass
class Slot:
    """Memory of one run: every tensor on the device, and in page-locked memory beside it.

    Attributes:
        host: page-locked memory, laid out as the device's.
        device: owns the device's memory.
        address: where that begins.
        done: behind the last work that used the slot.
        bound: what an engine has prepared for the slot's addresses.
        loaded: how often its graph had been loaded anew by then.
        graph: what the network queues for them, once recorded.
        runs: how often it was used.
    """

    host: NDArray[np.uint8]
    device: Any
    address: int
    done: Event
    bound: Any = None
    loaded: int = 0
    graph: Graph | None = None
    runs: int = 0


class OnDevice(DeviceTensor):
    """A tensor in a slot, which stays taken as long as somebody holds on to this."""

    def __init__(self, engine: CudaEngine, lease: Lease[Slot], place: Place) -> None:
        self.engine, self.lease, self.place = engine, lease, place
        self.shape = place.shape

    @property
    def address(self) -> int:
        """Where it lies."""
        return self.lease.item.address + self.place.offset

    def numpy(self) -> Tensor:
        return self.engine.fetch(self)


class CudaEngine(Engine):
    """A graph of fixed sizes on an NVIDIA GPU, on a stream of its own.

    Outputs of `run_linked` stay on the GPU: the engine that takes them lets its stream wait for an event
    of this one's, and copies within the device.  What the network queues is recorded once as a CUDA graph
    for each slot of memory, and launched with one call after that.

    A subclass calls `_open`, then loads the graph with `self._memory.current()` as context, sets `backend`,
    `inputs` and `outputs`, and calls `_lay_out`.
    """

    takes_device = True
    first_timeout_s = None

    _own_graphs = True  # False where the backend records graphs by itself, or cannot be recorded
    _loaded = 0

    @property
    def links(self) -> bool:
        return True

    def _open(self, device: int) -> None:
        self._device = device
        self._memory = cuda_memory(device)
        self._lock = threading.Lock()
        with self._memory.current():
            self._stream, self._handle = self._memory.stream()

    def _lay_out(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        types = {s.name: np.dtype(s.dtype) for s in (*self.inputs, *self.outputs)}
        self._layout = lay_out({n: (shapes[n], types[n]) for n in types})
        self._pool = Pool(self._make_slot)

    @abstractmethod
    def _bind(self, slot: Slot) -> Any:
        """Prepare for running at a slot's addresses; None where nothing can be kept."""

    @abstractmethod
    def _enqueue(self, slot: Slot) -> None:
        """Queue the network for a slot's addresses on `self._handle`."""

    def _load_anew(self) -> None:
        """Load the graph again, where a run that failed has spoilt it."""

    def _make_slot(self) -> Slot:
        size = self._layout.size
        device, address = self._memory.allocate(size)
        slot = Slot(self._memory.pinned(size), device, address, Event())
        # Inputs that are ignored are never written: they shall hold numbers all the same.
        driver.clear(address, size, self._handle)
        slot.bound, slot.loaded = self._bind(slot), self._loaded
        return slot

    def _addresses(self, slot: Slot) -> Iterator[tuple[str, int]]:
        for name, place in self._layout.places.items():
            yield name, slot.address + place.offset

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.infer_some(feeds, ())

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        with self._working():
            lease = self._pool.take()
            slot = lease.item
            self._queue(slot, feeds, ignored)
            for spec in self.outputs:
                place = self._layout.places[spec.name]
                host = slot.host.ctypes.data + place.offset
                driver.download(host, slot.address + place.offset, place.size, self._handle)
            driver.wait(self._handle)
            return {spec.name: self._host(slot, spec.name).copy() for spec in self.outputs}

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str] = ()
    ) -> Mapping[str, Feed]:
        with self._working():
            lease = self._pool.take()
            self._queue(lease.item, feeds, ignored)
            return {
                spec.name: OnDevice(self, lease, self._layout.places[spec.name])
                for spec in self.outputs
            }

    def fetch(self, tensor: OnDevice) -> Tensor:
        """Copy an output of this engine to the CPU.

        Raises:
            EngineError: the device failed.
        """
        with self._working():
            slot, place = tensor.lease.item, tensor.place
            host = slot.host.ctypes.data + place.offset
            driver.download(host, tensor.address, place.size, self._handle)
            driver.wait(self._handle)
            part = slot.host[place.offset : place.offset + place.size]
            return part.view(place.dtype).reshape(place.shape).copy()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One run at a time, in this GPU's context; whatever goes wrong is an `EngineError`."""
        with self._lock, self._memory.current():
            try:
                yield
            except EngineError as error:
                raise EngineError(f"{self.backend} failed: {error.message}") from error
            except Exception as error:
                raise EngineError(f"{self.backend} failed: {first_line(error)}") from error

    def _host(self, slot: Slot, name: str) -> Any:
        return self._layout.view(slot.host, name)

    def _queue(self, slot: Slot, feeds: Mapping[str, Feed], ignored: Collection[str]) -> None:
        """Queue copies of the inputs and the network, and mark the end."""
        # Page-locked memory is written by the CPU: its last copy to the device must be over.
        slot.done.wait()
        for spec in self.inputs:
            if spec.name in ignored:
                continue
            feed, place = feeds[spec.name], self._layout.places[spec.name]
            address = slot.address + place.offset
            if isinstance(feed, OnDevice) and feed.engine._device == self._device:
                done = feed.lease.item.done
                done.hold(self._handle)
                driver.copy(address, feed.address, place.size, self._handle)
                done.record(self._handle)  # until then nothing may be written there again
                continue
            array = feed.numpy() if isinstance(feed, DeviceTensor) else feed
            np.copyto(self._host(slot, spec.name), array)
            host = slot.host.ctypes.data + place.offset
            driver.upload(address, host, place.size, self._handle)
        self._execute(slot)
        slot.done.record(self._handle)
        slot.runs += 1

    def _execute(self, slot: Slot) -> None:
        if slot.loaded != self._loaded:  # what was recorded used memory that is gone
            slot.graph = None
            slot.bound, slot.loaded = self._bind(slot), self._loaded
        if self._own_graphs and slot.graph is None and slot.runs >= RECORDED_AT:
            try:
                slot.graph = Graph(self._handle, lambda: self._enqueue(slot))
            except Exception as error:  # what the backend raises while it is recorded is its own
                _LOG.info("%s: runs without a CUDA graph: %s", self.backend, first_line(error))
                self._own_graphs = False
                self._enqueue_after_failure(slot)
                return
        if slot.graph is not None:
            slot.graph.launch(self._handle)
        else:
            self._enqueue(slot)

    def _enqueue_after_failure(self, slot: Slot) -> None:
        # CUDA's runtime keeps the error of the recording and tells the next calls, once each; and a session
        # in which a run failed in the middle may have kept numbers that mean nothing.
        driver.wait(self._handle)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._load_anew()
                self._loaded += 1
                slot.bound, slot.loaded = self._bind(slot), self._loaded
                self._enqueue(slot)
                return
            except Exception:
                if attempt == _ATTEMPTS:
                    raise
