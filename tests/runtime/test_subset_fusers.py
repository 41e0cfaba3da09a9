"""Fusers of one subset each: made beside the frames, kept within bounds, left where they are no good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from perception.errors import DeadlineExceededError, EngineError
from perception.frame import KINDS, Frame, subsets_of
from perception.runtime import subset_fusers
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.engines.base import Engine
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.runtime.subset_fusers import MOST, USED_LAST, USED_OFTEN, SubsetFusers


@pytest.fixture
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "onnxruntime-cpu", threads=1)


def _fusers(pipeline: Pipeline) -> SubsetFusers:
    return pipeline.engines["fuser"]._forms


def _key(pipeline: Pipeline, subset: tuple[str, ...]) -> bytes:
    return pipeline.manifest.wiring.present(subset).tobytes()


def _ask(pipeline: Pipeline, subset: tuple[str, ...], times: int = 1, seed: int = 0) -> Result:
    frame = synthetic_frame(pipeline, seed)
    for _ in range(times):
        pipeline.reset()
        result = pipeline(Frame({s: frame[s] for s in subset}, frame.stamp_ns))
        assert result.used == subset
    return result


def _counted(engine: Engine, error: Exception | None = None) -> list[Any]:
    """A list that grows with each run of an engine, which fails where an error is given."""
    assert isinstance(engine, OnnxRuntimeEngine)
    real, calls = engine._compute, []

    def counted(feeds: Any, options: Any) -> Any:
        calls.append(feeds)
        if error is not None:
            raise error
        return real(feeds, options)

    engine._compute = counted  # type: ignore[method-assign]
    return calls


def _alike(one: Result, other: Result) -> None:
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.confidence, other.confidence)
    for name in ("xyxy", "scores", "class_ids"):
        assert np.array_equal(getattr(one.boxes, name), getattr(other.boxes, name))


@pytest.mark.parametrize("subset", [("rgb",), ("depth", "lidar"), KINDS])
def test_results_are_the_same_to_the_last_bit(pipeline: Pipeline, subset: tuple[str, ...]) -> None:
    fusers, general = _fusers(pipeline), {seed: _ask(pipeline, subset, 1, seed) for seed in (1, 2)}
    assert not fusers.made
    _ask(pipeline, subset, USED_OFTEN - 2)
    fusers.settle()
    engine, runs = fusers.made[_key(pipeline, subset)], pipeline.engines["fuser"].runs
    calls = _counted(engine)
    for seed, wanted in general.items():
        _alike(_ask(pipeline, subset, 1, seed), wanted)
    assert len(calls) == 2
    assert pipeline.engines["fuser"].runs == runs + 2  # each fusion counts, whatever did it
    assert engine.backend == pipeline.backend


def test_another_device_starts_anew(pipeline: Pipeline) -> None:
    _ask(pipeline, ("rgb",), USED_OFTEN)
    _fusers(pipeline).settle()
    assert _fusers(pipeline).made
    pipeline.use_device("onnxruntime-cpu", 1)
    assert not _fusers(pipeline).made


def test_no_more_are_kept_than_there_is_room_for(pipeline: Pipeline) -> None:
    fusers = _fusers(pipeline)
    for _ in range(USED_OFTEN):
        for subset in subsets_of(KINDS):
            _ask(pipeline, subset)
            fusers.settle()
    kept = set(fusers.made)
    assert len(kept) == MOST
    last = next(s for s in subsets_of(KINDS) if _key(pipeline, s) not in kept)
    _ask(pipeline, last, USED_LAST - 1)
    fusers.settle()
    assert set(fusers.made) == kept
    oldest = next(iter(fusers.made))
    _ask(pipeline, last)
    fusers.settle()
    assert set(fusers.made) == kept - {oldest} | {_key(pipeline, last)}


def test_room_is_made_before_one_is_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process stays as large as its largest moment: there is never one more beside those kept."""
    fusers = _fusers(pipeline)
    beside: list[int] = []
    real = SubsetFusers._compared

    def compared(self: SubsetFusers, *arguments: Any) -> Engine | None:
        beside.append(len(self.made))
        return real(self, *arguments)

    monkeypatch.setattr(SubsetFusers, "_compared", compared)
    for subset in subsets_of(KINDS)[: MOST + 2]:
        _ask(pipeline, subset, USED_LAST)
        fusers.settle()
    assert beside == [*range(MOST), MOST - 1, MOST - 1]
    assert len(fusers.made) == MOST


