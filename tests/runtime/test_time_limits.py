"""Graphs that never end, on real backends: their callers get an error in time, and go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_graphs import FORMS, endless, immense
from small_bundles import SmallBundles, encoder, fuser

from perception.errors import ConfigError, DeadlineExceededError, EngineError
from perception.frame import Frame, Sample
from perception.runtime import time_limit
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.pipeline import Pipeline
from perception.runtime.time_limit import Overrun, limited, underway, watched

WITHIN_S = 10.0
"""In which every one of these must be over, on a machine that has much else to do."""

HERE = Path(__file__).parents[1]


def _timed(call):  # type: ignore[no-untyped-def]
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        call()
    assert time.monotonic() - start < WITHIN_S
    assert "\n" not in str(caught.value)
    return caught.value


def _hostile(small: SmallBundles, form: str, where: str = "encoder_rgb.onnx") -> Path:
    graph = encoder("rgb") if where.startswith("encoder") else fuser()
    return small(graphs={where: endless(graph, form)}, name=f"hostile_{form}")


@pytest.mark.parametrize("form", FORMS)
def test_an_endless_graph_ends_with_a_line(small: SmallBundles, rgb: Sample, form: str) -> None:
    pipeline = Pipeline.load(_hostile(small, form), "onnxruntime-cpu", load_timeout_s=0.3)
    error = _timed(lambda: pipeline({"rgb": rgb}))
    assert not error.stuck  # ONNX Runtime asks between two operators, those within a loop, too
    assert "encoder_rgb.onnx" in str(error) and "0.3 s" in str(error)
    assert pipeline.counters["engine_timeouts"] == 1


@pytest.mark.parametrize("graph", ["encoder_rgb.onnx", "fuser.onnx"])
def test_warming_up_ends_too(small: SmallBundles, graph: str) -> None:
    # Long enough for the graph before it, on a machine that has much else to do.
    pipeline = Pipeline.load(_hostile(small, "loop", graph), "cpu", load_timeout_s=1.0)
    assert graph in str(_timed(pipeline.warm_up))


def test_choosing_a_backend_ends_too(small: SmallBundles) -> None:
    pytest.importorskip("openvino")
    _timed(lambda: Pipeline.load(_hostile(small, "loop"), load_timeout_s=0.3).warm_up())


def test_without_being_asked_the_first_frame_ends(
    small: SmallBundles, rgb: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit, "LOAD_TIMEOUT_S", 0.3)
    with time_limit.loading_within(time_limit.LOAD_TIMEOUT_S):
        engine = OnnxRuntimeEngine(_hostile(small, "loop") / "encoder_rgb.onnx")
    spec = engine.inputs[0]
    _timed(lambda: engine.run({spec.name: np.zeros(spec.shape, np.float32)}))


def test_a_run_that_was_ended_leaves_the_engine_as_it_was(small: SmallBundles, rgb: Sample) -> None:
    """A graph whose steps the picture tells: black ones pass, and do after one that did not."""
    bundle = _hostile(small, "bright")
    pipeline = Pipeline.load(bundle, "onnxruntime-cpu", engine_timeout_s=0.3)
    pipeline.warm_up()  # as long as it may take
    with pytest.raises(DeadlineExceededError, match="was ended"):
        pipeline({"rgb": rgb})
    dark = Sample("rgb", np.full_like(rgb.data, 40), stamp_ns=2)
    assert pipeline.engines["rgb"].timeout_s == 0.3
    engines = dict(pipeline.engines)
    assert pipeline({"rgb": dark}).used == ("rgb",)
    assert pipeline.engines == engines and pipeline.counters["engine_reloads"] == 0


def test_others_run_meanwhile(small: SmallBundles, rgb: Sample) -> None:
    hostile = Pipeline.load(_hostile(small, "bright"), "cpu", engine_timeout_s=2.0)
    hostile.warm_up()
    well = Pipeline.load(small(name="well"), "cpu", engine_timeout_s=2.0)
    wanted = well({"rgb": rgb})
    errors: list[Exception] = []

    def run() -> None:
        try:
            hostile({"rgb": rgb})
        except DeadlineExceededError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        well.reset()
        found = well({"rgb": rgb})
        assert np.array_equal(found.labels, wanted.labels)
    assert len(errors) == 1


@pytest.mark.parametrize("given", [0, -1.0, float("nan")])
def test_what_is_no_time_is_refused(small: SmallBundles, given: float) -> None:
    for name in ("engine_timeout_s", "load_timeout_s"):
        with pytest.raises(ConfigError, match=name):
            Pipeline.load(small(), "cpu", **{name: given})


def test_answers_are_those_without_a_limit(small: SmallBundles, rgb: Sample) -> None:
    bundle = small(("rgb", "depth"), detection=2)
    depth = Sample("depth", np.full(rgb.data.shape[:2], 3.0, np.float32), stamp_ns=1)
    frame = Frame({"rgb": rgb, "depth": depth})
    free, bound = (Pipeline.load(bundle, "cpu", engine_timeout_s=s) for s in (None, 5.0))
    for _ in range(2):
        one, other = free(frame), bound(frame)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.confidence, other.confidence)
        free.reset(), bound.reset()


# -- the mechanism ---------------------------------------------------------------------------


def test_what_a_call_gives_and_raises_comes_through() -> None:
    assert limited(lambda: 3, 5.0) == 3
    with pytest.raises(KeyError):
        limited(lambda: {}["x"], 5.0)
    assert limited(threading.current_thread, None) is threading.current_thread()
    assert underway() is None


def test_threads_are_used_again() -> None:
    limited(lambda: None, 5.0)
    before = threading.active_count()
    for _ in range(50):
        limited(lambda: None, 5.0)
    assert threading.active_count() == before


def test_a_call_that_listens_is_ended_and_one_that_does_not_is_left() -> None:
    told = threading.Event()

    def listens() -> None:
        underway().interrupt = told.set  # type: ignore[union-attr]
        assert told.wait(WITHIN_S)

    with pytest.raises(Overrun) as caught:
        limited(listens, 0.05)
    assert told.is_set() and not caught.value.stuck

    go = threading.Event()
    with pytest.raises(Overrun) as caught:
        limited(lambda: go.wait(WITHIN_S), 0.05)
    assert caught.value.stuck and time_limit.stuck_calls() == 1
    go.set()
    while time_limit.stuck_calls():
        time.sleep(0.01)


def test_a_watched_call_stays_on_its_thread_and_is_ended() -> None:
    told, stuck = threading.Event(), threading.Event()

    def listens(late: float = 0.0) -> threading.Thread:
        underway().interrupt = told.set  # type: ignore[union-attr]
        assert told.wait(WITHIN_S)
        time.sleep(late)
        return threading.current_thread()

    with pytest.raises(Overrun) as caught:
        watched(listens, 0.05, stuck.set)
    assert not caught.value.stuck and not stuck.is_set() and underway() is None
    assert watched(listens, WITHIN_S, stuck.set) is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 / 0, WITHIN_S)
    told.clear()
    with pytest.raises(Overrun):  # it hears, but does not end for long: that is told meanwhile
        watched(lambda: listens(2 * time_limit.GRACE_S), 0.05, stuck.set)
    assert stuck.is_set()


def test_one_watchdog_minds_many_threads() -> None:
    """Calls with times of their own, those that are over among those that are not."""
    ends: list[tuple[int, bool]] = []

    def run(number: int) -> None:
        go = threading.Event()

        def waits() -> None:
            underway().interrupt = go.set  # type: ignore[union-attr]
            go.wait(0.02 * (number % 3))

        for _ in range(20):
            try:
                watched(waits, WITHIN_S if number % 2 else 0.01)
                ends.append((number, True))
            except Overrun:
                ends.append((number, False))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert len(ends) == 160
    assert all(well for number, well in ends if number % 2)
    assert sum(thread.name == "watchdog" for thread in threading.enumerate()) == 1


def test_after_a_fork_there_are_threads_again() -> None:
    limited(lambda: None, 5.0)
    code = (
        "import os\nfrom perception.runtime.time_limit import limited, watched\n"
        "limited(lambda: None, 5.0)\nwatched(lambda: None, 5.0)\npid = os.fork()\n"
        "if pid == 0:\n    os._exit(limited(lambda: 3, 5.0) + watched(lambda: 4, 5.0))\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 7


# -- what cannot be ended: its thread goes on, so in a process of its own ---------------------


END = "\nimport os\nsys.stdout.flush()\nos._exit(0)  # C++ does not like to end beside such a thread\n"


def _alone(code: str) -> str:
    start = f"import sys; sys.path[:0] = [{str(HERE)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code + END], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_operator_that_computes_for_hours_is_left_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "immense.onnx"
    path.write_bytes(immense(9000).SerializeToString())
    found = _alone(f"""
