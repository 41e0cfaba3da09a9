"""What engines on a GPU have in common, on a driver of the tests' own whose memory is the host's."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from perception.errors import EngineError
from perception.runtime.engines import cuda_engine, cuda_memory
from perception.runtime.engines.base import TensorSpec
from perception.runtime.engines.cuda_engine import CudaEngine, OnDevice, Slot

SHAPE = (2, 3)


class Negates(CudaEngine):
    """y = -x - bias, done by the CPU where the slot lies."""

    def __init__(self) -> None:
        self.backend = "negates"
        self.inputs = (TensorSpec("x", SHAPE), TensorSpec("bias", (1,)))
        self.outputs = (TensorSpec("y", SHAPE), TensorSpec("bytes", SHAPE, "uint8"))
        self._open(0)
        with self._memory.current():
            self._lay_out({"x": SHAPE, "y": SHAPE, "bias": (1,), "bytes": SHAPE})
        self.failures = self.loads = 0
        self.queued = 0

    def _bind(self, slot: Slot) -> dict[str, Any]:
        bound = {}
        for name, address in self._addresses(slot):
            place = self._layout.places[name]
            raw = (ctypes.c_uint8 * place.size).from_address(address)
            bound[name] = np.frombuffer(raw, place.dtype).reshape(place.shape)
        return bound

    def _load_anew(self) -> None:
        self.loads += 1

    def _enqueue(self, slot: Slot) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("operation failed due to a previous error during capture\nmore")
        self.queued += 1
        slot.bound["y"][...] = -slot.bound["x"] - slot.bound["bias"]
        slot.bound["bytes"][...] = 7


@pytest.fixture
def engine(fake_driver, monkeypatch: pytest.MonkeyPatch) -> Negates:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cuda_memory, "_opened", {})
    return Negates()


X = np.arange(6, dtype=np.float32).reshape(SHAPE)
NONE = np.zeros(1, np.float32)


def test_results_are_the_callers_to_keep_and_slots_are_used_again(engine: Negates) -> None:
    first = engine.run({"x": X, "bias": NONE})
    second = engine.run({"x": X + 1, "bias": NONE})
    assert np.array_equal(first["y"], -X) and np.array_equal(second["y"], -X - 1)
    assert first["bytes"].dtype == np.uint8 and (first["bytes"] == 7).all()
    gc.collect()
    assert engine._pool.made == 1


def test_linked_outputs_stay_and_are_another_engines_inputs(
    engine: Negates, fake_driver: ctypes.CDLL
) -> None:
    other = Negates()
    assert engine.links
    linked = engine.run_linked({"x": X, "bias": NONE})
    again = engine.run_linked({"x": X * 9, "bias": NONE})  # must not reach the first ones
    assert isinstance(linked["y"], OnDevice) and engine._pool.made == 2
    found = other.run({"x": linked["y"], "bias": np.ones(1, np.float32)})
    assert np.array_equal(found["y"], X - 1)
    assert np.array_equal(linked["y"].numpy(), -X) and np.array_equal(again["y"].numpy(), -X * 9)  # type: ignore[union-attr]
    assert fake_driver.fake_depth() == 0
    kept = other.run_linked({"x": linked["y"], "bias": NONE})
    assert np.array_equal(kept["y"].numpy(), X)  # type: ignore[union-attr]


def test_ignored_inputs_are_not_copied_and_hold_numbers(engine: Negates) -> None:
    bad = np.full(1, np.nan, np.float32)
    assert np.array_equal(engine.run({"x": X, "bias": bad}, ("bias",))["y"], -X)


def test_what_cannot_be_recorded_runs_without(engine: Negates) -> None:
    """The tests' driver records nothing; what is queued after that may fail, and leave the graph spoilt."""
    other = engine.run_linked({"x": X, "bias": NONE})  # another slot, bound before
    for index in range(cuda_engine.RECORDED_AT + 3):
        if index == cuda_engine.RECORDED_AT:
            engine.failures = 2
        assert np.array_equal(engine.run({"x": X * index, "bias": NONE})["y"], -X * index)
    assert not engine._own_graphs and engine.loads == 3
    del other
    gc.collect()
    assert all(np.array_equal(engine.run({"x": X, "bias": NONE})["y"], -X) for _ in range(4))
    engine.failures = 1
    with pytest.raises(EngineError, match=r"^negates failed: operation failed due to") as caught:
        engine.run({"x": X, "bias": NONE})
    assert "\n" not in str(caught.value)
    assert np.array_equal(engine.run({"x": X, "bias": NONE})["y"], -X)


def test_one_that_fails_for_good_says_so(engine: Negates) -> None:
    for _ in range(cuda_engine.RECORDED_AT):
        engine.run({"x": X, "bias": NONE})
    engine.failures = 99
    with pytest.raises(EngineError, match="negates failed"):
        engine.run({"x": X, "bias": NONE})


def test_a_result_that_is_not_finite_is_refused(engine: Negates) -> None:
    with pytest.raises(EngineError, match="y: negates gave NaN"):
        engine.run({"x": np.full(SHAPE, np.inf, np.float32), "bias": NONE})