def test_no_frame_waits_for_one_that_is_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    real = OnnxRuntimeEngine._alike

    def slow(self: OnnxRuntimeEngine, content: bytes, name: str) -> Engine:
        begun.set()
        assert go.wait(60)
        return real(self, content, name)

    monkeypatch.setattr(OnnxRuntimeEngine, "_alike", slow)
    # From a daemon, as a stream's thread is: what it starts would be one, too.
    asks = threading.Thread(target=_ask, args=(pipeline, ("rgb",), USED_OFTEN), daemon=True)
    asks.start()
    asks.join()
    assert begun.wait(60)
    assert not _fusers(pipeline)._thread.daemon  # type: ignore[union-attr]
    _ask(pipeline, ("rgb",), 3)  # none of them could be answered by what is not there yet
    assert not _fusers(pipeline).made
    go.set()
    _fusers(pipeline).settle()
    assert list(_fusers(pipeline).made) == [_key(pipeline, ("rgb",))]


def _bent(content: bytes, presence: Any, *, where: str) -> bytes:
    model = onnx.load_from_string(content)
    weights = next(t for t in model.graph.initializer if t.name.endswith("bias"))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + 1, weights.name))
    return model.SerializeToString()


def _unloadable(content: bytes, presence: Any, *, where: str) -> bytes:
    return content[: len(content) // 2]


def _broken(content: bytes, presence: Any, *, where: str) -> bytes:
    raise ZeroDivisionError


@pytest.mark.parametrize("maker", [_bent, _unloadable, _broken])
def test_one_that_is_no_good_is_left(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, maker: Callable[..., bytes]
) -> None:
    wanted, asked = _ask(pipeline, ("rgb",)), []

    def made(content: bytes, presence: Any, *, where: str) -> bytes:
        asked.append(where)
        return maker(content, presence, where=where)

    monkeypatch.setattr(subset_fusers, "for_presence", made)
    for _ in range(2):
        _ask(pipeline, ("rgb",), USED_OFTEN)
        _fusers(pipeline).settle()
    assert not _fusers(pipeline).made
    assert asked == ["fuser for presence 1 0 0 0"]  # once
    _alike(_ask(pipeline, ("rgb",)), wanted)


def test_where_one_fails_the_general_one_answers(pipeline: Pipeline) -> None:
    wanted = _ask(pipeline, ("rgb",), USED_OFTEN)
    fusers = _fusers(pipeline)
    fusers.settle()

    calls = _counted(fusers.made[_key(pipeline, ("rgb",))], EngineError("out of memory"))
    _alike(_ask(pipeline, ("rgb",)), wanted)
    assert pipeline.counters["engine_failures"] == 0
    _ask(pipeline, ("rgb",), USED_OFTEN)
    fusers.settle()
    assert not fusers.made and len(calls) == 1


def test_one_that_is_ended_is_no_failure_of_its_own(pipeline: Pipeline) -> None:
    """What takes too long is ended as the general one would be, and not computed once more."""
    _ask(pipeline, ("rgb",), USED_OFTEN)
    fusers = _fusers(pipeline)
    fusers.settle()
    engine = pipeline.engines["fuser"]
    assert isinstance(engine, OnnxRuntimeEngine)
    general = _counted(engine)
    own = fusers.made[_key(pipeline, ("rgb",))]
    assert isinstance(own, OnnxRuntimeEngine)
    real = own._compute

    def late(feeds: Any, options: Any) -> Any:
        while not options.terminate:
            time.sleep(0.01)
        return real(feeds, options)

    own._compute = late  # type: ignore[method-assign]
    engine.timeout_s = 0.2
    with pytest.raises(DeadlineExceededError):
        _ask(pipeline, ("rgb",))
    assert not general and fusers.made


def test_they_can_be_left_out(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(subset_fusers.VARIABLE, "0")
    pipeline = Pipeline.load(tiny_bundle, "onnxruntime-cpu", threads=1)
    _ask(pipeline, ("rgb",), 2 * USED_OFTEN)
    _fusers(pipeline).settle()
    assert not _fusers(pipeline).made