import time
from pathlib import Path
import numpy as np
from perception.errors import DeadlineExceededError
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
engine = OnnxRuntimeEngine(Path({str(path)!r}), threads=1)
engine.first_timeout_s = 5.0  # making the matrices takes a part of it, and can be ended
for _ in range(2):
    start = time.monotonic()
    try:
        engine.run({{"x": np.ones((1, 1), np.float32)}})
    except DeadlineExceededError as error:
        print(error.stuck, time.monotonic() - start < {WITHIN_S}, error)
assert engine.stuck
""")
    first, second = found.splitlines()
    assert first.startswith("True True") and "cannot be ended" in first and "immense.onnx" in first
    assert second.startswith("True True") and "earlier run" in second


def test_openvino_in_a_loop_is_left_to_itself_and_loaded_anew(small: SmallBundles) -> None:
    pytest.importorskip("openvino")
    bundle = _hostile(small, "bright")
    found = _alone(f"""
import time
import numpy as np
import perception
from perception.errors import DeadlineExceededError
bundle = {str(bundle)!r}
events = []
pipeline = perception.Pipeline.load(
    bundle, "openvino", trust_plans=True, threads=1, engine_timeout_s=1.0
)
pipeline.on_event(events.append)
pipeline.warm_up()
sample = lambda level, n: perception.Sample(
    "rgb", np.random.default_rng(n).integers(level, level + 9, (32, 64, 3), np.uint8), stamp_ns=n
)
for n in range(2):
    start = time.monotonic()
    try:
        pipeline({{"rgb": sample(200, 2 * n)}})
    except DeadlineExceededError as error:
        print(error.stuck, time.monotonic() - start < {WITHIN_S}, pipeline.stuck)
    print(pipeline({{"rgb": sample(40, 2 * n + 1)}}).used, pipeline.stuck, pipeline.backend[:8])
print(pipeline.counters["engine_reloads"], [e.kind for e in events])
""")
    turn = ["True True True", "('rgb',) False openvino"]
    assert found.splitlines() == [*turn, *turn, "2 ['stuck', 'stuck']"]


def test_a_process_with_too_many_loads_nothing_any_more(
    small: SmallBundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    for _ in range(time_limit.MOST_STUCK):
        with pytest.raises(Overrun):
            limited(lambda: go.wait(WITHIN_S), 0.01)
    with pytest.raises(EngineError, match="start it anew"):
        Pipeline.load(small(), "cpu")
    go.set()
    while time_limit.stuck_calls():
        time.sleep(0.01)
    assert Pipeline.load(small(), "cpu").backend == "onnxruntime-cpu"
