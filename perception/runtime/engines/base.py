"""What every inference backend offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.errors import DeadlineExceededError, EngineError
from perception.runtime.graph_check import fits, shape_text
from perception.runtime.result import EngineEvent
from perception.runtime.time_limit import (
    LOAD_TIMEOUT_S,
    Call,
    Overrun,
    limited,
    underway,
    watched,
)

Tensor = NDArray[np.float32]
T = TypeVar("T")


class BackendMissingError(EngineError):
    """This machine lacks what a backend needs: a package, a driver, a device.

    Nothing is broken, so an automatic choice passes over it without a word.
    """


class NonFiniteError(EngineError):
    """An engine gave NaN or infinity, of which nothing may be made.

    Args:
        message, where: as for every error.
        feeds: inputs that were not finite themselves, so that another engine is to blame.
    """

    def __init__(self, message: str, *, where: str = "", feeds: Collection[str] = ()) -> None:
        super().__init__(message, where=where)
        self.feeds = tuple(feeds)


class UntrustedPlanError(EngineError):
    """There are plans, but none that this machine built, and nobody said that they are trusted."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of an input or output; a dimension that varies is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


class DeviceTensor(ABC):
    """An output that stays where it was computed until somebody asks for it.

    Attributes:
        shape: as the array's.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def numpy(self) -> Tensor:
        """A copy in the CPU's memory.

        Raises:
            EngineError: the device failed.
        """


Feed = Tensor | DeviceTensor


def on_host(feeds: Mapping[str, Feed]) -> dict[str, Tensor]:
    """Feeds as arrays, for a backend that takes no others."""
    return {n: v.numpy() if isinstance(v, DeviceTensor) else v for n, v in feeds.items()}


def with_numbers(feeds: Mapping[str, Tensor], inputs: Collection[TensorSpec]) -> dict[str, Tensor]:
    """Feeds, and 1 for what a graph takes of a task besides (`Task.graph_inputs`)."""
    ones = {s.name: np.ones(1, np.float32) for s in inputs if s.shape == (1,)}
    return {**ones, **feeds}


class SpecialForms(ABC):
    """Engines for graphs that give what another engine gives for certain feeds, only faster."""

    @abstractmethod
    def find(self, feeds: Mapping[str, Tensor]) -> Engine | None:
        """The one for these feeds, of which it may take a part only; None while there is none."""

    @abstractmethod
    def note(
        self,
        feeds: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        load: Callable[[bytes, str], Engine],
    ) -> None:
        """Hear that there was none, and what the other engine gave.

        Args:
            feeds, outputs: of that run.  They may be kept.
            load: an engine for a graph, on the same backend with the same settings; raises `EngineError`.
        """

    @abstractmethod
    def refuse(self, feeds: Mapping[str, Tensor]) -> None:
        """The one for these feeds failed: do without."""


class Engine(ABC):
    """One loaded graph.  It may be run from several threads.

    Attributes:
        backend: name of what runs it, such as `onnxruntime-cpu`.
        inputs, outputs: the graph's tensors.
        runs: how often it has run.
        tell: called when another backend takes over.
        takes_device: `infer` takes other engines' `DeviceTensor` too.
        timeout_s: how long a run may take; None for as long as it takes.
        first_timeout_s: the same of the runs until one has come back, in which a backend may have more
            to do, where `timeout_s` is None or less; None for GPUs, where that may be a build.
        where: names the graph when a run takes longer.
        listens: a run ends soon when it is asked to (see `interruptible`), however long its graph
            takes: it is made on the caller's thread once one has come back, and on another before.
        waits: `infer` itself waits no longer than `allowed_s`, and raises `Overrun`.
        checks_outputs: outputs in the CPU's memory are looked at for NaN and infinity here; False
            where an engine within has done so.
        doubts: what of this graph the backend is known to compute wrongly, in words; empty for nothing.
    """

    takes_device: bool = False
    checks_outputs: bool = True
    timeout_s: float | None = None
    first_timeout_s: float | None = LOAD_TIMEOUT_S
    where: str = ""
    doubts: str = ""
    listens: bool = False
    waits: bool = False
    _answered: bool = False
    _stuck: Call | None = None
    tell: Callable[[EngineEvent], None] = staticmethod(lambda event: None)

    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runs: int = 0

    def run(self, feeds: Mapping[str, Feed], ignored: Collection[str] = ()) -> dict[str, Tensor]:
        """Run once.

        Args:
            feeds: every input by name, C-contiguous and of its type, or what `run_linked` of another engine
                gave.
            ignored: inputs that the graph leaves aside this time, as those of absent sensors; they
                need not be copied to where it runs.

        Returns:
            Every output by name.  The arrays are the caller's to keep.

        Raises:
            EngineError: an input is missing, unknown, of another type or shape, or the backend
                failed; `NonFiniteError` when an output holds NaN or infinity;
                `DeadlineExceededError` when it took longer than allowed.
        """
        _check_feeds(self.inputs, feeds)
        self.runs += 1
        with self._failures():
            if self.takes_device:
                outputs = self._in_time(partial(self.infer_some, feeds, ignored))
            else:
                outputs = self._in_time(partial(self.infer, on_host(feeds)))
        self._check_outputs(outputs)
        return outputs

    def run_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str] = ()
    ) -> Mapping[str, Feed]:
        """Run once, for outputs that another engine takes; `feeds` and `ignored` as for `run`.

        On a GPU they stay there, and this may return before they are computed: that engine waits for
        them, not the CPU.  Nor are they looked at there; what comes of them is.  Otherwise as `run`.
        """
        _check_feeds(self.inputs, feeds)
        self.runs += 1
        with self._failures():
            given = feeds if self.takes_device else on_host(feeds)
            outputs = self._in_time(partial(self.infer_linked, given, ignored))
        self._check_outputs(outputs)
        return outputs

    @property
    def links(self) -> bool:
        """Whether outputs of `run_linked` stay where they are computed."""
        return False

    def companion(self, content: bytes, name: str) -> Engine | None:
        """An engine for another ONNX graph on the same device, which takes this one's `DeviceTensor`.

        Returns:
            None where there is no such.

        Raises:
            EngineError: the graph cannot be loaded there.
        """
        return None

    def specialize(self, forms: SpecialForms) -> None:  # noqa: B027 (most have no use for it)
        """Let graphs that give the same for certain feeds, only faster, run in the place of this one."""

    def context(self) -> Engine:
        """This graph once more, to be run beside it without waiting; its weights are there once."""
        return self

    def give_up(self, cause: EngineError) -> None:  # noqa: B027 (nothing to do for most)
        """What it gave was of no use: go on with another backend, where there is one in reserve."""

    @property
    def stuck(self) -> bool:
        """Whether a run that could not be ended still computes: nothing else runs here until it is over."""
        return self._stuck is not None and not self._stuck.ended

    def allowed_s(self) -> float | None:
        """How long a run may take now; None for as long as it takes."""
        if self._answered or self.first_timeout_s is None:
            return self.timeout_s
        return max(self.first_timeout_s, self.timeout_s or 0.0)

    def _in_time(self, made: Callable[[], T]) -> T:
        """What a run gives, if it comes back in the time that it may take."""
        if (allowed := self.allowed_s()) is None:
            return made()
        if self.stuck:
            line = f"{self.backend} is still at work on an earlier run that could not be ended"
            raise DeadlineExceededError(line, where=self.where, stuck=True)
        try:
            if self.waits:
                found = made()
            elif self.listens and self._answered:
                found = watched(made, allowed, partial(self._tell_stuck, allowed))
            else:
                found = limited(made, allowed)
        except Overrun as overrun:
            line = f"{self.backend} has not answered for {allowed:.3g} s, and "
            if overrun.stuck:
                self._stuck = overrun.call
                self._tell_stuck(allowed)
            line += "cannot be ended" if overrun.stuck else "was ended"
            raise DeadlineExceededError(line, where=self.where, stuck=overrun.stuck) from None
        self._answered = True
        return found

    def _tell_stuck(self, allowed: float) -> None:
        where = f"{self.where}: " if self.where else ""
        line = f"{self.backend} has not answered for {allowed:.3g} s, and cannot be ended"
        self.tell(EngineEvent("stuck", where + line, self.backend))

    def _check_outputs(self, outputs: Mapping[str, Feed]) -> None:
        if self.checks_outputs:
            _refuse_others(self.backend, self.outputs, outputs)
            for name in not_finite(outputs):
                raise NonFiniteError(f"{self.backend} gave NaN or infinity", where=name)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever a backend raises, callers have one type to catch."""
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{self.backend} failed: {first_line(error)}") from error

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        """What `run` does where `takes_device` is set."""
        return self.infer(on_host(feeds))

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str]
    ) -> Mapping[str, Feed]:
        """What `run_linked` does once the feeds are known to fit."""
        return self.infer_some(feeds, ignored)

    @abstractmethod
    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `run` does once the feeds are known to fit.

        Whatever it raises, `run` gives as an `EngineError`; a backend whose errors want more than
        their first line raises that itself.  Where a run may only take so long it is called on another
        thread, and says with `interruptible` how it is ended.
        """


def not_loaded(overrun: Overrun, where: str) -> DeadlineExceededError:
    """What is raised where loading a graph took longer than `time_limit.load_timeout_s`."""
    end = ", and cannot be ended" if overrun.stuck else ""
    return DeadlineExceededError(
        f"was not loaded within {overrun.allowed_s:.3g} s{end}", where=where, stuck=overrun.stuck
    )


def interruptible(interrupt: Callable[[], object]) -> None:
    """Say how what this thread computes for an engine is ended, where somebody may want to end it."""
    if (call := underway()) is not None:
        call.interrupt = interrupt


def not_finite(tensors: Mapping[str, Feed]) -> list[str]:
    """Names of the arrays that hold NaN or infinity; what lies on a device is not looked at.

    Costs about 0.03 ms per MB: a sum is not finite when a term is not, and only a sum that overflowed
    makes a second look necessary.
    """
    with np.errstate(all="ignore"):
        return [
            name
            for name, value in tensors.items()
            if isinstance(value, np.ndarray)
            and not np.isfinite(np.einsum("i->", value.reshape(-1)))
            and not np.isfinite(value).all()
        ]


def _refuse_others(backend: str, specs: tuple[TensorSpec, ...], outputs: Any) -> None:
    """Refuse what a backend gave if it is not all outputs, as arrays of the shapes that it told."""
    if not isinstance(outputs, Mapping):
        raise EngineError(f"{backend} gave {type(outputs).__name__}, not a mapping of outputs")
    for spec in specs:
        if spec.name not in outputs:
            raise EngineError(f"{backend} gave no such output", where=spec.name)
        value = outputs[spec.name]
        if isinstance(value, DeviceTensor):
            continue
        if not isinstance(value, np.ndarray):
            what = f"{backend} gave {type(value).__name__}, not an array"
            raise EngineError(what, where=spec.name)
        if value.dtype != spec.dtype or not fits(value.shape, spec.shape):
            wanted = f"{spec.dtype} {shape_text(spec.shape)}"
            what = f"{backend} gave {value.dtype} {value.shape}, not {wanted}"
            raise EngineError(what, where=spec.name)


def _check_feeds(specs: tuple[TensorSpec, ...], feeds: Mapping[str, Feed]) -> None:
    # Before the backend sees them: its own words differ from one to the next, and some backends
    # would take a wrong shape for a new one and compile the graph again.
    for spec in specs:
        if spec.name not in feeds:
            raise EngineError("input is missing", where=spec.name)
        value = feeds[spec.name]
        is_array = isinstance(value, np.ndarray) and value.dtype == spec.dtype
        if not is_array and not isinstance(value, DeviceTensor):
            kind = getattr(value, "dtype", type(value).__name__)
            raise EngineError(f"input is {kind}, not {spec.dtype}", where=spec.name)
        if not fits(value.shape, spec.shape):
            wanted = shape_text(spec.shape)
            raise EngineError(f"input is {value.shape}, not {wanted}", where=spec.name)
    foreign = feeds.keys() - {spec.name for spec in specs}
    if foreign:
        raise EngineError("the graph has no such input", where=sorted(foreign)[0])


def doubts_line(doubts: Mapping[str, str]) -> str:
    """One line of what is computed wrongly (`Engine.doubts`), by graph, and what to do; empty for nothing."""
    graphs: dict[str, list[str]] = {}
    for graph, doubt in doubts.items():
        if doubt:
            graphs.setdefault(doubt, []).append(graph)
    what = "; ".join(f"{', '.join(names)}: {doubt}" for doubt, names in graphs.items())
    hint = "run it on onnxruntime (--device cpu), or quantize it anew with `anysense export`"
    return what and f"{what}: {hint}"


def first_line(error: Exception) -> str:
    """The first line of a backend's own error that says something, for a one-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
